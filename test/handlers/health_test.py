"""/health says whether clients may be sent here."""

import contextlib
import http.client
import threading

from fakes.waiting import DEADLINE

from ovirt_imageio.handlers.health import Health
from ovirt_imageio.httpd.listener import TcpAddress
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server


def test_health():
    is_stopping = threading.Event()
    server = Server(TcpAddress("localhost", 0), Application([("/health", Health(is_stopping.is_set))]))
    server.start()
    try:
        connection = http.client.HTTPConnection("localhost", server.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            for status, body in ((200, b'{"status": "serving"}\n'), (503, b'{"status": "stopping"}\n')):
                connection.request("GET", "/health")
                response = connection.getresponse()
                assert (response.status, response.read()) == (status, body)
                is_stopping.set()
    finally:
        server.stop()
