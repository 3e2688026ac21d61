"""What `attribute` returns: maps and statistics of every target, layer and tensor, in the form of the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_sgcampp.captum_internals import _format_output
from captum_sgcampp.functional.class_map import class_map
from captum_sgcampp.functional.moments import MeanDerivatives
from captum_sgcampp.functional.sampling_statistics import (
    SamplingStatistics,
    has_equal_gradients,
    pole_shares,
    standard_error,
)
from captum_sgcampp.sampling.convergence import LEAST_SAMPLES
from captum_sgcampp.sampling.request import Request
from captum_sgcampp.sampling.sampler import LayerSample, Sampler

TensorOrTuple: TypeAlias = Tensor | tuple[Tensor, ...]
# Of one layer, or of a list of layers.
Attributions: TypeAlias = TensorOrTuple | list[TensorOrTuple]
StatisticsOrTuple: TypeAlias = SamplingStatistics | tuple[SamplingStatistics, ...]
Statistics: TypeAlias = StatisticsOrTuple | list[StatisticsOrTuple]


class TopFeatureMaps(NamedTuple):
    """The feature maps with the largest weights, largest first.

    Attributes:
        weights: `w_k`, `(N, k)`.
        indices: the numbers of the feature maps, `(N, k)`.
    """

    weights: Tensor
    indices: Tensor


class LayerResult(NamedTuple):
    """What one tensor of a layer and one target give."""

    maps: Tensor
    weights: Tensor
    statistics: SamplingStatistics | None
    has_equal_gradients: Tensor


def layer_results(sampler: Sampler, with_statistics: bool) -> list[LayerResult]:
    """For every sample of the sampler."""
    found = [_layer_result(sampler.request, sample, with_statistics) for sample in sampler.samples]
    _check_finite([one.maps for one in found])
    return found


def by_target(sampler: Sampler, found: Sequence[LayerResult]) -> list[list[list[LayerResult]]]:
    """For every target, every layer and every tensor of it."""
    remaining = iter(found)
    return [[[next(remaining) for _ in range(count)] for count in sampler.tensors] for _ in sampler.request.targets]


def _layer_result(request: Request, sample: LayerSample, with_statistics: bool) -> LayerResult:
    derivatives = sample.moments.mean()
    result = class_map(sample.activation, derivatives, sample.selected, request.map_options)
    statistics = _statistics(request, sample, result.alpha, derivatives.d1) if with_statistics else None
    return LayerResult(result.maps, result.weights, statistics, _has_equal_gradients(request, sample, derivatives))


@torch.no_grad()
def _has_equal_gradients(request: Request, sample: LayerSample, derivatives: MeanDerivatives) -> Tensor:
    """See `has_equal_gradients`; False where that says nothing of the map."""
    if request.score == "exp" and request.has_noise:
        return has_equal_gradients(derivatives, sample.moments.effective_sample_size())
    return torch.zeros(request.examples, dtype=torch.bool)


@torch.no_grad()
def _statistics(request: Request, sample: LayerSample, alpha: Tensor, d1: Tensor) -> SamplingStatistics:
    pole_share, pole_weight_share = pole_shares(alpha, d1, sample.selected)
    if request.noise is not None and not request.has_noise:  # one sample was computed; the others are the same
        count = request.noise.nt_samples if request.noise.tolerance is None else LEAST_SAMPLES
        used = torch.full((request.examples,), count, device=pole_share.device)
        return SamplingStatistics(used, used.to(pole_share), 0 * pole_share, pole_share, pole_weight_share)
    error = standard_error(sample.activation, sample.moments, sample.selected, request.map_options)
    used = sample.moments.copies.to(error.device)
    return SamplingStatistics(used, sample.moments.effective_sample_size(), error, pole_share, pole_weight_share)


def _check_finite(maps: list[Tensor]) -> None:
    if not all(bool(torch.isfinite(m).all()) for m in maps):
        raise RuntimeError(
            "forward_func: expected finite activations and gradients at layer, found NaN or infinity (float16 models "
            "overflow beyond 65504)"
        )


def attributions(layers: Sequence[Sequence[LayerResult]], is_list: bool) -> Attributions:
    """A tensor, or a tuple for a layer of several tensors. A list of these for a list of layers."""
    maps: list[TensorOrTuple] = [
        _format_output(len(tensors) > 1, tuple(one.maps.contiguous() for one in tensors)) for tensors in layers
    ]
    return maps if is_list else maps[0]


def statistics(layers: Sequence[Sequence[LayerResult]], is_list: bool) -> Statistics:
    """In the form of `attributions`."""
    found: list[StatisticsOrTuple] = [
        _format_output(len(tensors) > 1, tuple(one.statistics for one in tensors)) for tensors in layers
    ]
    return found if is_list else found[0]
