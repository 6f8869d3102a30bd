"""An image on another daemon of this kind: the client side of the images API.

    url           transfer URLs: what they may be, and what may be shown of them                    pure
    abilities     what the answer to OPTIONS tells                                                  pure
    jsonstream    an array of JSON objects, decoded while it arrives                                pure
    connection    bytes to a server and back, and every failure with a name
    tunnel        the way through a proxy of the network
    reply         the answer to a request
    answers       what is believed of an answer, and how a refusal is quoted
    listing       the extents that a server lists
    upload        a PUT whose body is sent piece by piece, and how much of it counts
    server        connects, keeps an idle connection, repeats what may be repeated
    resource      the requests about an image, and what their answers must be
    image         what is done with an image: read, write, zero, flush, extents, checksum
    pipeline      several such requests under way on one connection

Knows nothing of backends, tickets and the requests that we serve ourselves.
"""
