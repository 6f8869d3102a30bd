"""Copy a disk from one server to another, without a file in between: move_disk.py FROM_URL TO_URL CA

What arrives is sent on while the rest is on its way, and only the data of the disk travels. With Python alone.
"""

import http.client
import json
import ssl
import sys
from urllib.parse import urlsplit


class Disk:
    """A disk at a transfer URL."""

    def __init__(self, url, tls):
        server = urlsplit(url)
        self.path = server.path
        self.connection = http.client.HTTPSConnection(server.netloc, context=tls)

    def ask(self, method, suffix="", body=None, headers=None):
        """Send a request; return the response, whose body was not read yet."""
        self.connection.request(method, self.path + suffix, body, headers or {})
        response = self.connection.getresponse()
        if response.status not in (200, 206):
            sys.exit(f"{method}: {response.status}: {response.read().decode()}")
        return response


def pieces(response):
    """Yield what a response has."""
    while data := response.read(1024 * 1024):
        yield data


def main(from_url, to_url, cafile):
    tls = ssl.create_default_context(cafile=cafile)
    source, target = Disk(from_url, tls), Disk(to_url, tls)
    for extent in json.load(source.ask("GET", "/extents")):
        start, length = extent["start"], extent["length"]
        if extent["zero"]:
            target.ask("PATCH", body=json.dumps({"op": "zero", "offset": start, "size": length})).read()
            continue
        where = f"bytes {start}-{start + length - 1}"
        data = source.ask("GET", headers={"range": where.replace(" ", "=")})
        sizes = {"content-range": f"{where}/*", "content-length": str(length)}
        target.ask("PUT", "?flush=n", pieces(data), sizes).read()
    target.ask("PATCH", body=json.dumps({"op": "flush"})).read()


main(*sys.argv[1:])
