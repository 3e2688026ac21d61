"""Attributions of any size as maps of the image's size, and the checks of maps and regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.attr import LayerAttribution
from torch import Tensor


def image_maps(attributions: Tensor, size: Sequence[int]) -> Tensor:
    r"""
    Attributions of any layer or of the input as maps of the image's size: summed over the channels, then upsampled
    bilinearly, as in the Grad-CAM papers.

    Args:

        attributions (Tensor): `(N, C, h, w)`; a layer's map has `C = 1`.
        size (sequence of int): Height and width of the image.

    Returns:
        *Tensor* of **maps**: `(N, H, W)`, float32 or wider.

    Examples::

        >>> image_maps(torch.rand(2, 1, 7, 7), (224, 224)).shape
        torch.Size([2, 224, 224])
    """
    if attributions.dim() != 4 or attributions.numel() == 0:
        raise ValueError(f"attributions: expected shape (N, C, h, w), found {tuple(attributions.shape)}")
    wide = attributions.detach().to(torch.promote_types(attributions.dtype, torch.float32))
    if not bool(torch.isfinite(wide).all()):
        raise ValueError("attributions: expected finite values, found NaN or infinity")
    maps = wide.sum(1, keepdim=True)
    if tuple(maps.shape[2:]) != tuple(size):
        maps = LayerAttribution.interpolate(maps, tuple(size), "bilinear")
    return maps[:, 0]


def unit_range(maps: Tensor) -> Tensor:
    r"""
    Maps scaled to [0, 1], each from its own smallest to its own largest value.

    Args:

        maps (Tensor): `(N, H, W)`.

    Returns:
        *Tensor*: `(N, H, W)`. A map of one value everywhere becomes 0.

    Examples::

        >>> unit_range(torch.tensor([[[2.0, 4.0], [3.0, 2.0]]]))
        tensor([[[0.0000, 1.0000],
                 [0.5000, 0.0000]]])
    """
    check_maps(maps)
    low, high = maps.flatten(1).aminmax(dim=1)
    extent = (high - low)[:, None, None]
    return (maps - low[:, None, None]) / torch.where(extent > 0, extent, 1)


def positive_energy(maps: Tensor, regions: Tensor) -> Tensor:
    """Sum of the positive values of each map within a region: `(N,)` from `(N, H, W)`, or `(N, I)` from regions
    `(N, I, H, W)` and maps `(N, 1, H, W)`."""
    return (maps.clamp_min(0) * regions).sum((-2, -1))


def check_maps(maps: Tensor) -> None:
    """Raise unless these are finite floating-point maps `(N, H, W)`."""
    if maps.dim() != 3 or not maps.is_floating_point():
        raise ValueError(f"maps: expected floats of shape (N, H, W), found {maps.dtype}, {tuple(maps.shape)}")
    if not bool(torch.isfinite(maps).all()):
        raise ValueError("maps: expected finite values, found NaN or infinity")


def check_unit_maps(maps: Tensor) -> None:
    """Raise unless these are maps with values in [0, 1]."""
    check_maps(maps)
    if bool((maps < 0).any()) or bool((maps > 1).any()):
        raise ValueError(f"maps: expected values in [0, 1], found {float(maps.min())} to {float(maps.max())}")


def check_regions(maps: Tensor, regions: Tensor) -> Tensor:
    """Bool regions of the maps' shape, none of them empty, on the maps' device."""
    check_maps(maps)
    if regions.dtype != torch.bool or regions.shape != maps.shape:
        raise ValueError(
            f"regions: expected bool of the maps' shape {tuple(maps.shape)}, found {regions.dtype}, "
            f"{tuple(regions.shape)}"
        )
    if not bool(regions.flatten(1).any(1).all()):
        raise ValueError("regions: expected at least one pixel in every example, found an empty region")
    return regions.to(maps.device)
