"""What the noisy samples tell about a map: how many counted, its standard error, its share from poles of alpha."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu

from captum_sgcampp.functional.class_map import MapOptions, class_map
from captum_sgcampp.functional.moments import MeanDerivatives, MomentSums
from captum_sgcampp.functional.tensors import of_norm_one, ratio

# The jackknife leaves out one of at most this many groups of samples at a time, so its memory does not grow with n.
JACKKNIFE_GROUPS = 10
# Gradients are equal where they differ by less than the root of this, 0.3 % of the largest. Sums in float32 need that.
EQUAL = 1e-5


@dataclass(frozen=True, eq=False)
class SamplingStatistics:
    """Per-example statistics of one Smooth Grad-CAM++ map; every field is a tensor `(N,)`.

    Attributes:
        nt_samples: number of noisy samples (int64).
        effective_sample_size: `(sum_m e_m)^2 / sum_m e_m^2`, from 1 to `nt_samples`. The weights `e_m` of the samples
            are `exp(S_m)` for the score function `exp`, `s (1 - s)` for `sigmoid`, `p (1 - p)` for `softmax`.
            Near 1, a single sample decides the map, and the standard error has less than one degree of freedom:
            do not trust it. `nt_samples="auto"` therefore goes on until 2. More samples help slowly, since the weights
            are exponential in the logit. Less noise helps.
        standard_error: standard error of the map divided by its L2 norm: the root of the summed variances of its
            entries, by a delete-a-group jackknife over the samples. At 0.03, other noise gives a map about 3 % away
            from the limit. NaN for fewer than 2 samples. Its mean square is right or too large, but for
            poles of alpha. A single call can report half of the real spread, where few samples count (measured in
            tutorials/method.md).
        pole_share: share of the selected positions with `D_1 > 0` whose alpha lies outside [0, 1/2].
        pole_weight_share: their share of the sum of `|alpha * relu(D_1)|`. Near 0, the weights are what the paper
            derives. Where it is large, poles of alpha decide the map (try `bound_alpha=True`). Both shares are 0 with
            `two_sided=True`.
    """

    nt_samples: Tensor
    effective_sample_size: Tensor
    standard_error: Tensor
    pole_share: Tensor
    pole_weight_share: Tensor


def pole_shares(alpha: Tensor, d1: Tensor, selected: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The statistics `pole_share` and `pole_weight_share`.

    Args:
        alpha: the formula's alpha, not clamped, `(N, K, *space)`.
        d1: `D_1`, the same shape.
        selected: bool tensor that broadcasts to it. Positions outside do not count.

    Returns:
        Two tensors `(N,)`; 0 where no position has `D_1 > 0`.
    """
    counted = d1 > 0 if selected is None else (d1 > 0) & selected
    outside = counted & ((alpha < 0) | (alpha > 0.5))
    weight = (alpha * relu(d1)).abs()
    return _share(outside.to(d1.dtype), counted.to(d1.dtype)), _share(weight * outside, weight * counted)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return ratio(part.flatten(1).sum(1), whole.flatten(1).sum(1))


def has_equal_gradients(derivatives: MeanDerivatives, effective_sizes: Tensor) -> Tensor:
    """Whether all noisy samples of an example had the same gradient, up to rounding, so that averaging changes nothing.

    With the score function `exp`, `D_p` is the mean of `g^p` under the weights of the samples, and `D_2 - D_1^2` their
    variance. One sample with all the weight has none either, and tells nothing of the others.

    Args:
        derivatives: `D_1, D_2, D_3`, `(N, K, *space)`.
        effective_sizes: the effective sample size, `(N,)`.

    Returns:
        Bool tensor `(N,)`.
    """
    d1, d2 = derivatives.d1.flatten(1), derivatives.d2.flatten(1)
    variance, square = (d2 - d1.square()).abs().amax(1), d2.amax(1)
    return (effective_sizes > 1.01) & (square > 0) & (variance <= EQUAL * square)


def standard_error(
    activation: Tensor, moments: MomentSums, selected: Tensor | None = None, options: MapOptions | None = None
) -> Tensor:
    """Standard error of each example's map divided by its L2 norm, `(N,)`: see `jackknife_standard_error`.

    Args:
        activation, selected, options: as in `class_map`.
        moments: with groups.
    """

    def maps(derivatives: MeanDerivatives) -> Tensor:
        return class_map(activation, derivatives, selected, options).maps

    groups = min(moments.groups, int(moments.copies.max()))
    without = [maps(derivatives) for derivatives in moments.means_without_groups(groups)]
    return jackknife_standard_error(maps(moments.mean()), without, moments.copies)


def jackknife_standard_error(whole: Tensor, without: list[Tensor], copies: Tensor) -> Tensor:
    """Standard error of a map divided by its L2 norm, from the maps without each group of samples.

    Groups of unequal sizes are weighted as in Busing, Meijer and van der Leeden (1999), "Delete-m jackknife for unequal
    m". One sample per group gives the ordinary jackknife. The map is divided by its norm because its scale is biased in
    the number of samples.

    Args:
        whole: map of all samples, `(N, ...)`.
        without: for each group, the map without its samples, of any positive scale.
        copies: number of samples of each example, `(N,)`. Sample m belongs to group `m % len(without)`.

    Returns:
        Tensor `(N,)`; NaN for fewer than two samples or groups.
    """
    n = len(without)
    counts = copies.to(whole)[:, None]
    sizes = torch.stack([(copies - group + n - 1) // n for group in range(n)], 1).to(whole)
    full = of_norm_one(whole)
    center, squares = torch.zeros_like(full), whole.new_zeros(len(whole))
    # Groups that an example has no samples of weigh nothing.
    h = torch.where(sizes > 0, counts / sizes, torch.inf)
    pseudo = [
        torch.where(h[:, [g]] < torch.inf, h[:, [g]] * full - (h[:, [g]] - 1) * of_norm_one(part), 0)
        for g, part in enumerate(without)
    ]
    for g, value in enumerate(pseudo):
        center = center + value / h[:, [g]]
    for g, value in enumerate(pseudo):
        squares = squares + (value - center).square().sum(1) / (h[:, g] - 1)
    used = (sizes > 0).sum(1)
    return torch.where(used > 1, squares / used, torch.nan).sqrt()
