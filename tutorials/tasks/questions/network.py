"""A small network that answers questions about a picture: convolutions that the question steers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from tasks.questions.scenes import ANSWERS, LENGTH, WORDS, Question, Scene
from tasks.training import load, normalized

WEIGHTS = Path(__file__).with_name("questions.safetensors")
BEFORE = "features.7"  # the ReLU of the last convolution that does not know the question, 64 maps of 16 x 16
LAYER = "last.1"  # the ReLU of the last convolution, 64 maps of 8 x 8
CELL = 8  # pixels per axis of one position of the maps that the question steers

_CHANNELS = 64
_WORD = 32


class Answerer(nn.Module):
    """From pictures `(N, 3, 64, 64)` and questions `(N, L)` to logits of the answers `(N, answers)`.

    The question scales and shifts the feature maps of the picture twice (FiLM, Perez et al.,
    https://arxiv.org/abs/1709.07871), each time before a convolution; fully connected layers follow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, _CHANNELS, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.embed = nn.Embedding(len(WORDS), _WORD)
        self.question = nn.Sequential(
            nn.Flatten(), nn.Linear(LENGTH * _WORD, 128), nn.ReLU(), nn.Linear(128, 4 * _CHANNELS)
        )
        self.inner = nn.Sequential(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1))
        self.last = nn.Sequential(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU())
        self.answer = nn.Sequential(
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * _CHANNELS, 128), nn.ReLU(), nn.Linear(128, len(ANSWERS))
        )

    def forward(self, images: Tensor, questions: Tensor) -> Tensor:
        return self.read(images, self.embed(questions))

    def read(self, images: Tensor, words: Tensor) -> Tensor:
        """Logits for questions whose words are embedded already, `(N, L, 32)`: all inputs are numbers then."""
        return self.judge(self.features(images), words)

    def judge(self, maps: Tensor, words: Tensor) -> Tensor:
        """Logits from the maps that the question steers, `(N, 64, 8, 8)`, and the embedded words."""
        scale, shift, inner_scale, inner_shift = self.question(words)[..., None, None].chunk(4, 1)
        inner = self.inner(relu((1 + scale) * maps + shift))
        logits: Tensor = self.answer(self.last(relu((1 + inner_scale) * inner + inner_shift)))
        return logits


def load_answerer(path: Path = WEIGHTS) -> Answerer:
    """The trained network, on the CPU, in float32 and in evaluation mode."""
    network = Answerer()
    load(network, path)
    return network


def inputs(scenes: Sequence[Scene]) -> Tensor:
    """Scenes as the network's input, `(N, 3, 64, 64)`."""
    return normalized(torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2))


def tokens(questions: Sequence[Question]) -> Tensor:
    """Questions as the network's input, `(N, L)`."""
    return torch.tensor([question.tokens for question in questions])
