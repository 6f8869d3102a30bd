"""Hunt for longer than `make check` does: run.py [NAME [ARGUMENT...]]

Each module beside this one is a part: its main(arguments) returns an exit status, and prints what it did and how often.
Without a name all parts run, one after the other. A part has a process, a folder for its temporary files, and a time
limit; when it ends, nothing of them is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# For a part that hangs. A part bounds its own time, to less than this.
LIMIT_SECONDS = 90 * 60

# After Ctrl-C or the limit a part may tidy up so long.
GRACE_SECONDS = 30


def find_parts() -> list[str]:
    """Return the names of all parts."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.name != Path(__file__).name)


def run(name: str, arguments: list[str]) -> int:
    """Run one part; return its exit status."""
    code = f"import sys; from soak.{name} import main; sys.exit(main(sys.argv[1:]))"
    with tempfile.TemporaryDirectory(prefix=f"soak-{name}-") as folder:
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'test'}", "TMPDIR": folder}
        command = [sys.executable, "-c", code, *arguments]
        with subprocess.Popen(command, env=environ, cwd=ROOT, start_new_session=True) as process:
            try:
                return process.wait(LIMIT_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
                print(f"Ending {name}: {reason!r}", file=sys.stderr)
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(GRACE_SECONDS)
                finally:
                    # Its session has what it started.
                    os.killpg(process.pid, signal.SIGKILL)
                return 1


def main(arguments: list[str]) -> int:
    """Run one part, or all; return an exit status."""
    parts = find_parts()
    if arguments and arguments[0] not in parts:
        print(f"No part is called {arguments[0]}; there are: {', '.join(parts)}", file=sys.stderr)
        return 2
    failed = []
    for name in arguments[:1] or parts:
        started = time.monotonic()
        status = run(name, arguments[1:])
        print(f"{name}: {'failed' if status else 'good'} after {time.monotonic() - started:.0f} s", flush=True)
        if status:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
