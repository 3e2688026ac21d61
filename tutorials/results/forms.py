"""The forms that were tried: Grad-CAM++ with another sign, alpha, score, average or ReLU.

All take the activation `A` at the clean input and gradients at noisy samples, and give one map. One example, float64.

    g_m   = d(S_c - b log sum_{j != c} exp(S_j)) / dA    at sample m, of score s_m      (b = 0: logit, b = 1: log-odds)
    e_m   = exp(s_m) / mean_j exp(s_j)
    D_p   = mean_m e_m g_m^p
    alpha = |D_2| / (2 |D_2| + t |D_3| |sum A|)                                         (t = 0: 1/2, t = 1: two-sided)
    v     = alpha * (relu(D_1) - l * relu(-D_1))                            (l = 0: as the papers, l = 1: both signs)
    L_ij  = sum_k (sum_ab v_kab) A_kij, or pixelwise: sum_k v_kij A_kij
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu

Stored = dict[str, Any]  # what `form_samples.derivatives` stores of one picture


@dataclass(frozen=True)
class Form:
    """One way to a map.

    Attributes:
        others: `b`, how much the other classes count against the class.
        noisy: average over noisy samples, else the clean input alone.
        negative: `l`, how much negative gradients count.
        alpha: `two-sided`, `papers` (eq 19, with poles), or `bounded` (eq 19 clamped to [0, 1/2]).
        strength: `t`. Infinity leaves `|D_2| / (|D_3| |sum A|)`.
        pixelwise: the weights are not summed over the positions.
        average: of the `derivatives`, as the papers; of the finished `weights` of every sample; or of the derivatives
            of each `sign` apart.
        weighted: samples count by `e_m`, else all alike.
        relu: the last ReLU, before the map is scaled to [0, 1].
    """

    others: float = 0.0
    noisy: bool = False
    negative: float = 1.0
    alpha: str = "two-sided"
    strength: float = 1.0
    pixelwise: bool = False
    average: str = "derivatives"
    weighted: bool = True
    relu: bool = True


def map_of(form: Form, stored: Stored) -> Tensor:
    """`(h, w)`."""
    a = stored["a"].double()
    values = _values(form, stored, a.sum((1, 2), keepdim=True))
    if not form.pixelwise:
        values = values.expand(a.shape).sum((1, 2), keepdim=True)
    found = (values * a).sum(0)
    return relu(found) if form.relu else found


def _values(form: Form, stored: Stored, total: Tensor) -> Tensor:
    """`v`, `(K, h, w)`, or `(K, 1, 1)` where the gradient is the same at all positions."""
    g, e = _samples(form, stored)
    if form.average == "weights":
        each = [_alpha(form, row**2, row**3, total) * _signed(form, row) for row in g]
        return (e * torch.stack(each)).mean(0)
    if form.average == "signs":
        positive, negative = (_alpha_times_first(form, e, relu(part), total) for part in (g, -g))
        return positive - form.negative * negative
    d1, d2, d3 = _moments(e, g)
    return _alpha(form, d2, d3, total) * _signed(form, d1)


def _samples(form: Form, stored: Stored) -> tuple[Tensor, Tensor]:
    """`g_m` `(n, K, ...)` and `e_m` `(n, 1, 1, 1)`. The first stored row is the clean one."""
    rows = slice(1, None) if form.noisy else slice(0, 1)
    g = (stored["gc"] - form.others * stored["go"])[rows].double()
    score = (stored["sc"] - form.others * stored["so"])[rows]
    e = torch.exp(score - score.max()) if form.weighted else torch.ones_like(score)
    return g, (e / e.mean()).reshape(-1, 1, 1, 1)


def _moments(e: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (e * g).mean(0), (e * g**2).mean(0), (e * g**3).mean(0)


def _alpha_times_first(form: Form, e: Tensor, g: Tensor, total: Tensor) -> Tensor:
    d1, d2, d3 = _moments(e, g)
    return _alpha(form, d2, d3, total) * d1


def _alpha(form: Form, d2: Tensor, d3: Tensor, total: Tensor) -> Tensor:
    last = d3 * total
    if form.alpha == "two-sided":
        last = last.abs()
    below = last if math.isinf(form.strength) else 2 * d2 + form.strength * last
    found = torch.where(below != 0, d2 / torch.where(below != 0, below, 1), 0)
    return found.clamp(0, 0.5) if form.alpha == "bounded" else found


def _signed(form: Form, d1: Tensor) -> Tensor:
    return relu(d1) - form.negative * relu(-d1)


GRAD_CAM, GRAD_CAM_PLUS_PLUS, TWO_SIDED_SMOOTH = "Grad-CAM (alpha = 1/2)", "Grad-CAM++", "two-sided smooth"
BASE = {
    GRAD_CAM: Form(strength=0),
    GRAD_CAM_PLUS_PLUS: Form(negative=0, alpha="papers"),
    "two-sided": Form(),
    TWO_SIDED_SMOOTH: Form(noisy=True),
}
_SIGNED = dict(strength=0.0, relu=False)
# Where only global pooling and a linear score follow. Their confidence is measured, too.
SHORT = BASE | {
    "l = 1.1, alpha = 1/2, no last ReLU": Form(negative=1.1, **_SIGNED),
    "l = 1.25, alpha = 1/2, no last ReLU": Form(negative=1.25, **_SIGNED),
    "l = 1.5, alpha = 1/2, no last ReLU": Form(negative=1.5, **_SIGNED),
    "l = 2, alpha = 1/2, no last ReLU": Form(negative=2, **_SIGNED),
    "l = 1.25": Form(negative=1.25),
    "log-odds": Form(others=1),
    "log-odds, smooth": Form(others=1, noisy=True),
    "pixelwise, smooth": Form(noisy=True, pixelwise=True),
}
POOLED = SHORT | {
    **{f"l = {v}, alpha = 1/2": Form(negative=v, strength=0) for v in (0.75, 1.1, 1.25, 1.5)},
    **{f"l = {v}": Form(negative=v) for v in (0, 0.5, 0.75, 0.9)},
    **{f"t = {v}": Form(strength=v) for v in (8, math.inf)},
    **{f"b = {v}": Form(others=v) for v in (0.25, 0.5)},
    "no last ReLU": Form(relu=False),
    "eq 19 without the ReLU": Form(alpha="papers"),
    "eq 19, bounded, without the ReLU": Form(alpha="bounded"),
    "smooth, mean of the weights": Form(noisy=True, average="weights"),
    "smooth, signs apart": Form(noisy=True, average="signs"),
    "smooth, samples alike": Form(noisy=True, weighted=False),
    "log-odds, l = 0": Form(others=1, negative=0),
    "log-odds, l = 0.75": Form(others=1, negative=0.75),
    "log-odds, alpha = 1/2": Form(others=1, strength=0),
    "log-odds, t = inf": Form(others=1, strength=math.inf),
    "log-odds, smooth, no last ReLU": Form(others=1, noisy=True, relu=False),
    "log-odds, smooth, samples alike": Form(others=1, noisy=True, weighted=False),
    "log-odds, pixelwise, smooth": Form(others=1, noisy=True, pixelwise=True),
}
# Where more layers follow, so that the gradient depends on the position.
SPATIAL = BASE | {
    "Smooth Grad-CAM++": Form(noisy=True, negative=0, alpha="papers"),
    "HiResCAM": Form(strength=0, pixelwise=True),
    "LayerCAM": Form(strength=0, negative=0, pixelwise=True),
    "LayerCAM, smooth": Form(noisy=True, strength=0, negative=0, pixelwise=True),
    "log-odds, HiResCAM": Form(others=1, strength=0, pixelwise=True),
    "pixelwise": Form(pixelwise=True),
    "pixelwise, smooth": Form(noisy=True, pixelwise=True),
    "pixelwise, smooth, alpha = 1/2": Form(noisy=True, pixelwise=True, strength=0),
    "pixelwise, smooth, l = 0, eq 19": Form(noisy=True, pixelwise=True, negative=0, alpha="papers"),
    "pixelwise, smooth, samples alike": Form(noisy=True, pixelwise=True, weighted=False),
    "pixelwise, smooth, mean of the weights": Form(noisy=True, pixelwise=True, average="weights"),
    "pixelwise, smooth, no last ReLU": Form(noisy=True, pixelwise=True, relu=False),
    "smooth, alpha = 1/2": Form(noisy=True, strength=0),
    "smooth, samples alike": Form(noisy=True, weighted=False),
    "smooth, mean of the weights": Form(noisy=True, average="weights"),
    "smooth, signs apart": Form(noisy=True, average="signs"),
    "smooth, eq 19, bounded, without the ReLU": Form(noisy=True, alpha="bounded"),
    "smooth, l = 0.5": Form(noisy=True, negative=0.5),
    "smooth, l = 0.75": Form(noisy=True, negative=0.75),
    "smooth, no last ReLU": Form(noisy=True, relu=False),
    "log-odds, smooth": Form(others=1, noisy=True),
    "log-odds, pixelwise, smooth": Form(others=1, noisy=True, pixelwise=True),
}
