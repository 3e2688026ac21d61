"""What the browser sends with a click, checked: it may send anything."""

from __future__ import annotations

from typing import Any

from captum_sgcampp.demo.quiet_gradio import gradio as gr


def number_of(event: gr.EventData) -> int:
    """The number of the button.

    Raises:
        ValueError: something else.
    """
    (number,) = _whole_numbers(event, "number", [_sent(event, "number")], (1,))
    return number


def box_of(event: gr.EventData) -> tuple[int, ...]:
    """First row, end row, first column, end column; or nothing.

    Raises:
        ValueError: something else.
    """
    return _whole_numbers(event, "box", _sent(event, "box"), (0, 4))


def _sent(event: gr.EventData, name: str) -> Any:
    return event._data.get(name) if isinstance(event._data, dict) else None


def _whole_numbers(event: gr.EventData, name: str, values: Any, counts: tuple[int, ...]) -> tuple[int, ...]:
    fits = isinstance(values, list) and len(values) in counts
    if not fits or not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 10_000 for one in values):
        raise ValueError(f"{name}: expected whole numbers, found {str(values)[:40]}")
    return tuple(values)
