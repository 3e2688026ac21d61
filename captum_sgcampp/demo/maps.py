"""From kept samples to the map of each method, for any feature maps and neurons. The network does not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_sgcampp.attr.combine import multiply_by_map
from captum_sgcampp.demo.kept_samples import KeptSamples, all_finite
from captum_sgcampp.demo.methods import GUIDED, counts_both_signs, is_guided, takes_noise
from captum_sgcampp.demo.selection import Cell
from captum_sgcampp.functional.class_map import ClassMap, MapOptions, class_map
from captum_sgcampp.functional.gradient_maps import grad_cam_terms
from captum_sgcampp.functional.sampling_statistics import SamplingStatistics, pole_shares, standard_error
from captum_sgcampp.functional.selection import selection_mask
from captum_sgcampp.sampling.sampler import LayerSample
from captum_sgcampp.vision.gradient_maps import clean_gradient, map_of_terms
from captum_sgcampp.vision.words import of_zeros


@dataclass(frozen=True)
class ShownMap:
    """The map of one method.

    Attributes:
        method: one of `demo.methods.SHOWN`.
        maps: `(1, 1, h, w)` after the papers' ReLU; guided ones `(1, C, H, W)`.
        weights: of the feature maps, `(K,)`.
        statistics: of the noise, where there is some.
        reason_of_zeros: why the map is zero everywhere, in words; empty where it is not.
    """

    method: str
    maps: Tensor
    weights: Tensor
    statistics: SamplingStatistics | None = None
    reason_of_zeros: str = ""


def shown_map(method: str, kept: KeptSamples, feature_maps: Sequence[int] = (), cells: Sequence[Cell] = ()) -> ShownMap:
    """The map of a method.

    Args:
        method: one of `demo.methods.SHOWN`.
        kept: what the network said.
        feature_maps: the only ones that count; empty: all.
        cells: the only neurons that count; empty: all.

    Raises:
        RuntimeError: maps that are not finite.
    """
    sample = kept.noisy() if takes_noise(method) else kept.clean
    selected = selection_mask(list(feature_maps) or None, list(cells) or None, sample.activation)
    sample = replace(sample, selected=selected)
    layer_method = method.removeprefix(GUIDED)
    options = _options(layer_method)
    with torch.no_grad():
        result = _class_map(layer_method, sample, options)
        statistics = _statistics(sample, result, options) if takes_noise(method) else None
        reason = "" if result.maps.any() else _reason_of_zeros(layer_method, sample, options)
        maps = multiply_by_map(kept.guided, result.maps, "bilinear") if is_guided(method) else result.maps
    if not all_finite(maps):
        raise RuntimeError("the map holds NaN or infinity; another layer may do better")
    return ShownMap(method, maps, result.weights.flatten(), statistics, reason)


def _class_map(method: str, sample: LayerSample, options: MapOptions) -> ClassMap:
    if method == "grad-cam":
        weights = clean_gradient(sample).flatten(2).mean(2)
        return ClassMap(torch.zeros(()), weights, map_of_terms(grad_cam_terms, sample, options.relu))
    return class_map(sample.activation, sample.moments.mean(), sample.selected, options)


def _statistics(sample: LayerSample, result: ClassMap, options: MapOptions) -> SamplingStatistics:
    moments = sample.moments
    shares = pole_shares(result.alpha, moments.mean().d1, sample.selected)
    error = standard_error(sample.activation, moments, sample.selected, options)
    return SamplingStatistics(moments.copies, moments.effective_sample_size(), error, *shares)


def _reason_of_zeros(method: str, sample: LayerSample, options: MapOptions) -> str:
    before_relu = _class_map(method, sample, replace(options, relu=False)).maps
    return of_zeros(bool(before_relu.any()), method == "grad-cam" or options.two_sided)


def full_weights(method: str, kept: KeptSamples) -> Tensor:
    """The weights of all feature maps without a selection, `(K,)`."""
    sample = kept.noisy() if takes_noise(method) else kept.clean
    with torch.no_grad():
        return _class_map(method, sample, _options(method)).weights.flatten()


def _options(method: str) -> MapOptions:
    return MapOptions(relu=True, two_sided=counts_both_signs(method))
