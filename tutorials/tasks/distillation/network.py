"""Teacher and student: the same layers, of different width, for the digits of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TRAINING_DIGITS = 200


class DigitNet(nn.Module):
    """Three convolutions and two fully connected layers.

    Args:
        width: feature maps of the first convolution; the others have twice as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 2 * width
        self.features = nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU()),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(16 * wide, wide), nn.ReLU(), nn.Linear(wide, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, 10)` of digits `(N, 1, 8, 8)`."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


@dataclass(frozen=True)
class Digits:
    """Digits and what they are: `images` `(N, 1, 8, 8)` from -1 to 1, `labels` `(N,)`."""

    images: Tensor
    labels: Tensor


def split(seed: int) -> tuple[Digits, Digits]:
    """`TRAINING_DIGITS` digits to learn from, and all others to be judged on."""
    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.float32))[:, None] / 8 - 1
    labels = torch.from_numpy(found.target)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    parts = order[:TRAINING_DIGITS], order[TRAINING_DIGITS:]
    learned, judged = (Digits(images[part], labels[part]) for part in parts)
    return learned, judged
