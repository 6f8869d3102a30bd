"""The version of the project, in one place: setup.py and the spec file read it from here."""

__version__ = "3.0.0"
