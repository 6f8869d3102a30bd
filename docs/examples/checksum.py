"""Compare a raw image with a disk on a server, without downloading it: checksum.py FILE URL CA

The server computes the digest of the digests of blocks; here is the same for a file. With Python alone.
"""

import hashlib
import json
import ssl
import sys
from urllib.request import urlopen


def main(filename, url, cafile):
    tls = ssl.create_default_context(cafile=cafile)
    with urlopen(f"{url}/checksum?algorithm=sha256", context=tls) as response:
        theirs = json.load(response)
    ours = hashlib.sha256()
    with open(filename, "rb") as file:
        while block := file.read(theirs["block_size"]):
            ours.update(hashlib.sha256(block).digest())
    if ours.hexdigest() != theirs["checksum"]:
        sys.exit("They differ")
    print("They are the same")


main(*sys.argv[1:])
