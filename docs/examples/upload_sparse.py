"""Upload only the data of a raw image, with Python alone: upload_sparse.py FILE URL CA

Holes of the file are zeroed on the server instead of being sent; one flush at the end makes all of it safe.
"""

import http.client
import json
import os
import ssl
import sys
from urllib.parse import urlsplit


def extents(file, size):
    """Yield offset, length and "is there data" of each part of a sparse file."""
    offset = 0
    while offset < size:
        try:
            data = os.lseek(file.fileno(), offset, os.SEEK_DATA)
        except OSError:  # Nothing but a hole.
            data = size
        if data > offset:
            yield offset, data - offset, False
        offset = data
        if offset < size:
            hole = os.lseek(file.fileno(), offset, os.SEEK_HOLE)
            yield offset, hole - offset, True
            offset = hole


def ask(connection, method, path, body, headers):
    """Send a request; end with the words of the server if it refuses."""
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        sys.exit(f"{response.status}: {text}")


def pieces(file, length):
    """Yield what is next in a file."""
    while length:
        piece = file.read(min(length, 1024 * 1024))
        length -= len(piece)
        yield piece


def main(filename, url, cafile):
    server = urlsplit(url)
    tls = ssl.create_default_context(cafile=cafile)
    connection = http.client.HTTPSConnection(server.netloc, context=tls)
    with open(filename, "rb") as file:
        size = os.path.getsize(filename)
        for offset, length, is_data in extents(file, size):
            if is_data:
                file.seek(offset)
                where = {"content-range": f"bytes {offset}-{offset + length - 1}/*", "content-length": str(length)}
                ask(connection, "PUT", f"{server.path}?flush=n", pieces(file, length), where)
            else:
                ask(connection, "PATCH", server.path, json.dumps({"op": "zero", "offset": offset, "size": length}), {})
    ask(connection, "PATCH", server.path, json.dumps({"op": "flush"}), {})
    connection.close()


main(*sys.argv[1:])
