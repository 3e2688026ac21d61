"""Files that appear under their name only when they are whole and on the disk."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captum_sgcampp.storage.processes import is_dead, machine

_UNFINISHED = re.compile(r"\.([0-9a-f]+)-(\d+)-[0-9a-f]{8}(\.\w+)?")
_DAY = 86_400.0  # seconds


@contextmanager
def written_whole(path: Path, named: Callable[[Path], str | None] | None = None) -> Iterator[Path]:
    """Context of one new file: it is written under the temporary name that is given, then takes its own.

    A block that raises, a full disk or a killed process leave what stood at `path` before.

    Args:
        path: the file to write, in an existing folder. A file that is there is replaced.
        named: from the written file to the name that it gets in place of that of `path`. None: it is not kept.

    Raises:
        OSError: the file cannot be written.

    Examples::

        >>> with written_whole(Path("table.md")) as unfinished:
        ...     _ = unfinished.write_text("| method | mean |")
        >>> Path("table.md").exists(), unfinished.exists()
        (True, False)
    """
    with _new_file(path) as unfinished:
        yield unfinished
        flush_to_disk(unfinished)
        name = named(unfinished) if named else path.name
        if name is not None:
            unfinished.replace(path.with_name(name))


@contextmanager
def written_once(path: Path) -> Iterator[Path]:
    """As `written_whole`, but a file that is there stays: of several writers the first one wins."""
    with _new_file(path) as unfinished:
        yield unfinished
        flush_to_disk(unfinished)
        try:
            os.link(unfinished, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                unfinished.replace(path)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A name beside `path` that is gone afterwards. Libraries choose the format by the suffix, and readers of folders
    skip names that begin with a dot."""
    unfinished = path.with_name(f".{machine()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield unfinished
    finally:
        with suppress(OSError):
            unfinished.unlink()
    flush_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Removes what processes were writing in a folder that have ended on this machine, or a day ago on another one."""
    for path in folder.glob(".*"):
        match = _UNFINISHED.fullmatch(path.name)
        with suppress(OSError):
            if match and (is_dead(int(match[2]), None) if match[1] == machine() else _is_old(path)):
                path.unlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _DAY


def flush_to_disk(path: Path) -> None:
    """Waits until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
