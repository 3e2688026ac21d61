"""Visits of the page in a real browser."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.demo.visitor import NO_PICTURE

WAIT_MILLISECONDS = 120_000  # on a machine with much else to do


def one_thread() -> dict[str, str]:
    """The environment in which maps have the same bits."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def scene_file(folder: Path, seed: int, name: str = "shapes.png") -> Path:
    """A picture to upload."""
    path = folder / name
    Image.fromarray(draw_scene(seed).image).save(path)
    return path


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
        return str(self.page.locator(f"#{name} input, #{name} textarea").first.input_value())

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
        return str(self.page.locator("#status").inner_text())

    def waits_for_status(self, text: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator("#status")).to_contain_text(text, timeout=WAIT_MILLISECONDS)

    def has(self, selector: str, count: int) -> None:
        """Waits until there are so many."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_count(count, timeout=WAIT_MILLISECONDS)

    def reads(self, selector: str, text: str, number: int = 0) -> None:
        """Waits until a text begins so."""
        from playwright.sync_api import expect

        begins = re.compile(f"^{re.escape(text)}")
        expect(self.page.locator(selector).nth(number)).to_have_text(begins, timeout=WAIT_MILLISECONDS)

    def holds(self, name: str, pattern: str) -> None:
        """Waits until the text of a field matches."""
        from playwright.sync_api import expect

        field = self.page.locator(f"#{name} input, #{name} textarea").first
        expect(field).to_have_value(re.compile(f"^{pattern}$"), timeout=WAIT_MILLISECONDS)

    def says(self, text: str) -> None:
        """Waits until the list of sentences has one with this text."""
        self.page.locator("#words li", has_text=text).first.wait_for()

    def takes_the_picture_away(self) -> None:
        self.page.locator("#image img").first.wait_for()
        self.page.locator("#image button").first.click()
        self.waits_for_status(NO_PICTURE)
        self.page.locator("#image input[type=file]").first.wait_for(state="attached")

    def uploads(self, path: Path) -> None:
        self.takes_the_picture_away()
        self.page.locator("#image input[type=file]").first.set_input_files(path)

    def chooses(self, name: str, option: str) -> None:
        """An option of a dropdown, by the beginning of its text."""
        self.page.locator(f"#{name} input").first.click()
        self.page.get_by_role("option").filter(has_text=option).first.click()

    def takes_samples(self, count: int) -> None:
        """Write n, and leave the field."""
        self.page.locator("#n input[type=number]").fill(str(count))
        self.page.locator("#n input[type=number]").press("Tab")

    def drags(self, start: float, end: float) -> None:
        """A box of neurons from one corner to another, in shares of the picture's sides."""
        grid = self.page.locator("#grid .grid")
        grid.scroll_into_view_if_needed()
        box = grid.bounding_box()
        self.page.mouse.move(box["x"] + start * box["width"], box["y"] + start * box["height"])
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], box["y"] + end * box["height"], steps=4)
        self.page.mouse.up()

    def downloads(self, folder: Path, count: int) -> dict[str, Path]:
        """All files of the page, so many, by name."""
        if not self.page.locator("#prepare").is_visible():
            self.page.locator("#more button").first.click()
        self.page.locator("#prepare").click()
        self.waits_for_status("The files are ready.")
        folder.mkdir(exist_ok=True)
        found = {}
        self.has("#files a", count)
        for number in range(count):
            with self.page.expect_download() as download:
                self.page.locator("#files a").nth(number).click()
            name = download.value.suggested_filename
            download.value.save_as(folder / name)
            found[name] = folder / name
        return found


Opened = Callable[..., Visit]
