"""The numbers that apply when neither a caller of the library nor a user of ovirt-img gives others.

Pure: a program that only needs to show them loads nothing else.
"""

__all__ = ["BUFFER_SIZE", "CONNECT_TIMEOUT", "MAX_WORKERS", "READ_TIMEOUT", "RETRIES"]

# How much of a stream is in memory at once.
BUFFER_SIZE = 4 * 1024**2

# More connections than this have not made transfers faster.
MAX_WORKERS = 4

# How often a lost connection is made again, without success in between: some ten seconds.
RETRIES = 5

# Seconds until a server must have answered the call, and until it must have moved a byte.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
