"""NBD, both sides: a client, and a server over anything that reads and writes like a disk.

    wire               the numbers of the protocol, and its messages as bytes                     pure
    address            URLs                                                                       pure
    errors             what can go wrong, by what it leaves behind                                pure

    handshake          negotiate as a client                                                      pure
    replies            simple, structured and extended replies, in any order                      pure
    stream             all bytes in time, or not at all
    connect            to a server, or on from another protocol: a client
    client             read, write, zero, flush, block status: several requests under way
    streaming          a range on its way to a sink, or from a source, by slot or through the kernel
    status             extents from block status

    offer              negotiate as a server                                                      pure
    requests           find requests, and judge them by what was offered                          pure
    inbox, outbox      what comes from a client, and what goes to it
    export             answer requests from a disk
    ledger             what is under way where bytes pass between a client and a server           pure
    gate               let them pass, checked by the ledger

Knows nothing of HTTP, tickets, backends and configuration: it could be published alone.
"""
