"""Offer a disk for upload, watch the transfer, and take the ticket back: watch_transfer.py DISK CONFIG

What a program that manages transfers does. DISK is a file that the daemon may write, CONFIG its folder, like
/etc/ovirt-imageio.
"""

import os
import sys
import uuid

from ovirt_imageio import admin


def main(disk, config):
    ticket = {
        "uuid": str(uuid.uuid4()),
        "size": os.path.getsize(disk),
        "url": f"file://{disk}",
        "ops": ["write"],
        # Seconds without activity.
        "timeout": 300,
    }
    with admin.Client(admin.load_config(config)) as client:
        client.add_ticket(ticket)
        print(f"/images/{ticket['uuid']}", flush=True)
        try:
            info = client.get_ticket(ticket["uuid"])
            while info["transferred"] < info["size"] and info["remaining"]:
                # The answer comes as soon as there is something new.
                info = client.wait(ticket["uuid"], since=info["version"])
                print(f"{info['transferred'] * 100 // info['size']} %, {info['rate'] / 1024**2:.0f} MiB/s", flush=True)
        finally:
            # Waits until what runs has ended, and the disk is closed.
            client.del_ticket(ticket["uuid"])
    if info["transferred"] < info["size"]:
        sys.exit(f"No client went on with it; the last error: {info['last_error']}")


main(*sys.argv[1:])
