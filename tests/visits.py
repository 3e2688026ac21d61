"""Visits of the page in a real browser."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAIT_MILLISECONDS = 60_000


def one_thread() -> dict[str, str]:
    """The environment in which maps have the same bits."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class Visit:
    """An open page, and all that its browser asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def complains(self, text: str) -> None:
        """Note an error of the page, but the one that Gradio's own code gives at some components."""
        if text != "Method not implemented.":
            self.complaints.append(text)

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
