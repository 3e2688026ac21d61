"""The methods by name: the maps of several classes at several layers, over the same noisy samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Generator, Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus
from captum_sgcampp.functional.gradient_maps import grad_cam_terms, hires_cam_terms, layer_cam_terms
from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.vision.gradient_maps import Terms, gradient_maps

# Their titles.
METHODS = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "smooth-grad-cam++": "Smooth Grad-CAM++",
    "two-sided-grad-cam++": "Two-sided Grad-CAM++",
    "two-sided-smooth-grad-cam++": "Two-sided Smooth Grad-CAM++",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
}
DEFAULT_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++")
# Those of one gradient, without second and third derivatives.
OF_GRADIENT: dict[str, Terms] = {
    "grad-cam": grad_cam_terms,
    "hires-cam": hires_cam_terms,
    "layer-cam": layer_cam_terms,
}
TWO_SIDED = "two-sided-"
# The keywords `feature_maps` and `neurons` of `attribute`, as lists and slices, where something is selected.
Selection: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Noise:
    """Of Smooth Grad-CAM++: see `LayerSmoothGradCamPlusPlus.attribute`."""

    nt_samples: int | Literal["auto"]
    noise_level: float
    seed: int
    show_progress: bool = False
    tolerance: float = 0.03
    max_nt_samples: int = 64


class Found(NamedTuple):
    """Of one class at one layer: maps `(N, 1, h, w)`, and the statistics of the noise, where there is some."""

    maps: Tensor
    statistics: SamplingStatistics | None = None


def is_smooth(method: str) -> bool:
    """Whether it takes noisy samples."""
    return method.removeprefix(TWO_SIDED).startswith("smooth")


def is_two_sided(method: str) -> bool:
    """Whether the weights come from gradients of both signs."""
    return method.startswith(TWO_SIDED)


def maps_by(
    method: str,
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Tensor,
    targets: Sequence[int],
    noise: Noise,
    *,
    reshape_transform: ReshapeTransform | None = None,
    relu: bool = True,
    selection: Selection | None = None,
) -> list[list[Found]]:
    """For every target, what every layer gives.

    Args:
        method: one of `METHODS`.
        model: of images, from `(N, C, H, W)` to scores.
        layers: modules of it.
        inputs, targets: as in `attribute_targets`.
        noise: of the smooth methods.
        reshape_transform: of all layers.
        relu: whether the maps go through the papers' ReLU.
        selection: what the maps are restricted to.
    """
    chosen: dict[str, Any] = {"relu_attributions": relu, **(selection or {})}
    if method in OF_GRADIENT:
        rows = gradient_maps(
            model,
            layers,
            inputs,
            targets,
            terms=OF_GRADIENT[method],
            reshape_transform=reshape_transform,
            relu_attributions=relu,
            selection=selection,
        )
        return [[Found(maps) for maps in row] for row in rows]
    chosen["two_sided"] = is_two_sided(method)
    if not is_smooth(method):
        plain = LayerGradCamPlusPlus(model, list(layers), reshape_transform=reshape_transform)
        found: Any = plain.attribute_targets(inputs, targets, **chosen)
        return [[Found(maps) for maps in row] for row in found]
    smooth = LayerSmoothGradCamPlusPlus(model, list(layers), reshape_transform=reshape_transform)
    found = smooth.attribute_targets(inputs, targets, return_statistics=True, **_of_noise(noise), **chosen)
    return [list(map(Found, *row)) for row in found]


def _of_noise(noise: Noise) -> dict[str, Any]:
    """The keywords of `attribute`."""
    return {
        "nt_samples": noise.nt_samples,
        "noise_level": float(noise.noise_level),
        "tolerance": noise.tolerance,
        "max_nt_samples": noise.max_nt_samples,
        "generator": Generator().manual_seed(noise.seed),
        "show_progress": noise.show_progress,
    }
