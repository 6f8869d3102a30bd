"""Two real daemons, a host that has images and a proxy on the way to it, and a client that speaks to both.

with run_host(tmp_path / "host") as host, run_proxy(tmp_path / "proxy") as proxy:
    image = Image(host, tmp_path)
    answer = ask(proxy, "GET", image.offer(proxy))

Tokens are made here, too: without the package cryptography this cannot be imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from dataclasses import dataclass

from real import certificates, daemon, tokens

MIB = 1024**2
# No multiple of anything.
SIZE = 3 * MIB + 12345

AUTHORITY = tokens.make_authority("CA1")
FOREIGN = tokens.make_authority("CA2")
ENGINE = tokens.issue("engine", tokens.rsa_key("engine"), AUTHORITY)
OTHER = tokens.issue("engine", tokens.rsa_key("other"), AUTHORITY)

PROXY = """\
[backend_http]
ca_file = {ca_file}
connect_timeout = {connect_timeout}
read_timeout = {read_timeout}
[local]
enable = false
[sessions]
enable = true
engine_cert_file = {engine}
engine_ca_cert_file = {authority}
"""

# Otherwise the proxy, on the same host, would take the shortcut.
HOST = """\
[local]
enable = {local}
"""


@contextlib.contextmanager
def run_proxy(folder, timeout=daemon.DEADLINE, engine=ENGINE, authority=AUTHORITY, ca_file=None):
    folder.mkdir(exist_ok=True)
    (folder / "engine.cer").write_bytes(engine.pem)
    (folder / "ca.pem").write_bytes(authority.pem)
    text = PROXY.format(
        ca_file=ca_file or certificates.authority().cert_file,
        connect_timeout=timeout,
        read_timeout=timeout,
        engine=folder / "engine.cer",
        authority=folder / "ca.pem",
    )
    with daemon.running(folder, text) as running:
        yield running


@contextlib.contextmanager
def run_host(folder, local=False, text="", **options):
    folder.mkdir(exist_ok=True)
    with daemon.running(folder, HOST.format(local=str(local).lower()) + text, **options) as running:
        yield running


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class Client:
    """Speaks to a daemon over one connection."""

    def __init__(self, to):
        self._connection = to.connect()

    def ask(self, method, path, headers=None, body=None):
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def close(self):
        self._connection.close()


def ask(to, method, path, headers=None, body=None):
    """One request over a connection of its own."""
    with contextlib.closing(Client(to)) as client:
        return client.ask(method, path, headers, body)


class Image:
    """An image on a host: its file, and its ticket."""

    def __init__(self, host, folder, data=None, size=SIZE, **fields):
        self.host = host
        self.id = str(uuid.uuid4())
        self.path = folder / self.id
        self.path.write_bytes(os.urandom(size) if data is None else data)
        self.size = self.path.stat().st_size
        self.url = host.add_ticket(self.id, url=f"file://{self.path}", size=self.size, **fields)

    @property
    def content(self):
        return self.path.read_bytes()

    def offer(self, proxy, **fields):
        """Let the proxy serve it with an ordinary ticket; return the path there."""
        return "/images/" + proxy.add_ticket(size=self.size, url=self.url, **fields).rpartition("/")[2]

    def token(self, signer=ENGINE, now=None, **changes):
        host = self.url.rpartition("/images/")[0]
        return tokens.make_token(signer, now, **{"imaged-uri": host, "transfer-ticket": self.id, **changes})


def open_session(proxy, token, **headers):
    answer = ask(proxy, "POST", "/sessions", {"Authorization": token, **headers})
    assert answer.status == 200, answer.body
    return {"Session-Id": answer.headers["session-id"]}
