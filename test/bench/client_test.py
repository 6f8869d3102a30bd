"""The client of the measurements: it must notice what would make a measurement wrong."""

from __future__ import annotations

import socket
import threading

import pytest
from bench.client import MIB, Job

OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def serve(tmp_path):
    """Serve one client: take so many bytes, send the answer, close."""
    threads = []
    listener = socket.socket(socket.AF_UNIX)
    address = str(tmp_path / "socket")
    listener.bind(address)
    listener.listen(1)
    listener.settimeout(20)

    def start(take, answer):
        def run():
            peer, _ = listener.accept()
            with peer:
                left = take
                while left:
                    left -= len(peer.recv(left))
                peer.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return address

    yield start
    for thread in threads:
        thread.join(20)
    listener.close()


def job(address, **fields):
    return Job({"address": address, "head": "GET / HTTP/1.1\r\n\r\n", **fields})


HEAD = len("GET / HTTP/1.1\r\n\r\n")


@pytest.fixture
def run():
    jobs = []

    def start(*arguments, **fields):
        jobs.append(job(*arguments, **fields))
        jobs[-1].run()
        return jobs[-1].done

    yield start
    for one in jobs:
        one.close()


def test_download(serve, run):
    assert run(serve(HEAD, OK + b"x" * (MIB + 5)), download=MIB + 5)


def test_short_download_fails(serve, run):
    with pytest.raises(ConnectionError, match="5 bytes are missing"):
        run(serve(HEAD, OK + b"x" * 5), download=10)


def test_upload(serve, run):
    assert run(serve(HEAD + MIB + 5, OK), upload=MIB + 5)


@pytest.mark.parametrize("answer, error", [(b"HTTP/1.1 403 No\r\n\r\n", ValueError), (b"HTTP/1.1", ConnectionError)])
def test_refusal_fails(serve, run, answer, error):
    with pytest.raises(error):
        run(serve(HEAD, answer))
