"""C3D, small: three-dimensional convolutions and fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from tasks.clips.scenes import ACTIONS, Clip
from tasks.training import load, normalized

WEIGHTS = Path(__file__).with_name("clips.safetensors")
LAYER = "features.10"  # the ReLU of the last convolution, 64 maps of 8 x 6 x 6
CELL = (2, 8, 8)  # frames and pixels per axis of one position of these maps


class ActionNet(nn.Module):
    """From clips `(N, 3, 16, 48, 48)` to logits of the actions `(N, 9)`.

    As in C3D (Tran et al., https://arxiv.org/abs/1412.0767) all convolutions are of 3 x 3 x 3, and fully connected
    layers on the flattened maps follow, which know where and when things happen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv3d(3, 16, 3, (1, 2, 2), padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2))),
            *(nn.Conv3d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool3d((2, 1, 1))),
            *(nn.Conv3d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2))),
            *(nn.Conv3d(48, 64, 3, padding=1), nn.ReLU()),
        )
        self.classifier = nn.Sequential(
            nn.MaxPool3d(2), nn.Flatten(), nn.Linear(64 * 4 * 3 * 3, 128), nn.ReLU(), nn.Linear(128, len(ACTIONS))
        )

    def forward(self, clips: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.features(clips)))


def load_action_net(path: Path = WEIGHTS) -> ActionNet:
    """The trained network, on the CPU, in float32 and in evaluation mode."""
    network = ActionNet()
    load(network, path)
    return network


def inputs(clips: Sequence[Clip]) -> Tensor:
    """Clips as the network's input, `(N, 3, 16, 48, 48)`."""
    return normalized(torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 4, 1, 2, 3))
