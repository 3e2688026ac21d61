"""Trains the network that answers questions from nothing but a seed. In `tutorials`:

    python -m tasks.questions.train --seed 0 --out questions.safetensors

Several questions are asked about each scene. A helper makes the training fast and is no part of the network: a linear
layer that has to name shape and color at every position of the maps that do not know the question yet. So is batch
normalization, which is folded into the convolutions at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from tasks.drawing import COLOR_NAMES, SHAPES
from tasks.questions.network import CELL, Answerer, inputs, tokens
from tasks.questions.scenes import Scene, draw_questions, draw_scene
from tasks.training import Settings, fit, fold_batch_norm, run, share_over_positions, with_batch_norm

DEFAULT = Settings(steps=4500, batch_size=16, learning_rate=3e-3)
PER_SCENE = 6

_NOTHING_WEIGHT = 0.2  # of a cell without an object; 1 for all others, which are far fewer


def train(settings: Settings = DEFAULT, report: Callable[[str], None] = print) -> Answerer:
    """A network trained from new weights, in evaluation mode. PyTorch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Answerer()
        model = nn.ModuleDict({"network": network, "cells": nn.Conv2d(64, len(SHAPES) + len(COLOR_NAMES) + 2, 1)})
        share_over_positions(network.answer[2], channels=64)
        plain = {name: getattr(network, name) for name in ("features", "inner", "last")}
        for name, layers in plain.items():
            setattr(network, name, with_batch_norm(layers))
        fit(model, lambda seeds: _losses(model, seeds), settings, report)
    for name, layers in plain.items():
        fold_batch_norm(getattr(network, name), layers)
        setattr(network, name, layers)
    return network.eval()


def _losses(model: nn.ModuleDict, seeds: Sequence[int]) -> Tensor:
    network: Answerer = model["network"]  # type: ignore[assignment]
    scenes = [draw_scene(seed) for seed in seeds]
    asked = [q for scene, seed in zip(scenes, seeds, strict=True) for q in draw_questions(scene, seed, PER_SCENE)]
    maps = network.features(inputs(scenes))
    logits = network.judge(maps.repeat_interleave(PER_SCENE, 0), network.embed(tokens(asked)))
    of_answers = cross_entropy(logits, torch.tensor([question.target for question in asked]))
    return torch.stack([of_answers, _cell_loss(model["cells"](maps), _cells(scenes))])


def _cell_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Mean over shape and color: logits `(N, 14, 8, 8)`, numbers of names `(N, 2, 8, 8)`."""
    total = torch.zeros(())
    for part, kind in zip(logits.split([len(SHAPES) + 1, len(COLOR_NAMES) + 1], 1), cells.unbind(1), strict=True):
        weights = torch.tensor([_NOTHING_WEIGHT] + [1.0] * (part.shape[1] - 1))
        total = total + cross_entropy(part, kind, weights) / 2
    return total


def _cells(scenes: Sequence[Scene]) -> Tensor:
    """At each cell the numbers of shape and color from 1, or 0 where no object covers a quarter of it."""
    cells = []
    for scene in scenes:
        covered, owner = avg_pool2d(torch.from_numpy(scene.masks).float(), CELL).max(0)
        numbers = [[SHAPES.index(t.shape) + 1, COLOR_NAMES.index(t.color) + 1] for t in scene.things]
        cells.append(torch.where(covered > 0.25, torch.tensor(numbers).T[:, owner], 0))
    return torch.stack(cells)


@torch.no_grad()
def right_answers(network: Answerer, seeds: Sequence[int]) -> dict[str, list[bool]]:
    """Whether each answer is right, by the kind of the question."""
    right: dict[str, list[bool]] = {}
    for start in range(0, len(seeds), 100):
        part = seeds[start : start + 100]
        scenes = [draw_scene(seed) for seed in part]
        asked = [q for scene, seed in zip(scenes, part, strict=True) for q in draw_questions(scene, seed, PER_SCENE)]
        found = network(inputs(scenes).repeat_interleave(PER_SCENE, 0), tokens(asked)).argmax(1).tolist()
        for question, answer in zip(asked, found, strict=True):
            right.setdefault(question.kind, []).append(answer == question.target)
    return right


def accuracy(network: Answerer, seeds: Sequence[int]) -> float:
    """Share of answers that are right."""
    return float(np.mean([answer for of_kind in right_answers(network, seeds).values() for answer in of_kind]))


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save and judge."""
    run(train, accuracy, DEFAULT, __doc__, argv)


if __name__ == "__main__":
    main()
