"""What can be done to a disk: operations that can be canceled, and that tell how far they are.

    operations    read, write, zero, flush, list extents
    checksum      a digest of the disk, block by block

Knows backends; knows nothing of who asked, and over which URL.
"""
