"""Completions, in the shells that they are for."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
from fakes.waiting import DEADLINE
from tools import source

PROGRAMS = ("ovirt-img", "ovirt-imageio", "ovirt-imageioctl")


def has(shell):
    """Skip where the shell is missing."""
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """What is installed below share/."""
    folder = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, source.ROOT / "data/describe.py", folder], check=True)
    return folder


@pytest.fixture
def here(tmp_path):
    """A folder with something to choose from."""
    (tmp_path / "my disk.qcow2").touch()
    (tmp_path / "backups").mkdir()
    return tmp_path


def bash(share, here, *words):
    """Return what bash offers for the last word."""
    program = words[0]
    script = f"""
        source {share}/bash-completion/completions/{program}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        $(complete -p {program} | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    command = ["bash", "--norc", "-c", script, "bash", *words]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def fish(share, here, *words):
    """Return what fish offers for the last word."""
    script = f"source {share}/fish/vendor_completions.d/{words[0]}.fish; complete -C '{' '.join(words)}'"
    environ = {**os.environ, "HOME": str(here), "XDG_CONFIG_HOME": str(here), "XDG_DATA_HOME": str(here)}
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


CASES = [
    (["ovirt-img", "backup"], {"backup", "backup-vm"}),
    (["ovirt-img", "upload", "--det"], {"--detect-zeroes"}),
    (["ovirt-img", "upload", "--output", ""], {"text", "json"}),
    (["ovirt-img", "upload", "-o", "j"], {"json"}),
    # The whole word: fish 4 finds the letters of --incr in --insecure.
    (["ovirt-img", "download-disk", "--incremental"], set()),
    (["ovirt-img", "--vers"], {"--version"}),
    (["ovirt-imageio", "--check"], {"--check-config"}),
    (["ovirt-imageio", "serve", "--read"], {"--read-only"}),
    (["ovirt-imageioctl", "del"], {"del-ticket"}),
    (["ovirt-imageioctl", "start-profile", "--clock", "w"], {"wall"}),
]


@has("bash")
@pytest.mark.parametrize(("words", "expected"), CASES, ids=lambda value: " ".join(map(str, value)))
def test_bash(share, here, words, expected):
    assert set(bash(share, here, *words)) == expected


@has("bash")
def test_bash_files(share, here):
    assert bash(share, here, "ovirt-img", "upload", "my") == ["my disk.qcow2"]
    assert bash(share, here, "ovirt-img", "upload", "--cafile", "") != []
    assert bash(share, here, "ovirt-img", "restore", "") == ["backups"]
    assert bash(share, here, "ovirt-imageioctl", "-c", "") == ["backups"]
    # The program has a command; what follows an option is not one.
    assert bash(share, here, "ovirt-imageioctl", "-c", "backups", "li") == ["list"]


@has("fish")
@pytest.mark.parametrize(("words", "expected"), CASES, ids=lambda value: " ".join(map(str, value)))
def test_fish(share, here, words, expected):
    assert set(fish(share, here, *words)) == expected


@has("fish")
def test_fish_files(share, here):
    assert fish(share, here, "ovirt-img", "upload", "my") == ["my disk.qcow2"]


@has("zsh")
def test_zsh(share, here):
    with Zsh(share, here) as shell:
        assert shell.complete("ovirt-img meas") == "ovirt-img measure "
        assert shell.complete("ovirt-img upload --det") == "ovirt-img upload --detect-zeroes "
        assert shell.complete("ovirt-img upload --output j") == "ovirt-img upload --output json "
        assert shell.complete("ovirt-img upload my") == "ovirt-img upload my\\ disk.qcow2 "
        assert shell.complete("ovirt-imageio serve --read") == "ovirt-imageio serve --read-only "
        assert shell.complete("ovirt-imageioctl del") == "ovirt-imageioctl del-ticket "
        assert (
            shell.complete("ovirt-imageioctl start-profile --clock w") == "ovirt-imageioctl start-profile --clock wall "
        )


class Zsh:
    """A zsh on a terminal, which tells what stands in its line after a completion."""

    def __init__(self, share, here):
        setup = f"""
            fpath=({share}/zsh/site-functions $fpath)
            autoload -Uz compinit && compinit -u -D
            PS1='' RPS1=''
            unsetopt zle_bracketed_paste beep
            tell() {{ zle expand-or-complete; print -r -- "<<$BUFFER>>" >> {here}/told; zle kill-whole-line }}
            zle -N tell; bindkey '^T' tell
            print ready >> {here}/told
        """
        (here / "setup").write_text(setup)
        self._told = here / "told"
        self._told.touch()
        self._count = 0
        self._here = here

    def __enter__(self):
        self._user, program = pty.openpty()
        environ = {**os.environ, "TERM": "dumb", "ZDOTDIR": str(self._here)}
        self._process = subprocess.Popen(
            ["zsh", "-f", "-i"],
            **{"stdin": program, "stdout": program, "stderr": program},
            env=environ,
            cwd=self._here,
            start_new_session=True,
        )
        os.close(program)
        self._send("source setup\n")
        assert self._next() == "ready"
        return self

    def __exit__(self, *exc_info):
        self._process.kill()
        self._process.wait()
        os.close(self._user)

    def complete(self, text):
        self._send(f"{text}\x14")
        return self._next().removeprefix("<<").removesuffix(">>")

    def _send(self, text):
        os.write(self._user, text.encode())

    def _next(self):
        """Return the next line that is told; what the terminal shows is thrown away."""
        self._count += 1
        end = time.monotonic() + DEADLINE
        while len(lines := self._told.read_text().splitlines()) < self._count:
            assert time.monotonic() < end, lines
            if select.select([self._user], [], [], 0.01)[0]:
                os.read(self._user, 65536)
        return lines[self._count - 1]
