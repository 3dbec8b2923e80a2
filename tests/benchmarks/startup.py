"""Seconds from the start command to a usable page. Needs Playwright and Chromium.

python -m tests.benchmarks.startup

The browser is open already, with an empty cache; the disk is warm; each start has a results folder
of its own.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter, sleep
from urllib.request import urlopen

from playwright.sync_api import Browser, sync_playwright

from tests.benchmarks.measurement import Measurement, show

PORT = int(os.environ.get("BENCHMARK_PORT", "8801"))
URL = f"http://localhost:{PORT}"
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
START = (sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(PORT))
STARTS = 5
MOMENTS = {"the server answers": "", "the title is on the page": "", "the page can be used": "4 s"}
PRIMARY = "[data-testid=stBaseButton-primary]:not([disabled])"


def measurements() -> Iterator[Measurement]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        startup_seconds(browser)  # warms the disk
        starts = [startup_seconds(browser) for _ in range(STARTS)]
        browser.close()
    for moment, took in zip(MOMENTS, zip(*starts, strict=True), strict=True):
        yield Measurement(f"Start until {moment}", took, "s", MOMENTS[moment])


def startup_seconds(browser: Browser) -> list[float]:
    """Seconds from the command to each of MOMENTS."""
    began = perf_counter()
    with serving(), browser.new_context() as context:
        page = context.new_page()
        until_it_answers()
        answered = perf_counter()
        page.goto(URL, wait_until="commit")
        page.wait_for_selector("h1", timeout=90_000)
        titled = perf_counter()
        page.wait_for_selector(PRIMARY, timeout=90_000)
        return [moment - began for moment in (answered, titled, perf_counter())]


@contextmanager
def serving() -> Iterator[None]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        server = subprocess.Popen(
            START, env=os.environ | {"COMPRESSION_EXPLORER_HOME": home}, stdout=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


def until_it_answers() -> None:
    while True:
        with suppress(OSError), urlopen(f"{URL}/_stcore/health"):
            return
        sleep(0.02)


if __name__ == "__main__":
    show(measurements())
