"""Smooth Grad-CAM++ and Grad-CAM++ for Captum."""

from captum_sgcampp._version import __version__
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

__all__ = [
    "ClosedFormError",
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
    "fuse_maps",
    "multiply_by_map",
]
