"""The page as users start it, and a real browser: Debian's Chromium (`apt-get install chromium`)."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from visits import WAIT_MILLISECONDS, Visit, one_thread

CHROMIUM = Path("/usr/bin/chromium")
START_SECONDS = 120  # of a machine with much else to do


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the bundled network, served by the command."""
    pytest.importorskip("gradio", reason="the page needs the extra 'demo'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "captum_sgcampp", "demo", "--port", str(port)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=one_thread(), stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the page answers."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < end, "the page did not start"
            time.sleep(0.2)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="browsers need the extra 'browser'")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(address: str, chromium: Any) -> Iterator[Callable[..., Visit]]:
    """`visit("?scene=2", width=400)`: opens the page in a browser of its own."""
    contexts = []

    def opened(query: str = "", width: int = 1400, scheme: str = "light", says: str = "noisy samples.") -> Visit:
        context = chromium.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(WAIT_MILLISECONDS)
        visit = Visit(context.new_page())
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on("console", lambda m: visit.complains(m.text) if m.type == "error" else None)
        visit.page.on("pageerror", lambda error: visit.complains(str(error)))
        visit.page.goto(address + query)
        visit.page.locator("#maps figure img").first.wait_for()
        visit.waits_for_status(says)
        return visit

    yield opened
    for context in contexts:
        context.close()
