"""What the collector counts; handlers/metrics_test.py reads it as Prometheus does."""

import platform
import re
import time

from ovirt_imageio import errors
from ovirt_imageio.service.metrics import Metrics, process_status
from ovirt_imageio.version import __version__


def test_errors_by_class():
    counts = Metrics()
    counts.operation_finished("nbd", "read", errors.NoSpace("write", "full"))
    counts.operation_finished("nbd", "read", BrokenPipeError())
    counts.operation_finished("nbd", "read", ZeroDivisionError())
    text = counts.registry.render()
    for name in ("NoSpace", "BrokenPipeError", "InternalError"):
        assert f'imageio_errors_total{{error="{name}"}} 1' in text
    assert 'imageio_operations_total{backend="nbd",operation="read",result="error"} 3' in text


def test_zeroing_and_checksums_are_no_traffic():
    counts = Metrics()
    counts.bytes_moved("nbd", "zero", 1)
    counts.bytes_moved("nbd", "checksum", 1)
    assert "imageio_transfer_bytes_total{" not in counts.registry.render()


def test_build_and_start():
    before = time.time()
    text = Metrics().registry.render()
    assert f'imageio_build_info{{version="{__version__}",python="{platform.python_version()}"}} 1\n' in text
    started = float(re.search(r"^process_start_time_seconds (\S+)$", text, re.MULTILINE)[1])
    assert before <= started <= time.time()


def test_certificate():
    counts, expires = Metrics(), None
    counts.watch_certificate(lambda: expires)
    assert "\nimageio_certificate_expiry_seconds" not in counts.registry.render()
    expires = 1893456000
    assert "\nimageio_certificate_expiry_seconds 1893456000\n" in counts.registry.render()


def test_connections_by_who_encrypts():
    class Connection:
        def __init__(self, encryption):
            self.encryption = encryption

    counts = Metrics()
    for encryption in ("kernel", "none", "memory", "kernel"):
        counts.connection_closed(Connection(encryption))
    text = counts.registry.render()
    assert 'imageio_tls_connections_total{encryption="kernel"} 2\n' in text
    assert 'imageio_tls_connections_total{encryption="memory"} 1\n' in text
    assert '="none"' not in text
    assert "imageio_connections_closed_total 4\n" in text


def test_purged():
    counts = Metrics()
    counts.ticket_expired()
    assert "imageio_tickets_expired_total 1\n" in counts.registry.render()


def test_process_status(tmp_path):
    path = tmp_path / "status"
    path.write_text("Name:\tpython\nVmRSS:\t   20 kB\n")
    assert process_status("VmRSS", 1024, str(path)) == {(): 20 * 1024}
    # What the system does not tell is left out.
    assert process_status("Threads", 1, str(path)) == {}
    assert process_status("VmRSS", 1024, "/no/such/file") == {}
