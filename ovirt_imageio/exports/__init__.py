"""Servers for the images that tickets name: qemu-nbd, one process for each disk, run by another user than the daemon.

    exports     the daemon's side: which images are served, for whom, and until when
    helper      a process that starts with the daemon, becomes the user, and makes an attendant for each image
    attendant   looks at the image, starts qemu-nbd, and ends it when the daemon lets go of it
    locks       whether somebody else keeps an image in Ceph for himself
    settings    what the administrator decided, as the helper is told it

    daemon ──socket──> helper ──fork──> attendant ──> qemu-nbd
       └───────────── socket ──────────────┘

An attendant has a socket to the daemon, and lives as long as that is open: a daemon that is killed leaves nothing
behind. Knows images and processes; knows nothing of tickets, HTTP and the configuration.
"""
