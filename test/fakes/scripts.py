"""Hostile peers are scripts: modules without a package, one for each way to misbehave."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(path: Path) -> Any:
    """Return the module that a script is."""
    spec = importlib.util.spec_from_file_location(f"hostile_{path.stem}", path)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
