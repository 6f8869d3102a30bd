"""Back up a disk into a qcow2 image with the library, with progress, checksums and resume: backup.py URL FILE CA

Run it again after it was interrupted: it goes on where it stopped.
"""

import sys

from ovirt_imageio import client


def main(url, filename, cafile):
    with client.ProgressBar(phase="backing up") as bar:
        client.download(url, filename, cafile, progress=bar, resume=True, verify=True)
    image = client.info(filename)
    print(f"{filename}: {image['virtual-size']} bytes, {image['actual-size']} of them on disk")


main(*sys.argv[1:])
