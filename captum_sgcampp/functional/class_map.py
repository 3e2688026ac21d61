"""From averaged derivatives to the map: alpha, the weights of the feature maps, the map.

To be read with the papers open: Grad-CAM++ (arXiv 1710.11063), eqs 5, 10, 19 and 20; Smooth Grad-CAM++ (1908.01224)
puts averages over noisy samples in the place of the derivatives.
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
    """

    bound_alpha: bool = False
    sum_feature_maps: bool = True
    relu: bool = False


class ClassMap(NamedTuple):
    """What the formula gives.

    Attributes:
        alpha: `(N, K, *space)`, not clamped.
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

    Args:
        activation: `A` at the clean input, `(N, K, *space)`.
        derivatives: `D_1, D_2, D_3`, the same shape.
        selected: bool tensor that broadcasts to it: which neurons and feature maps the sums in `w` and `L` run over.
        options: default `MapOptions()`.

    Returns:
        *ClassMap*.
    """
    options = options or MapOptions()
    # D_p are scaled by 1 / scale^p, so the equations hold for them with scale * A in the place of A.
    d1, d2, d3, scale, level = derivatives
    scale = per_row(scale, activation)
    a = scale * activation

    alpha = alpha_coefficients(d2, d3, a)
    w = sum_space(_inside(selected, (alpha.clamp(0, 0.5) if options.bound_alpha else alpha) * relu(d1)))
    w = w * per_row(level, a)
    maps = _inside(selected, w * a)

    if options.sum_feature_maps:
        maps = maps.sum(1, keepdim=True)
    return ClassMap(alpha, w * scale, relu(maps) if options.relu else maps)


def alpha_coefficients(d2: Tensor, d3: Tensor, activation: Tensor) -> Tensor:
    r"""`alpha = D_2 / (2 D_2 + D_3 * sum_ab A_ab)`, and 0 where the denominator is exactly 0 (eq 19).

    Args:
        d2, d3: second and third derivative, `(N, K, *space)`.
        activation: `A` at the clean input, the same shape.

    Returns:
        Tensor of the same shape. Within [0, 1/2] for one sample with `A >= 0` and a positive gradient. Of any size and
        sign otherwise: near a zero of the denominator it has a pole.
    """
    denominator = 2 * d2 + d3 * sum_space(activation)
    defined = denominator != 0
    return torch.where(defined, d2 / torch.where(defined, denominator, 1), 0)


def _inside(selected: Tensor | None, values: Tensor) -> Tensor:
    return values if selected is None else values * selected
