"""Disks of an oVirt engine: what the commands that need one do around a copy.

    arguments    the options of these commands
    settings     what the command line leaves open: the configuration file, the environment, the password
    connection   the SDK, its errors, and a way to ask again until something has changed
    plan         what disk a file needs
    disks        a new disk, until it can be written
    hosts        this machine, if the engine knows it as a host
    transfers    the life of an image transfer
    commands     upload-disk and download-disk
    machines     a virtual machine and its disks
    backups      the life of a backup
    vmbackup     backup-vm
    restore      restore

The SDK is loaded only when one of the commands runs.
"""
