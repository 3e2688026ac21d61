"""The papers, transcribed: nested loops in float64, one example, one copy, one neuron at a time. Slow and obvious."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor, nn


def observe(
    model: Callable[..., Tensor],
    layer: nn.Module,
    row: tuple[Tensor, ...],
    target: int,
    classes: Sequence[int] = (),
    to_input: bool = False,
) -> tuple[Tensor, Tensor, dict[int, Tensor], Tensor]:
    """Activation, gradient of the target's logit, gradients of other logits, and the logits, at one example."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any = None) -> None:
        tensor = args[0] if to_input else output
        tensor.requires_grad_() if tensor.is_leaf else tensor.retain_grad()
        kept.append(tensor)

    with torch.enable_grad():
        handle = layer.register_forward_pre_hook(keep) if to_input else layer.register_forward_hook(keep)
        logits = model(*(x.clone().requires_grad_() for x in row))
        handle.remove()
        activation = kept[0]
        gradients = {
            j: torch.autograd.grad(logits[0, j], activation, retain_graph=True)[0][0] for j in {target, *classes}
        }
    return activation.detach()[0], gradients[target], gradients, logits.detach()[0]


def link_derivatives(
    link: str, target: int, logits: list[float], gradient: dict[int, Sequence[float]], place: int
) -> tuple[float, float, float]:
    """dY/dA, d2Y/dA2, d3Y/dA3 at one neuron, from the textbook; for `exp` without its factor exp(S)."""
    g = gradient[target][place]
    if link == "exp":
        return g, g**2, g**3
    if link == "sigmoid":
        s, rest = 1 / (1 + math.exp(-logits[target])), 1 / (1 + math.exp(logits[target]))
        rest_minus_s = -math.expm1(logits[target]) / (1 + math.exp(logits[target]))  # 1 - 2 s, also where s is near 1/2
        return s * rest * g, s * rest * rest_minus_s * g**2, s * rest * (1 - 6 * s * rest) * g**3
    # softmax by its cumulants: p' = p (g - mean), mean' = variance, variance' = third cumulant
    classes = list(gradient)
    top = max(logits[j] for j in classes)
    total = sum(math.exp(logits[j] - top) for j in classes)
    p = {j: math.exp(logits[j] - top) / total for j in classes}
    mean = sum(p[j] * gradient[j][place] for j in classes)
    variance = sum(p[j] * (gradient[j][place] - mean) ** 2 for j in classes)
    third = sum(p[j] * (gradient[j][place] - mean) ** 3 for j in classes)
    d = g - mean
    return p[target] * d, p[target] * (d**2 - variance), p[target] * (d**3 - 3 * d * variance - third)


def copy_weights(link: str, scores: list[float]) -> list[float]:
    """e_m = Y_m / mean_j Y_j with the factor that `link_derivatives` left out; exact for logits of any size."""
    if link == "softmax":
        return [1.0] * len(scores)
    if link == "sigmoid":
        slopes = [(1 / (1 + (-Decimal(s)).exp())) * (1 / (1 + Decimal(s).exp())) for s in scores]
        mean = sum(slopes) / len(scores)
        return [float(1 / mean)] * len(scores)  # link_derivatives has the slope s (1 - s) already
    values = [Decimal(s).exp() for s in scores]
    mean = sum(values) / len(values)
    return [float(value / mean) for value in values]


class PaperMap:
    """How close the last transcribed map came to a pole of alpha: the smallest |denominator| where D_1 > 0, divided by
    the magnitudes of its two terms. Rounding errors of the inputs grow by the inverse."""

    pole_distance = 1.0


def paper_map(
    activation: Tensor,
    scores: list[float],
    logits: list[list[float]],
    gradients: list[dict[int, Tensor]],
    target: int,
    link: str = "exp",
    maps: Callable[[int], bool] = lambda k: True,
    neurons: Callable[[tuple[int, ...]], bool] = lambda place: True,
    bound_alpha: bool = False,
    summed: bool = True,
    two_sided: bool = False,
) -> Tensor:
    """L (1, *space), or w_k A_kij (K, *space), of one example from what its noisy copies gave."""
    channels, space = activation.shape[0], tuple(activation.shape[1:])
    places = list(itertools.product(*(range(size) for size in space)))
    a = activation.double().reshape(channels, -1).tolist()
    g = [{j: v.double().reshape(channels, -1).tolist() for j, v in gradient.items()} for gradient in gradients]
    weights = copy_weights(link, scores)
    result = [[0.0] * len(places) for _ in range(channels)]
    pole_distance = 1.0
    for k in range(channels):
        if not maps(k):
            continue
        total = sum(a[k])
        w = 0.0
        for number, place in enumerate(places):
            d1 = d2 = d3 = 0.0
            for m, weight in enumerate(weights):
                here = {j: rows[k] for j, rows in g[m].items()}
                y1, y2, y3 = link_derivatives(link, target, logits[m], here, number)
                d1 += weight * y1 / len(weights)
                d2 += weight * y2 / len(weights)
                d3 += weight * y3 / len(weights)
            if two_sided:
                if neurons(place):
                    w += two_sided_alpha(d2, d3, total) * d1
                continue
            denominator = 2 * d2 + d3 * total
            alpha = d2 / denominator if denominator != 0 else 0.0
            if d1 > 0 and denominator != 0:
                pole_distance = min(pole_distance, abs(denominator) / (abs(2 * d2) + abs(d3 * total)))
            if bound_alpha:
                alpha = min(max(alpha, 0.0), 0.5)
            if neurons(place):
                w += alpha * max(d1, 0.0)
        for number, place in enumerate(places):
            if neurons(place):
                result[k][number] = w * a[k][number]
    full = torch.tensor(result, dtype=torch.float64).reshape(channels, *space)
    PaperMap.pole_distance = pole_distance
    return full.sum(0, keepdim=True) if summed else full


def two_sided_alpha(d2: float, d3: float, total: float) -> float:
    """1 / (2 + |D_3 sum A / D_2|), and 0 where D_2 is 0."""
    return 0.0 if d2 == 0 else 1 / (2 + abs(d3 * total / d2))


def reference_map(
    model: Callable[..., Tensor],
    layer: nn.Module,
    clean: tuple[Tensor, ...],
    copies: list[tuple[Tensor, ...]],
    target: int,
    link: str = "exp",
    classes: Sequence[int] = (),
    to_input: bool = False,
    **options: Any,
) -> Tensor:
    """The papers' map of one example: `clean` and `copies` are tuples of inputs with a first dimension of 1."""
    classes = classes if link == "softmax" else ()
    activation = observe(model, layer, clean, target, to_input=to_input)[0]
    seen = [observe(model, layer, copy, target, classes, to_input) for copy in copies]
    logits = [rows[3].double().tolist() for rows in seen]
    gradients = [rows[2] if link == "softmax" else {target: rows[1]} for rows in seen]
    return paper_map(activation, [row[target] for row in logits], logits, gradients, target, link, **options)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Relative L2 error."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def stencil_derivatives(
    phi: Callable[[Tensor], Tensor], at: Tensor, entry: tuple[int, ...], step: float
) -> tuple[float, float, float]:
    """phi', phi'', phi''' along one entry by central differences over 11 points, in float64.

    `phi` takes a batch of points shaped like `at` and gives one number for each.
    """
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    points = at.double().repeat(11, *(1,) * at.dim())
    points[(slice(None), *entry)] += step * offsets
    with torch.no_grad():
        values = phi(points)
    powers = offsets[None, :] ** torch.arange(11, dtype=torch.float64)[:, None]
    found = []
    for p in (1, 2, 3):
        wanted = torch.zeros(11, dtype=torch.float64)
        wanted[p] = math.factorial(p) / step**p
        found.append(float(torch.linalg.solve(powers, wanted) @ values))
    return found[0], found[1], found[2]


def map_from_derivatives(
    activation: Tensor, derivatives: Callable[[tuple[int, ...]], Sequence[float]], two_sided: bool = False
) -> Tensor:
    """L (1, *space) of one example from D_1, D_2, D_3 at every entry."""
    channels, space = activation.shape[0], tuple(activation.shape[1:])
    result = torch.zeros(1, *space, dtype=torch.float64)
    for k in range(channels):
        total, w = float(activation[k].sum()), 0.0
        for place in itertools.product(*(range(size) for size in space)):
            d1, d2, d3 = derivatives((k, *place))
            if two_sided:
                w += two_sided_alpha(d2, d3, total) * d1
                continue
            denominator = 2 * d2 + d3 * total
            w += (d2 / denominator if denominator != 0 else 0.0) * max(d1, 0.0)
        result[0] += w * activation[k].double()
    return result


def link_of(score: Any, logits: Tensor, target: int) -> Tensor:
    """Y of every row."""
    picked = logits[:, target]
    if score == "identity":
        return picked
    if isinstance(score, str):
        return {"exp": picked.exp(), "sigmoid": picked.sigmoid(), "softmax": logits.softmax(1)[:, target]}[score]
    if hasattr(score, "classes"):
        classes = [target, *score.classes]
        return logits[:, classes].softmax(1)[:, 0]
    return score(picked)


def stencil_map(
    head: Callable[[Tensor], Tensor],
    layer: Callable[[Tensor], Tensor],
    rows: Tensor,
    target: int,
    score: Any,
    step: float = 0.05,
    two_sided: bool = False,
) -> Tensor:
    """The map of one example by finite differences, up to a factor: its clean row and then its copies."""
    with torch.no_grad():
        clean, *copies = layer(rows)
    if not copies:
        copies = [clean]

    def mean(entry: tuple[int, ...]) -> list[float]:
        found = [stencil_derivatives(lambda a: link_of(score, head(a), target), a, entry, step) for a in copies]
        return [sum(values) / len(values) for values in zip(*found, strict=True)]

    return map_from_derivatives(clean, mean, two_sided)
