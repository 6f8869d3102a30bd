"""Download a disk over several connections at once: parallel_download.py URL FILE CA [CONNECTIONS]

The server tells how many connections are of use. With Python alone.
"""

import concurrent.futures
import json
import os
import ssl
import sys
from urllib.request import Request, urlopen

# Large enough that asking costs nothing, small enough that all connections end at the same time.
PIECE = 32 * 1024 * 1024


def main(url, filename, cafile, connections=4):
    tls = ssl.create_default_context(cafile=cafile)
    with urlopen(Request(url, method="OPTIONS"), context=tls) as response:
        options = json.load(response)
    size = options["size"]

    def fetch(start):
        """Download one piece to its place."""
        end = min(start + PIECE, size)
        with urlopen(Request(url, headers={"range": f"bytes={start}-{end - 1}"}), context=tls) as response:
            while start < end:
                data = response.read(1024 * 1024)
                if not data:
                    raise OSError(f"The connection ended {end - start} bytes too early")
                start += os.pwrite(file.fileno(), data, start)

    with open(filename, "wb") as file:
        file.truncate(size)
        workers = min(int(connections), options["max_readers"])
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(fetch, range(0, size, PIECE)))
    print(f"{size} bytes over {workers} connections")


main(*sys.argv[1:])
