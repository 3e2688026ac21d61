"""The layers that are explained unless one is named: the deepest, and an inner one where the noise acts; and why."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.vision.explained_classes import Subject
from captum_sgcampp.vision.layer_choice import ChosenLayer, chosen_layer, inner_layer, named_layer


def suited_layers(model: nn.Module, subject: Subject, smooth: bool) -> tuple[list[ChosenLayer], list[str]]:
    """The deepest layer, and an inner one where the noise changes only the scale there. And the reasons, in words.

    Args:
        model: of images.
        subject: what is explained.
        smooth: whether Smooth Grad-CAM++ is among the methods.
    """
    deepest = chosen_layer(model, subject.inputs)
    name, transform = deepest.name, deepest.reshape_transform
    reasons = [f"{name} ({deepest.reason}; another one can be named)"]
    if not smooth or noise_acts(model, named_layer(model, name), subject.inputs, subject.target, transform):
        return [deepest], reasons
    inner = inner_layer(model, subject.inputs, name)
    beside = "" if inner is None else f"; {inner.name} is shown beside it ({inner.reason})"
    reasons.append(
        f"at {name} noise changes only the scale of the map, so Smooth Grad-CAM++ equals Grad-CAM++ "
        f"there (as before global average pooling and a linear score){beside}"
    )
    return [deepest] if inner is None else [deepest, inner], reasons


def noise_acts(
    model: nn.Module,
    layer: nn.Module,
    example: Tensor,
    target: int,
    reshape_transform: ReshapeTransform | None = None,
) -> bool:
    """Whether the smoothing can change more than the scale of the map at this layer, measured with much noise.

    Args:
        model: a module.
        layer: a module of it.
        example: one input.
        target: class index.
        reshape_transform: as in `LayerGradCamPlusPlus`.
    """
    plain = LayerGradCamPlusPlus(model, layer, reshape_transform=reshape_transform).attribute(example, target)
    with warnings.catch_warnings():  # of what is asked here
        warnings.simplefilter("ignore", UserWarning)
        smooth = LayerSmoothGradCamPlusPlus(model, layer, reshape_transform=reshape_transform).attribute(
            example, target, nt_samples=6, noise_level=0.5, generator=torch.Generator().manual_seed(0)
        )
    assert isinstance(plain, Tensor)
    change = plain / plain.norm().clamp_min(1e-30) - smooth / smooth.norm().clamp_min(1e-30)
    return bool(change.norm() > 1e-4)
