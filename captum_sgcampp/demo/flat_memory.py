"""What keeps the server's memory flat, however many answers it gives."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Any

from captum_sgcampp.demo.quiet_gradio import gradio

MOST_SESSIONS, MOST_UNREAD = 512, 50  # with messages, and messages of one session that nobody reads
_M_ARENA_MAX = -8  # glibc's name of it, in malloc.h


def share_one_arena() -> None:
    """From now on no thread gets an arena of its own from glibc.

    What a thread frees there, no other can take, so the process grows with the threads that Gradio starts. Call it
    early: glibc asks only once, when a process has many threads. Elsewhere than on glibc nothing changes.
    """
    _call_glibc("mallopt", _M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """To the system: glibc keeps what lies below a block that is in use."""
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *numbers: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # of another C library
            getattr(ctypes.CDLL(None), name)(*numbers)


_set_item = gradio.state_holder.SessionState.__setitem__


def keep_numbers_of_components() -> None:
    """For each component that an answer leaves as it is, Gradio makes a new one, with a new number, and the visitor's
    session would keep every one of them under its own number."""
    gradio.state_holder.SessionState.__setitem__ = _set_with_its_number  # type: ignore[method-assign]


def _set_with_its_number(state: Any, number: int, value: Any) -> None:
    if isinstance(value, gradio.blocks.Block):
        value._id = number
    _set_item(state, number, value)


def bound_messages(page: Any) -> None:
    """Messages wait until they are read, and Gradio would wait for ever. Who reads none may ask for no more."""
    queue, push = page._queue, page._queue.push
    queue.pending_messages_per_session.max_size = MOST_SESSIONS

    async def bounded(body: Any, request: Any, username: Any) -> Any:
        unread = queue.pending_messages_per_session.get(body.session_hash)
        if unread is not None and unread.qsize() > MOST_UNREAD:
            return False, "Too many answers were not read.", "queue_full"
        return await push(body, request, username)

    queue.push = bounded


def forget_session(page: Any, name: str) -> None:
    """Nothing stays of a page that was closed. Gradio would keep its state for an hour, and its messages for ever."""
    page.state_holder.delete_state(name)
    for kept in (
        page.state_holder.session_data,
        page.state_holder.time_last_used,
        page._queue.pending_messages_per_session,
        page._queue.pending_event_ids_session,
    ):
        kept.pop(name, None)
    return_freed_memory()
