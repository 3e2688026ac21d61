"""The process around a command: closed streams, other encodings, and signals."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captum_sgcampp.commands.terminal import Screen

COMMAND = [sys.executable, "-m", "captum_sgcampp", "explain"]


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """Commands started here heed SIGINT, also where the tests are a background job, whose children ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def encoded(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "é 图\\x1b\n".encode()),
        ("latin-1", b"\xe9 \\u56fe\\x1b\n"),
        ("ascii", b"\\xe9 \\u56fe\\x1b\n"),
    ],
)
def test_what_an_encoding_lacks_is_escaped(encoding: str, expected: bytes) -> None:
    stream = encoded(encoding)
    print("é 图\x1b", file=Screen(stream, escaped=True))
    assert stream.buffer.getvalue() == expected  # type: ignore[attr-defined]


def test_bars_keep_their_carriage_returns() -> None:
    stream = io.StringIO()
    Screen(stream, escaped=False).write("\r 50 %\x1b[A")
    assert stream.getvalue() == "\r 50 %\x1b[A"


@pytest.mark.parametrize("method", ["write", "flush"])
def test_a_stream_that_fails_is_mute_afterwards(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        raise OSError(errno.ENOSPC, "full")

    stream = io.StringIO()
    monkeypatch.setattr(stream, method, fail)
    screen = Screen(stream, escaped=True)
    for _ in range(3):
        print("text", file=screen)
    assert len(calls) == 1 and screen.error is not None and screen.error.errno == errno.ENOSPC


def run_in_shell(redirected: str, folder: Path) -> Any:
    command = f'"{sys.executable}" -m captum_sgcampp explain --method grad-cam {redirected}'
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "status", "message"),
    [
        ("| head -c 0", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 3, "captum-sgcampp: error: standard output: expected to write there, found [Errno 28]"),
    ],
)
def test_the_work_is_done_whatever_the_streams_are(tmp_path: Path, redirected: str, status: int, message: str) -> None:
    result = run_in_shell(redirected, tmp_path)
    assert result.returncode == status
    assert result.stderr.startswith(message) and result.stderr.count("\n") == bool(message)
    with Image.open(tmp_path / "explanation.png") as picture:
        picture.load()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_work_without_a_traceback_and_leave_nothing(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    arguments = ["--nt-samples", "50000", "--save-maps", "maps"]
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("layer: "):  # the maps come next, and take minutes
                break
        time.sleep(1)
        process.send_signal(number)
        err = process.stderr.read()
    assert process.returncode == status
    assert err.startswith("captum-sgcampp: error: ") and err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_signal_while_torch_is_imported_ends_the_process_quietly(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from importlib import abc
class Finder(abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from captum_sgcampp.commands.main import main
sys.exit(main(["explain"]))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
