"""A real browser: Chromium, driven by the WebDriver protocol.

It has a new profile, and requests nothing but what a test asks for. It runs without a
sandbox, since tests may run as root, so it must open only our own pages.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any

import requests
from twisted.trial.unittest import SkipTest

from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE, comes, listens

FOREIGN = "backup.example"
"""A name of this machine that, to the browser, is the name of another one."""

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1",
)


@cache
def shared_browser() -> Browser:
    """The browser of this process, which ends with it. Each test clears it.

    :raises SkipTest: it is not installed
    """
    browser = Browser()
    atexit.register(browser.close)
    return browser


class Browser:
    """One window."""

    def __init__(self) -> None:
        for program in ("chromium", "chromedriver"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed")
        self._profile = tempfile.mkdtemp(prefix="filebucket-chromium-")
        (port,) = free_ports(1)
        self._driver = subprocess.Popen(
            # With port 0 it gets one of ::1, and ends if that is in use at 127.0.0.1.
            ["chromedriver", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._url = f"http://127.0.0.1:{port}"
        self._session = ""
        self._http = requests.Session()
        self._http.trust_env = False
        try:
            if not comes(lambda: listens(port) or self._driver.poll() is not None):
                raise RuntimeError("chromedriver does not start")
            self._session = self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> str:
        options = {
            "binary": shutil.which("chromium"),
            "args": [*_ARGUMENTS, f"--user-data-dir={self._profile}"],
        }
        wanted = {
            "browserName": "chrome",
            "acceptInsecureCerts": True,
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        capabilities = {"capabilities": {"alwaysMatch": wanted}}
        session: str = self._ask("POST", "/session", capabilities)["sessionId"]
        return f"/session/{session}"

    def close(self) -> None:
        """Close the browser."""
        if self._session:
            self._ask("DELETE", self._session)
            self._session = ""
        self._http.close()
        self._driver.terminate()
        self._driver.wait(PATIENCE)
        shutil.rmtree(self._profile, ignore_errors=True)

    def clear(self) -> None:
        """Forget all that it was shown, in a new window."""
        new = self._do("window/new", type="window")["handle"]
        for command in (
            "Browser.resetPermissions",
            "Network.clearBrowserCache",
            "Network.clearBrowserCookies",
        ):
            self.devtools(command)
        self.devtools("Storage.clearDataForOrigin", origin="*", storageTypes="all")
        self._ask("DELETE", f"{self._session}/window")
        self._do("window", handle=new)
        for kind in ("browser", "performance"):
            self._log(kind)
        # A test leaves no descriptor open.
        self._http.close()

    def _ask(self, method: str, path: str, given: Any = None) -> Any:
        answer = self._http.request(
            method, f"{self._url}{path}", json=given, timeout=PATIENCE
        )
        value = answer.json()["value"]
        if not answer.ok:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value

    def _do(self, command: str, **given: Any) -> Any:
        return self._ask("POST", f"{self._session}/{command}", given)

    def devtools(self, command: str, **given: Any) -> Any:
        """Run a command that only Chromium has."""
        return self._do("goog/cdp/execute", cmd=command, params=given)

    def show(self, width: int, dark: bool = False, scripts: bool = True) -> None:
        """Set the width and other properties, from the next page on."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.devtools("Emulation.setScriptExecutionDisabled", value=not scripts)

    def open(self, url: str) -> None:
        """Open a URL, and wait until everything is loaded."""
        self._do("url", url=url)

    def run(self, script: str, *args: Any) -> Any:
        """Run the body of a function, and return its result."""
        return self._do("execute/sync", script=script, args=list(args))

    def texts(self, selector: str) -> list[str]:
        """The texts of the visible elements that the selector finds."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((each) => each.checkVisibility()).map((each) => each.textContent)",
            selector,
        )
        return found

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true."""
        ends = time.monotonic() + PATIENCE
        while not (value := self.run(f"return ({expression})")):
            if time.monotonic() > ends:
                raise AssertionError(f"never true: {expression}")
            time.sleep(0.02)
        return value

    def type(self, selector: str, text: str) -> None:
        """Type into the element that the selector finds."""
        found = self._do("element", using="css selector", value=selector)
        (element,) = found.values()
        self._do(f"element/{element}/value", text=text)

    def click(self, selector: str) -> None:
        """Click on the element that the selector finds."""
        found = self._do("element", using="css selector", value=selector)
        (element,) = found.values()
        self._do(f"element/{element}/click")

    def press_key(self, key: str) -> None:
        """Press a key as on a keyboard: it may move the focus."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._do("actions", actions=[{"type": "key", "id": "k", "actions": actions}])

    def press(self, key: str) -> None:
        """Press a key, with the current focus."""
        (element,) = self._ask("GET", f"{self._session}/element/active").values()
        self._do(f"element/{element}/value", text=key)

    def pass_time(self, seconds: float) -> None:
        """Advance the page's timers, and wait for its requests."""
        self.run(
            "window.passed = false;"
            "setTimeout(() => (window.passed = true), arguments[0])",
            seconds * 1000,
        )
        self.devtools(
            "Emulation.setVirtualTimePolicy",
            policy="pauseIfNetworkFetchesPending",
            budget=seconds * 1000 + 1,
        )
        self.wait("window.passed")

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._do("se/log", type=kind)
        return entries

    def complaints(self) -> list[str]:
        """The console's messages since the last call: errors, violations of the
        policy.
        """
        return [entry["message"] for entry in self._log("browser")]

    def fetched(self) -> list[str]:
        """The URLs requested since the last call."""
        return [each["url"] for each in self._requests()]

    def sent(self) -> list[tuple[str, dict[str, str]]]:
        """The methods and headers of the requests since the last call."""
        return [(each["method"], each["headers"]) for each in self._requests()]

    def _requests(self) -> list[dict[str, Any]]:
        messages = (
            json.loads(entry["message"])["message"]
            for entry in self._log("performance")
        )
        return [
            each["params"]["request"]
            for each in messages
            if each["method"] == "Network.requestWillBeSent"
            # Its own start page fetches parts from itself.
            and not each["params"]["documentURL"].startswith("chrome:")
        ]

    def photograph(self, path: Path, whole: bool = True) -> None:
        """Write a screenshot of the page to a PNG."""
        taken = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(b64decode(taken["data"]))
