"""More visitors than the queue takes: a browser says so in a sentence, and the visitor can try again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from served import visitors
from visits import Visit, scene_file

from captum_sgcampp.demo import serve as serving
from captum_sgcampp.demo.html import BUSY
from captum_sgcampp.demo.page import MOST_RUNS
from captum_sgcampp.model.model_access import exclusive_access

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_WAITING", 2)


@contextmanager
def held_network() -> Iterator[None]:
    """No answer ends, since another thread has the network."""
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive_access():
            is_held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    try:
        yield
    finally:
        release.set()
        holder.join()


@contextmanager
def full(page: Any) -> Iterator[None]:
    """As many visitors wait as may. At the end all that were not refused are answered."""
    sessions, events = [], []
    with held_network():
        for _ in range(MOST_RUNS + serving.MOST_WAITING + 2):
            sessions.append(visitors().Session(page.local_url))
            with suppress(visitors().Busy):
                events.append((sessions[-1], sessions[-1].asks("page", "load", [])))
            time.sleep(0.1)  # until it no longer waits, if it may run
        yield
    for session, event in events:
        assert "<figure>" in session.answer_to(event)["maps"]
    for session in sessions:
        session.leaves()


def is_refused(visit: Visit) -> None:
    """It reads the sentence. Chromium complains of the refusal."""
    visit.waits_for_status(BUSY)
    assert visit.complaints and all("503" in text for text in visit.complaints), visit.complaints
    visit.complaints.clear()


def test_a_visitor_who_opens_a_busy_page_reads_it_and_can_try_again(page: Any, browse: Callable[..., Visit]) -> None:
    with full(page):
        one = browse(f"{page.local_url}?scene=1&nt_samples=2")
        is_refused(one)
    one.page.get_by_role("button", name="Try again").press("Enter")
    one.waits_for_status("2 noisy samples.")


def test_a_visitor_of_a_page_that_became_busy_reads_it_and_can_try_again(
    page: Any, browse: Callable[..., Visit]
) -> None:
    one = browse(f"{page.local_url}?nt_samples=2")
    one.waits_for_status("2 noisy samples.")
    with full(page):
        one.page.locator("#run").click()
        is_refused(one)
    one.page.locator("#run").click()
    one.waits_for_status("2 noisy samples.")


def test_a_picture_that_was_refused_does_not_stand_beside_maps_of_another_one(
    page: Any, browse: Callable[..., Visit], tmp_path: Path
) -> None:
    one = browse(f"{page.local_url}?nt_samples=2")
    one.waits_for_status("2 noisy samples.")
    one.takes_the_picture_away()
    file = one.page.locator("#image input[type=file]").first
    with full(page):
        file.set_input_files(scene_file(tmp_path, seed=36))
        is_refused(one)
        one.has("#image img", 0)
    file.set_input_files(scene_file(tmp_path, seed=36))
    one.waits_for_status("2 noisy samples.")
    one.reads("#maps h3", "star")
