"""Every part is claimed by one runner at a time, and a dead runner's claims are void."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from captum_sgcampp.storage import claims as module
from captum_sgcampp.storage.claims import Claims
from captum_sgcampp.storage.parts import Parts
from captum_sgcampp.storage.processes import machine
from captum_sgcampp.storage.work import finish_parts

TAKE_AND_DIE = """
import os, signal
from pathlib import Path
from captum_sgcampp.storage.claims import Claims
print(Claims(Path({folder!r})).take(0), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_one_of_two_gets_a_part_until_it_is_given_back(tmp_path: Path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    assert one.take(0) and not two.take(0) and two.take(1)
    one.release(0)
    assert two.take(0)


def test_of_many_threads_one_gets_each_part(tmp_path: Path) -> None:
    got: list[int] = []
    runners = [Claims(tmp_path) for _ in range(8)]

    def run(mine: Claims) -> None:
        got.extend(number for number in range(20) if mine.take(number))

    threads = [threading.Thread(target=run, args=(mine,)) for mine in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(20))


def test_the_claim_of_a_killed_process_is_void_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKE_AND_DIE.format(folder=os.fspath(tmp_path))], stdout=subprocess.PIPE
    )
    assert done.stdout == b"True\n" and done.returncode == -signal.SIGKILL
    assert (tmp_path / "000000").exists() and Claims(tmp_path).take(0)


def test_another_machine_is_dead_after_a_time_without_a_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    with monkeypatch.context() as other:
        other.setattr(module, "machine", lambda: "another machine")
        away = Claims(tmp_path)
        assert away.take(0)
    mine = Claims(tmp_path)
    for _ in range(3):
        assert not mine.take(0)
        time.sleep(0.15)
        os.utime(tmp_path / "000000")  # a sign of life, by whatever clock
    time.sleep(0.25)
    assert not mine.take(0)  # the last sign is seen
    time.sleep(0.25)
    assert mine.take(0)


def test_clocks_of_other_machines_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "machine", lambda: "another machine")
    away = Claims(tmp_path)
    assert away.take(0)
    monkeypatch.undo()
    for seconds in (0.0, time.time() - 1e6, time.time() + 1e6):
        os.utime(tmp_path / "000000", (seconds, seconds))
        assert not Claims(tmp_path).take(0)


def test_a_claim_without_a_name_is_void_after_a_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    (tmp_path / "000000").touch()
    mine = Claims(tmp_path)
    assert not mine.take(0)
    time.sleep(0.1)
    assert mine.take(0)


def test_a_runner_that_is_gone_from_a_living_process_holds_nothing(tmp_path: Path) -> None:
    assert Claims(tmp_path).take(0)
    gc.collect()
    assert Claims(tmp_path).take(0)


def test_a_new_claim_is_not_removed_for_the_void_one_before_it(tmp_path: Path) -> None:
    """Two runners find the same void claim. The second one comes when the first has removed it and claimed the part."""
    void = b'{"machine": "gone"}'
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take(0)
    second._remove_void(tmp_path / "000000", void)
    assert not second.take(0) and not Claims(tmp_path).take(0)


def test_a_claim_that_was_taken_over_is_not_released_by_its_first_owner(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    first.take(0)
    (tmp_path / "000000").unlink()
    second.take(0)
    first.release(0)
    assert not Claims(tmp_path).take(0)


def test_living_claims_show_it_and_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.02)
    mine = Claims(tmp_path)
    with mine.alive():
        mine.take(0)
        os.utime(tmp_path / "000000", (0, 0))
        deadline = time.time() + 5
        while (tmp_path / "000000").stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "000000").stat().st_mtime > 0
    assert not list(tmp_path.iterdir())


def test_several_runners_make_each_part_once(tmp_path: Path) -> None:
    parts, made, lock = Parts(tmp_path, 30), [], threading.Lock()

    def write(number: int, path: Path) -> None:
        with lock:
            made.append(number)
        path.write_text(str(number))

    def run() -> None:
        finish_parts(parts, Claims(tmp_path / ".run"), write)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(30)) and not parts.missing()


def test_what_killed_processes_were_writing_is_gone_when_all_is_finished(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, mine = (f".{machine()}-{pid}-0123abcd.parquet" for pid in (gone.pid, os.getpid()))
    for name in (left, mine, ".hidden"):
        (tmp_path / name).touch()
    finish_parts(Parts(tmp_path, 1), Claims(tmp_path / ".run"), lambda number, path: path.write_text("a"))
    kept = {path.name for path in tmp_path.iterdir()}
    assert {mine, ".hidden"} < kept and len(kept) == 4


def test_the_claim_of_a_process_that_was_killed_after_its_part_goes(tmp_path: Path) -> None:
    claims = tmp_path / ".run"
    subprocess.run([sys.executable, "-c", TAKE_AND_DIE.format(folder=os.fspath(claims))], stdout=subprocess.DEVNULL)
    assert (claims / "000000").exists()
    parts, living = Parts(tmp_path, 2), Claims(claims)
    parts.write(0, lambda path: path.write_text("a"))
    assert living.take(7)
    finish_parts(parts, Claims(claims), lambda number, path: path.write_text("a"))
    assert [path.name for path in claims.iterdir()] == ["000007"]


def test_a_part_that_fails_ends_the_work_and_frees_its_claim(tmp_path: Path) -> None:
    parts = Parts(tmp_path, 3)

    def write(number: int, path: Path) -> None:
        if number == 1:
            raise RuntimeError("the model failed")
        path.write_text(str(number))

    with pytest.raises(RuntimeError, match="the model failed"):
        finish_parts(parts, Claims(tmp_path / ".run"), write)
    assert sorted(parts.finished()) == [0] and not list((tmp_path / ".run").iterdir())
