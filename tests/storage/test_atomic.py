"""Files are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from captum_sgcampp.storage.atomic import written_once, written_whole

KILLED = """
import os, signal
from pathlib import Path
from captum_sgcampp.storage.atomic import {name}
with {name}(Path({path!r})) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("write", [written_whole, written_once])
def test_a_new_file_appears_whole_and_alone(write: Callable, tmp_path: Path) -> None:
    with write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("whole")
        assert not (tmp_path / "a.txt").exists() and unfinished.suffix == ".txt"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("write, expected", [(written_whole, "new"), (written_once, "old")])
def test_which_of_two_writers_wins(write: Callable, expected: str, tmp_path: Path) -> None:
    for text in ("old", "new"):
        with write(tmp_path / "a.txt") as unfinished:
            unfinished.write_text(text)
    assert (tmp_path / "a.txt").read_text() == expected
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [written_whole, written_once])
def test_an_error_leaves_what_was_there(write: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="full"), write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("ha")
        raise OSError("full")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [written_whole, written_once])
def test_the_content_is_on_the_disk_before_the_name(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        there.append((tmp_path / "a.txt").exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("whole")
    assert there == [False, True]  # of the file, then of its folder


@pytest.mark.slow
@pytest.mark.parametrize("write", [written_whole, written_once])
def test_a_killed_process_leaves_what_was_there(write: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    code = KILLED.format(name=write.__name__, path=os.fspath(tmp_path / "a.txt"))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["a.txt"]
