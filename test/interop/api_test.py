"""The daemon keeps to docs/openapi.yaml, whatever schemathesis sends."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("cryptography")

from interop import api

pytestmark = [
    pytest.mark.slow,
    pytest.mark.storage,
    pytest.mark.skipif(not importlib.util.find_spec("schemathesis"), reason="needs schemathesis"),
]


def test_daemon_keeps_to_its_document(tmp_path):
    """A few examples of each request; `make soak T=api` tries more."""
    found = api.run(tmp_path, examples=2, seed=1, phases="examples,fuzzing")
    assert not found, found
