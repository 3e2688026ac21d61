"""From averaged derivatives to the map: alpha, the weights of the feature maps, the map (Grad-CAM++ eqs 10 to 19).

Pure tensor functions. Shapes: activation and derivatives `(N, K, *space)`, `space` of any number of dimensions, also
none (a linear layer).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu


def sum_space(maps: Tensor) -> Tensor:
    """Sum over the positions of every feature map, dimensions kept: `(N, K, 1, ...)`."""
    return maps.sum(tuple(range(2, maps.dim())), keepdim=True) if maps.dim() > 2 else maps


def alpha_coefficients(d2: Tensor, d3: Tensor, activation: Tensor) -> Tensor:
    r"""`alpha = D_2 / (2 D_2 + D_3 * sum_ab A_ab)`, and 0 where the denominator is exactly 0 (eq 19).

    Args:
        d2, d3: second and third derivative, `(N, K, *space)`.
        activation: `A` at the clean input, the same shape.

    Returns:
        Tensor of the same shape. Within [0, 1/2] for one sample with `A >= 0` and a positive gradient; of any size and
        sign otherwise.
    """
    denominator = 2 * d2 + d3 * sum_space(activation)
    defined = denominator != 0
    return torch.where(defined, d2 / torch.where(defined, denominator, 1), 0)


def feature_map_weights(alpha: Tensor, d1: Tensor, selected: Tensor | None = None) -> Tensor:
    """`w_k = sum_ij alpha_kij * relu(D_1)_kij` over the selected neurons (eq 5): `(N, K, 1, ...)`."""
    terms = alpha * relu(d1)
    return sum_space(terms if selected is None else terms * selected)


def weighted_maps(weights: Tensor, activation: Tensor, selected: Tensor | None = None) -> Tensor:
    """`w_k * A_kij`, 0 outside the selection: `(N, K, *space)`. Its sum over k is the class map (eq 6)."""
    maps = weights * activation
    return maps if selected is None else maps * selected
