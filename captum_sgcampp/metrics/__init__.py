"""Measures of maps, from the Grad-CAM++ paper and the literature after it, for any attribution.

Bring an attribution of any size to the image with `image_maps`, and to [0, 1] with `unit_range` where a measure needs
it. Measures are functions of tensors with one result per example. Some take the model, as a function from inputs
`(N, C, H, W)` to logits `(N, classes)`. They run it in batches without gradients and do not change it.
"""

from captum_sgcampp.metrics.adapters import as_input_attributions, quantus_explanation
from captum_sgcampp.metrics.confidence import class_confidence
from captum_sgcampp.metrics.curves import (
    area_under_curve,
    baseline_images,
    deletion_curve,
    insertion_curve,
    pixel_order,
)
from captum_sgcampp.metrics.drop import average_drop, explanation_inputs, increase_in_confidence, win
from captum_sgcampp.metrics.equal_area import confidence_kept, relative_confidence_area, top_pixels
from captum_sgcampp.metrics.grid import (
    cell_masks,
    instance_balance,
    instance_recall,
    instance_shares,
    mosaics,
    sample_mosaics,
)
from captum_sgcampp.metrics.localization import boxes_to_regions, energy_inside, localization_score, pointing_game
from captum_sgcampp.metrics.maps import image_maps, unit_range
from captum_sgcampp.metrics.occlusion import occlusion_map
from captum_sgcampp.metrics.randomization import parameter_randomization, randomized_models
from captum_sgcampp.metrics.ranks import average_ranks, spearman
from captum_sgcampp.metrics.resampling import bootstrap_interval, holm, sign_flip_test
from captum_sgcampp.metrics.sparseness import sparseness

__all__ = [
    "area_under_curve",
    "as_input_attributions",
    "average_drop",
    "average_ranks",
    "baseline_images",
    "bootstrap_interval",
    "boxes_to_regions",
    "cell_masks",
    "class_confidence",
    "confidence_kept",
    "deletion_curve",
    "energy_inside",
    "explanation_inputs",
    "holm",
    "image_maps",
    "increase_in_confidence",
    "insertion_curve",
    "instance_balance",
    "instance_recall",
    "instance_shares",
    "localization_score",
    "mosaics",
    "occlusion_map",
    "parameter_randomization",
    "pixel_order",
    "pointing_game",
    "quantus_explanation",
    "randomized_models",
    "relative_confidence_area",
    "sample_mosaics",
    "sign_flip_test",
    "sparseness",
    "spearman",
    "top_pixels",
    "unit_range",
    "win",
]
