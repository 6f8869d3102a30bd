"""What the programs share when they speak with people: arguments, and output.

    arguments   a parser that names the nearest command, and types for sizes and times
    tree        what a parser knows
    completion  completions for shells, made of that
    manual      manual pages, made of that
    output      failures in one line, the width of a terminal, readers that left

Knows argparse and streams; knows nothing of disks, servers and tickets.
"""
