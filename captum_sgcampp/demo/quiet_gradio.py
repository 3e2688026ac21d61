"""Gradio, told to send nothing about its use before it is imported, and to say little in the log."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from captum_sgcampp.names import printable

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Gradio would make a data frame of the last 10,000 events after each event.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**62)

try:
    import gradio
except ImportError as error:
    raise ImportError(f"demo: expected Gradio, found {error}; pip install '.[demo]' in a checkout") from error

__all__ = ["complain", "gradio"]

_PACKAGE = Path(__file__).parents[1]
_PASSED = ("local_only.py", "flat_memory.py")  # through which requests go on their way to Gradio


def complain(error: BaseException) -> None:
    """A line in the log, since anybody can send requests that Gradio fails at. A fault of this package is told in full.

    Args:
        error: that a request caused.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if any(_is_own(Path(frame.filename)) for frame in frames):
        traceback.print_exception(error)
    else:
        words = printable(str(error).partition("\n")[0])[:200]
        print(f"a request failed: {type(error).__name__}: {words}", file=sys.stderr)


def _is_own(path: Path) -> bool:
    return _PACKAGE in path.parents and path.name not in _PASSED


class _BriefTraceback:
    """What Gradio uses of `traceback` where it answers requests."""

    @staticmethod
    def print_exc() -> None:
        """Complain of the present exception."""
        error = sys.exc_info()[1]
        assert error is not None
        complain(error)


for module in (gradio.queueing, gradio.routes):
    vars(module)["traceback"] = _BriefTraceback
