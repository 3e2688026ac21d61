"""Progress of long work: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

SECONDS = 30.0  # between two lines


@contextmanager
def progress(total: int, unit: str, done: int = 0, bar: bool = True) -> Iterator[Callable[[int], None]]:
    """Context of a long work, told on the standard error.

    Args:
        total: how many there are.
        unit: what they are, in the singular.
        done: how many were done before. They do not count for the rate.
        bar: whether a terminal gets a bar. Not where other lines are written meanwhile.

    Returns:
        A function that is called with the number of those just done.

    Examples::

        >>> with progress(200, "image") as advance:
        ...     for _ in range(200):
        ...         advance(1)
    """
    if bar and sys.stderr.isatty():
        with tqdm(total=total, initial=done, unit=unit, file=sys.stderr) as shown:
            yield shown.update
    else:
        yield _Lines(total, unit, done).advance


@contextmanager
def progress_of_parts() -> Iterator[Callable[[int, int], None]]:
    """Context of a run, told on the standard error.

    Returns:
        A function that is called with the numbers of finished parts and of all parts. What is finished at the first
        call does not count for the rate.
    """
    with ExitStack() as shown:
        advance: Callable[[int], None] | None = None
        done = 0

        def tell(finished: int, parts: int) -> None:
            nonlocal advance, done
            if advance is None:
                advance = shown.enter_context(progress(parts, "part", done=finished))
            else:
                advance(finished - done)
            done = finished

        yield tell


class _Lines:
    """Lines for log files, which bars with carriage returns make unreadable."""

    def __init__(self, total: int, unit: str, done: int) -> None:
        self.total, self.unit, self.before, self.done = total, unit, done, done
        self.start = self.last = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < SECONDS:
            return
        self.last = now
        rate = (self.done - self.before) / (now - self.start)
        left = tqdm.format_interval((self.total - self.done) / rate) if rate else "?"
        print(f"{self.done} of {self.total} {self.unit}s, {rate:.3g} per second, {left} left", file=sys.stderr)
