"""Layers whose channels come last: tokens `(N, T, C)` and grids `(N, *space, C)`, brought to `(N, C, *space)`.

A `reshape_transform` only moves entries (and may drop some), so it is applied to the derivatives as to the activation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from captum_sgcampp.checks import check_count


@dataclass(frozen=True)
class TokenGrid:
    r"""
    A `reshape_transform` for vision transformers: tokens `(N, T, C)` to feature maps `(N, C, h, w)`, rows first. The
    tokens in front of the patches (class token, distillation token, registers) are dropped.

    A layer behind which only the class token is used (the output of torchvision's last encoder block) has the gradient
    0 at every patch, and an all-zero map. Explain what goes into the last attention: `encoder.layers[-1].ln_1`.

    Args:

        grid (tuple of int, optional): Number of patches along each spatial dimension, `(h, w)`.
                    Default: None, a square grid
        leading (int, optional): How many tokens stand in front of the patches: 1 in ViT, 2 in distilled DeiT, 0 where
                    there is no class token.
                    Default: 1

    Raises:
        TypeError: a grid that is no sequence of ints, or `leading` that is no int.
        ValueError: a grid or `leading` that is not possible, and when called with another number of tokens than the
            grid has.

    Examples::

        >>> TokenGrid()(torch.rand(2, 17, 8)).shape
        torch.Size([2, 8, 4, 4])
        >>> vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
        >>> _ = torch.nn.init.normal_(vit.heads.head.weight)  # torchvision starts from zeros
        >>> layer = vit.encoder.layers[-1].ln_1
        >>> LayerGradCamPlusPlus(vit, layer, reshape_transform=TokenGrid()).attribute(images, target=3).shape
        torch.Size([2, 1, 4, 4])
    """

    grid: tuple[int, ...] | None = None
    leading: int = 1

    def __post_init__(self) -> None:
        check_count("leading", self.leading, least=0)
        if self.grid is None:
            return
        if not isinstance(self.grid, Sequence) or isinstance(self.grid, str):
            raise TypeError(f"grid: expected a tuple of ints, as (h, w), or None, found {self.grid!r}")
        if not self.grid:
            raise ValueError("grid: expected at least one spatial dimension, found none")
        for side in self.grid:
            check_count("grid", side)

    def __call__(self, activation: Tensor) -> Tensor:
        if activation.dim() != 3:
            raise ValueError(f"layer: expected tokens (N, T, C) for TokenGrid, found shape {tuple(activation.shape)}")
        patches = activation.shape[1] - self.leading
        side = math.isqrt(max(patches, 0))
        grid = (side, side) if self.grid is None else tuple(self.grid)
        if math.prod(grid) != patches or patches < 1:
            raise ValueError(
                f"grid: expected {'a square grid' if self.grid is None else grid} behind {self.leading} leading "
                f"tokens, found {activation.shape[1]} tokens; give TokenGrid(grid=(h, w), leading=...)"
            )
        maps: Tensor = activation[:, self.leading :].transpose(1, 2).unflatten(2, grid)
        return maps


def channels_last_to_first(activation: Tensor) -> Tensor:
    r"""
    A `reshape_transform` for layers `(N, *space, C)`, as those of torchvision's Swin transformers.

    Args:

        activation (Tensor): `(N, *space, C)`.

    Returns:
        *Tensor*: `(N, C, *space)`.

    Examples::

        >>> channels_last_to_first(torch.rand(2, 7, 5, 96)).shape
        torch.Size([2, 96, 7, 5])
    """
    return activation.movedim(-1, 1)
