"""The page, served as users do it: by a command, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from visits import one_thread

START_SECONDS = 300  # of a machine with much else to do
# Notes every address that the process connects to.
AUDIT = """
import runpy, sys

def note(event, args):
    if event == "socket.connect":
        print("connects to", args[1], file=sys.stderr, flush=True)

sys.addaudithook(note)
"""
COMMAND = AUDIT + "runpy.run_module('captum_sgcampp', run_name='__main__', alter_sys=True)"
SCRIPT = AUDIT + "runpy.run_path(sys.argv[1], run_name='__main__')"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """The page, served by `captum-sgcampp demo`.

    Args:
        folder: in which the command runs.
        arguments: besides the port.
    """
    port = free_port()
    with serving(folder, port, [COMMAND, "demo", "--port", str(port), *arguments], {}) as url:
        yield url


@contextmanager
def serving(folder: Path, port: int, code: list[str], environment: dict[str, str]) -> Iterator[str]:
    """Python that serves the page. It may connect to no other host.

    Args:
        folder: in which it runs.
        port: at which it listens.
        code: and its arguments.
        environment: variables, besides those of one thread.
    """
    pytest.importorskip("gradio", reason="the page needs the extra 'demo'")
    log, command = folder / "log", [sys.executable, "-c", *code]
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=one_thread() | environment, stdout=out, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(60)
    connections = [line for line in log.read_text().splitlines() if line.startswith("connects to ")]
    assert connections, "Gradio connects to itself when it starts: none means that none were noted"
    assert not [line for line in connections if not line.startswith(("connects to ('127.0.0.1'", "connects to ('0.0"))]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the page answers."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20):
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < end, f"the page did not start: {log.read_text()}"
            time.sleep(0.2)
