"""What programs read: a record a line, the last one tells how it ended."""

from __future__ import annotations

import json

import pytest

from ovirt_imageio.client import cli


@pytest.mark.parametrize(
    ("words", "command", "message"),
    [
        (["uplod", "-o", "json"], None, "did you mean 'upload'?"),
        (["upload", "--output=json", "file"], "upload", "the following arguments are required: URL"),
        (["download", "--output", "json", "--retrys", "1", "u", "f"], "download", "did you mean --retries?"),
        (["download", "-o", "json", "--verify", "u", "-"], "download", "--verify does not work with a stream"),
        (["backup", "-o", "json", "--incremental", "u", "f"], "backup", "--incremental and --backing BASE go together"),
    ],
)
def test_wrong_arguments(capsys, words, command, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    shown = capsys.readouterr()
    # A disk that goes to standard output has it for itself.
    record = json.loads(shown.err.splitlines()[-1] if "-" in words else shown.out)
    assert (record["type"], record["command"], record["status"]) == ("error", command, 2)
    assert message in record["message"]
    assert message in shown.err


def test_errors(run, tmp_path):
    missing = tmp_path / "missing"
    assert run("info", missing) == (
        1,
        [
            {
                "type": "error",
                "command": "info",
                "message": f"Cannot open the image: there is no {missing}",
                "status": 1,
            }
        ],
    )
