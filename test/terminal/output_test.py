"""Output: real terminals, pipes whose reader left, and text that would play tricks."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.terminal import output


def test_complaint_is_one_plain_line(capsys):
    output.complain("program", ValueError("first\nsecond \x1b[31mred"))
    assert capsys.readouterr().err == "program: first second \ufffd[31mred\n"


def test_log_for_a_terminal():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(output.LogFormatter("%(levelname)s %(message)s"))
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "said \x1b[31m%s", ("red",), sys.exc_info())
    handler.handle(record)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ERROR said \ufffd[31mred"
    assert lines[-1] == "ValueError: \ufffd[2J"


def test_log_line_covers_a_bar():
    record = logging.LogRecord("x", logging.INFO, "", 1, "short", (), None)
    assert output.LogFormatter("%(message)s", 20).format(record) == "short".ljust(19)
    assert output.LogFormatter("%(message)s").format(record) == "short"


@pytest.mark.parametrize("columns, told", [(20, 20), (132, 132), (0, 80)])
def test_width(columns, told):
    user, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(program, "w") as stream:
        assert output.width(stream) == told
        assert output.size(stream) == (told, 24)
    os.close(user)


def test_no_width(tmp_path):
    assert output.size(io.StringIO()) is None
    assert output.width(io.StringIO()) is None
    with open(tmp_path / "file", "w") as stream:
        assert output.width(stream) is None
    assert output.width(stream) is None


def test_reader_left():
    code = """
from ovirt_imageio.terminal import output
try:
    print("lost", flush=True)
except BrokenPipeError:
    output.drop_stdout()
print("lost too")
"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, timeout=DEADLINE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nowhere_to_complain():
    # os._exit(): Python 3.13 ends with another status when it cannot flush.
    code = "from ovirt_imageio.terminal import output; output.complain('program', 'lost'); os._exit(7)"
    done = subprocess.run([sys.executable, "-c", f"import os; os.close(2); {code}"], timeout=DEADLINE)
    assert done.returncode == 7


def test_say(capsys):
    output.say("one")
    output.say("two", end="")
    assert capsys.readouterr().out == "one\ntwo"


SAY = "from ovirt_imageio.terminal import output\nfor _ in range(3):\n    output.say('x' * 100_000)\n"


def test_say_to_a_reader_that_left():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        done = subprocess.run([sys.executable, "-c", SAY], stdout=stdout, stderr=subprocess.PIPE, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_say_to_a_full_disk():
    with open("/dev/full", "wb") as stdout:
        done = subprocess.run([sys.executable, "-c", SAY], stdout=stdout, stderr=subprocess.PIPE, timeout=DEADLINE)
    assert done.stderr.splitlines()[-1].endswith(b"Cannot write to standard output: No space left on device")


OPEN = """
import errno, os, subprocess, sys
for number in {closed}:
    os.close(number)
from ovirt_imageio.terminal import output
output.open_missing()
assert os.open({path!r}, os.O_RDWR | os.O_CREAT) > 2
for use in {uses}:
    try:
        use()
    except OSError as error:
        assert error.errno == errno.EBADF
        output.drop_stdout()
    else:
        sys.exit("the stream can be used")
print("lost", file=sys.stderr, flush=True)
subprocess.run(["sh", "-c", "echo lost >&2"])
"""


@pytest.mark.parametrize(
    "closed, uses", [((0,), "[sys.stdin.read]"), ((1,), '[lambda: print("lost", flush=True)]'), ((0, 1, 2), "[]")]
)
def test_streams_that_are_closed(tmp_path, closed, uses):
    """What is opened next takes the place of none of them: messages would be written into it."""
    code = OPEN.format(closed=closed, path=str(tmp_path / "disk"), uses=uses)
    command = [sys.executable, "-c", code]
    null = subprocess.DEVNULL
    subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=DEADLINE, check=True)
    assert (tmp_path / "disk").read_bytes() == b""


def test_reason():
    assert output.reason(OSError(28, "Disk full")) == "Cannot write to standard output: Disk full"
    assert output.reason(OSError(2, "No such file", "/x")) == "Cannot use /x: No such file"


@pytest.mark.parametrize(("before", "after"), [("SIG_DFL", "default_int_handler"), ("SIG_IGN", "SIG_IGN")])
def test_interrupts(before, after):
    """What started us may want us to ignore Ctrl-C, as nohup does."""
    code = (
        "import signal; from ovirt_imageio.terminal import output;"
        f"signal.signal(signal.SIGINT, signal.{before}); output.take_interrupts();"
        f"assert signal.getsignal(signal.SIGINT) is signal.{after}"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=DEADLINE).returncode == 0


@pytest.mark.parametrize(
    ("is_terminal", "environ", "expected"),
    [(True, {}, True), (True, {"NO_COLOR": ""}, True), (True, {"NO_COLOR": "1"}, False), (False, {}, False)],
)
def test_colors(tmp_path, is_terminal, environ, expected):
    user, program = pty.openpty()
    with open(user, "rb"), open(program, "w") as terminal, (tmp_path / "file").open("w") as file:
        assert output.has_colors(terminal if is_terminal else file, environ) is expected
