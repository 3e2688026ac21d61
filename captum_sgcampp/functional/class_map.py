"""From averaged derivatives to the map: alpha, the weights of the feature maps, the map.

Read it with the papers open: Grad-CAM++ (arXiv 1710.11063), eqs 5, 10, 19 and 20. Smooth Grad-CAM++ (1908.01224)
replaces the derivatives by averages over noisy samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu

from captum_sgcampp.functional.moments import MeanDerivatives
from captum_sgcampp.functional.tensors import per_row, sum_space


@dataclass(frozen=True)
class MapOptions:
    """How derivatives become a map.

    Attributes:
        bound_alpha: clamp alpha to [0, 1/2].
        sum_feature_maps: sum over k.
        relu: the papers' final ReLU.
        two_sided: weights from gradients of both signs.
    """

    bound_alpha: bool = False
    sum_feature_maps: bool = True
    relu: bool = False
    two_sided: bool = False


class ClassMap(NamedTuple):
    """What the formula gives.

    Attributes:
        alpha: `(N, K, *space)`, not clamped; two-sided where that is asked for.
        weights: `w`, `(N, K, 1, ...)`.
        maps: `L`, `(N, 1, *space)`, or `w_k A_kij`, `(N, K, *space)`, where the feature maps are not summed.
    """

    alpha: Tensor
    weights: Tensor
    maps: Tensor


def class_map(
    activation: Tensor, derivatives: MeanDerivatives, selected: Tensor | None = None, options: MapOptions | None = None
) -> ClassMap:
    r"""The class map of every example.

        alpha = D_2 / (2 D_2 + D_3 * sum_ab A_ab)     (eq 19; 0 where the denominator is exactly 0)
        w_k   = sum_ij alpha_kij * relu(D_1)_kij      (eq 5)
        L_ij  = sum_k w_k A_kij                       (eq 20, whose ReLU is applied on request)

    Two-sided weights have no ReLU, and an alpha without poles (see `alpha_coefficients`):

        alpha = |D_2| / (2 |D_2| + |D_3| * |sum_ab A_ab|)
        w_k   = sum_ij alpha_kij * D_1_kij

    Args:
        activation: `A` at the clean input, `(N, K, *space)`.
        derivatives: `D_1, D_2, D_3`, the same shape.
        selected: bool tensor that broadcasts to it: which neurons and feature maps the sums in `w` and `L` run over.
        options: default `MapOptions()`.

    Returns:
        *ClassMap*.
    """
    options = options or MapOptions()
    # D_p are scaled by 1 / scale^p, so the equations hold for them with scale * A for A.
    d1, d2, d3, scale, level = derivatives
    scale = per_row(scale, activation)
    a = scale * activation

    alpha = alpha_coefficients(d2, d3, a, options.two_sided)
    bounded = alpha.clamp(0, 0.5) if options.bound_alpha else alpha
    w = sum_space(_inside(selected, bounded * (d1 if options.two_sided else relu(d1))))
    w = w * per_row(level, a)
    maps = _inside(selected, w * a)

    if options.sum_feature_maps:
        maps = maps.sum(1, keepdim=True)
    return ClassMap(alpha, w * scale, relu(maps) if options.relu else maps)


def alpha_coefficients(d2: Tensor, d3: Tensor, activation: Tensor, two_sided: bool = False) -> Tensor:
    r"""`alpha = D_2 / (2 D_2 + D_3 * sum_ab A_ab)`, and 0 where the denominator is exactly 0 (eq 19).

    With `r = D_3 * sum_ab A_ab / D_2` this is `alpha = 1 / (2 + r)`, with a pole at `r = -2`. The two-sided alpha is
    `1 / (2 + |r|) = |D_2| / (2 |D_2| + |D_3| * |sum_ab A_ab|)`. It is eq 19 where `r >= 0`, lies in [0, 1/2], and does
    not depend on the signs of the score, the gradient and the feature map. It takes `|D_2|`: a negative `D_2` in the
    numerator (sigmoid and softmax above 1/2) would make evidence for the class count against it.

    Args:
        d2, d3: second and third derivative, `(N, K, *space)`.
        activation: `A` at the clean input, the same shape.
        two_sided: whether magnitudes are taken.

    Returns:
        Tensor of the same shape: in [0, 1/2] for one sample with `A >= 0` and a positive gradient, and always where it
        is two-sided. Otherwise alpha can have poles: positions where the denominator is near 0 and alpha leaves
        [0, 1/2].
    """
    total = sum_space(activation)
    if two_sided:
        d2, d3, total = d2.abs(), d3.abs(), total.abs()
    denominator = 2 * d2 + d3 * total
    defined = denominator != 0
    return torch.where(defined, d2 / torch.where(defined, denominator, 1), 0)


def _inside(selected: Tensor | None, values: Tensor) -> Tensor:
    return values if selected is None else values * selected
