"""The formula of one call: from the activation and the averaged derivatives to alpha, weights and map, term by term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu

from captum_sgcampp import checks
from captum_sgcampp.functional.class_map import alpha_coefficients, feature_map_weights, weighted_maps
from captum_sgcampp.functional.moments import MeanDerivatives
from captum_sgcampp.functional.sampling_statistics import jackknife_standard_error
from captum_sgcampp.functional.score_derivatives import ScoreFunction, Softmax
from captum_sgcampp.functional.selection import FeatureMaps, Neurons, selection_mask
from captum_sgcampp.sampling.sampler import LayerSample


@dataclass(frozen=True)
class Formula:
    """The part of a call that says how averaged derivatives become a map."""

    relu_attributions: bool = False
    attr_dim_summation: bool = True
    feature_maps: FeatureMaps = None
    neurons: Neurons = None
    score: str | Softmax | ScoreFunction = "exp"
    derivatives: str = "closed_form"
    bound_alpha: bool = False

    def __post_init__(self) -> None:
        for flag in ("relu_attributions", "attr_dim_summation", "bound_alpha"):
            checks.check_flag(flag, getattr(self, flag))
        checks.check_derivatives(self.derivatives)
        checks.check_score(self.score, self.derivatives)

    def select(self, activation: Tensor) -> Tensor | None:
        """The selection as a bool tensor that broadcasts to `activation`."""
        return selection_mask(self.feature_maps, self.neurons, activation)

    def class_map(self, sample: LayerSample, mean: MeanDerivatives) -> ClassMap:
        """`alpha`, `w` and `L` from `A` and `D_1, D_2, D_3`."""
        # d_p are the derivatives divided by scale^p, so the formula holds for them with scale * A in the place of A.
        scale = _per_example(mean.scale, sample.activation)
        scaled = scale * sample.activation
        alpha = alpha_coefficients(mean.d2, mean.d3, scaled)
        bounded = alpha.clamp(0, 0.5) if self.bound_alpha else alpha
        weights = feature_map_weights(bounded, mean.d1, sample.selected) * _per_example(self._level(mean), scaled)
        maps = weighted_maps(weights, scaled, sample.selected)
        if self.attr_dim_summation:
            maps = maps.sum(1, keepdim=True)
        return ClassMap(alpha, weights * scale, relu(maps) if self.relu_attributions else maps)

    def standard_error(self, sample: LayerSample) -> Tensor:
        """Standard error of each example's map divided by its norm, `(N,)`."""
        moments = sample.moments
        groups = min(moments.groups, moments.copies)
        without = [self.class_map(sample, moments.mean(group)).maps for group in range(groups)]
        return jackknife_standard_error(self.class_map(sample, moments.mean()).maps, without, moments.copies)

    def _level(self, mean: MeanDerivatives) -> Tensor:
        """The mean weight of the copies: 1 by definition (`e_m` has mean 1), but `softmax` keeps
        its factor `p (1 - p)`, held above the smallest numbers of its dtype so that saturation leaves a map."""
        if self.score in ("exp", "sigmoid"):
            return torch.ones_like(mean.scale)
        return mean.log_level.exp().clamp_min(torch.finfo(mean.log_level.dtype).tiny ** 0.8)


class ClassMap(NamedTuple):
    """What the formula gives.

    Attributes:
        alpha: `(N, K, *space)`, not clamped.
        weights: `w`, `(N, K, 1, ...)`.
        maps: `L`, `(N, 1, *space)`, or `w_k A_kij`, `(N, K, *space)`.
    """

    alpha: Tensor
    weights: Tensor
    maps: Tensor


def _per_example(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.dim() - 1))
