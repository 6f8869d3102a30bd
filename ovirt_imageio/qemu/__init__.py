"""The programs of qemu.

    img         create, inspect and measure images with qemu-img
    nbd         serve an image with qemu-nbd, and end that
    node        an image as qemu names it
    references  which other files an image uses, and whether it may
    version     which qemu-nbd is installed

Knows files and processes; knows nothing of HTTP, tickets and backends.
"""
