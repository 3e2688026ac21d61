"""Grad-CAM, HiResCAM and LayerCAM of several targets and layers in one pass, also at layers that need a
`reshape_transform`.

Where neither is needed Grad-CAM gives the maps of `captum.attr.LayerGradCam`, which is its test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_sgcampp.attr.options import MapArguments, make_request
from captum_sgcampp.functional.gradient_maps import grad_cam_terms
from captum_sgcampp.functional.tensors import per_row
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.model.model_access import exclusive_access
from captum_sgcampp.sampling.sampler import LayerSample, sample_layers

# From the activation and the gradient to what is summed over the feature maps, all `(N, K, h, w)`.
Terms: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def gradient_maps(
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Tensor,
    targets: Sequence[int],
    *,
    terms: Terms = grad_cam_terms,
    reshape_transform: ReshapeTransform | None = None,
    relu_attributions: bool = False,
    selection: Mapping[str, Any] | None = None,
) -> list[list[Tensor]]:
    """The maps of every target and, for each, of every layer: `(N, 1, h, w)`.

    Args:
        model: of images, from `(N, C, H, W)` to logits.
        layers: modules of it, each of which returns one tensor.
        inputs: `(N, C, H, W)`.
        targets: class indices.
        terms: which method, see `functional.gradient_maps`.
        reshape_transform, relu_attributions: as in `LayerGradCamPlusPlus`.
        selection: the keywords `feature_maps` and `neurons` of its `attribute`. The weights of the feature maps are
            means over the whole map, as in Captum.
    """
    arguments = MapArguments(relu_attributions=relu_attributions, **(selection or {}))
    with exclusive_access(), torch.no_grad():
        request = make_request(inputs, tuple(targets), arguments, None)
        forward_pass = ForwardPass(model, list(layers), None, False, reshape_transform)
        sampler = sample_layers(forward_pass, request)
    if sampler.tensors != [1] * len(layers):
        raise ValueError(f"layer: expected layers of one tensor, found layers of {sampler.tensors} tensors")
    maps = iter([map_of_terms(terms, sample, relu_attributions) for sample in sampler.samples])
    return [[next(maps) for _ in layers] for _ in targets]


def map_of_terms(terms: Terms, sample: LayerSample, relu: bool) -> Tensor:
    """The sum over the feature maps, of the selected entries only, `(N, 1, h, w)`."""
    found = terms(sample.activation, clean_gradient(sample))
    maps = (found if sample.selected is None else found * sample.selected).sum(1, keepdim=True)
    return maps.relu() if relu else maps


def clean_gradient(sample: LayerSample) -> Tensor:
    """`dS/dA` of a sample without noise, `(N, K, h, w)`."""
    derivatives = sample.moments.mean()
    return derivatives.d1 * per_row(derivatives.scale, sample.activation)
