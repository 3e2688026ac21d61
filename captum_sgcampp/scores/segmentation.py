"""Scores of segmentation networks over a region."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from captum_sgcampp.scores.wrapped import Wrapped, checked_output


class RegionScores(Wrapped):
    r"""
    The scores of a segmentation network over a region: class scores `(N, C, H, W)`, averaged (or added) over the pixels
    of a mask, give `(N, C)`. `predicted_region` makes the mask of what the network predicts.

    Explaining the sum over a region is Seg-Grad-CAM (Vinogradova et al., https://arxiv.org/abs/2002.11434); the mean
    keeps the size of a logit, on which the score function `exp` depends.

    Args:

        model (Callable): Module or function with scores `(N, C, *space)`.
        region (Tensor, optional): bool, `(*space)`, shared by all examples. Default: None, `(N, *space)` follows as the
                    last of the additional arguments
        reduction (str, optional): `"mean"` or `"sum"`. Default: `"mean"`

    Examples::

        >>> segmenter = torch.nn.Sequential(net.conv, torch.nn.Conv2d(8, 10, 1))  # (N, 10, 16, 16)
        >>> region = torch.zeros(16, 16, dtype=torch.bool)
        >>> region[4:8, 2:9] = True
        >>> attr = LayerGradCamPlusPlus(RegionScores(segmenter, region), net.conv).attribute(images, target=3)
    """

    region: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        region: Tensor | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(model)
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected 'mean' or 'sum', found {reduction!r}")
        self.hold("region", region)
        self.reduction = reduction

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, C)`."""
        arguments, region = self.split("region", self.region, arguments)
        scores = checked_output(self.model(*arguments), 3, "(N, C, *space)")
        space = tuple(scores.shape[2:])
        wanted = (len(scores), *space) if self.region is None else space
        if tuple(region.shape) != wanted or region.dtype != torch.bool:
            raise ValueError(f"region: expected a bool tensor {wanted}, found {region.dtype}, {tuple(region.shape)}")
        inside = region.to(scores.device).reshape(-1, 1, math.prod(space))
        pixels = inside.sum(2)
        if not bool(pixels.all()):
            raise ValueError("region: expected at least one pixel in every example, found none")
        total = (scores.flatten(2) * inside).sum(2)
        return total / pixels if self.reduction == "mean" else total


def predicted_region(scores: Tensor, target: int | Sequence[int] | Tensor) -> Tensor:
    r"""
    The pixels at which a segmentation network gives a class the highest score.

    Args:

        scores (Tensor): What the network gives for the clean inputs, `(N, C, *space)`.
        target (int, sequence of int or Tensor): The class, or one for each example.

    Returns:
        *Tensor* of bool, `(N, *space)`: for `RegionScores`, through `additional_forward_args`.

    Examples::

        >>> predicted_region(torch.rand(2, 10, 16, 16), 3).shape
        torch.Size([2, 16, 16])
    """
    classes = torch.as_tensor(target, device=scores.device)
    if scores.dim() < 3 or classes.dim() > 1 or (classes.dim() == 1 and len(classes) != len(scores)):
        raise ValueError(
            f"target: expected a class, or one per example, of scores (N, C, *space), found {target!r} for "
            f"{tuple(scores.shape)}"
        )
    return scores.argmax(1) == classes.reshape(-1, *(1,) * (scores.dim() - 2))
