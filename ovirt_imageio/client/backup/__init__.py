"""A folder with backups of a virtual machine, one on top of the other.

    DIR/manifest.json             what is there: each point in time, its disks, their checksums
    DIR/20261129T205401Z/ID.qcow2       one disk at one point; an increment stands on that of an earlier point
    DIR/20261130T205402Z.partial/       a backup that has not finished: no part of any chain

    manifest     the document, and what may be asked of it; pure
    folder       the files: one program at a time, and a point that is there as a whole or not at all
    single       a backup of one disk in one file, without a manifest

Knows nothing of engines and servers.
"""
