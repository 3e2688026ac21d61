"""Rank correlation."""

from __future__ import annotations

import torch
from torch import Tensor


def average_ranks(values: Tensor) -> Tensor:
    r"""
    Ranks from 1; equal values share the mean of their ranks.

    Args:

        values (Tensor): `(N, n)`.

    Returns:
        *Tensor*: `(N, n)`, float64. NaN for an example that holds a NaN.

    Examples::

        >>> average_ranks(torch.tensor([[3.0, 1.0, 3.0]]))
        tensor([[2.5000, 1.0000, 2.5000]], dtype=torch.float64)
    """
    ordered, order = values.sort(1)
    changes = (ordered[:, 1:] != ordered[:, :-1]).long().cumsum(1)
    run = torch.cat([torch.zeros_like(order[:, :1]), changes], 1)  # number of the run of equal values
    ranks = torch.arange(1, values.shape[1] + 1, dtype=torch.float64, device=values.device).expand(values.shape)
    total = torch.zeros_like(ranks).scatter_add(1, run, ranks)
    count = torch.zeros_like(ranks).scatter_add(1, run, torch.ones_like(ranks))
    shared = torch.zeros_like(ranks).scatter(1, order, (total / count.clamp_min(1)).gather(1, run))
    return shared.masked_fill(values.isnan().any(1, keepdim=True), torch.nan)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    r"""
    Spearman's rank correlation of each example's values, ties averaged.

    Args:

        a, b (Tensor): Maps of the same shape, `(N, ...)`.

    Returns:
        *Tensor*: `(N,)`, from -1 to 1, float64; NaN where one of the two has only one value or holds a NaN.

    Examples::

        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 30.0, 20.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    if a.shape != b.shape or a.dim() < 2:
        raise ValueError(f"a, b: expected maps of one shape (N, ...), found {tuple(a.shape)} and {tuple(b.shape)}")
    x, y = (average_ranks(values.flatten(1)) for values in (a, b))
    x, y = (ranks - ranks.mean(1, keepdim=True) for ranks in (x, y))
    norms = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(norms > 0, (x * y).sum(1) / norms, torch.nan)
