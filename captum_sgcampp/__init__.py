"""Smooth Grad-CAM++ and Grad-CAM++ for Captum."""

from captum_sgcampp._version import __version__
from captum_sgcampp.attribution import ClosedFormError, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, TopFeatureMaps
from captum_sgcampp.fusion import fuse_maps
from captum_sgcampp.guided import GuidedGradCamPlusPlus, GuidedSmoothGradCamPlusPlus
from captum_sgcampp.product import multiply_by_map
from captum_sgcampp.scores import Softmax
from captum_sgcampp.selection import box_to_neurons
from captum_sgcampp.statistics import SamplingStatistics
from captum_sgcampp.tokens import TokenGrid, channels_last_to_first

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
