"""What the programs share when they speak with people: arguments, and output.

    arguments   a parser that names the nearest command, and types for sizes and times
    output      failures in one line, the width of a terminal, readers that left

Knows argparse and streams; knows nothing of disks, servers and tickets.
"""
