"""Smooth Grad-CAM++ and Grad-CAM++ for Captum."""

from captum_sgcampp._version import __version__
from captum_sgcampp.attribution import ClosedFormError, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, TopFeatureMaps
from captum_sgcampp.fusion import fuse_maps
from captum_sgcampp.scores import Softmax
from captum_sgcampp.selection import box_to_neurons
from captum_sgcampp.statistics import SamplingStatistics

__all__ = [
    "ClosedFormError",
    "LayerGradCamPlusPlus",
    "LayerSmoothGradCamPlusPlus",
    "SamplingStatistics",
    "Softmax",
    "TopFeatureMaps",
    "__version__",
    "box_to_neurons",
    "fuse_maps",
]
