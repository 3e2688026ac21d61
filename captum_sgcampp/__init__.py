"""Smooth Grad-CAM++ and Grad-CAM++ for Captum; `explain` for a network and an image."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_sgcampp._version import __version__

if TYPE_CHECKING:
    from captum_sgcampp.attr.closed_form_error import ClosedFormError
    from captum_sgcampp.attr.combine import fuse_maps, multiply_by_map
    from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
    from captum_sgcampp.attr.guided_grad_cam_plus_plus import GuidedGradCamPlusPlus, GuidedSmoothGradCamPlusPlus
    from captum_sgcampp.attr.reshape_transforms import TokenGrid, channels_last_to_first
    from captum_sgcampp.attr.results import TopFeatureMaps
    from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus
    from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
    from captum_sgcampp.functional.score_derivatives import Softmax
    from captum_sgcampp.functional.selection import box_to_neurons
    from captum_sgcampp.vision.explain import explain
    from captum_sgcampp.vision.explanation import Explanation
    from captum_sgcampp.vision.layer_choice import chosen_layer, layer_table

__all__ = [
    "ClosedFormError",
    "Explanation",
    "GuidedGradCamPlusPlus",
    "GuidedSmoothGradCamPlusPlus",
    "LayerGradCamPlusPlus",
    "LayerSmoothGradCamPlusPlus",
    "SamplingStatistics",
    "Softmax",
    "TokenGrid",
    "TopFeatureMaps",
    "__version__",
    "box_to_neurons",
    "channels_last_to_first",
    "chosen_layer",
    "explain",
    "fuse_maps",
    "layer_table",
    "multiply_by_map",
]

# Where each name is defined. It is imported when first used: importing torch takes seconds, and `captum-sgcampp --help`
# does without.
_MODULES = {
    "ClosedFormError": "attr.closed_form_error",
    "Explanation": "vision.explanation",
    "GuidedGradCamPlusPlus": "attr.guided_grad_cam_plus_plus",
    "GuidedSmoothGradCamPlusPlus": "attr.guided_grad_cam_plus_plus",
    "LayerGradCamPlusPlus": "attr.grad_cam_plus_plus",
    "LayerSmoothGradCamPlusPlus": "attr.smooth_grad_cam_plus_plus",
    "SamplingStatistics": "functional.sampling_statistics",
    "Softmax": "functional.score_derivatives",
    "TokenGrid": "attr.reshape_transforms",
    "TopFeatureMaps": "attr.results",
    "box_to_neurons": "functional.selection",
    "channels_last_to_first": "attr.reshape_transforms",
    "chosen_layer": "vision.layer_choice",
    "explain": "vision.explain",
    "fuse_maps": "attr.combine",
    "layer_table": "vision.layer_choice",
    "multiply_by_map": "attr.combine",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
