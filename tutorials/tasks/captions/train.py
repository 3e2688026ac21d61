"""Trains the captioning network from nothing but a seed. In `tutorials`:

    python -m tasks.captions.train --seed 0 --out captions.safetensors

Helpers make the training fast and are no part of the network: a linear layer that has to name shape, color and size at
every position of the last maps, and one that has to name what the sentence says from what the LSTM reads first. So is
batch normalization, which is folded into the convolutions at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from tasks.captions.network import CELL, Captioner, captions, inputs
from tasks.captions.scenes import COUNTS, RELATIONS, SIZES, Scene, draw_scene
from tasks.drawing import COLOR_NAMES, SHAPES
from tasks.training import (
    Settings,
    fit,
    fold_batch_norm,
    fold_hidden_layer,
    run,
    share_over_positions,
    with_batch_norm,
    with_normalized_hidden_layer,
)

DEFAULT = Settings(steps=1800, batch_size=32, learning_rate=3e-3)

_KINDS = (COUNTS, tuple(SIZES), COLOR_NAMES, SHAPES)
_NAMES = (SHAPES, COLOR_NAMES, tuple(SIZES))
_NOTHING_WEIGHT = 0.2  # of a cell without an object; 1 for all others, which are far fewer


def train(settings: Settings = DEFAULT, report: Callable[[str], None] = print) -> Captioner:
    """A network trained from new weights, in evaluation mode. PyTorch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Captioner()
        model = nn.ModuleDict({"network": network, "maps": with_batch_norm(network.features)})
        share_over_positions(network.image[2], channels=64)
        model["picture"] = with_normalized_hidden_layer(network.image)
        model["groups"] = nn.Linear(128, 2 + 2 * sum(map(len, _KINDS)))
        model["cells"] = nn.Conv2d(64, sum(len(names) + 1 for names in _NAMES), 1)
        fit(model, lambda seeds: _losses(model, [draw_scene(seed) for seed in seeds]), settings, report)
    fold_batch_norm(model["maps"], network.features)
    fold_hidden_layer(model["picture"], network.image)
    return network.eval()


def _losses(model: nn.ModuleDict, scenes: Sequence[Scene]) -> Tensor:
    network: Captioner = model["network"]  # type: ignore[assignment]
    maps = model["maps"](inputs(scenes))
    tokens = torch.tensor([scene.tokens for scene in scenes])
    picture = model["picture"](maps)
    logits = network.continued(picture, tokens)[:, :-1]
    of_words = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    of_groups = _group_loss(model["groups"](picture), scenes)
    return torch.stack([of_words, of_groups, _cell_loss(model["cells"](maps), _cells(scenes))])


def _group_loss(logits: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """Mean over the relation and what is said of each group: logits `(N, 34)`."""
    numbers = torch.tensor([_numbers(scene) for scene in scenes])
    parts = logits.split([2, *map(len, _KINDS), *map(len, _KINDS)], 1)
    found = [cross_entropy(part, kind) for part, kind in zip(parts, numbers.unbind(1), strict=True)]
    return torch.stack(found).mean()


def _numbers(scene: Scene) -> list[int]:
    """Numbers of the relation and of what is said of each group."""
    result = [list(RELATIONS).index(scene.relation)]
    for group in scene.groups:
        result += [group.count - 1, _KINDS[1].index(group.size)]
        result += [COLOR_NAMES.index(group.color), SHAPES.index(group.shape)]
    return result


def _cell_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Mean over the three kinds of names: logits `(N, 17, 10, 10)`, numbers of names `(N, 3, 10, 10)`."""
    sizes = [len(names) + 1 for names in _NAMES]
    total = torch.zeros(())
    for part, kind, size in zip(logits.split(sizes, 1), cells.unbind(1), sizes, strict=True):
        weights = torch.tensor([_NOTHING_WEIGHT] + [1.0] * (size - 1))
        total = total + cross_entropy(part, kind, weights) / len(sizes)
    return total


def _cells(scenes: Sequence[Scene]) -> Tensor:
    """At each cell the numbers of shape, color and size from 1, or 0 where no object covers a quarter of it."""
    cells = []
    for scene in scenes:
        covered, owner = avg_pool2d(torch.from_numpy(scene.masks).float(), CELL).max(0)
        groups = [scene.groups[owner] for owner in scene.owners]
        numbers = [
            [names.index(name) + 1 for names, name in zip(_NAMES, (g.shape, g.color, g.size), strict=True)]
            for g in groups
        ]
        cells.append(torch.where(covered > 0.25, torch.tensor(numbers).T[:, owner], 0))
    return torch.stack(cells)


def accuracy(network: Captioner, seeds: Sequence[int]) -> float:
    """Share of sentences that are right word by word."""
    right = []
    for start in range(0, len(seeds), 100):
        scenes = [draw_scene(seed) for seed in seeds[start : start + 100]]
        tokens = torch.tensor([scene.tokens for scene in scenes])
        right += (captions(network, inputs(scenes)) == tokens).all(1).tolist()
    return float(np.mean(right))


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save and judge."""
    run(train, accuracy, DEFAULT, __doc__, argv)


if __name__ == "__main__":
    main()
