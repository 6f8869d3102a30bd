"""The version of the project: setup.py reads it from here, and a test compares the spec file with it."""

__version__ = "3.0.0"
