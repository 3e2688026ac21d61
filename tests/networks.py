"""Small networks for the tests, with fully connected heads where the noise acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


class Wrapper(nn.Module):
    """ConvNet run in a way of its own."""

    def __init__(self, run: Callable[[ConvNet, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.run = ConvNet(), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.net, x)


def tail(net: ConvNet, x: Tensor) -> Tensor:
    x = net.pool(net.relu2(net.conv2(x)))
    return net.fc2(net.relu3(net.fc1(x.flatten(1))))


class SmallNet(nn.Module):
    """A convolution (the layer), then an activation, a convolution, and a fully connected head."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Conv2d(2, 3, 3)
            self.act = activation
            self.conv = nn.Conv2d(3, 4, 2)
            self.fc = nn.Linear(4 * 3 * 3, 5)
        self.double().eval()

    def head(self, a: Tensor) -> Tensor:
        return 3 * self.fc(self.act(self.conv(self.act(a))).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


def tokens(z: Tensor) -> Tensor:
    return z.flatten(2).transpose(1, 2)


class Tokens(nn.Module):
    """A convolution, then a transformer block of torch over its positions."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Conv2d(2, 4, 3)
            self.block = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True)
            self.fc = nn.Linear(4, 5)
        self.double().eval()

    def head(self, a: Tensor) -> Tensor:
        return self.fc(self.block(tokens(a)).square().mean(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


class TokensToFeatures(nn.Module):
    """A layer of tokens `(N, T, C)` and, behind it, the same values with the features first; then a smooth head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.features_first = nn.Linear(5, 3), nn.Identity()
        self.head = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(12, 6), nn.GELU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features_first(self.tokens(x).transpose(1, 2)))


class Heads(nn.Module):
    """Any output that the wrappers of scores take, from one layer and one example-wise argument."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.net, self.form = ConvNet(), form

    def forward(self, x: Tensor, extra: Any = None) -> Any:
        scores = self.net(x)
        if self.form == "words":  # (N, L, 5): the logits depend on the tokens before
            return scores[:, None] * (1 + extra[:, :, None].cumsum(1) / 7)
        if self.form == "pixels":
            return scores[:, :, None, None] * torch.arange(6.0).reshape(2, 3) + x[:, :1, :2, :3]
        return scores
