"""The page as users start it, and a real browser: Debian's Chromium (`apt-get install chromium`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_server import served
from visits import WAIT_MILLISECONDS, Opened, Visit

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the bundled network."""
    with served(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page, served by this process, whose temporary files lie in `tmp_path`."""
    pytest.importorskip("gradio", reason="the page needs the extra 'demo'")
    from captum_sgcampp.demo import serve, temporary_files
    from captum_sgcampp.demo.networks import Networks

    monkeypatch.setattr(temporary_files.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    page = serve.serve(Networks())
    yield page
    page.close()


@pytest.fixture(scope="module")  # its loop runs in the thread of the tests, and other tests need their own
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="browsers need the extra 'test'")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"], timeout=WAIT_MILLISECONDS
        )
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """`browse(url, width=400)`: opens an address in a browser of its own. None may ask other hosts, or complain."""
    visits, contexts = [], []

    def opened(url: str, width: int = 1400, scheme: str = "light") -> Visit:
        context = chromium.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(WAIT_MILLISECONDS)
        visit = Visit(context.new_page())
        visits.append(visit)
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on("console", lambda m: visit.complaints.append(m.text) if m.type == "error" else None)
        visit.page.on("pageerror", lambda error: visit.complaints.append(f"{error} {error.stack}"))
        visit.page.goto(url)
        return visit

    yield opened
    for context in contexts:
        context.close()
    for visit in visits:
        assert visit.requests and not visit.foreign() and not visit.complaints


@pytest.fixture
def visit(address: str, browse: Callable[..., Visit]) -> Opened:
    """`visit("?scene=2", width=400)`: the page of the bundled network, once it shows maps."""

    def opened(query: str = "", says: str = "noisy samples.", **options: Any) -> Visit:
        visit = browse(address + query, **options)
        visit.page.locator("#maps figure img").first.wait_for()
        visit.waits_for_status(says)
        return visit

    return opened
