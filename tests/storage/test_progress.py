"""Progress: lines now and then where there is no terminal."""

from __future__ import annotations

import io
import sys

import pytest

from captum_sgcampp.storage import progress as module
from captum_sgcampp.storage.progress import progress, progress_of_parts


def test_lines_come_every_30_seconds_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress(110, "image", done=10) as advance:
        for _ in range(100):
            now += 2.0
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "25 of 110 images, 0.5 per second, 02:50 left"
    assert len(lines) == 6 and all("\r" not in line for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_unless_other_lines_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(2, "image", bar=False) as advance:
        advance(2)
    assert terminal.getvalue() == ""
    with progress(2, "image") as advance:
        advance(2)
    assert "2/2" in terminal.getvalue()


def test_parts_that_were_finished_before_do_not_count_for_the_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress_of_parts() as tell:
        for finished in (60, 61, 64):
            tell(finished, 100)
            now += 20.0
    assert capsys.readouterr().err.splitlines() == ["64 of 100 parts, 0.1 per second, 06:00 left"]
