"""Networks for `captum-sgcampp explain` of clips, volumes and signals. In `tutorials`:

captum-sgcampp explain clip.npy --kind clip --model-factory tasks/factories.py:actions --layer features.10
captum-sgcampp explain sound.wav --model-factory tasks/factories.py:pitch --layer conv4
captum-sgcampp explain clip.npy --kind clip --model-factory tasks/factories.py:cuts --layer SDDCNN.2
captum-sgcampp explain brain.nii.gz --model-factory tasks/factories.py:tissue --layer network.15

The first network ships. The others are read from the folder that SGCAMPP_ASSETS names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.recordings import Recording

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the package `tasks`, wherever the command runs

from tasks.assets import load_network
from tasks.clips.network import load_action_net
from tasks.clips.scenes import ACTIONS
from tasks.training import normalized

WINDOW = 1024  # samples that the network of pitch reads, at 16 kHz
FRAMES = 60  # of which the network of cuts tells each


def actions() -> Classifier:
    """Clips `(16, 48, 48, 3)`: what happens?"""

    def prepare(clip: Recording) -> Tensor:
        return normalized(torch.from_numpy(clip.values.copy()).permute(3, 0, 1, 2)[None])

    return Classifier("actions", load_action_net(), list(ACTIONS), prepare, lambda clip: clip, independent=False)


def pitch() -> Classifier:
    """Sounds of 16 kHz: how high is the first tone?"""
    network: Any = load_network("crepe_tiny")

    def show(sound: Recording) -> Recording:
        return Recording(sound.kind, sound.values[:1, :WINDOW], sound.rate)

    def prepare(sound: Recording) -> Tensor:
        values = torch.from_numpy(show(sound).values.copy()).float()
        return (values - values.mean()) / values.std()

    names = [f"{network.hz(number):.1f} Hz" for number in range(360)]
    return Classifier("pitch", network, names, prepare, show, independent=True)


def cuts() -> Classifier:
    """Clips `(T, 27, 48, 3)`: between which of the first `FRAMES` frames is a cut?"""

    def show(clip: Recording) -> Recording:
        return Recording(clip.kind, clip.values[:FRAMES], clip.rate)

    def prepare(clip: Recording) -> Tensor:
        return torch.from_numpy(show(clip).values.copy()).float().permute(3, 0, 1, 2)[None]

    names = [f"frame {number}" for number in range(FRAMES)]
    return Classifier("cuts", load_network("transnetv2"), names, prepare, show, independent=True)


class WholeVolume(nn.Module):
    """Mean logits of a network of voxels, `(N, classes)`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        logits: Tensor = self.network(volumes)
        return logits.mean((2, 3, 4))


def tissue() -> Classifier:
    """T1 scans: what is there most of?"""

    def prepare(scan: Recording) -> Tensor:
        values = torch.from_numpy(scan.values.copy()).float()
        return (values / values.max())[None, None]

    names = ["background", "white matter", "gray matter"]
    network = WholeVolume(load_network("meshnet_brain"))
    return Classifier("tissue", network, names, prepare, lambda scan: scan, independent=False)
