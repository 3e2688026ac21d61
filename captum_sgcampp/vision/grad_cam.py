"""Grad-CAM of several targets and layers in one pass, also at layers that need a `reshape_transform`.

Where neither is needed it gives the maps of `captum.attr.LayerGradCam`, which is its test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_sgcampp.attr.options import MapArguments, make_request
from captum_sgcampp.functional.tensors import per_row, sum_space
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.model.model_access import exclusive_access
from captum_sgcampp.sampling.sampler import LayerSample, sample_layers


def grad_cam(
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Tensor,
    targets: Sequence[int],
    *,
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
        raise ValueError(f"--layer: expected layers of one tensor, found layers of {sampler.tensors} tensors")
    maps = iter([weighted_maps(sample, relu_attributions)[1] for sample in sampler.samples])
    return [[next(maps) for _ in layers] for _ in targets]


def weighted_maps(sample: LayerSample, relu: bool) -> tuple[Tensor, Tensor]:
    r"""`w_k = mean_ij g_kij`, `(N, K, 1, 1)`, and `L_ij = sum_k w_k A_kij`, `(N, 1, h, w)`."""
    a, derivatives = sample.activation, sample.moments.mean()
    g = derivatives.d1 * per_row(derivatives.scale, a)
    w = sum_space(g) / max(a[0, 0].numel(), 1)
    weighted = w * a if sample.selected is None else w * a * sample.selected
    maps = weighted.sum(1, keepdim=True)
    return w, maps.relu() if relu else maps
