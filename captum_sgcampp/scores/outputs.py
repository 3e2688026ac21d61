"""One entry of a dict, a tuple or an object that a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from captum_sgcampp.scores.wrapped import Wrapped


class OutputEntry(Wrapped):
    r"""
    One entry of an output that is a dict, a tuple or an object with attributes (a dataclass, a named tuple).

    Args:

        model (Callable): Module or function.
        entry (str or int): Key, position or name of the attribute. For nested outputs wrap twice.

    Examples::

        >>> as_dict = lambda images: {"logits": net(images), "loss": None}
        >>> attr = LayerGradCamPlusPlus(OutputEntry(as_dict, "logits"), net.conv).attribute(images, target=3)
    """

    def __init__(self, model: Callable[..., Any], entry: str | int) -> None:
        super().__init__(model)
        self.entry = entry

    def forward(self, *arguments: Any) -> Any:
        """The entry of what the model returns."""
        output = self.model(*arguments)
        try:
            if isinstance(self.entry, str) and not isinstance(output, Mapping):
                return getattr(output, self.entry)
            return output[self.entry]
        except (LookupError, AttributeError, TypeError) as error:
            raise ValueError(f"entry: expected {_entries(output)}, found {self.entry!r}") from error


def _entries(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"one of {list(output)}"
    if isinstance(output, Sequence):
        return f"a position below {len(output)}"
    return f"an attribute of {type(output).__name__}"
