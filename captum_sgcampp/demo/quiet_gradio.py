"""Gradio, told to send nothing about its use before it is imported."""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

try:
    import gradio
except ImportError as error:
    raise ImportError(f"demo: expected Gradio, found {error}; pip install 'captum-sgcampp[demo]'") from error

__all__ = ["gradio"]
