"""A headless Chromium, driven by its own chromedriver over WebDriver's HTTP."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """One window: its size, its colours, what a script in it says, and what it logged."""

    def __init__(self, port: str, profile: Path):
        self.base = f"http://127.0.0.1:{port}"
        arguments = [*FLAGS, f"--user-data-dir={profile}"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self.call("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{session['sessionId']}"

    def call(self, path: str, body: dict):
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **parameters):
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, width: int, height: int, *, phone: bool = False, dark: bool = False, script: bool = True) -> None:
        """How the next page is shown."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.devtools("Emulation.setScriptExecutionDisabled", value=not script)

    def open(self, file: Path) -> None:
        self.logged("browser"), self.logged("performance")  # what was before
        self.call("/url", {"url": file.resolve().as_uri()})

    def run(self, script: str):
        """What ``script``, the body of a function, returns."""
        return self.call("/execute/sync", {"script": script, "args": []})

    def logged(self, kind: str) -> list[str]:
        return [entry["message"] for entry in self.call("/se/log", {"type": kind})]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        events = [json.loads(message)["message"] for message in self.logged("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(self.base, method="DELETE"), timeout=60).close()


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a new ``profile``; it and its driver end with the block."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in driver.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                break
        else:
            raise RuntimeError("chromedriver ended before it listened")
        opened = Browser(found[1], profile)
        try:
            yield opened
        finally:
            opened.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)
        driver.stdout.close()
