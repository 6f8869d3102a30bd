"""An NBD client.

    wire               the numbers of the protocol, and its messages as bytes                     pure
    handshake          negotiate                                                                  pure
    replies            simple, structured and extended replies, in any order                      pure
    address            URLs                                                                       pure
    errors             what can go wrong, by what it leaves behind                                pure
    stream             all bytes in time, or not at all: the only module that owns an NBD socket
    client             read, write, zero, flush, block status: several requests under way
    streaming          a range on its way to a sink, or from a source, by slot or through the kernel
    status             extents from block status

Knows nothing of HTTP, tickets, backends and configuration: it could be published alone.
"""
