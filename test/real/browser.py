"""Real browsers without a window: Chromium by its DevTools protocol, over a pipe; Firefox by WebDriver BiDi.

    with browser.Chromium(folder) as page:
        page.open(url)
        page.wait("document.title === 'ready'")
        page.choose("#file", path)

Certificates are not verified: those of tests are signed by an authority of their own.

Threads: one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from fakes.waiting import DEADLINE, wait_until

__all__ = ["BROWSERS", "Chromium", "Firefox", "Page"]


def find(*names: str) -> Optional[str]:
    """Return the path of the program that is called by one of these names; distributions differ."""
    return next(filter(None, map(shutil.which, names)), None)


class Page:
    """A page of a browser."""

    program: Optional[str] = None

    def __init__(self, folder: Path, width: int = 1000, height: int = 900) -> None:
        self.folder = folder
        # Where what is downloaded goes.
        self.downloads = folder / "downloads"
        self.size = (width, height)
        # What the page, or the browser about the page, complained of.
        self.complaints: list[str] = []
        self._number = 0
        self._scope = contextlib.ExitStack()

    def __enter__(self) -> Page:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as scope:
            self._start(scope)
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scope.close()

    def open(self, url: str) -> None:
        """Load a page."""
        raise NotImplementedError

    def leave(self) -> None:
        """Close it: what it does ends."""
        raise NotImplementedError

    def run(self, expression: str) -> Any:
        """Return what JavaScript makes of an expression; of a promise, what it promised."""
        raise NotImplementedError

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        raise NotImplementedError

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        raise NotImplementedError

    def text(self, selector: str) -> str:
        """Return the text of an element, as people see it."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait(self, condition: str) -> None:
        """Wait until an expression is true. A page that still loads may lack what it asks for."""
        guarded = f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"
        wait_until(lambda: self.run(guarded), lambda: f"{condition}: {self.run('document.body.innerText')}")

    def call(self, method: str, **params: Any) -> Any:
        """Send a command; return its result. What comes meanwhile is looked at."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params, **self._target()})
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message}")
                return message["result"]
            self._look(message)

    def _start(self, scope: contextlib.ExitStack) -> None:
        raise NotImplementedError

    def _target(self) -> dict[str, str]:
        return {}

    def _send(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def _receive(self) -> dict[str, Any]:
        raise NotImplementedError

    def _look(self, message: dict[str, Any]) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a browser, and end it with all that it started."""
    running = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


class Chromium(Page):
    """Speaks the DevTools protocol: messages of JSON, each of which ends with a zero byte."""

    program = find("chromium", "chromium-browser")

    # It is not to be root, not to look for updates, and not to keep anything.
    OPTIONS = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--ignore-certificate-errors",
        "--remote-debugging-pipe",
    )

    _session = ""

    def _start(self, scope: contextlib.ExitStack) -> None:
        assert self.program
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._out = scope.enter_context(os.fdopen(ours_out, "wb", buffering=0))
        self._in = scope.enter_context(os.fdopen(ours_in, "rb"))
        options = [*self.OPTIONS, f"--user-data-dir={self.folder}", f"--window-size={self.size[0]},{self.size[1]}"]
        # It reads from descriptor 3, and writes to 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        try:
            command = ["bash", "-c", shell, "bash", self.program, *options, "about:blank"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            scope.enter_context(process(command, pass_fds=(theirs_in, theirs_out), **quiet))
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        targets: list[dict[str, Any]] = []

        def has_page() -> bool:
            infos = self.call("Target.getTargets")["targetInfos"]
            targets[:] = [info for info in infos if info["type"] == "page"]
            return bool(targets)

        wait_until(has_page)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        attached = self.call("Target.attachToTarget", targetId=targets[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        width, height = self.size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def emulate(self, scheme: str) -> None:
        """Prefer "dark" or "light"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        # Another fragment alone would not load it again.
        self.leave()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def leave(self) -> None:
        self.call("Page.navigate", url="about:blank")

    def run(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def choose(self, selector: str, path: Path) -> None:
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def screenshot(self) -> bytes:
        # All of the page, as it is laid out now: by itself the browser takes what was there some time ago.
        clip = {**self.call("Page.getLayoutMetrics")["cssContentSize"], "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])

    def _target(self) -> dict[str, str]:
        return {"sessionId": self._session} if self._session else {}

    def _send(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message).encode() + b"\0")

    def _receive(self) -> dict[str, Any]:
        data = bytearray()
        while not data.endswith(b"\0"):
            byte = self._in.read(1)
            assert byte, "the browser is gone"
            data += byte
        message: dict[str, Any] = json.loads(data[:-1])
        return message

    def _look(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            text = params["entry"]["text"]
            # Other tests make networks on this machine meanwhile. Whether the page copes is for its tests to say.
            if "ERR_NETWORK_CHANGED" not in text:
                self.complaints.append(text)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled":
            self.complaints.append(str(params["args"]))


class Firefox(Page):
    """Speaks WebDriver BiDi, over a WebSocket."""

    program = find("firefox-esr", "firefox")

    # It is not to look for anything but the page.
    PREFERENCES = """\
user_pref("app.update.enabled", false);
user_pref("browser.download.folderList", 2);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "http://127.0.0.1:1/");
user_pref("toolkit.telemetry.enabled", false);
"""

    def _start(self, scope: contextlib.ExitStack) -> None:
        from websockets.sync.client import connect

        assert self.program
        place = f'user_pref("browser.download.dir", {json.dumps(str(self.downloads))});\n'
        (self.folder / "user.js").write_text(self.PREFERENCES + place)
        command = [self.program, "--headless", "--profile", str(self.folder), "--remote-debugging-port", "0"]
        log = self.folder / "log"
        with open(log, "wb") as file:
            environ = {**os.environ, "HOME": str(self.folder), "MOZ_HEADLESS_WIDTH": str(self.size[0])}
            scope.enter_context(process(command, stdout=file, stderr=file, env=environ))
        found: list[re.Match[str]] = []

        def is_listening() -> bool:
            match = re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text(errors="replace"))
            found[:] = [match] if match else []
            return bool(found)

        wait_until(is_listening)
        self._socket = scope.enter_context(connect(f"{found[0][1]}/session", max_size=None, compression=None))
        self.call("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self._context = self.call("browsingContext.getTree")["contexts"][0]["context"]
        self.call("session.subscribe", events=["log.entryAdded"])
        width, height = self.size
        self.call("browsingContext.setViewport", context=self._context, viewport={"width": width, "height": height})

    def open(self, url: str) -> None:
        self.leave()
        self.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def leave(self) -> None:
        self.call("browsingContext.navigate", context=self._context, url="about:blank", wait="complete")

    def run(self, expression: str) -> Any:
        wrapped = f"Promise.resolve(({expression})).then(value => JSON.stringify(value))"
        result = self._evaluate(wrapped)["result"]
        return json.loads(result["value"]) if "value" in result else None

    def choose(self, selector: str, path: Path) -> None:
        element = self._evaluate(f"document.querySelector({json.dumps(selector)})")["result"]
        self.call("input.setFiles", context=self._context, element={"sharedId": element["sharedId"]}, files=[str(path)])

    def screenshot(self) -> bytes:
        answer = self.call("browsingContext.captureScreenshot", context=self._context, origin="document")
        return base64.b64decode(answer["data"])

    def _evaluate(self, expression: str) -> Any:
        answer = self.call(
            "script.evaluate", expression=expression, target={"context": self._context}, awaitPromise=True
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"])
        return answer

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(json.dumps(message))

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=DEADLINE))
        return message

    def _look(self, message: dict[str, Any]) -> None:
        if message.get("method") == "log.entryAdded" and message["params"]["level"] in ("warn", "error"):
            self.complaints.append(str(message["params"].get("text")))


BROWSERS: dict[str, type[Page]] = {"chromium": Chromium, "firefox": Firefox}
