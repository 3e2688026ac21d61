"""The work on a run's parts, shared by all runners on its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from captum_sgcampp.storage.atomic import remove_unfinished
from captum_sgcampp.storage.claims import Claims
from captum_sgcampp.storage.parts import Parts

PAUSE = 0.3  # seconds until another runner's part may be finished, or void


def finish_parts(
    parts: Parts, claims: Claims, write: Callable[[int, Path], object], progress: Callable[[int], object] | None = None
) -> None:
    """Makes the parts that nobody works on, one after the other, until all are there, whoever made them.

    Args:
        parts: of the run.
        claims: of this runner.
        write: computes the part of that number and writes it to the path that it gets.
        progress: called with the number of parts that are finished, after each part and while others work.
    """
    with claims.alive():
        while missing := parts.missing():
            finished = set(range(parts.count)).difference(missing)
            for number in missing:
                if number not in finished and _made(number, parts, claims, write):
                    finished = set(parts.finished())  # also by others meanwhile
                    _report(progress, len(finished))
            if len(finished) == parts.count - len(missing):  # others hold all that is missing
                time.sleep(PAUSE)
                _report(progress, len(parts.finished()))
        remove_unfinished(parts.folder)
        parts.remove_surplus()
        claims.sweep()
        _report(progress, parts.count)


def finish_part(
    number: int, parts: Parts, claims: Claims, write: Callable[[int, Path], object], wait: bool = True
) -> None:
    """Makes one part, unless it is there.

    Args:
        number: of the part.
        parts, claims, write: as in `finish_parts`.
        wait: whether to wait for a runner that works on it, and to make it if that one dies. If not, it is left alone.
    """
    with claims.alive():
        while number not in parts.finished() and not _made(number, parts, claims, write) and wait:
            time.sleep(PAUSE)


def _made(number: int, parts: Parts, claims: Claims, write: Callable[[int, Path], object]) -> bool:
    """Whether this runner made the part, or found it made."""
    if not claims.take(number):
        return False
    try:
        if number not in parts.finished():
            parts.write(number, lambda path: write(number, path))
    except FileNotFoundError:  # a runner that took this one for dead has finished, and removed what was unfinished
        if number not in parts.finished():
            raise
    finally:
        claims.release(number)
    return True


def _report(progress: Callable[[int], object] | None, finished: int) -> None:
    if progress is not None:
        progress(finished)
