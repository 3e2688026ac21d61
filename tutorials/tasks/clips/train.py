"""Trains the network of actions from nothing but a seed. In `tutorials`:

    python -m tasks.clips.train --seed 0 --out clips.safetensors

A helper makes the training fast and is no part of the network: a linear layer that has to name the action at every
position of the last maps, in time and in space. So is batch normalization, which is folded into the convolutions at the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, cross_entropy

from tasks.clips.network import CELL, ActionNet, inputs
from tasks.clips.scenes import ACTIONS, Clip, draw_clip
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

DEFAULT = Settings(steps=900, batch_size=16, learning_rate=3e-3)

_NOTHING = len(ACTIONS)
_NOTHING_WEIGHT = 0.1  # of a cell where nothing happens; 1 for all others, which are far fewer


def train(settings: Settings = DEFAULT, report: Callable[[str], None] = print) -> ActionNet:
    """A network trained from new weights, in evaluation mode. PyTorch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = ActionNet()
        share_over_positions(network.classifier[2], channels=64)
        model = nn.ModuleDict({"network": network, "maps": with_batch_norm(network.features)})
        model["head"] = with_normalized_hidden_layer(network.classifier)
        model["cells"] = nn.Conv3d(64, len(ACTIONS) + 1, 1)
        fit(model, lambda seeds: _losses(model, [draw_clip(seed) for seed in seeds]), settings, report)
    fold_batch_norm(model["maps"], network.features)
    fold_hidden_layer(model["head"], network.classifier)
    return network.eval()


def _losses(model: nn.ModuleDict, clips: Sequence[Clip]) -> Tensor:
    maps = model["maps"](inputs(clips))
    actions = torch.tensor([clip.action for clip in clips])
    weights = torch.tensor([1.0] * len(ACTIONS) + [_NOTHING_WEIGHT])
    of_clips = cross_entropy(model["head"](maps), actions)
    return torch.stack([of_clips, cross_entropy(model["cells"](maps), _cells(clips), weights)])


def _cells(clips: Sequence[Clip]) -> Tensor:
    """The action where the acting object covers enough of a cell while it acts, else `_NOTHING`, `(N, 8, 6, 6)`."""
    acting = [torch.from_numpy(clip.masks[0] & clip.acting[:, None, None]) for clip in clips]
    covered = avg_pool3d(torch.stack(acting).float(), CELL)
    actions = torch.tensor([clip.action for clip in clips])[:, None, None, None]
    return torch.where(covered > 0.2, actions, _NOTHING)


@torch.no_grad()
def accuracy(network: ActionNet, seeds: Sequence[int]) -> float:
    """Share of actions that are right."""
    right = []
    for start in range(0, len(seeds), 50):
        clips = [draw_clip(seed) for seed in seeds[start : start + 50]]
        actions = torch.tensor([clip.action for clip in clips])
        right += (network(inputs(clips)).argmax(1) == actions).tolist()
    return float(np.mean(right))


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save and judge."""
    run(train, accuracy, DEFAULT, __doc__, argv)


if __name__ == "__main__":
    main()
