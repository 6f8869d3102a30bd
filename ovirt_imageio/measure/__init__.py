"""Numbers about what the process does.

    clock      times the steps of a connection; the rate of a transfer
    metrics    counters, gauges and histograms, rendered for Prometheus

Knows nothing of what is measured.
"""
