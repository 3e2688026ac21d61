"""Docstrings in Captum's form, brought to the form that the site's generator reads (Google's)."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Returns|Raises|Examples|Attributes)::?\n\n(?= +\S)", re.MULTILINE)
# Names of several arguments that go on in the next line, before the colon that ends them.
SPLIT_NAMES = re.compile(r"^( +(?:\w+, ?)+)\n +", re.MULTILINE)
# Several names whose description begins in the next line, which else were taken for code.
NAMES_ALONE = re.compile(r"^( +\w+(?:, \w+)+:)\n +", re.MULTILINE)
BEFORE_LIST = re.compile(r"(:)\n( +- \*\*)")  # Markdown wants an empty line there


class CaptumDocstrings(griffe.Extension):
    """Captum leaves an empty line after the name of a section, and its examples are literal blocks."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with every function, class and module once it is known."""
        if obj.docstring is not None:
            obj.docstring.value = in_googles_form(obj.docstring.value)


def in_googles_form(docstring: str) -> str:
    """No empty line after `Args:`, one colon after `Examples`, names of an entry in one line with what they are."""
    docstring = SECTION.sub(r"\1:\n", docstring)
    while (joined := SPLIT_NAMES.sub(lambda names: names[1].rstrip() + " ", docstring)) != docstring:
        docstring = joined
    return BEFORE_LIST.sub(r"\1\n\n\2", NAMES_ALONE.sub(r"\1 ", docstring))
