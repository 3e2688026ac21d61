"""Shared idioms: shapes, scales and norms of tensors `(N, K, *space)`, `space` of any number of dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """`values` with trailing dimensions of size 1 up to those of `like`."""
    return values.reshape(*values.shape, *(1,) * (like.dim() - values.dim()))


def sum_space(maps: Tensor) -> Tensor:
    """Sum over the positions of every feature map, dimensions kept: `(N, K, 1, ...)`."""
    return maps.sum(tuple(range(2, maps.dim())), keepdim=True) if maps.dim() > 2 else maps


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, 0 where the whole is not positive."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1), 0)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit_scaled(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """`gradient` (rows, ...) divided by each row's largest magnitude, and those magnitudes `(rows,)`."""
    scale = gradient.reshape(len(gradient), -1).abs().amax(1)
    return gradient / per_row(torch.where(scale > 0, scale, 1), gradient), scale


def of_norm_one(maps: Tensor) -> Tensor:
    """Each example's map divided by its L2 norm, flattened: `(N, ...)` to `(N, M)`; a map of zeros stays so."""
    flat = unit_scaled(maps.flatten(1))[0]  # squares of small maps would vanish
    norm = flat.norm(dim=1, keepdim=True)
    return flat / torch.where(norm > 0, norm, 1)


def relative_norm(part: Tensor, whole: Tensor) -> Tensor:
    """L2 norm of `part` divided by that of `whole`, for each example `(N,)`; 0 where both are 0."""
    largest = whole.flatten(1).abs().amax(1, keepdim=True)  # squares of small numbers would vanish
    size = torch.where(largest > 0, largest, 1)
    above, below = ((values.flatten(1) / size).norm(dim=1) for values in (part, whole))
    return torch.where(above > 0, above / below, 0)
