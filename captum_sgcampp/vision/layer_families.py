"""Where the feature maps of a layer lie: channels first, channels last, or tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from captum_sgcampp.attr.reshape_transforms import TokenGrid, channels_last_to_first
from captum_sgcampp.model.layout_checks import ReshapeTransform, channels_come_last

# Class and distillation tokens and registers. DINOv2, which has the most of the known families, has five.
MOST_LEADING_TOKENS = 8


def layer_transform(
    model: nn.Module,
    layer: nn.Module,
    shape: Sequence[int],
    input_size: Sequence[int],
    patches: Sequence[int] | None = None,
) -> ReshapeTransform | None:
    """The `reshape_transform` that a layer of an image network needs; None where its maps are `(N, K, h, w)` already.

    Args:
        model: that the layer is part of.
        layer: a module of it.
        shape: of the layer's output, `(N, K, h, w)`, `(N, h, w, C)` or `(N, T, C)`.
        input_size: height and width of the model's input.
        patches: height and width of the maps from which the tokens were made, where they are known.

    Raises:
        ValueError: the output has no feature maps of the image.
    """
    found = f"found {type(layer).__name__} of shape {tuple(shape)}"
    if len(shape) == 3:
        return _token_grid(shape[1], patches, found)
    if len(shape) != 4:
        raise ValueError(f"layer: expected a layer with feature maps of two spatial dimensions, {found}")
    first, last = _in_proportion(shape[2:], input_size), _in_proportion(shape[1:3], input_size)
    if not channels_come_last(model, layer, shape) and (first or not last):
        return None
    if not last:  # (N, windows, positions, C)
        raise ValueError(f"layer: expected feature maps of the image, {found}, as inside the windows of an attention")
    return channels_last_to_first


def _in_proportion(size: Sequence[int], input_size: Sequence[int]) -> bool:
    """Whether maps have the proportions of the image, up to one position."""
    (rows, columns), (height, width) = size, input_size
    return abs(rows * width - columns * height) <= max(height, width)


def _token_grid(tokens: int, patches: Sequence[int] | None, found: str) -> TokenGrid:
    """By the patches that the tokens were made of, or else the largest square."""
    if patches is not None and 0 <= tokens - math.prod(patches) <= MOST_LEADING_TOKENS:
        return TokenGrid(tuple(patches), tokens - math.prod(patches))
    side = math.isqrt(tokens)
    if side < 1 or tokens - side**2 > MOST_LEADING_TOKENS:
        raise ValueError(f"layer: expected tokens that make up a grid, {found}")
    return TokenGrid((side, side), tokens - side**2)
