"""Small networks for the tests, with fully connected heads where the noise acts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Two convolutions, pooling, a fully connected head with a hidden layer; `dims` spatial dimensions of size 8."""

    def __init__(self, dims: int = 2, inplace: bool = False, seed: int = 0, channels: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
            pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dims]
            self.conv1 = conv(channels, 4, 3, padding=1)
            self.relu1 = nn.ReLU(inplace)
            self.conv2 = conv(4, 6, 3, padding=1)
            self.relu2 = nn.ReLU(inplace)
            self.pool = pool(2)
            self.fc1 = nn.Linear(6 * 4**dims, 16)
            self.relu3 = nn.ReLU(inplace)
            self.fc2 = nn.Linear(16, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(x))
        x = self.pool(self.relu2(self.conv2(x)))
        return self.fc2(self.relu3(self.fc1(x.flatten(1))))


class PooledNet(nn.Module):
    """The last layer is followed by global average pooling and a linear score only."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()
            )
            self.fc = nn.Linear(12, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class TwoInputs(nn.Module):
    """Two images and a per-example number; a layer of two inputs and two outputs."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return torch.relu(self.conv(a)), torch.relu(self.conv(b))[:, :, ::2]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.both = self.Both()
            self.fc = nn.Linear(3 * 36 + 3 * 18, 8)
            self.out = nn.Linear(8, 3)
        self.eval()

    def forward(self, a: Tensor, b: Tensor, gain: Tensor | float = 1.0, name: str = "") -> Tensor:
        left, right = self.both(a, b)
        hidden = torch.relu(self.fc(torch.cat([left.flatten(1), right.flatten(1)], 1)))
        scores = self.out(hidden)
        return scores * (gain[:, None] if isinstance(gain, Tensor) and gain.dim() else gain)


def images(examples: int = 2, channels: int = 2, dims: int = 2, size: int = 8, seed: int = 1) -> Tensor:
    """Random inputs, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((examples, channels) + (size,) * dims, generator=generator)
