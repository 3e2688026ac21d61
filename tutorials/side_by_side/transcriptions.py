"""The papers' formulas, and what the packages compute in their place, from the same activations and gradients.

Maps are `(H, W)`, after the papers' final ReLU. Nothing here calls a package.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Observed(NamedTuple):
    """What the network gives for `n` copies of one example.

    Attributes:
        scores: logit `S_m` of the class, `(n,)`.
        gradients: `g_m = dS/dA` at each copy, `(n, K, H, W)`.
        activations: `A` at each copy, `(n, K, H, W)`.
        clean: `A` without noise, `(K, H, W)`.
    """

    scores: Tensor
    gradients: Tensor
    activations: Tensor
    clean: Tensor


def observe(model: nn.Module, layer: nn.Module, clean: Tensor, copies: Tensor, target: int) -> Observed:
    """Run the clean example `(1, C, H, W)` and its copies `(n, C, H, W)` one at a time."""
    seen = [_observe_one(model, layer, copy[None], target) for copy in copies]
    activation = _observe_one(model, layer, clean, target)[2]
    scores, gradients, activations = map(torch.stack, zip(*seen, strict=True))
    return Observed(scores, gradients, activations, activation)


def _observe_one(model: nn.Module, layer: nn.Module, x: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        kept.append(output)

    handle = layer.register_forward_hook(keep)
    score = model(x)[0, target]
    handle.remove()
    gradient = torch.autograd.grad(score, kept[0])[0]
    return score.detach(), gradient[0], kept[0].detach()[0]


@dataclass(frozen=True)
class Variant:
    """Where a package departs from the papers' formula; the defaults are the formula.

    Attributes:
        undivided: alpha is `D_2`, which is divided by nothing.
        sum_of_products: `sum_ab (A_ab D_3ab)` in the denominator, for `D_3ij sum_ab A_ab`.
        last_gradient: `relu` of the last copy's gradient, for that of the mean `D_1`.
        last_activation: the map is made of the last copy's `A`, for the clean one.
        equal_copies: derivatives of `S` are averaged, for those of `Y = exp(S)`.
        epsilon: added to the denominator of alpha.
    """

    undivided: bool = False
    sum_of_products: bool = False
    last_gradient: bool = False
    last_activation: bool = False
    equal_copies: bool = False
    epsilon: float = 0.0

    def departures(self) -> list[str]:
        """The names of what departs."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    def mended(self, names: list[str]) -> Variant:
        """The same with some departures mended."""
        return replace(self, **{name: getattr(PAPER, name) for name in names})


PAPER = Variant()
TORCHCAM = Variant(undivided=True, sum_of_products=True, epsilon=1e-8)
TORCHCAM_SMOOTH = Variant(
    sum_of_products=True, last_gradient=True, last_activation=True, equal_copies=True, epsilon=1e-8
)
GRAD_CAM = Variant(epsilon=1e-6)


def class_map(observed: Observed, variant: Variant = PAPER) -> Tensor:
    """Smooth Grad-CAM++ (Grad-CAM++ eqs 5, 6, 19 with averaged derivatives); with one copy that is the clean example,
    Grad-CAM++. The common factor of `exp(S)` is left out: `e` has the mean 1."""
    n = len(observed.scores)
    g, a = observed.gradients, observed.clean
    log_mean = torch.logsumexp(observed.scores, 0) - math.log(n)
    e = torch.ones(n) if variant.equal_copies else torch.exp(observed.scores - log_mean)
    d1, d2, d3 = ((e.view(-1, 1, 1, 1).to(g) * g**p).mean(0) for p in (1, 2, 3))
    d1 = g[-1] if variant.last_gradient else d1
    third = (a * d3).sum((1, 2), keepdim=True) if variant.sum_of_products else d3 * a.sum((1, 2), keepdim=True)
    denominator = 2 * d2 + third + variant.epsilon
    alpha = d2 if variant.undivided else torch.where(d2 > 0, d2 / denominator, 0).nan_to_num(0, 0, 0)
    w = (alpha * d1.relu()).sum((1, 2), keepdim=True)
    return (w * (observed.activations[-1] if variant.last_activation else a)).sum(0).relu()


def mean_of_grad_cam_maps(observed: Observed) -> Tensor:
    """What `NoiseTunnel(LayerGradCam)` computes: the mean of the copies' finished maps."""
    weights = observed.gradients.mean((2, 3), keepdim=True)
    return (weights * observed.activations).sum(1).relu().mean(0)


def mean_of_plus_plus_maps(observed: Observed, clean_activation: bool = False) -> Tensor:
    """What `NoiseTunnel(LayerGradCamPlusPlus)` computes; with the clean `A` in every copy's map on request."""
    copies = zip(*observed[:3], strict=True)
    single = [Observed(s[None], g[None], a[None], a) for s, g, a in copies]
    if clean_activation:
        return torch.stack([_clean_map(copy, observed.clean) for copy in single]).mean(0)
    return torch.stack([class_map(copy) for copy in single]).mean(0)


def _clean_map(copy: Observed, clean: Tensor) -> Tensor:
    return class_map(Observed(copy.scores, copy.gradients, clean[None], copy.clean), Variant(last_activation=True))


def transcribed_slowly(observed: Observed) -> Tensor:
    """The papers' map again: nested loops over plain floats, from `Y = exp(S)`, one derivative of one neuron at a time.
    The largest logit is taken off all, which changes the scale only."""
    channels, height, width = observed.clean.shape
    gradients, a = observed.gradients.tolist(), observed.clean.tolist()
    top = float(observed.scores.max())
    y = [math.exp(score - top) for score in observed.scores.tolist()]
    result = torch.zeros(height, width, dtype=torch.float64)
    for k in range(channels):
        total, w = sum(map(sum, a[k])), 0.0
        for i, j in itertools.product(range(height), range(width)):
            g = [copy[k][i][j] for copy in gradients]
            d1 = sum(ym * gm for ym, gm in zip(y, g, strict=True)) / len(y)
            d2 = sum(ym * gm * gm for ym, gm in zip(y, g, strict=True)) / len(y)
            d3 = sum(ym * gm * gm * gm for ym, gm in zip(y, g, strict=True)) / len(y)
            denominator = 2 * d2 + d3 * total
            w += (d2 / denominator if denominator != 0 else 0.0) * max(d1, 0.0)
        result += w * observed.clean[k].double()
    return result.relu()


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance of the maps, each divided by its own norm first: 0 equal, sqrt(2) nothing in common."""
    return float((_unit(found) - _unit(expected)).norm())


def correlation(found: Tensor, expected: Tensor) -> float:
    """Pearson's, over the positions; NaN for a constant map."""
    pair = torch.stack([found.flatten().double(), expected.flatten().double()])
    return float(torch.corrcoef(pair)[0, 1])


def _unit(values: Tensor) -> Tensor:
    values = values.double()
    return values / values.norm() if values.norm() > 0 else values
