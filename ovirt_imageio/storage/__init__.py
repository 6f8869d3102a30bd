"""Bytes on a local disk: alignment, buffers, direct I/O, zeroing and holes.

Knows file descriptors; knows nothing of URLs, protocols and tickets.
"""
