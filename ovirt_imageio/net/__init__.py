"""Sockets: how a connection is made, how long it may stand still, and how its bytes are encrypted.

    addresses     those of this machine, as the kernel knows them
    connect       over TCP, trying each address of a name, or over a Unix socket
    lifeline      how another thread ends a wait
    timeouts      time-outs that the kernel keeps, and what it knows of a socket
    eager         receive what comes soon without going to sleep
    tls           contexts: certificates, and what is trusted
    pinned        ... and servers that are known by the fingerprint of their certificate
    x509          what we need to know of certificates
    plain_socket  a connected socket as it is, whose time the kernel keeps
    tls_socket    ... and with TLS in memory, with few system calls
    kernel_tls    ... and with TLS that the kernel speaks, after a handshake by OpenSSL
    controls      records of TLS without data, which the kernel leaves to us
    descriptor_tls  TLS by OpenSSL on the socket: the handshake, and what the kernel cannot
    stream        what httpd, nbd and origin compose: look-ahead, plain or TLS, interrupts, names for failures

Knows nothing of what is said: neither HTTP, nor NBD, nor disks.
"""
