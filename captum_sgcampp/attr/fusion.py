"""One map from the maps of several layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_sgcampp.functional.sampling_statistics import of_norm_one

# Linear interpolation in `torch.nn.functional.interpolate`, by the number of spatial dimensions.
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def fuse_maps(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    r"""
    The mean of maps of different resolution. Each is upsampled linearly and divided by its L2 norm first, because the
    scales of maps of different layers have nothing to do with each other.

    Args:

        maps (sequence of Tensor): Maps of the same examples, `(N, 1, *space)` each, with 1 to 3 spatial dimensions: as
                    `attribute` gives them for a list of layers.
        size (sequence of int): Spatial size of the result, as the input's `(H, W)`.

    Returns:
        *Tensor* of **attributions**: `(N, 1, *size)`. A map that is all zero stays so.

    Raises:
        ValueError: maps that do not fit together.

    Examples::

        >>> fused = fuse_maps([torch.rand(2, 1, 7, 7), torch.rand(2, 1, 14, 14)], (28, 28))
        >>> fused.shape
        torch.Size([2, 1, 28, 28])
    """
    shapes = [tuple(m.shape) for m in maps]
    if not shapes or {shape[:2] for shape in shapes} != {shapes[0][:2]} or {len(s) - 2 for s in shapes} != {len(size)}:
        raise ValueError(f"maps: expected maps (N, 1, *space) of {len(size)} spatial dimensions, found shapes {shapes}")
    upsampled = [LayerAttribution.interpolate(m, tuple(size), LINEAR[len(size)]) for m in maps]
    return torch.stack([of_norm_one(m).reshape(m.shape) for m in upsampled]).mean(0)
