"""A small engine: disks in files, transfers with tickets of a real daemon, and the few resources that the SDK asks for.

A disk of a virtual machine may be a qcow2 image: then a checkpoint is a bitmap in it, and what a backup shows is served
by a qemu-nbd of its own.

    engine = Engine(daemon, tmp_path)
    engine.refuse("add_disk", 409, "The storage domain is full")
    engine.on["get_transfer"] = interrupt
    with serve(engine) as url:
        ...

Everything that is asked has a name, and passes through ask(): enginesdk.py calls that directly, serve() from XML. What
was asked is in `asked`, in its order.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import subprocess
import threading
import urllib.parse
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

from real.daemon import Daemon

from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["PASSWORD", "USER", "Engine", "Refusal", "serve"]

USER = "admin@internal"
# With signs that a URL or a pattern would not take as they are.
PASSWORD = "pa ss%w+rd&"

Document = dict[str, Any]


class Refusal(Exception):
    """The engine says no."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Engine:
    """Disks, transfers, one host, and storage domains."""

    def __init__(self, daemon: Optional[Daemon], folder: Path) -> None:
        self.folder = folder
        self.domains = {"data": str(uuid.uuid4()), "big disks": str(uuid.uuid4())}
        self.hosts = {"hardware-1": str(uuid.uuid4())}
        self.disks: dict[str, Document] = {}
        self.transfers: dict[str, Document] = {}
        self.machines: dict[str, Document] = {}
        self.checkpoints: dict[str, Document] = {}
        self.backups: dict[str, Document] = {}
        # What a transfer and a new disk are, one look after the other; the last one stays.
        self.phases = ["transferring"]
        self.statuses = ["ok"]
        self.final_phases = ["finished_success"]
        self.backup_phases = ["ready"]
        self.final_backup_phases = ["succeeded"]
        # Older engines do not tell what they have of a disk in a backup.
        self.tells_modes = True
        self.asked: list[str] = []
        self.searches: list[str] = []
        # What is asked beside the document, such as require_consistency.
        self.queries: list[dict[str, str]] = []
        self.refusals: dict[str, Refusal] = {}
        self.on: dict[str, Callable[[], object]] = {}
        self.tokens: set[str] = set()
        self.daemon = daemon

    def close(self) -> None:
        """Stop what serves disks of transfers that were not ended."""
        for transfer in self.transfers.values():
            if "nbd" in transfer:
                transfer.pop("nbd").stop()

    def refuse(self, name: str, status: int, detail: str) -> None:
        """Refuse what has this name, from now on."""
        self.refusals[name] = Refusal(status, detail)

    def ask(self, name: str, *arguments: Any) -> Document | list[Document] | None:
        """Do what is asked."""
        self.asked.append(name)
        if name in self.on:
            self.on[name]()
        if name in self.refusals:
            raise self.refusals[name]
        return getattr(self, name)(*arguments)

    def log_in(self, user: str, password: str) -> str:
        """Return a token."""
        self.asked.append("log_in")
        if (user, password) != (USER, PASSWORD):
            raise Refusal(401, "Cannot authenticate user")
        token = str(uuid.uuid4())
        self.tokens.add(token)
        return token

    def add_image(self, data: bytes, domain: str = "data") -> str:
        """Put a disk there, as if it had always been; return its id."""
        disk_id = str(uuid.uuid4())
        self.path(disk_id).write_bytes(data)
        domains = [{"id": self.domains[domain]}]
        self.disks[disk_id] = {"id": disk_id, "statuses": ["ok"], "size": len(data), "storage_domains": domains}
        return disk_id

    def add_qcow2(self, size: int, name: str = "") -> str:
        """Put an empty qcow2 disk there, whose changes can be noted; return its id."""
        disk_id = self.add_image(b"")
        img.create(str(self.path(disk_id)), "qcow2", size)
        self.disks[disk_id].update(size=size, format="cow", backup="incremental", sparse="true")
        self.disks[disk_id]["name"] = name or disk_id
        return disk_id

    def add_machine(self, name: str, *disk_ids: str) -> str:
        """Put a virtual machine with these disks there; return its id."""
        machine_id = str(uuid.uuid4())
        self.machines[machine_id] = {"id": machine_id, "name": name, "disks": disk_ids}
        return machine_id

    def write(self, disk_id: str, *commands: str) -> None:
        """Let the guest write to a qcow2 disk, with commands of qemu-io."""
        arguments = [part for command in commands for part in ("-c", command)]
        command = ["qemu-io", "-f", "qcow2", *arguments, str(self.path(disk_id))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def path(self, disk_id: str) -> Path:
        """Return where the bytes of a disk are."""
        return self.folder / f"disk-{disk_id}"

    # Disks

    def add_disk(self, disk: Document) -> Document:
        domain = disk["storage_domains"][0]["name"]
        if domain not in self.domains:
            raise Refusal(400, "[Cannot add Virtual Disk. Storage Domain doesn't exist.]")
        disk_id = disk.get("id") or str(uuid.uuid4())
        size = int(disk["provisioned_size"])
        with self.path(disk_id).open("wb") as file:
            file.truncate(size)
        domains = [{"id": self.domains[domain]}]
        self.disks[disk_id] = {
            **disk,
            "id": disk_id,
            "statuses": list(self.statuses),
            "size": size,
            "storage_domains": domains,
        }
        return {"id": disk_id, "status": "locked"}

    def get_disk(self, disk_id: str) -> Document:
        disk = find(self.disks, disk_id)
        told = {key: disk[key] for key in ("name", "format", "backup", "sparse", "storage_type") if key in disk}
        size = {"provisioned_size": disk["size"], "actual_size": self.path(disk_id).stat().st_size}
        return {
            **told,
            **size,
            "id": disk_id,
            "status": step(disk["statuses"]),
            "storage_domains": disk["storage_domains"],
        }

    def remove_disk(self, disk_id: str) -> None:
        find(self.disks, disk_id)
        del self.disks[disk_id]
        self.path(disk_id).unlink()

    def get_domain(self, domain_id: str) -> Document:
        names = {number: name for name, number in self.domains.items()}
        return {"id": domain_id, "name": find(names, domain_id)}

    # Hosts

    def list_centers(self, search: str) -> list[Document]:
        self.searches.append(search)
        found = re.fullmatch(r'storage\.name="(.*)"', search)
        assert found, search
        return [{"id": "1", "name": "Default"}] if found[1] in self.domains else []

    def list_hosts(self, search: str) -> list[Document]:
        self.searches.append(search)
        found = re.fullmatch(r'hw_id="(.*)" and datacenter="Default" and status=Up', search)
        assert found, search
        return [{"id": self.hosts[found[1]]}] if found[1] in self.hosts else []

    # Virtual machines

    def list_vms(self, search: str) -> list[Document]:
        self.searches.append(search)
        found = re.fullmatch(r'name="(.*)"', search)
        assert found, search
        # As the real one: a name is a pattern, and its case does not matter.
        pattern = re.compile(re.escape(found[1]).replace(r"\*", ".*"), re.IGNORECASE)
        return [self.get_vm(vm["id"]) for vm in self.machines.values() if pattern.fullmatch(vm["name"])]

    def get_vm(self, vm_id: str) -> Document:
        return {key: find(self.machines, vm_id)[key] for key in ("id", "name")}

    def list_attachments(self, vm_id: str) -> list[Document]:
        return [{"id": disk_id, "disk": {"id": disk_id}} for disk_id in find(self.machines, vm_id)["disks"]]

    # Backups

    def get_checkpoint(self, vm_id: str, checkpoint_id: str) -> Document:
        return {"id": checkpoint_id, "state": find(self.checkpoints, checkpoint_id)["state"]}

    def add_backup(self, vm_id: str, backup: Document) -> Document:
        if any(other["vm"] == vm_id and other["phases"][0] == "ready" for other in self.backups.values()):
            raise Refusal(409, "[Cannot backup VM: The VM is during a backup.]")
        since = backup.get("from_checkpoint_id")
        if since:
            find(self.checkpoints, since)
        disks = {}
        for disk in backup["disks"]:
            knows = bool(since) and disk["id"] in self.checkpoints[since]["disks"]
            disks[disk["id"]] = "incremental" if knows else "full"
        backup_id, checkpoint_id = str(uuid.uuid4()), str(uuid.uuid4())
        noted = [disk_id for disk_id in disks if self.disks[disk_id].get("backup") == "incremental"]
        for disk_id in noted:
            bitmap = ["qemu-img", "bitmap", "--add", "-f", "qcow2", str(self.path(disk_id)), checkpoint_id]
            subprocess.run(bitmap, check=True)
        if noted:
            self.checkpoints[checkpoint_id] = {"disks": noted, "state": "created"}
        self.backups[backup_id] = {
            **{"id": backup_id, "vm": vm_id, "disks": disks, "since": since, "phases": list(self.backup_phases)},
            **({"to_checkpoint_id": checkpoint_id} if noted else {}),
        }
        return {"id": backup_id, "phase": "initializing"}

    def get_backup(self, vm_id: str, backup_id: str) -> Document:
        backup = find(self.backups, backup_id)
        told = {key: backup[key] for key in ("id", "to_checkpoint_id") if key in backup}
        return {**told, "phase": step(backup["phases"])}

    def list_backup_disks(self, vm_id: str, backup_id: str) -> list[Document]:
        modes = find(self.backups, backup_id)["disks"]
        return [{"id": key, **({"backup_mode": mode} if self.tells_modes else {})} for key, mode in modes.items()]

    def finalize_backup(self, vm_id: str, backup_id: str) -> None:
        backup = find(self.backups, backup_id)
        using = [item for item in self.transfers.values() if item.get("backup", {}).get("id") == backup_id]
        if any(item["phases"][0] == "transferring" for item in using):
            raise Refusal(409, "[Cannot stop VM backup. The VM has an active image transfer.]")
        backup["phases"] = list(self.final_backup_phases)

    # Transfers

    def add_transfer(self, transfer: Document) -> Document:
        disk = find(self.disks, transfer["disk"]["id"])
        if disk["statuses"][0] == "locked":
            raise Refusal(409, "[Cannot transfer Virtual Disk: The disk is locked. Try again in a few minutes.]")
        transfer_id = str(uuid.uuid4())
        self.transfers[transfer_id] = {**transfer, "id": transfer_id, "phases": list(self.phases), "ticket": None}
        return {"id": transfer_id, "phase": "initializing"}

    def get_transfer(self, transfer_id: str) -> Document:
        transfer = find(self.transfers, transfer_id)
        phase = step(transfer["phases"])
        answer = {"id": transfer_id, "phase": phase, "direction": transfer["direction"]}
        if phase == "transferring":
            answer["transfer_url"] = transfer["url"] = transfer.get("url") or self.open_ticket(transfer)
        return answer

    def open_ticket(self, transfer: Document) -> str:
        """Let the daemon serve the disk; return its URL."""
        disk_id = transfer["disk"]["id"]
        operations = ["write"] if transfer["direction"] == "upload" else ["read"]
        transfer["ticket"] = str(uuid.uuid4())
        assert self.daemon is not None
        url, more = f"file://{self.path(disk_id)}", {}
        if transfer.get("backup"):
            backup = find(self.backups, transfer["backup"]["id"])
            is_incremental = backup["disks"][disk_id] == "incremental"
            if self.disks[disk_id].get("format") == "cow":
                bitmap = backup["since"] if is_incremental else None
                transfer["nbd"] = nbd = QemuNbd(str(self.path(disk_id)), "qcow2", read_only=True, bitmap=bitmap)
                nbd.start()
                url, more = nbd.url, {"dirty": is_incremental}
        return self.daemon.add_ticket(
            transfer["ticket"],
            url=url,
            size=self.disks[disk_id]["size"],
            ops=operations,
            transfer_id=transfer["id"],
            **more,
        )

    def close_ticket(self, transfer: Document) -> None:
        """Let the daemon serve the disk no more."""
        if transfer["ticket"]:
            assert self.daemon is not None
            status, body = self.daemon.control("DELETE", f"/tickets/{transfer['ticket']}")
            assert status == 204, body
        if "nbd" in transfer:
            transfer.pop("nbd").stop()

    def extend(self, transfer_id: str) -> None:
        find(self.transfers, transfer_id)

    def finalize(self, transfer_id: str) -> None:
        transfer = find(self.transfers, transfer_id)
        self.close_ticket(transfer)
        transfer["phases"] = list(self.final_phases)

    def cancel(self, transfer_id: str) -> None:
        transfer = find(self.transfers, transfer_id)
        self.close_ticket(transfer)
        transfer["phases"] = ["finished_failure"]
        if transfer["direction"] == "upload":
            self.remove_disk(transfer["disk"]["id"])


def find(things: dict[str, Any], name: str) -> Any:
    """Return a thing that may not be there."""
    if name not in things:
        raise Refusal(404, "Entity not found")
    return things[name]


def step(states: list[str]) -> str:
    """Return the state, and go on to the next one."""
    return states.pop(0) if len(states) > 1 else states[0]


# XML

ROUTES = [
    ("POST", r"/disks", "add_disk", "disk"),
    ("GET", r"/disks/([^/]+)", "get_disk", "disk"),
    ("DELETE", r"/disks/([^/]+)", "remove_disk", ""),
    ("GET", r"/storagedomains/([^/]+)", "get_domain", "storage_domain"),
    ("GET", r"/datacenters", "list_centers", "data_center"),
    ("GET", r"/hosts", "list_hosts", "host"),
    ("POST", r"/imagetransfers", "add_transfer", "image_transfer"),
    ("GET", r"/imagetransfers/([^/]+)", "get_transfer", "image_transfer"),
    ("GET", r"/vms", "list_vms", "vm"),
    ("GET", r"/vms/([^/]+)", "get_vm", "vm"),
    ("GET", r"/vms/([^/]+)/diskattachments", "list_attachments", "disk_attachment"),
    ("GET", r"/vms/([^/]+)/checkpoints/([^/]+)", "get_checkpoint", "checkpoint"),
    ("POST", r"/vms/([^/]+)/backups", "add_backup", "backup"),
    ("GET", r"/vms/([^/]+)/backups/([^/]+)", "get_backup", "backup"),
    ("GET", r"/vms/([^/]+)/backups/([^/]+)/disks", "list_backup_disks", "disk"),
    ("POST", r"/vms/([^/]+)/backups/([^/]+)/finalize", "finalize_backup", ""),
    *[("POST", rf"/imagetransfers/([^/]+)/{name}", name, "") for name in ("extend", "finalize", "cancel")],
]


@contextlib.contextmanager
def serve(engine: Engine) -> Iterator[str]:
    """Serve the engine over HTTP on loopback; yield its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"engine": engine}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Speaks XML, and JSON where the SDK logs in."""

    engine: Engine
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """The test tells enough."""

    def handle_request(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        if url.path.startswith("/ovirt-engine/s"):
            self.answer_login(url.path, dict(urllib.parse.parse_qsl(body)))
            return
        if self.headers.get("authorization", "").removeprefix("Bearer ") not in self.engine.tokens:
            self.answer(401, "<fault><reason>Unauthorized</reason></fault>")
            return
        try:
            self.answer_api(url, body)
        except Refusal as refusal:
            detail = ElementTree.Element("fault")
            ElementTree.SubElement(detail, "reason").text = "Operation Failed"
            ElementTree.SubElement(detail, "detail").text = refusal.detail
            self.answer(refusal.status, ElementTree.tostring(detail, "unicode"))

    do_GET = do_POST = do_DELETE = handle_request

    def answer_login(self, path: str, form: dict[str, str]) -> None:
        if path.endswith("/sso-logout"):
            self.engine.tokens.discard(form["token"])
            self.answer(200, "{}", "application/json")
            return
        try:
            token = self.engine.log_in(form["username"], form["password"])
            self.answer(200, json.dumps({"access_token": token}), "application/json")
        except Refusal as refusal:
            text = json.dumps({"error_code": "access_denied", "error": refusal.detail})
            self.answer(400, text, "application/json")

    def answer_api(self, url: urllib.parse.SplitResult, body: str) -> None:
        path = url.path.removeprefix("/ovirt-engine/api")
        for method, pattern, name, tag in ROUTES:
            found = re.fullmatch(pattern, path)
            if method != self.command or found is None:
                continue
            arguments: list[Any] = list(found.groups())
            if name.startswith("add"):
                arguments.append(from_xml(ElementTree.fromstring(body)))
            query = dict(urllib.parse.parse_qsl(url.query))
            if "search" in query:
                arguments.append(query["search"])
            self.engine.queries.append(query)
            result = self.engine.ask(name, *arguments)
            if isinstance(result, list):
                root = ElementTree.Element(f"{tag}s")
                root.extend(to_xml(tag, item) for item in result)
            else:
                root = to_xml(tag or "action", result or {})
            self.answer(200, ElementTree.tostring(root, "unicode"))
            return
        self.answer(404, "<fault><reason>No such resource</reason></fault>")

    def answer(self, status: int, text: str, kind: str = "application/xml") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def from_xml(element: ElementTree.Element) -> Any:
    """Return what an element holds: a text, a list, or a document."""
    if element.tag.endswith("s") and len(element) and f"{element[0].tag}s" == element.tag:
        return [from_xml(child) for child in element]
    if not len(element) and not element.attrib:
        return element.text or ""
    return {**element.attrib, **{child.tag: from_xml(child) for child in element}}


def to_xml(tag: str, document: Document) -> ElementTree.Element:
    """Return an element that holds a document."""
    element = ElementTree.Element(tag)
    for key, value in document.items():
        if key == "id":
            element.set("id", value)
        elif isinstance(value, list):
            ElementTree.SubElement(element, key).extend(to_xml(key[:-1], item) for item in value)
        elif isinstance(value, dict):
            element.append(to_xml(key, value))
        else:
            ElementTree.SubElement(element, key).text = str(value)
    return element
