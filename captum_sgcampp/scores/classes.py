"""What speaks for a class rather than for others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from captum_sgcampp.functional.tensors import at_least_float32
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


class LogOdds(Wrapped):
    r"""
    The log-odds of a class against all others: `S_c - log sum_{j != c} exp(S_j)`, which is `logit(softmax(S)_c)`. A map
    of it shows what speaks for the class and not just for any. With two classes it is the difference of their logits.

    The result is computed without a softmax, which would be 1 or 0 for confident networks: in float32 it is right to
    rounding at logits of 10,000.

    Args:

        model (Callable): Module or function with logits `(N, C)`, of at least two classes.
        classes (sequence of int, optional): Classes that count as one: their log-odds together against all others,
                    `log sum_{c in classes} exp(S_c) - log sum_{j not in classes} exp(S_j)`, `(N,)`.
                    Default: None, the log-odds of every class, `(N, C)`

    Examples::

        >>> attr = LayerGradCamPlusPlus(LogOdds(net), net.conv).attribute(images, target=3)
        >>> attr = LayerGradCamPlusPlus(LogOdds(net, classes=[3, 5]), net.conv).attribute(images)
        >>> LogOdds(lambda logits: logits)(torch.tensor([[2.0, -1.0]]))
        tensor([[ 3., -3.]])
    """

    def __init__(self, model: Callable[..., Any], classes: Sequence[int] | None = None) -> None:
        super().__init__(model)
        self.classes = None if classes is None else _ints(classes)

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, C)`, or `(N,)` for a set of classes."""
        logits = at_least_float32(checked_output(self.model(*arguments), 2, "(N, C)"))
        count = logits.shape[1]
        if count < 2:
            raise ValueError(f"model: expected logits of at least 2 classes, found {count}")
        logits = logits - logits.detach().amax(1, keepdim=True)  # differences keep their digits near 0
        return _of_each(logits) if self.classes is None else _of_set(logits, self.classes)


def _of_each(logits: Tensor) -> Tensor:
    """The log-odds of every class. For all but the top class, p <= 1/2 and `log(total - e^z)` is stable; the others of
    the top class are added up."""
    top = torch.zeros_like(logits, dtype=torch.bool).scatter(1, logits.argmax(1, keepdim=True), True)
    others_of_top = logits.masked_fill(top, -math.inf).logsumexp(1, keepdim=True)
    total = logits.logsumexp(1, keepdim=True)
    log_p = (logits - total).masked_fill(top, -1.0)  # any number below 0, whose gradient is finite
    return logits - torch.where(top, others_of_top, total + torch.log1p(-log_p.exp()))


def _of_set(logits: Tensor, classes: tuple[int, ...]) -> Tensor:
    count = logits.shape[1]
    inside = {c % count for c in classes if -count <= c < count}
    if len(inside) < len(classes) or len(inside) == count:
        raise ValueError(f"classes: expected some but not all of {count} classes, each once, found {list(classes)}")
    rest = [c for c in range(count) if c not in inside]
    return logits[:, sorted(inside)].logsumexp(1) - logits[:, rest].logsumexp(1)


def _ints(classes: Sequence[int]) -> tuple[int, ...]:
    numbers = list(classes) if isinstance(classes, Sequence) else []
    if not numbers or not all(isinstance(number, Integral) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"classes: expected a sequence of at least one int, or None, found {classes!r}")
    return tuple(int(number) for number in numbers)
