"""Which runner works on which part: files that only one of them can create."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from captum_sgcampp.storage.processes import is_dead, machine, started

HEARTBEAT, SILENCE = 5.0, 60.0  # seconds between two signs of life, and without one until a runner counts as dead

_RUNNERS: WeakValueDictionary[str, Claims] = WeakValueDictionary()  # of this process


class Claims:
    """The claims of one runner (a thread of a process) in a folder that several share.

    A claim is a file. Its owner touches it while it lives. The claim of a process that has ended on this machine is
    void at once, any other one after a minute without a sign of life, by the clock of the runner that looks at it. A
    runner that only slept may find its part made by another one: parts are kept once.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._runner = folder, secrets.token_hex(8)
        pid = os.getpid()
        owner = {"machine": machine(), "pid": pid, "started": started(pid), "runner": self._runner}
        self._claim = json.dumps(owner).encode()
        self._held: set[Path] = set()
        self._seen: dict[Path, tuple[int, float]] = {}  # the last sign of life of others' claims, and when it was seen
        _RUNNERS[self._runner] = self

    def take(self, number: int) -> bool:
        """Claims a part. False where another runner that lives has it."""
        path = self._folder / f"{number:06d}"
        self._remove_if_void(path)
        try:
            with path.open("xb") as file:
                self._held.add(path)
                file.write(self._claim)
        except FileExistsError:
            return False
        return True

    def release(self, number: int) -> None:
        """Gives a part back, finished or not."""
        path = self._folder / f"{number:06d}"
        self._held.discard(path)
        if _content(path) == self._claim:
            with suppress(OSError):
                path.unlink()

    def sweep(self) -> None:
        """Removes void claims: a runner may be killed after it finished a part, and before it gave the claim back."""
        for path in self._folder.glob("[0-9]*"):
            self._remove_if_void(path)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """In the block the claims show signs of life. Afterwards none is left."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            for path in list(self._held):
                self.release(int(path.name))

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT):
            for path in list(self._held):
                with suppress(OSError):  # released meanwhile
                    os.utime(path)

    def _is_void(self, path: Path, claim: bytes) -> bool:
        try:
            owner = json.loads(claim)
        except ValueError:  # its owner has not written yet, or was killed before
            return self._is_silent(path, HEARTBEAT)
        if owner["machine"] == machine():
            if owner["pid"] == os.getpid() and owner["runner"] not in _RUNNERS:
                return True
            if is_dead(owner["pid"], owner["started"]):
                return True
        return self._is_silent(path, SILENCE)

    def _is_silent(self, path: Path, seconds: float) -> bool:
        """Whether this runner has watched a claim for so long without a sign of life, by its own clock."""
        try:
            sign = path.stat().st_mtime_ns
        except OSError:
            return False
        now = time.monotonic()
        last, since = self._seen.get(path, (sign, now))
        if last != sign:
            since = now
        self._seen[path] = sign, since
        return now - since > seconds

    def _remove_if_void(self, path: Path) -> None:
        found = _content(path)
        if found is not None and self._is_void(path, found):
            self._remove_void(path, found)

    def _remove_void(self, path: Path, claim: bytes) -> None:
        """Removes a claim that was found void. If another runner has done so and claimed the part since, that claim is
        put back."""
        away = self._folder / f".{self._runner}-{path.name}"
        with suppress(OSError):
            path.rename(away)
            if _content(away) != claim:
                os.link(away, path)
            away.unlink()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:  # there is none
        return None
