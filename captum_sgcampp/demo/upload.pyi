"""The image that a visitor uploads or pastes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captum_sgcampp.demo.quiet_gradio import gradio as gr

class UploadedImage(gr.Image):  # type: ignore[misc]
    """As `gradio.Image`, but nothing is decoded here: the handler reads the file, after a check of its size."""

    is_template = True  # the component in the browser is Gradio's own

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file, which Gradio has checked to be an upload. Data inside the request are refused."""
        if payload is None or payload.path is None:
            return None
        return str(Path(payload.path))
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
