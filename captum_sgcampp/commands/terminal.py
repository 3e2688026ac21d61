"""The process around a command: standard streams that may be closed, and signals that stop it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO, cast

from captum_sgcampp.names import printable


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


class Screen:
    """A standard stream that never stops the work: what its encoding lacks is escaped, and after an error it is mute.

    Attributes:
        error: why nothing more can be written, if so.
    """

    def __init__(self, stream: TextIO, escaped: bool) -> None:
        """Args:
        stream: where all is written.
        escaped: whether characters that steer terminals are escaped, but for line breaks and tabs. Not for progress
            bars, which need them.
        """
        self._stream, self._escaped = stream, escaped
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write it at once, so that an error shows here and not when the process ends."""
        shown = printable(text, keep="\n\t") if self._escaped else text
        encoding = self._stream.encoding or "utf-8"
        self._tried(lambda: self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding)))
        self.flush()
        return len(text)

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, write: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            write()
        except OSError as error:
            self.error = error
            # What is left in the buffer must go somewhere, or Python complains when it ends.
            with suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def robust_streams() -> Iterator[Screen]:
    """In the block the standard streams are `Screen`s. The context is the one of the standard output."""
    _fill_descriptors()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # a stream that was closed at the start is None
        out, err = Screen(sys.stdout or nowhere, escaped=True), Screen(sys.stderr or nowhere, escaped=False)
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            yield out


def _fill_descriptors() -> None:
    """Without this, the first files that are opened would get the numbers of closed standard streams, and what
    libraries print there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


@contextmanager
def handled(handlers: Mapping[int, Callable[[int, object], None]]) -> Iterator[None]:
    """In the block these functions handle signals, but those that the process was told to ignore."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            signal.signal(number, before[number])


def terminable() -> AbstractContextManager[None]:
    """In the block SIGTERM raises `Terminated`, as SIGINT raises `KeyboardInterrupt`: unfinished files are removed."""
    return handled({signal.SIGTERM: _terminate})


def ended_at_once() -> AbstractContextManager[None]:
    """In the block both signals end the process where it stands: for imports, in which an exception may end up in C++,
    and which write nothing."""
    return handled({signal.SIGINT: _end, signal.SIGTERM: _end})


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def _end(number: int, frame: object) -> NoReturn:
    os._exit(128 + number)
