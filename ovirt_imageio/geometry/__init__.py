"""Arithmetic of ranges: where bytes lie on a disk, and how a request names them.

    extent        what a part of a disk is: data, zero, hole, dirty
    ranges        a set of ranges, and their union
    blocks        where a range meets the blocks of a disk, and how it is cut into pieces
    byteranges    the ranges of HTTP headers

Pure: knows numbers and text, and nothing else of this package but its errors.
"""
