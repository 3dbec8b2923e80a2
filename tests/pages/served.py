"""The app as people meet it: a server with results of its own, and a browser that notes everything
it complains about.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.pages.sessions import PAGES, PATIENCE_SECONDS, ROOT

# Streamlit looks for its server below the page's own path first, wherever a page other than Start
# is loaded directly.
PROBES = re.compile(r"/\w+/_stcore/(health|host-config)$")
MENU = {page: page.capitalize() for page in PAGES} | {"ten_times": "Ten times smaller"}
FIRST = {
    "start": "What does compression do",
    "model": "What is in this model",
    "quantize": "fewer bits",
    "prune": "fewer parameters",
    "factorize": "Low-rank factorization",
    "distill": "train a smaller model",
    "train": "Quantization-aware training",
    "pipeline": "several steps in one run",
    "ten_times": "Ten times smaller",
    "runs": "Runs",
    "compare": "better trade",
}


def chromium() -> str | None:
    """The system's Chromium or Chrome."""
    return next(
        (
            path
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (path := shutil.which(name))
        ),
        None,
    )


@contextmanager
def serving(home: Path, **variables: str) -> Iterator[str]:
    """The address of the app, started as the README says, on a free port, with environment
    variables besides.
    """
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    environment = os.environ | {"COMPRESSION_EXPLORER_HOME": str(home)} | variables
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until_healthy(f"http://localhost:{port}", process)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def wait_until_healthy(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("The server does not answer.")


@contextmanager
def browsing() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visitor:
    """One person's browser: its own cookies and its own session, and what went wrong in it."""

    context: BrowserContext
    address: str
    page: Page = field(init=False)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.context.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("response", self._response)
        self.page.on("requestfailed", self._record_failure)

    def open(self, name: str = "start", query: str = "") -> None:
        """A page by its address, once it is drawn."""
        self.page.goto(f"{self.address}/{'' if name == 'start' else name}{query}")
        self.wait_until_settled(name)

    def turn_to(self, name: str) -> None:
        """A page through the menu, as people go: the session goes along."""
        self.page.get_by_test_id("stSidebarNavLink").filter(has_text=MENU[name]).click()
        self.wait_until_settled(name)

    def wait_until_settled(self, name: str) -> None:
        """Wait until the page has its title and nothing on it is being computed."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(FIRST[name])
        self.at_rest()

    def at_rest(self) -> None:
        """Wait until the script has run and the figures are drawn."""
        self.page.wait_for_timeout(150)  # a click takes this long to reach the script
        expect(self.page.get_by_test_id("stApp")).to_have_attribute(
            "data-test-script-state", "notRunning"
        )
        expect(self.page.get_by_test_id("stSkeleton")).to_have_count(0)
        self.page.wait_for_timeout(150)

    def figures(self) -> Locator:
        return self.page.locator(".js-plotly-plot")

    def widget(self, key: str, role: str = "button") -> Locator:
        """Widget with the given key."""
        return self.page.locator(f".st-key-{key}").get_by_role(role)

    def screenshot(self, path: Path) -> None:
        """The whole page, however long it is."""
        width = self.page.viewport_size["width"]
        height = self.page.get_by_test_id("stMain").evaluate("page => page.scrollHeight")
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_timeout(1500)  # figures fade in
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def close(self) -> None:
        self.context.close()

    def _console(self, message) -> None:
        if message.type == "error" and not PROBES.search(message.location.get("url", "")):
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _response(self, response) -> None:
        if response.status >= 400 and not PROBES.search(response.url):
            self.complaints.append(f"{response.status}: {response.url}")

    def _record_failure(self, request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what was on its way when the page was left
            self.complaints.append(f"failed: {request.url} ({request.failure})")


def visitor(
    browser: Browser, address: str, width: int = 1280, scheme: str = "light", height: int = 900
) -> Visitor:
    """``scheme`` is what the system asks for, "light" or "dark"."""
    return Visitor(
        browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme),
        address,
    )


def wait_for_results(person: Visitor, other_than: str = "-") -> str:
    """The id of the run on the page, once its numbers stand there."""
    expect(person.page).to_have_url(re.compile(rf"[?&]run=(?!{other_than})"))
    person.at_rest()
    expect(person.page.get_by_role("progressbar")).to_have_count(0)
    expect(person.page.get_by_test_id("stButtonGroup").first).to_be_visible()
    person.at_rest()
    return re.search(r"[?&]run=([0-9a-z-]+)", person.page.url)[1]
