"""Show and Tell, small: convolutions, fully connected layers, and an LSTM that the picture starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tasks.captions.scenes import BEGIN, END, LENGTH, TOKENS, WORDS, Scene
from tasks.training import load, normalized

WEIGHTS = Path(__file__).with_name("captions.safetensors")
LAYER = "features.12"  # the ReLU of the last convolution, 64 maps of 10 x 10
CELL = 8  # pixels per axis of one position of these maps

_HIDDEN = 128


class Captioner(nn.Module):
    """From pictures `(N, 3, 80, 80)` and tokens `(N, L)` to logits of the next word `(N, L, words)`.

    The picture comes in as VGG's do: flattened maps and two fully connected layers, which know where things are. As in
    Show and Tell (Vinyals et al., https://arxiv.org/abs/1411.4555) it is what the LSTM reads before the first token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        )
        self.image = nn.Sequential(
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 25, 256), nn.ReLU(), nn.Linear(256, _HIDDEN)
        )
        self.embed = nn.Embedding(len(WORDS), _HIDDEN)
        self.lstm = nn.LSTM(_HIDDEN, _HIDDEN, batch_first=True)
        self.words = nn.Linear(_HIDDEN, len(WORDS))

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        return self.speak(self.features(images), tokens)

    def speak(self, maps: Tensor, tokens: Tensor) -> Tensor:
        """Logits `(N, L, words)` from the last maps `(N, 64, 10, 10)`; those at place t are for the token at t + 1."""
        return self.continued(self.image(maps), tokens)

    def continued(self, picture: Tensor, tokens: Tensor) -> Tensor:
        """The same from what the LSTM reads first, `(N, 128)`."""
        read = torch.cat([picture[:, None], self.embed(tokens)], 1)
        logits: Tensor = self.words(self.lstm(read)[0][:, 1:])
        return logits


def load_captioner(path: Path = WEIGHTS) -> Captioner:
    """The trained network, on the CPU, in float32 and in evaluation mode."""
    network = Captioner()
    load(network, path)
    return network


def inputs(scenes: Sequence[Scene]) -> Tensor:
    """Scenes as the network's input, `(N, 3, 80, 80)`."""
    return normalized(torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2))


@torch.no_grad()
def captions(network: Captioner, images: Tensor) -> Tensor:
    """The likeliest word, one after the other, `(N, LENGTH)` with the begin."""
    maps = network.features(images)
    tokens = torch.full((len(images), 1), TOKENS[BEGIN])
    while tokens.shape[1] < LENGTH:
        tokens = torch.cat([tokens, network.speak(maps, tokens)[:, -1:].argmax(2)], 1)
    return tokens


@torch.no_grad()
def likeliest(network: Captioner, image: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The likeliest sentences about one picture `(1, 3, 80, 80)`, by a beam search as wide as their number.

    Returns:
        Sentences `(count, LENGTH)` with the begin, and the logarithm of the probability of each, `(count,)`.
    """
    maps = network.features(image)
    tokens, scores = torch.tensor([[TOKENS[BEGIN]]]), torch.zeros(1)
    while tokens.shape[1] < LENGTH:
        steps = network.speak(maps.expand(len(tokens), -1, -1, -1), tokens)[:, -1].log_softmax(1)
        ended = tokens[:, -1] == TOKENS[END]  # goes on with ends, at no cost
        steps[ended] = torch.full_like(steps[ended], -torch.inf)
        steps[ended, TOKENS[END]] = 0
        scores, best = (scores[:, None] + steps).flatten().topk(min(count, steps.numel()))
        tokens = torch.cat([tokens[best // steps.shape[1]], best[:, None] % steps.shape[1]], 1)
    return tokens, scores
