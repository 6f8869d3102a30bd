"""The engine that copies a disk: extents become tasks, workers move them, lost ones are sent again.

    plan      what to do with each part of a disk                        pure
    queue     the tasks that are to be done, and those that are back
    lanes     how a worker moves tasks, several under way
    pace      bandwidth, and pauses between tries
    engine    the workers

Knows nothing of URLs, files and formats.
"""
