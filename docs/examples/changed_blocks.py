"""Bring a raw copy of a disk up to date with what changed since the last backup: changed_blocks.py URL FILE CA

Only what is dirty is downloaded; what became zero is not downloaded either. With Python alone.
"""

import json
import os
import ssl
import sys
from urllib.request import Request, urlopen


def main(url, filename, cafile):
    tls = ssl.create_default_context(cafile=cafile)
    with urlopen(f"{url}/extents?context=dirty", context=tls) as response:
        extents = json.load(response)
    received = 0
    with open(filename, "r+b") as file:
        for extent in extents:
            start, length = extent["start"], extent["length"]
            if not extent["dirty"]:
                continue
            file.seek(start)
            if extent["zero"]:
                while length:
                    length -= file.write(bytes(min(length, 1024 * 1024)))
                continue
            request = Request(url, headers={"range": f"bytes={start}-{start + length - 1}"})
            with urlopen(request, context=tls) as response:
                while data := response.read(1024 * 1024):
                    received += len(data)
                    length -= len(data)
                    file.write(data)
            if length:
                sys.exit(f"The connection ended {length} bytes too early")
        os.fsync(file.fileno())
    print(f"{received} bytes were downloaded")


main(*sys.argv[1:])
