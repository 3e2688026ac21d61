"""Score links: the first three derivatives of `Y = link(S)` along one activation, from gradients of the logits.

`S` is piecewise linear in the layer, so its own second and third derivatives vanish and those of `Y` follow from `g =
dS/dA` (Grad-CAM++ eqs 12 to 19 for `exp`, 22 to 24 for `softmax`). A positive factor common to all copies changes only
the scale of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from captum_sgcampp.functional.moments import Derivatives, PowerSums
from captum_sgcampp.functional.tensors import per_row, unit_scaled

SCORES = ("exp", "softmax", "sigmoid")

# A score link `Y = f(S)` of one's own: from the selected scores `(rows,)`, the scores to explain, `(rows,)`.
ScoreFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Softmax:
    """The score link `Y = softmax(S)_c` over the classes that count.

    Args:
        classes: class indices that the softmax runs over; the target is always among them. None: all classes of the
            output. One gradient is computed per class and noisy copy, so name few where there are many.

    Experimental: where the class has a probability above 1/2, most of the weight comes from poles of alpha.

    Examples::

        >>> Softmax(classes=(281, 285, 287)).classes
        (281, 285, 287)
    """

    classes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        if isinstance(self.classes, str) or not isinstance(self.classes, Iterable):
            raise TypeError(f"score.classes: expected class indices or None, found {type(self.classes).__name__}")
        indices = self.classes.tolist() if isinstance(self.classes, Tensor) else list(self.classes)
        for index in indices:
            if isinstance(index, bool) or not isinstance(index, int | np.integer):
                raise TypeError(f"score.classes: expected ints, found {type(index).__name__} ({index!r})")
            if index < 0:
                raise ValueError(f"score.classes: expected indices of at least 0, found {index}")
        object.__setattr__(self, "classes", tuple(int(index) for index in indices))


def exp_derivatives(score: Tensor, gradient: Tensor) -> Derivatives:
    """`Y = exp(S)`: the p-th derivative is `exp(S) g^p`.

    Args:
        score: `S`, `(rows,)`.
        gradient: `g`, `(rows, K, *space)`.
    """
    g, scale = unit_scaled(gradient)
    square = g * g
    return Derivatives(score, scale, g, square, square * g)


def sigmoid_derivatives(score: Tensor, gradient: Tensor) -> Derivatives:
    """`Y = s = sigmoid(S)`: `s (1 - s)` times `g`, `-tanh(S / 2) g^2`, `(1 - 6 s (1 - s)) g^3`.

    Args and shapes as `exp_derivatives`.
    """
    log_weight = logsigmoid(score) + logsigmoid(-score)
    g, scale = unit_scaled(gradient)
    square = g * g
    second, third = -torch.tanh(score / 2), 1 - 6 * torch.exp(log_weight)
    return Derivatives(log_weight, scale, g, per_row(second, g) * square, per_row(third, g) * square * g)


def identity_derivatives(score: Tensor, gradient: Tensor) -> Derivatives:
    """`Y = S` behind a piecewise linear head: `g`, 0, 0. Args and shapes as `exp_derivatives`."""
    g, scale = unit_scaled(gradient)
    return Derivatives(torch.zeros_like(score), scale, g, torch.zeros_like(g), torch.zeros_like(g))


class AlongEntries(NamedTuple):
    """Derivatives of a scalar `s` of each row along every single entry of the layer, in steps of a unit of length.

    The p-th derivative is `s_p / unit**p`.

    Attributes:
        unit: `(rows,)`; near the size of the activation it keeps float32 from losing the third derivative.
        s1, s2, s3: `(rows, K, *space)`.
    """

    unit: Tensor
    s1: Tensor
    s2: Tensor
    s3: Tensor


def true_derivatives(link: str, score: Tensor, along: AlongEntries) -> Derivatives:
    """The derivatives of `Y = f(s)` by Faa di Bruno's rule, `Y' = f' s1`, `Y'' = f'' s1^2 + f' s2` and
    `Y''' = f''' s1^3 + 3 f'' s1 s2 + f' s3`, with a factor taken out as the weight of the copy.

    Args:
        link: `"exp"`, `"sigmoid"` (also for softmax, whose `s` is the margin `S_c - logsumexp_{j != c} S_j`) or
            `"identity"`.
        score: `s`, `(rows,)`.
        along: the derivatives of `s`.
    """
    sizes = [part.reshape(len(part), -1).abs().amax(1) ** (1 / p) for p, part in enumerate(along[1:], start=1)]
    largest = torch.stack(sizes).amax(0)
    divisor = per_row(torch.where(largest > 0, largest, 1), along.s1)
    s1, s2, s3 = (part / divisor**p for p, part in enumerate(along[1:], start=1))
    log_weight, *factors = _link(link, score)
    f1, f2, f3 = (per_row(factor, s1) for factor in factors)
    d2, d3 = f2 * s1 * s1 + f1 * s2, f3 * s1 * s1 * s1 + 3 * f2 * s1 * s2 + f1 * s3
    return Derivatives(log_weight, largest / along.unit, f1 * s1, d2, d3)


def _link(link: str, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log of the factor that is taken out, and `f', f'', f'''` without it."""
    one = torch.ones_like(s)
    if link == "exp":
        return s, one, one, one
    if link == "sigmoid":
        log_slope = logsigmoid(s) + logsigmoid(-s)
        return log_slope, one, -torch.tanh(s / 2), 1 - 6 * torch.exp(log_slope)
    return 0 * one, one, 0 * one, 0 * one


@dataclass(frozen=True)
class SoftmaxMargin:
    """What softmax needs of the logits, in the form that survives saturation.

    With `z = S_c - logsumexp_{j != c} S_j`: `p = sigmoid(z)`, `u = 1 - p`, `q_j = p_j / u`.

    Attributes:
        log_weight: `log(p u)`, `(rows,)`.
        complement: `u`, `(rows,)`.
        others: `q`, `(rows, classes)`, 0 for the target.
    """

    log_weight: Tensor
    complement: Tensor
    others: Tensor


def softmax_margin(logits: Tensor, target: Tensor) -> SoftmaxMargin:
    """Args: logits `(rows, classes)`; target, the column of each row's own class, `(rows,)`."""
    own = logits.gather(1, target[:, None])
    others = logits.scatter(1, target[:, None], -torch.inf)
    margin = own[:, 0] - others.logsumexp(1)
    return SoftmaxMargin(
        log_weight=logsigmoid(margin) + logsigmoid(-margin),
        complement=torch.sigmoid(-margin),
        others=others.softmax(1),
    )


def softmax_derivatives(margin: SoftmaxMargin, sums: PowerSums) -> Derivatives:
    """`Y = p = softmax(S)_c`: with `d_j = g_j - g_c` and `m_q = sum_{j != c} p_j d_j^q`,

    `D1 = -p m1`, `D2 = p (2 m1^2 - m2)`, `D3 = p (-6 m1^3 + 6 m1 m2 - m3)`. Here `m_q = u M_q`, and the common factor
    `p u` is the weight, which neither saturation nor float32 destroys.

    Args:
        margin: see `softmax_margin`.
        sums: `M_q`, the sums of `q_j d_j^q` over the other classes, `(rows, K, *space)`.
    """
    m1, m2, m3 = sums.sums
    u = per_row(margin.complement, m1)
    d2 = 2 * u * m1 * m1 - m2
    d3 = -6 * u * u * m1 * m1 * m1 + 6 * u * m1 * m2 - m3
    return Derivatives(margin.log_weight, sums.scale, -m1, d2, d3)
