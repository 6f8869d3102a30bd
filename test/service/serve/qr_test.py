"""QR codes: what is drawn is the code, dark where it is dark."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from ovirt_imageio import errors
from ovirt_imageio.service.serve import qr

HAS_SEGNO = importlib.util.find_spec("segno") is not None
needs_segno = pytest.mark.skipif(not HAS_SEGNO, reason="segno is installed where development is, not on each Python")

URL = "https://host.example:54322/view#TICKET"


@needs_segno
def test_each_half_of_a_line_is_a_row():
    import segno

    lines = qr.draw(URL, has_colors=False).split("\n")
    rows = []
    for line in lines:
        rows.append([char in "█▀" for char in line])
        rows.append([char in "█▄" for char in line])
    expected = [[bool(module) for module in row] for row in segno.make_qr(URL, error="l").matrix_iter(border=4)]
    assert rows[: len(expected)] == expected
    assert len(rows) - len(expected) in (0, 1)


@needs_segno
def test_it_is_black_on_white_on_any_terminal():
    plain = qr.draw(URL, has_colors=False).split("\n")
    colored = qr.draw(URL, has_colors=True).split("\n")
    assert colored == [f"\033[30;107m{line}\033[0m" for line in plain]


@needs_segno
def test_nothing_is_missing():
    qr.check()


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(errors.BackendUnavailable) as caught:
        qr.check()
    assert "install python3-segno" in str(caught.value)
