"""One part is made once, whoever has it."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from captum_sgcampp.storage import claims as claims_module
from captum_sgcampp.storage.claims import Claims
from captum_sgcampp.storage.parts import Parts
from captum_sgcampp.storage.work import finish_part, finish_parts


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    (tmp_path / "parts").mkdir()
    return Parts(tmp_path / "parts", 3)


def write(number: int, path: Path) -> None:
    path.write_text(f"part {number}")


def test_a_part_is_made_once(parts: Parts, tmp_path: Path) -> None:
    made: list[int] = []
    for _ in range(2):
        finish_part(1, parts, Claims(tmp_path / "claims"), lambda number, path: (made.append(number), write(1, path)))
    assert made == [1] and list(parts.finished()) == [1] and not list((tmp_path / "claims").iterdir())


def test_a_part_of_another_runner_is_left_alone_or_waited_for(parts: Parts, tmp_path: Path) -> None:
    other = Claims(tmp_path / "claims")
    assert other.take(1)
    finish_part(1, parts, Claims(tmp_path / "claims"), write, wait=False)
    assert not parts.finished()

    def finish() -> None:
        parts.write(1, lambda path: path.write_text("of the other"))
        other.release(1)

    timer = threading.Timer(0.5, finish)
    timer.start()
    finish_part(1, parts, Claims(tmp_path / "claims"), write)
    timer.join()
    assert parts.finished()[1].read_text() == "of the other"


def test_the_part_of_a_dead_machine_is_made_after_its_silence(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "SILENCE", 1.0)
    own = Claims(tmp_path / "claims")
    claim = tmp_path / "claims" / "000001"
    claim.write_text(json.dumps({"machine": "another", "pid": os.getpid(), "started": "1", "runner": "1"}))
    began = time.monotonic()
    finish_part(1, parts, own, write)
    assert parts.finished()[1].read_text() == "part 1" and time.monotonic() - began > 0.9


def test_a_runner_that_was_taken_for_dead_goes_on(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "SILENCE", -1.0)
    with monkeypatch.context() as other:
        other.setattr(claims_module, "machine", lambda: "another")
        sleeper = Claims(tmp_path / "claims")

    def sleep(number: int, path: Path) -> None:
        write(number, path)
        finish_parts(parts, Claims(tmp_path / "claims"), write)  # meanwhile, by a runner that sees no sign of life

    finish_parts(parts, sleeper, sleep)
    assert [path.read_text() for path in parts.finished().values()] == ["part 0", "part 1", "part 2"]


def test_of_a_part_made_twice_one_file_is_left(parts: Parts, tmp_path: Path) -> None:
    for text in ("of the one", "of the other"):
        parts.write(1, lambda path, text=text: path.write_text(text))  # type: ignore[misc]
    kept = parts.finished()[1]
    finish_parts(parts, Claims(tmp_path / "claims"), write)
    assert parts.finished()[1] == kept and len(list(parts.folder.iterdir())) == 3


def test_a_finished_part_is_not_claimed_any_more(parts: Parts, tmp_path: Path) -> None:
    held: list[list[str]] = []
    own = Claims(tmp_path / "claims")
    finish_parts(
        parts, own, write, lambda finished: held.append([path.name for path in (tmp_path / "claims").iterdir()])
    )
    assert len(held) == 4 and not any(held)
