"""What goes through the proxy is what the host answers, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import uuid

import pytest

pytest.importorskip("cryptography")

from real.proxy import MIB, SIZE, Client, Image, ask

READS = [
    ("GET", "", {}),
    ("HEAD", "", {}),
    ("GET", "", {"Range": "bytes=0-0"}),
    ("GET", "", {"Range": "bytes=4095-8192"}),
    ("GET", "", {"Range": f"bytes={MIB - 1}-{2 * MIB + 1}"}),
    ("GET", "", {"Range": f"bytes={SIZE - 100}-"}),
    ("GET", "", {"Range": "bytes=-100"}),
    ("GET", "", {"Range": f"bytes=10-{SIZE + 100}"}),
    ("GET", "", {"Range": f"bytes={SIZE}-"}),
    ("GET", "", {"Range": "bytes=5-3"}),
    ("GET", "", {"Range": "bytes=0-1,5-6"}),
    ("GET", "/extents", {}),
    ("GET", "/extents?context=dirty", {}),
    ("GET", "/extents?context=color", {}),
    ("GET", "/extents?offset=4096&length=8192", {}),
    ("GET", "/checksum", {}),
    ("GET", "/checksum?algorithm=sha1&block_size=1048576", {}),
    ("GET", "/checksum?algorithm=nonsense", {}),
    ("GET", "/checksum/algorithms", {}),
    ("POST", "", {}),
]

SHOWN = ("content-length", "content-range", "content-type", "content-disposition", "accept-ranges", "allow")


@pytest.mark.parametrize("method,suffix,headers", READS)
def test_same_answer(any_host, proxy, tmp_path, method, suffix, headers):
    image = Image(any_host, tmp_path, filename="disk ü.raw")
    path = image.offer(proxy, filename="disk ü.raw")
    direct = ask(any_host, method, f"/images/{image.id}{suffix}", headers)
    proxied = ask(proxy, method, path + suffix, headers)
    assert proxied.status == direct.status
    if direct.status < 400:
        assert proxied.body == direct.body
        for name in SHOWN:
            assert proxied.headers.get(name) == direct.headers.get(name)


WRITES = [
    ("PUT", "", {}, b"x" * SIZE),
    ("PUT", "", {}, b""),
    ("PUT", "", {}, b"x"),
    ("PUT", "?flush=n", {"Content-Range": "bytes 4095-8192/*"}, b"x" * 4098),
    ("PUT", "?flush=y", {"Content-Range": f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}"}, b"x" * 10),
    ("PUT", "", {"Content-Range": "bytes 100-*/*"}, b"x" * (2 * MIB)),
    ("PUT", "", {"Content-Range": f"bytes {SIZE - 9}-{SIZE}/*"}, b"x" * 10),
    ("PUT", "", {"Content-Range": "bytes 9-5/*"}, b"x" * 10),
    ("PUT", "?flush=maybe", {}, b"x"),
    ("PATCH", "", {}, b'{"op": "zero", "offset": 4095, "size": 100000}'),
    ("PATCH", "", {}, b'{"op": "zero", "size": 10, "flush": true}'),
    ("PATCH", "", {}, b'{"op": "zero", "offset": %d, "size": 10}' % SIZE),
    ("PATCH", "", {}, b'{"op": "flush"}'),
    ("PATCH", "", {}, b'{"op": "explode"}'),
    ("PATCH", "", {}, b"[]"),
]


@pytest.mark.parametrize("method,suffix,headers,body", WRITES)
def test_same_effect(any_host, proxy, tmp_path, method, suffix, headers, body):
    data = os.urandom(SIZE)
    (tmp_path / "a").mkdir()
    direct_image, proxied_image = Image(any_host, tmp_path, data), Image(any_host, tmp_path / "a", data)
    direct = ask(any_host, method, f"/images/{direct_image.id}{suffix}", headers, body)
    proxied = ask(proxy, method, proxied_image.offer(proxy) + suffix, headers, body)
    assert proxied.status == direct.status
    assert proxied_image.content == direct_image.content


def test_options_are_those_of_the_origin(any_host, proxy, tmp_path):
    image = Image(any_host, tmp_path)
    direct = ask(any_host, "OPTIONS", f"/images/{image.id}").json()
    answer = ask(proxy, "OPTIONS", image.offer(proxy))
    proxied = answer.json()
    assert answer.headers["allow"] == "OPTIONS,GET,PUT,PATCH"
    for name in ("features", "max_readers", "max_writers", "size"):
        assert proxied[name] == direct[name]
    # The local service is switched off here.
    assert "unix_socket" not in proxied


def test_chunked_upload(any_host, proxy, tmp_path):
    image = Image(any_host, tmp_path)
    data = os.urandom(2 * MIB + 7)
    answer = ask(proxy, "PUT", image.offer(proxy), {}, iter([data[:MIB], data[MIB:]]))
    assert answer.status == 200
    assert image.content[: len(data)] == data


def test_half_and_half(proxy, host, image):
    """The same image, through the proxy and directly."""
    data = os.urandom(SIZE)
    path = image.offer(proxy)
    assert ask(proxy, "PUT", path, {"Content-Range": f"bytes 0-{MIB - 1}/*"}, data[:MIB]).status == 200
    where = {"Content-Range": f"bytes {MIB}-{SIZE - 1}/*"}
    assert ask(host, "PUT", f"/images/{image.id}", where, data[MIB:]).status == 200
    assert ask(proxy, "GET", path).body == data == image.content


def test_browser_upload(proxy, image):
    """As the engine's web pages do it: a few chunks on one connection, the last one says goodbye."""
    path = image.offer(proxy)
    data = os.urandom(SIZE)
    with contextlib.closing(Client(proxy)) as client:
        for start in range(0, SIZE, MIB):
            piece = data[start : start + MIB]
            is_last = start + MIB >= SIZE
            headers = {
                "Cache-Control": "no-cache",
                "Pragma": "no-cache",
                "Content-Range": f"bytes {start}-{start + len(piece) - 1}/{SIZE}",
                "Content-Type": "application/octet-stream",
                "Origin": "https://engine.example",
            }
            answer = client.ask("PUT", path + ("?close=y" if is_last else "?flush=n"), headers, piece)
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["connection"] == "close"
    assert image.content == data


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_trace_goes_through(any_host, proxy, tmp_path):
    """Of the requests of one connection: each has its own trace, or none, on the proxy and on the host."""
    transfer = str(uuid.uuid4())
    path = Image(any_host, tmp_path, transfer_id=transfer).offer(proxy, transfer_id=transfer)
    with contextlib.closing(Client(proxy)) as client:
        for traceparent in (TRACEPARENT, "", TRACEPARENT.replace("4bf9", "5bf9"), f"{TRACEPARENT}\tforged"):
            headers = {"traceparent": traceparent} if traceparent else {}
            assert client.ask("GET", f"{path}/extents", headers).status == 200
    for running in (proxy, any_host):
        running.wait_log(f"EXTENTS transfer={transfer}", 4)
        lines = [line for line in running.log().splitlines() if f"EXTENTS transfer={transfer}" in line]
        found = [re.findall("trace=(....)", line) for line in lines]
        assert found == [["4bf9"], [], ["5bf9"], []]
        traces = re.findall(rf"TRACE transfer={transfer} connection=\d+ traceparent=(\S+)", running.log())
        # The proxy opens the disk with the first trace, over TCP and then, if it can, over the Unix socket.
        assert [trace for trace, _ in itertools.groupby(trace[3:7] for trace in traces)] == ["4bf9", "5bf9"]
        assert "forged" not in running.log()


def test_problem_details_go_through(host, proxy, image):
    """A refusal is in the language that the client of the proxy asks for; the words are those of the host."""
    path = image.offer(proxy)
    answer = ask(proxy, "GET", path, {"Range": f"bytes={SIZE}-", "Accept": "application/problem+json"})
    assert (answer.status, answer.headers["content-type"]) == (416, "application/problem+json")
    assert answer.json()["status"] == 416 and "out of bounds" in answer.json()["detail"]


def test_server_timing(host, proxy, image):
    answer = ask(proxy, "PUT", image.offer(proxy), body=b"x" * SIZE)
    assert re.fullmatch(
        r"dispatch;dur=[0-9.]+, write;dur=[0-9.]+, write.flush;dur=[0-9.]+", answer.headers["server-timing"]
    )
