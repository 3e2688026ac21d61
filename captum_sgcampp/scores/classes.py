"""What speaks for a class rather than for others."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from captum_sgcampp.scores.wrapped import Wrapped, checked_output, is_int


class Contrast(Wrapped):
    r"""
    What speaks for the target rather than for another class: `S_target - S_other` for every class as target.

    Args:

        model (Callable): Module or function with scores `(N, C)`.
        other (int, optional): The other class. Default: None, an int tensor `(N,)` follows as the last of the
                    additional arguments

    Examples::

        >>> method = LayerGradCamPlusPlus(Contrast(net, other=5), net.conv)
        >>> three_rather_than_five = method.attribute(images, target=3)
    """

    other: Tensor | None

    def __init__(self, model: Callable[..., Any], other: int | None = None) -> None:
        super().__init__(model)
        if other is not None and (isinstance(other, bool) or not isinstance(other, Integral)):
            raise TypeError(f"other: expected an int or None, found {type(other).__name__} ({other!r})")
        self.hold("other", None if other is None else torch.tensor(int(other)))

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, C)`."""
        arguments, other = self.split("other", self.other, arguments)
        scores = checked_output(self.model(*arguments), 2, "(N, C)")
        if not is_int(other) or tuple(other.shape) not in ((), (len(scores),)):
            raise ValueError(f"other: expected ints ({len(scores)},), found {other.dtype}, {tuple(other.shape)}")
        other = other.to(scores.device, torch.long)
        if bool((other < -scores.shape[1]).any()) or bool((other >= scores.shape[1]).any()):
            raise ValueError(f"other: expected a class below {scores.shape[1]}, found {other.tolist()}")
        return scores - scores.gather(1, (other % scores.shape[1]).expand(len(scores))[:, None])
