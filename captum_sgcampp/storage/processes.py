"""Processes of this machine and of others that share a file system."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """This machine since it was started, or the container in it: where process numbers mean the same."""
    names = [socket.gethostname()]
    with suppress(OSError):
        names.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        names.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]


def started(pid: int) -> str | None:
    """When a process of this machine was started, in the system's units. None: it does not say, or there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return "dead" if state in "ZX" else fields[18]  # a zombie works no more


def is_dead(pid: int, start: str | None) -> bool:
    """Whether a process of this machine is known to have ended. Numbers are used again, starts are not.

    Args:
        pid: its number.
        start: what `started` said of it while it lived.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    now = started(pid)
    return now is not None and start is not None and now != start
