"""What the noisy copies say of the map: how many counted, how sure it is, how much of it comes from poles of alpha."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu

from captum_sgcampp.functional.moments import ratio

# The jackknife leaves out one of at most this many groups of copies at a time, so its memory does not grow with n.
JACKKNIFE_GROUPS = 10


@dataclass(frozen=True, eq=False)
class SamplingStatistics:
    """Per-example statistics of one Smooth Grad-CAM++ map; every field is a tensor `(N,)`.

    Attributes:
        nt_samples: noisy copies used (int64).
        effective_sample_size: `(sum_m e_m)^2 / sum_m e_m^2` of the copies' weights `e_m` (`exp(S_m)` for the score
            link `exp`, `s (1 - s)` for `sigmoid`, `p (1 - p)` for `softmax`), from 1 to `nt_samples`.
            Near 1, a single copy decides the map.
        standard_error: standard error of the map divided by its L2 norm: the root of the summed variances of its
            entries, by a delete-a-group jackknife over the copies. 0.03 says that another draw of the noise
            gives a map about 3 % away from the limit. NaN for fewer than 2 copies.
        pole_share: share of the selected positions with `D_1 > 0` whose alpha lies outside [0, 1/2].
        pole_weight_share: their share of the sum of `|alpha * relu(D_1)|`. Near 0 the weights are what the paper's
            derivation promises; where it is large, poles of alpha decide the map (try `bound_alpha=True`).
    """

    nt_samples: Tensor
    effective_sample_size: Tensor
    standard_error: Tensor
    pole_share: Tensor
    pole_weight_share: Tensor


def pole_shares(alpha: Tensor, d1: Tensor, selected: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The share of positions with `D_1 > 0` whose alpha lies outside [0, 1/2], and their share of `|alpha relu(D_1)|`.

    Args:
        alpha: the formula's alpha, not clamped, `(N, K, *space)`.
        d1: `D_1`, the same shape.
        selected: bool tensor that broadcasts to it; positions outside do not count.

    Returns:
        Two tensors `(N,)`; 0 where no position has `D_1 > 0`.
    """
    counted = d1 > 0 if selected is None else (d1 > 0) & selected
    outside = counted & ((alpha < 0) | (alpha > 0.5))
    weight = (alpha * relu(d1)).abs()
    return _share(outside.to(d1.dtype), counted.to(d1.dtype)), _share(weight * outside, weight * counted)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return ratio(part.flatten(1).sum(1), whole.flatten(1).sum(1))


def jackknife_standard_error(whole: Tensor, without: list[Tensor], copies: int) -> Tensor:
    """Standard error of a map divided by its L2 norm, from the maps without each group of copies.

    Groups of unequal sizes are weighted as in Busing, Meijer and van der Leeden (1999), "Delete-m jackknife for unequal
    m"; with one copy in each group this is the ordinary jackknife. The scale of the map is biased in the number of
    copies and is of no interest, hence the norm.

    Args:
        whole: map of all copies, `(N, ...)`.
        without: for each group, the map without its copies, of any positive scale.
        copies: number of copies; copy m belongs to group `m % len(without)`.

    Returns:
        Tensor `(N,)`; NaN for fewer than two groups.
    """
    groups = len(without)
    if groups < 2:
        return whole.new_full((len(whole),), torch.nan)
    full = of_norm_one(whole)
    shares = [copies / len(range(g, copies, groups)) for g in range(groups)]
    pseudo = [h * full - (h - 1) * of_norm_one(part) for h, part in zip(shares, without, strict=True)]
    centre = sum(value / h for value, h in zip(pseudo, shares, strict=True))
    squares = sum((value - centre).square().sum(1) / (h - 1) for value, h in zip(pseudo, shares, strict=True))
    assert isinstance(squares, Tensor)
    return (squares / groups).sqrt()


def relative_norm(part: Tensor, whole: Tensor) -> Tensor:
    """L2 norm of `part` divided by that of `whole`, for each example `(N,)`; 0 where both are 0."""
    largest = whole.flatten(1).abs().amax(1, keepdim=True)  # squares of small numbers would vanish
    size = torch.where(largest > 0, largest, 1)
    above, below = ((values.flatten(1) / size).norm(dim=1) for values in (part, whole))
    return torch.where(above > 0, above / below, 0)


def of_norm_one(maps: Tensor) -> Tensor:
    """Each example's map divided by its L2 norm, flattened: `(N, ...)` to `(N, M)`; a map of zeros stays so."""
    flat = maps.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)  # squares of small maps would vanish
    flat = flat / torch.where(largest > 0, largest, 1)
    norm = flat.norm(dim=1, keepdim=True)
    return flat / torch.where(norm > 0, norm, 1)
