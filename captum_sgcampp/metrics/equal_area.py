"""The class's confidence at equal area (Grad-CAM++ paper, section 7.2): a map gains nothing by covering more."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_sgcampp.metrics.curves import area_under_curve, pixel_order
from captum_sgcampp.metrics.drop import average_drop


def top_pixels(maps: Tensor, share: float, seed: int = 0) -> Tensor:
    r"""
    The pixels with the largest values, as many for every map. With `explanation_inputs` they alone are shown, and what
    is left out becomes the mean color, or black.

    Args:

        maps (Tensor): `(N, H, W)`.
        share (float): Of all pixels, above 0 to 1.
        seed (int, optional): Seed of the order of equal values.
                    Default: 0

    Returns:
        *Tensor* of the maps' dtype: `(N, H, W)`, 1 or 0.

    Examples::

        >>> top_pixels(torch.tensor([[[0.1, 0.4], [0.3, 0.2]]]), 0.5)
        tensor([[[0., 1.],
                 [1., 0.]]])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected above 0 to 1, found {share}")
    order = pixel_order(maps, seed)
    kept = order[:, : round(share * order.shape[1])]
    return torch.zeros_like(maps).flatten(1).scatter(1, kept, 1).reshape(maps.shape)


def confidence_kept(confidence: Tensor, explained: Tensor) -> Tensor:
    r"""
    Share of the confidence that is kept, `min(Y, O) / Y`: one less the average drop. Higher is better.

    Args:

        confidence, explained (Tensor): As in :func:`average_drop`, `O` on an image that shows a part of the pixels.

    Returns:
        *Tensor*: `(N,)`, from 0 to 1.

    Examples::

        >>> shown = explanation_inputs(images, top_pixels(image_maps(attr, (32, 32)), 0.25))
        >>> kept = confidence_kept(class_confidence(net, images, 3), class_confidence(net, shown, 3))
    """
    return 1 - average_drop(confidence, explained) / 100


def relative_confidence_area(confidence: Tensor, curve: Tensor) -> Tensor:
    r"""
    Area under the relative confidence `O / Y` while a growing share of the pixels is occluded, the least important
    first (figure 10 of the paper). Higher is better.

    Args:

        confidence (Tensor): `Y`, `(N,)`.
        curve (Tensor): `O`, `(N, steps + 1)`, from 0 to all pixels shown: :func:`insertion_curve` with the baseline
                    `"zero"`.

    Returns:
        *Tensor*: `(N,)`, at least 0. It exceeds 1 where parts of the image have more confidence than the whole.

    Examples::

        >>> relative_confidence_area(torch.tensor([0.5]), torch.tensor([[0.0, 0.25, 0.5]]))
        tensor([0.5000])
    """
    if confidence.shape != curve.shape[:1]:
        raise ValueError(f"confidence: expected shape {tuple(curve.shape[:1])}, found {tuple(confidence.shape)}")
    return area_under_curve(curve) / confidence.clamp_min(torch.finfo(confidence.dtype).tiny)
