"""A list to choose from, whose choices differ from visitor to visitor."""

from __future__ import annotations

from typing import Any

from captum_sgcampp.demo.quiet_gradio import gradio as gr


class Choice(gr.Dropdown):  # type: ignore[misc]
    """As `gradio.Dropdown`, but the handler checks what was chosen, and says so in a sentence.

    Gradio forgets the choices together with the visitor, and would call every choice a wrong one.
    """

    is_template = True  # the component in the browser is Gradio's own

    def preprocess(self, payload: Any) -> Any:
        """What the browser sent."""
        return payload
