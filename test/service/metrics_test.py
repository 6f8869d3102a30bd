"""What the collector counts; handlers/metrics_test.py reads it as Prometheus does."""

from ovirt_imageio import errors
from ovirt_imageio.service.metrics import Metrics, process_status


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
