"""Which runner works on which part: files that only one of them can create."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HEARTBEAT, SILENCE = 5.0, 60.0  # seconds between two signs of life, and without one until a runner counts as dead


class Claims:
    """The claims of one runner (a thread of a process) in a folder that several share.

    A claim is a file. Its owner touches it while it lives. The claim of a process that no longer exists on this machine
    is void at once, that of another machine after a minute without a sign of life.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._owner = {**_process(os.getpid()), "runner": secrets.token_hex(8)}
        self._held: set[Path] = set()

    def take(self, number: int) -> bool:
        """Claims a part. False where another runner that lives has it."""
        path = self._folder / f"{number:06d}"
        if path.exists() and self._is_void(path):
            self._remove_void(path)
        try:
            with path.open("x", encoding="utf-8") as file:
                self._held.add(path)
                file.write(json.dumps(self._owner))
        except FileExistsError:
            return False
        return True

    def release(self, number: int) -> None:
        """Gives a part back, finished or not."""
        path = self._folder / f"{number:06d}"
        self._held.discard(path)
        with suppress(OSError):
            path.unlink()

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

    def _is_void(self, path: Path) -> bool:
        try:
            owner = json.loads(path.read_bytes())
            silent = self._now() - path.stat().st_mtime > SILENCE
        except FileNotFoundError:
            return False
        except ValueError:  # killed before it wrote its name
            return self._now() - path.stat().st_mtime > HEARTBEAT
        if owner.get("machine") != self._owner["machine"]:
            return silent
        return bool(_process(owner["pid"]) != {name: owner[name] for name in ("machine", "pid", "started")})

    def _now(self) -> float:
        """The time by the clock of the file system, which may be another machine's."""
        probe = self._folder / f".{self._owner['runner']}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now

    def _remove_void(self, path: Path) -> None:
        """Removes a void claim. Of several runners that try, one does it."""
        away = self._folder / f".{self._owner['runner']}-{path.name}"
        with suppress(FileNotFoundError):
            path.rename(away)
            away.unlink()


def _process(pid: int) -> dict[str, object]:
    """A process by its machine, its number and its start, since numbers are used again."""
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """This machine since it was started, or the container in it: where process numbers mean the same."""
    names = [socket.gethostname()]
    with suppress(OSError):
        names.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        names.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(names)


def _started(pid: int) -> str | None:
    """When a process was started, in the system's units. None: there is none, or the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _exists(pid)
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]  # a zombie works no more


def _exists(pid: int) -> str | None:
    """Without /proc: whether there is such a process, of whatever start."""
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "unknown"
    return "unknown"
