"""The page: small, whole, and without anything that its own policy forbids."""

from __future__ import annotations

import re

from ovirt_imageio.handlers.view import policy
from ovirt_imageio.service import page

TEXT = page.load().decode()


def test_it_is_small():
    assert len(page.load()) <= 40 * 1024


def test_it_holds_all_that_it_needs():
    """One script, one style, and nothing from elsewhere."""
    assert policy(page.load())
    assert not re.findall(r"<(?:script|link|img|iframe|object)[^>]*(?:src|href)=\"(?!data:,\")", TEXT)
    assert not re.findall(r"(?:fetch|import|importScripts)\([\"']", TEXT)


def test_it_holds_nothing_that_its_policy_forbids():
    assert not re.findall(r"<[^>]* (?:style|on[a-z]+)=", TEXT)


def test_names_of_files_are_never_taken_for_markup():
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", TEXT)


def test_every_name_that_the_script_looks_up_is_there():
    asked = set(re.findall(r"\$\(\"([a-z0-9-]+)\"\)", TEXT)) | set(re.findall(r"show\(\"([a-z-]+)\"", TEXT))
    assert asked <= set(re.findall(r" id=\"([a-z0-9-]+)\"", TEXT))
    assert "map" in asked
