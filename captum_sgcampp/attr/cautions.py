"""What is probably a mistake although a map can be computed. Each is said once per call, as a `UserWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from captum_sgcampp.attr.results import LayerResult
from captum_sgcampp.captum_internals import frame_outside, is_called_by_noise_tunnel
from captum_sgcampp.sampling.convergence import LEAST_EFFECTIVE
from captum_sgcampp.sampling.request import Request
from captum_sgcampp.sampling.sampler import Sampler


def warn_of_doubts(sampler: Sampler, found: Sequence[LayerResult], has_tokens: bool) -> None:
    """Warn of what the results show.

    Args:
        sampler: that has finished.
        found: what each of its samples gave.
        has_tokens: whether the layer has a `reshape_transform`.
    """
    request = sampler.request
    for is_doubtful, message in (
        (request.has_noise and is_called_by_noise_tunnel(), _TUNNEL),
        (_is_logit_expected(request) and sampler.gives_probabilities, _PROBABILITIES),
        (request.has_noise and _all(one.has_equal_gradients for one in found), _EQUAL_GRADIENTS),
        (_is_far_from_sure(sampler), _FEW),
    ):
        if is_doubtful:
            _warn(message)
    if _is_value_expected(request) and not _all(_has_value(one.maps) for one in found):
        _warn(_why_zero(sampler, found, has_tokens))


_TUNNEL = (
    "nt_samples: expected Smooth Grad-CAM++ without NoiseTunnel, found it inside one, so every noisy sample gets noisy "
    "samples of its own; call attribute itself, or put LayerGradCamPlusPlus into the NoiseTunnel"
)
_PROBABILITIES = (
    "forward_func: expected logits, found rows of numbers from 0 to 1 that sum to 1, as a softmax gives them; explain "
    "the model without its last softmax"
)
_EQUAL_GRADIENTS = (
    "layer: expected gradients that change with the noise, found the same in every noisy sample, as before global "
    "average pooling or with little noise, so the map is that of LayerGradCamPlusPlus but for its scale; take that, an "
    "earlier layer, or more noise"
)
_FEW = (
    f"nt_samples: expected an effective sample size of at least {LEAST_EFFECTIVE:g} within max_nt_samples, found less, "
    "so one noisy sample decides the map and its standard error is not to be trusted; less noise (noise_level) helps"
)
_ZERO = "layer: expected a map with values, found an example whose map is 0 everywhere, because "


def _warn(message: str) -> None:
    """Warn at the line outside of this package and Captum from which it all began."""
    _, level = frame_outside("captum_sgcampp", "captum")
    warnings.warn(message, stacklevel=level)


def _is_logit_expected(request: Request) -> bool:
    """Whether the score function makes a probability, or its like, of what the model gives."""
    return request.score != "identity" and not callable(request.score)


def _is_value_expected(request: Request) -> bool:
    """Whether zeros are a surprise: not for a part of the layer, nor where a layer without influence is allowed."""
    return request.feature_maps is None and request.neurons is None and not request.unused_is_zero


def _is_far_from_sure(sampler: Sampler) -> bool:
    noise = sampler.request.noise
    if noise is None or noise.tolerance is None or not sampler.request.has_noise:
        return False
    sizes = torch.stack([size.detach().cpu() for size in sampler.effective_sizes()])
    at_the_end = sampler.samples[0].moments.copies >= noise.nt_samples
    return bool(((sizes < LEAST_EFFECTIVE) & at_the_end).any())


def _why_zero(sampler: Sampler, found: Sequence[LayerResult], has_tokens: bool) -> str:
    """The reason of a map of zeros, and what helps."""
    options = sampler.request.map_options
    if any(bool((sample.moments.scale == 0).any()) for sample in sampler.samples):
        if has_tokens:
            return (
                "layer: expected tokens that the score depends on, found a gradient of 0 at every position, so the map "
                "is all zero; after the last attention only the class token counts, so explain its input (the "
                "normalization layer before it)"
            )
        return f"{_ZERO}the gradient is 0 at every position: the score of the target does not depend on the layer"
    if _all(_has_value(one.weights) for one in found):
        reason = "relu_attributions=True left no positive value of it" if options.relu else "the layer is 0 there"
        return f"{_ZERO}{reason}"
    if options.two_sided:
        return f"{_ZERO}the gradients cancel in every feature map"
    return (
        f"{_ZERO}no gradient is positive: nothing at the layer raises the score of the target; two_sided=True also "
        "takes what lowers it"
    )


def _has_value(maps: Tensor) -> Tensor:
    """Whether the map of each example has a value other than 0."""
    return maps.detach().flatten(1).any(1)


def _all(conditions: Iterable[Tensor]) -> bool:
    return all(bool(condition.all()) for condition in conditions)
