"""Regions of a brain scan, and their scores: the mean or the sum of a tissue's logits over the region's voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from captum_sgcampp.scores import RegionScores, predicted_region
from tasks.assets import needed_folder

NETWORK = "meshnet_brain"
TISSUES = {1: "white matter", 2: "gray matter"}  # 0 is the background
LAYERS = ("13", "15")  # ReLUs of the last two convolutions of 3 x 3 x 3

_MIDDLE = slice(12, 84)  # of the scan, along each axis
_SIDE = 16  # of a cube, in voxels
_FIRST, _STEP = 4, 24  # where the cubes start, along each axis
_LEAST = 400  # voxels of a region


@dataclass(frozen=True, eq=False)
class Region:
    """The voxels of a cube that the network takes for its most frequent tissue there.

    Attributes:
        tissue: index of the class.
        voxels: bool, `(D, H, W)`.
    """

    tissue: int
    voxels: Tensor


class ManyRegionScores(nn.Module):
    """The score of each region in one pass, `(N, regions)`."""

    def __init__(self, network: nn.Module, regions: Sequence[Region], reduction: str = "mean") -> None:
        super().__init__()
        self.network = network
        self.tissues = [region.tissue for region in regions]
        self.scores = nn.ModuleList(
            RegionScores(nn.Identity(), region.voxels, reduction)  # type: ignore[arg-type]
            for region in regions
        )

    def forward(self, volumes: Tensor) -> Tensor:
        logits = self.network(volumes)
        return torch.stack(
            [score(logits)[:, tissue] for score, tissue in zip(self.scores, self.tissues, strict=True)], 1
        )


def scan() -> Tensor:
    """The middle of a T1 scan as the network's input, `(1, 1, 72, 72, 72)`, from 0 to 1."""
    stored = np.load(needed_folder() / "samples" / "t1_crop96.npz")
    return torch.from_numpy(stored["t1"][_MIDDLE, _MIDDLE, _MIDDLE])[None, None].float() / 255


def regions_of(logits: Tensor, side: int = _SIDE, first: int = _FIRST, step: int = _STEP) -> list[Region]:
    """The regions of cubes on a grid of three per axis, from the network's logits `(1, C, D, H, W)`."""
    found, predicted = [], {tissue: predicted_region(logits, tissue)[0] for tissue in TISSUES}
    starts = range(first, first + 3 * step, step)
    for z, y, x in ((z, y, x) for z in starts for y in starts for x in starts):
        cube = torch.zeros(logits.shape[2:], dtype=torch.bool)
        cube[z : z + side, y : y + side, x : x + side] = True
        voxels = {tissue: everywhere & cube for tissue, everywhere in predicted.items()}
        tissue = max(voxels, key=lambda name: int(voxels[name].sum()))
        if int(voxels[tissue].sum()) >= _LEAST:
            found.append(Region(tissue, voxels[tissue]))
    return found
