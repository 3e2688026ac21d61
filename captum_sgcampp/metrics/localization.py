"""How well a map finds an object whose box or mask is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from captum_sgcampp.functional.tensors import ratio
from captum_sgcampp.metrics.maps import check_regions, check_unit_maps, positive_energy

MEASURES = ("area", "energy")


def boxes_to_regions(boxes: Sequence[Sequence[Sequence[float]]], size: Sequence[int]) -> Tensor:
    r"""
    Boxes as regions of pixels.

    Args:

        boxes (sequence): For every example its boxes, each `(x0, y0, x1, y1)` in pixels; a pixel belongs to a box that
                    holds its centre.
        size (sequence of int): Height and width of the image.

    Returns:
        *Tensor* of bool: `(N, H, W)`, the boxes of an example together.

    Raises:
        ValueError: a box whose corners are in another order.

    Examples::

        >>> boxes_to_regions([[(1, 0, 3, 2)]], (3, 4)).int()
        tensor([[[0, 1, 1, 0],
                 [0, 1, 1, 0],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    regions = torch.zeros(len(boxes), *size, dtype=torch.bool)
    ys, xs = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    for region, of_example in zip(regions, boxes, strict=True):
        for x0, y0, x1, y1 in of_example:
            if not (x0 < x1 and y0 < y1):
                raise ValueError(f"boxes: expected (x0, y0, x1, y1) with x0 < x1 and y0 < y1, found {(x0, y0, x1, y1)}")
            region |= (xs > x0) & (xs < x1) & (ys > y0) & (ys < y1)
    return regions


def energy_inside(maps: Tensor, regions: Tensor) -> Tensor:
    r"""
    Share of the map's positive values inside the object: the energy-based pointing game (Wang et al., *Score-CAM*,
    https://arxiv.org/abs/1910.01279). Higher is better.

    Args:

        maps (Tensor): `(N, H, W)`.
        regions (Tensor): Pixels of the object, bool, `(N, H, W)`.

    Returns:
        *Tensor*: `(N,)`, from 0 to 1; 0 for a map without positive values.

    Examples::

        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, -5.0]]])
        >>> energy_inside(maps, torch.tensor([[[True, False], [False, False]]]))
        tensor([0.7500])
    """
    regions = check_regions(maps, regions)
    return ratio(positive_energy(maps, regions), positive_energy(maps, torch.ones_like(regions)))


def pointing_game(maps: Tensor, regions: Tensor, *, tolerance: float = 0.0) -> Tensor:
    r"""
    Whether the map's maximum lies in the object (Zhang et al., *Top-down neural attention by excitation backprop*,
    https://arxiv.org/abs/1608.00507). Higher is better.

    Args:

        maps (Tensor): `(N, H, W)`.
        regions (Tensor): Pixels of the object, bool, `(N, H, W)`.
        tolerance (float, optional): How many pixels away from the object still count; the source uses 15.
                    Default: 0

    Returns:
        *Tensor*: `(N,)`, 1 or 0; where several pixels are largest, the share of them that hit. 0 for a map of one
        value.

    Examples::

        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> region = torch.tensor([[[False, True], [False, False]]])
        >>> pointing_game(maps, region), pointing_game(maps, region, tolerance=1)
        (tensor([0.]), tensor([1.]))
    """
    regions = check_regions(maps, regions)
    if not 0 <= tolerance < min(maps.shape[1:]):
        raise ValueError(f"tolerance: expected 0 to less than the image's side, found {tolerance}")
    low, high = maps.flatten(1).aminmax(dim=1)
    largest = maps == high[:, None, None]
    hits = (largest & _dilated(regions, tolerance)).sum((1, 2)) / largest.sum((1, 2))
    return torch.where(high > low, hits, 0)


def _dilated(regions: Tensor, distance: float) -> Tensor:
    """The pixels within a Euclidean distance of each region."""
    radius = int(distance)
    if radius == 0:
        return regions
    steps = torch.arange(-radius, radius + 1, device=regions.device)
    disk = (steps[:, None] ** 2 + steps**2 <= distance**2).float()
    return conv2d(regions[:, None].float(), disk[None, None], padding=radius)[:, 0] > 0.5


def localization_score(maps: Tensor, regions: Tensor, threshold: float, *, measure: str = "area") -> Tensor:
    r"""
    The Grad-CAM++ paper's localisation score (section 5.2) of the map thresholded at `threshold`:

        Loc = internal / (area(object) + external)

    where `internal` and `external` count the map's pixels above the threshold inside and outside the object. With
    boxes it is the paper's score; for one set of pixels it equals their intersection over union, so with masks it is
    the IoU. With `measure="energy"` the map's values are summed in place of counting its pixels. Higher is better.

    Args:

        maps (Tensor): `(N, H, W)` in [0, 1], as `unit_range` gives them.
        regions (Tensor): Pixels of the object or of its boxes, bool, `(N, H, W)`.
        threshold (float): From 0 to less than 1; the paper takes 0, 0.25 and 0.5.
        measure (str, optional): `"area"` or `"energy"`.
                    Default: `"area"`

    Returns:
        *Tensor*: `(N,)`, from 0 to 1.

    Examples::

        >>> maps = torch.tensor([[[1.0, 0.4], [0.6, 0.1]]])
        >>> region = torch.tensor([[[True, True], [False, False]]])
        >>> localization_score(maps, region, 0.5)
        tensor([0.3333])
    """
    regions = check_regions(maps, regions)
    check_unit_maps(maps)
    if measure not in MEASURES:
        raise ValueError(f"measure: expected one of {MEASURES}, found {measure!r}")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: expected 0 to less than 1, found {threshold}")
    above = (maps > threshold).to(maps.dtype)
    values = above if measure == "area" else above * maps
    internal, external = (values * regions).sum((1, 2)), (values * ~regions).sum((1, 2))
    return internal / (regions.sum((1, 2)) + external)
