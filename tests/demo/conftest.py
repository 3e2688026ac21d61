"""The page as users start it, and a real browser: Debian's Chromium (`apt-get install chromium`)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
START_SECONDS = 120  # of a machine with much else to do
WAIT_MILLISECONDS = 60_000


def one_thread() -> dict[str, str]:
    """The environment in which maps have the same bits."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


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
    assert "Traceback" not in (folder / "log").read_text()


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
    playwright = pytest.importorskip("playwright.sync_api", reason="browsers need the extra 'test'")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """An open page, and all that its browser asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def foreign(self) -> list[str]:
        """Requests to other hosts."""
        local = ("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:")
        return [url for url in self.requests if not url.startswith(local)]

    def value(self, name: str) -> str:
        """The text of a field."""
        return self.page.locator(f"#{name} input, #{name} textarea").first.input_value()

    def redraws(self, action: Callable[[], object]) -> float:
        """Seconds from an action until the maps are others."""
        maps = self.page.locator("#maps section").first
        before = maps.inner_html()
        start = time.monotonic()
        action()
        while maps.inner_html() == before:
            assert time.monotonic() < start + WAIT_MILLISECONDS / 1000, self.status()
            self.page.wait_for_timeout(5)
        return time.monotonic() - start

    def status(self) -> str:
        return self.page.locator("#status").inner_text()

    def waits_for_status(self, text: str) -> None:
        self.page.locator("#status", has_text=text).wait_for()

    def uploads(self, path: Path) -> None:
        if not self.page.locator("#image input[type=file]").count():
            self.page.locator("#image button").first.click()  # takes the picture away
        self.page.locator("#image input[type=file]").first.set_input_files(path)

    def chooses(self, name: str, option: str) -> None:
        """An option of a dropdown, by the beginning of its text."""
        self.page.locator(f"#{name} input").first.click()
        self.page.get_by_role("option").filter(has_text=option).first.click()


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
        visit.page.on("console", lambda m: visit.complaints.append(m.text) if m.type in ("error", "warning") else None)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.goto(address + query)
        visit.page.locator("#maps figure img").first.wait_for()
        visit.waits_for_status(says)
        return visit

    yield opened
    for context in contexts:
        context.close()
