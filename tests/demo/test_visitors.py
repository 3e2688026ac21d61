"""Many visitors at once get the right maps, and nothing of a visitor stays or is seen by another one."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from served import visitors

from captum_sgcampp.demo import serve as serving
from captum_sgcampp.demo import temporary_files
from captum_sgcampp.demo.visitor import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
WAIT_SECONDS = 60


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def wait_until(is_true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not is_true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.1)


def test_many_visitors_at_once_get_the_maps_that_python_gives(tmp_path: Path) -> None:
    with visitors().server(tmp_path / "log") as (address, _):
        report = visitors().visits(address, visitors=20, seconds=4, questions=2)
        beyond, sentences = visitors().crowd(address, 50)
    assert report.wrong == report.lost == report.refused == 0 and report.right >= 20 * 2
    assert beyond.right + beyond.refused == 50 and beyond.right >= serving.MOST_WAITING
    assert all("Queue is full. Max size is 32" in sentence for sentence in sentences)
    assert beyond.refused and "Traceback" not in (tmp_path / "log").read_text()


def test_a_closed_page_is_forgotten(page: Any, tmp_path: Path) -> None:
    session = visitors().Session(page.local_url)
    session.opens()
    session.answer("prepare", "click", visitors().data_of(visitors().FIRST))
    kept = weakref.ref(visitor_of(page, session))
    assert list(tmp_path.rglob("explain.py"))
    session.leaves()
    wait_until(lambda: kept() is None)
    assert session.name not in page.state_holder.session_data
    assert not [path for path in tmp_path.rglob("explain.py") if path.parent.name.startswith("files-")]


def visitor_of(page: Any, session: Any) -> Visitor:
    (visitor,) = page.state_holder.session_data[session.name].state_data.values()
    return visitor


def test_a_visitor_who_stays_is_not_forgotten(page: Any) -> None:
    session = visitors().Session(page.local_url)
    session.opens()
    since = page.state_holder.session_data[session.name]._state_ttl
    before = max(when for _, when in since.values())
    session.answer("opacity", "release", visitors().data_of(visitors().FIRST))
    assert max(when for _, when in since.values()) > before
    session.leaves()


def test_the_least_recent_visitor_makes_room(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.state_holder, "capacity", 2)
    sessions = [visitors().Session(page.local_url) for _ in range(3)]
    sessions[0].opens()
    first = weakref.ref(visitor_of(page, sessions[0]))
    for session in sessions[1:]:
        session.opens()
    wait_until(lambda: first() is None)
    shown = sessions[0].answer("opacity", "release", visitors().data_of(visitors().FIRST))
    assert "image: expected a picture, found none" in shown["status"]
    for session in sessions:
        session.leaves()


def test_temporary_files_go_after_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(temporary_files, "SWEEP_SECONDS", 0.2)
    page = request.getfixturevalue("page")
    session = visitors().Session(page.local_url)
    session.opens()
    session.uploads(visitors().png_of(visitors().picture_of(1)), visitors().FIRST)
    session.answer("prepare", "click", visitors().data_of(visitors().FIRST))
    assert files_in(tmp_path)
    monkeypatch.setattr(temporary_files, "FILES_AGE", 0)
    wait_until(lambda: not files_in(tmp_path))
    session.leaves()


def test_all_temporary_files_go_when_the_server_ends(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with visitors().server(tmp_path / "log", TMPDIR=str(folder)) as (address, _):
        session = visitors().Session(address)
        session.opens()
        session.uploads(visitors().png_of(visitors().picture_of(1)), visitors().FIRST)
        assert files_in(folder)
        session.leaves()
    assert not files_in(folder)


def test_nobody_can_list_or_guess_the_files_of_another_visitor(page: Any, tmp_path: Path) -> None:
    import httpx

    one, other = (visitors().Session(page.local_url) for _ in range(2))
    one.opens()
    one.uploads(visitors().png_of(visitors().picture_of(1)), visitors().FIRST)
    shown = other.opens()
    assert "picture.png" not in str(shown)
    (cache,) = tmp_path.glob("captum-sgcampp-demo-*")
    assert cache.stat().st_mode & 0o077 == 0
    for path in (cache, f"{cache}/", f"{cache}/.", cache / "picture.png", cache / ("0" * 64) / "picture.png"):
        answer = httpx.get(f"{page.local_url}gradio_api/file={path}", trust_env=False)
        assert answer.status_code in (403, 404), path
    for session in (one, other):
        session.leaves()
