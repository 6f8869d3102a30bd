"""A threaded HTTP server that is fit for disks: usable with any application, tested with a toy one.

    from ovirt_imageio.httpd.listener import TcpAddress
    from ovirt_imageio.httpd.router import Application
    from ovirt_imageio.httpd.server import Server

    class Hello:
        def get(self, request, response, name):
            response.send_text(f"Hello {name}")

    server = Server(TcpAddress("::", 8080), Application([(r"/hello/(.*)", Hello())]))
    server.start()
    ...
    server.stop(grace=10)

The modules, from the wire up:

    head, framing     pure: bytes to a request head; what a body looks like
    stream            what a client's connection has beside its stream: failures, TLS handshake, a polite end
    body, sink        the body of a request, the body of a response
    peer              a connection, as a handler knows it
    request, response
    connection        one client: its requests one after the other
    cors, router      which resource answers; errors become answers
    door              how many clients there may be, and which one makes room
    listener, server  sockets that listen, threads, limits, an orderly end

Knows nothing about disks, tickets, backends and our URLs.
"""
