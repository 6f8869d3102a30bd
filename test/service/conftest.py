"""What the tests of this folder share: the log is as it was when a test is over."""

import logging

import pytest


@pytest.fixture(autouse=True)
def restored_logging():
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        if handler not in handlers:
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
