"""Maps combined: with another attribution (a product), and those of several layers (a mean)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_sgcampp.functional.tensors import of_norm_one

# Linear interpolation in `torch.nn.functional.interpolate`, by the number of spatial dimensions.
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}

Attributions = TypeVar("Attributions", Tensor, tuple[Tensor, ...])


def multiply_by_map(attributions: Attributions, maps: Tensor, interpolate_mode: str | None = None) -> Attributions:
    r"""
    Multiplies an attribution of the input's size by a class map: the attribution says which pixels matter, the map
    where the class is. Guided Grad-CAM is this product with guided backpropagation; integrated gradients, DeepLift,
    occlusion or any other attribution of the input may stand in its place.

    The map is taken as it is. Where its negative part should not count, compute it with `relu_attributions=True`. The
    product inherits the arbitrary scale of the map; it does not add up to the score, even where the attribution did.

    Args:

        attributions (Tensor or tuple[Tensor, ...]): Attributions of the input or of several, `(N, C, *space)` each.
        maps (Tensor): Map of the same examples, `(N, 1, *space)` with another spatial size: as `attribute` of a layer
                    method gives it.
        interpolate_mode (str, optional): How the map is brought to the size of the attributions, any mode of
                    `torch.nn.functional.interpolate` for that number of dimensions.
                    Default: None, linear interpolation ("linear", "bilinear" or "trilinear")

    Returns:
        *Tensor* or *tuple[Tensor, ...]*: of the shape of `attributions`.

    Raises:
        TypeError: several maps, or what is no tensor.
        ValueError: attributions and map that do not fit together, a map that is not summed over the feature maps
            (`attr_dim_summation=False`), or a mode that does not fit their dimensions.

    Examples::

        >>> maps = method.attribute(images, target=3, relu_attributions=True)
        >>> pixels = IntegratedGradients(net).attribute(images, target=3, n_steps=8)
        >>> multiply_by_map(pixels, maps).shape
        torch.Size([2, 3, 32, 32])
    """
    if not isinstance(maps, Tensor):
        raise TypeError(f"maps: expected one tensor, found {type(maps).__name__}")
    if isinstance(attributions, tuple):
        return tuple(_multiplied(values, maps, interpolate_mode) for values in attributions)
    return _multiplied(attributions, maps, interpolate_mode)


def _multiplied(attributions: Tensor, maps: Tensor, interpolate_mode: str | None) -> Tensor:
    if not isinstance(attributions, Tensor):
        raise TypeError(f"attributions: expected a tensor or a tuple of tensors, found {type(attributions).__name__}")
    if maps.dim() - 2 not in LINEAR or attributions.dim() != maps.dim() or len(attributions) != len(maps):
        raise ValueError(
            "attributions: expected as many examples and spatial dimensions (1 to 3) as in the maps "
            f"{tuple(maps.shape)}, found shape {tuple(attributions.shape)}"
        )
    if maps.shape[1] != 1:
        raise ValueError(f"maps: expected one channel, (N, 1, *space), found shape {tuple(maps.shape)}")
    mode = LINEAR[maps.dim() - 2] if interpolate_mode is None else interpolate_mode
    try:
        upsampled: Tensor = LayerAttribution.interpolate(maps, tuple(attributions.shape[2:]), mode)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(
            f"interpolate_mode: expected a mode for {maps.dim() - 2} spatial dimensions, found {mode!r}"
        ) from error
    return attributions * upsampled


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
