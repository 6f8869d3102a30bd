"""What can be done to a disk: operations that can be canceled, and that tell how far they are.

    operations    read, write, zero, flush, list extents
    checksum      a digest of the disk, block by block

Knows backends; knows neither the client that asked nor the URL.
"""
