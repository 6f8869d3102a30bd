#!/usr/bin/python3
"""Write the manual pages and completions of the three programs, made from their parsers, below a folder: PREFIX/share.

describe.py FOLDER [ZSH]    ZSH is where zsh looks for functions, below FOLDER; Debian's looks in zsh/vendor-completions
"""

from __future__ import annotations

import sys
from pathlib import Path

# From this checkout, whatever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True

from ovirt_imageio.admin import cli as admin  # noqa: E402
from ovirt_imageio.client import options  # noqa: E402
from ovirt_imageio.service import cli as service  # noqa: E402
from ovirt_imageio.terminal.completion import bash, fish, zsh  # noqa: E402
from ovirt_imageio.terminal.manual import manual  # noqa: E402
from ovirt_imageio.terminal.tree import describe  # noqa: E402
from ovirt_imageio.version import __version__  # noqa: E402

ZSH = "zsh/site-functions"

# The programs that administrators use have their pages in section 8.
PROGRAMS = {
    "ovirt-img": (options.make_parser(), 1),
    "ovirt-imageio": (service.make_parser(), 8),
    "ovirt-imageioctl": (admin.build_parser(), 8),
}


def main(folder: str, zsh_functions: str = ZSH) -> None:
    """Write all files."""
    pages = [f"{name}({section})" for name, (_, section) in PROGRAMS.items()]
    for name, (parser, section) in PROGRAMS.items():
        program = describe(parser)
        related = tuple(page for page in pages if not page.startswith(f"{name}("))
        for path, text in {
            f"man/man{section}/{name}.{section}": manual(program, section, __version__, related),
            f"bash-completion/completions/{name}": bash(program),
            f"{zsh_functions}/_{name}": zsh(program),
            f"fish/vendor_completions.d/{name}.fish": fish(program),
        }.items():
            target = Path(folder) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            target.chmod(0o644)


if __name__ == "__main__":
    main(*sys.argv[1:])
