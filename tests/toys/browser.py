"""Chromium without a window, told what to do through a pipe by its DevTools protocol."""

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-pipe", "--disable-dev-shm-usage"),
)
KEYS = {"Enter": ("\r", 13), "Tab": ("", 9), "Escape": ("", 27)}
PATIENCE = 60  # seconds


class Browser:
    """One page. ``requests`` are the addresses it asked for, ``said`` what its console and mistakes were."""

    def __init__(self, folder):
        to_it, our_writing = os.pipe()
        our_reading, from_it = os.pipe()
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (to_it, from_it)]
        command = f'exec "$@" 3<&{high[0]} 4>&{high[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}"],
            pass_fds=high,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (to_it, from_it, *high):
            os.close(one)
        self._write, self._read = our_writing, our_reading
        self._left, self._number, self._session = b"", 0, None
        self.requests, self.said = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        for one in (self._write, self._read):
            os.close(one)
        self.process.kill()
        self.process.wait()

    def call(self, method, **parameters):
        """Send a message and return its result; events that come before it are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for found in self._messages(deadline):
                if found.get("id") == self._number:
                    assert "error" not in found, found
                    return found["result"]
        raise TimeoutError(method)

    def _messages(self, deadline):
        left = max(0.0, deadline - time.monotonic())
        if select.select([self._read], [], [], left)[0]:
            self._left += os.read(self._read, 1 << 20)
        *whole, self._left = self._left.split(b"\0")
        for one in whole:
            found = json.loads(one)
            self._note(found)
            yield found

    def _note(self, found):
        method, parameters = found.get("method"), found.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(parameters)

    def js(self, code):
        """Return the value of an expression of JavaScript; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url):
        found = self.call("Page.navigate", url=url)
        assert "errorText" not in found, found
        self.until("document.readyState === 'complete'")

    def until(self, code):
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.js(code):
            assert time.monotonic() < deadline, f"{code}: {self.js('document.body.innerText')}"
            time.sleep(0.03)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key):
        text, number = KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": number}
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def width(self, pixels, height=900):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def scheme(self, name):
        media = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=media)

    def screenshot(self):
        """Return the bytes of a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
