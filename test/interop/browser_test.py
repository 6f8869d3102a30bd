"""A page of another origin in a real browser: it uploads in pieces, zeroes, lists, downloads, and reads refusals."""

from __future__ import annotations

import html
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest
from real import daemon

# Debian and Fedora name it differently.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.storage,
    pytest.mark.slow,
    # A browser is large, and this machine may be busy.
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

SIZE = 256 * 1024

# What the administration portal of an engine does, and what its successors may want to.
PAGE = """<!doctype html><title>running</title><pre id="result">{}</pre><script>
const [info, url, unknown] = URLS;
async function piece(query, first, last) {
    const response = await fetch(url + query, {
        method: "PUT",
        headers: {"Cache-Control": "no-cache", "Pragma": "no-cache", "Content-Range": `bytes ${first}-${last}/SIZE`},
        body: new Blob([new Uint8Array(last - first + 1).fill(65)]),
    });
    return response.status;
}
async function run() {
    const result = {};
    result.version = (await (await fetch(info)).json()).version;
    result.features = (await (await fetch(url, {method: "OPTIONS"})).json()).features;
    result.put = [await piece("?flush=n", 0, SIZE / 2 - 1), await piece("?close=y", SIZE / 2, SIZE - 1)];
    const zero = JSON.stringify({op: "zero", offset: 10, size: 20, flush: true});
    result.patch = (await fetch(url, {method: "PATCH", body: zero})).status;
    result.extents = await (await fetch(url + "/extents")).json();
    const range = await fetch(url, {headers: {"Range": "bytes=0-39"}});
    result.range = [range.status, range.headers.get("Content-Range"), range.headers.get("ETag") !== null];
    result.text = await range.text();
    const head = await fetch(url, {method: "HEAD"});
    result.head = [head.status, head.headers.get("Content-Length")];
    const refused = await fetch(unknown, {method: "PUT", body: "x"});
    result.refused = [refused.status, await refused.text()];
    const far = await fetch(url, {headers: {"Range": "bytes=SIZE-"}});
    result.far = [far.status, far.headers.get("Content-Range")];
    return result;
}
const show = text => { document.getElementById("result").textContent = text; };
run().then(result => show(JSON.stringify(result)), error => show(JSON.stringify({error: String(error)})));
</script>"""


def serve_page(page: str):
    """Serve a page at an origin of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            if self.path == "/":
                self.wfile.write(page.encode())

        def log_message(self, *args):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def browse(url: str, profile) -> str:
    """Return the document after its scripts ran."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--ignore-certificate-errors",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        url,
    ]
    done = subprocess.run(command, capture_output=True, timeout=200, check=True)
    return done.stdout.decode()


def test_a_page_of_another_origin(tmp_path):
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(SIZE))
    with daemon.running(tmp_path) as running:
        url = running.add_ticket(url=f"file://{image}", size=SIZE)
        urls = [f"https://localhost:{running.port}/info/", url, running.url("no-such-thing")]
        page = PAGE.replace("URLS", json.dumps(urls)).replace("SIZE", str(SIZE))
        server = serve_page(page)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            document = browse(f"http://127.0.0.1:{server.server_port}/", tmp_path / "profile")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    match = re.search(r'<pre id="result">(.*?)</pre>', document, re.DOTALL)
    assert match, document
    result = json.loads(html.unescape(match.group(1)))
    refusal = result.pop("refused")
    assert refusal[0] == 403
    assert "No such ticket" in refusal[1]
    assert sum(extent["length"] for extent in result.pop("extents")) == SIZE
    assert result.pop("version")
    assert result == {
        "features": ["checksum", "extents", "flush", "nbd", "qcow2", "zero"],
        "put": [200, 200],
        "patch": 200,
        "range": [206, f"bytes 0-39/{SIZE}", True],
        "text": "A" * 10 + "\0" * 20 + "A" * 10,
        "head": [200, str(SIZE)],
        "far": [416, f"bytes */{SIZE}"],
    }
    assert image.read_bytes() == b"A" * 10 + bytes(20) + b"A" * (SIZE - 30)
