"""What the training of the three networks shares: seeds, batch normalization that is folded away, steps, and files.

Every step draws new examples from new seeds, so that no example is seen twice and nothing is stored. The same settings
give the same weights on the same machine with one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from captum_sgcampp.storage.atomic import written_whole

FIRST_TRAINING_SEED = 1_000_000_000  # smaller seeds are never trained on
FIRST_FRESH_SEED = 3_000_000_000  # and neither are those from here on
SEEDS_PER_RUN = 1_000_000  # how far the examples of two training seeds are apart; more cannot be asked for


@dataclass(frozen=True)
class Settings:
    """What one training run does.

    Attributes:
        seed: of the examples and the first weights, 0 to 999.
        steps: how many, each with examples of its own.
        batch_size: pictures or clips per step.
        learning_rate: the largest, reached early and then lowered.
    """

    seed: int = 0
    steps: int = 3000
    batch_size: int = 32
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1000:
            raise ValueError(f"seed: expected 0 to 999, found {self.seed}")
        if not 2 <= self.steps * self.batch_size <= SEEDS_PER_RUN:
            raise ValueError(
                f"steps: expected 2 to {SEEDS_PER_RUN} examples in all, found {self.steps} * {self.batch_size}"
            )

    def example_seeds(self, step: int) -> range:
        """Seeds of the examples of one step."""
        first = FIRST_TRAINING_SEED + self.seed * SEEDS_PER_RUN + step * self.batch_size
        return range(first, first + self.batch_size)


def fresh_seeds(count: int, first: int = 0) -> range:
    """Seeds of examples that no training has seen."""
    return range(FIRST_FRESH_SEED + first, FIRST_FRESH_SEED + first + count)


def normalized(pixels: Tensor) -> Tensor:
    """Colors from 0 to 255 as a network's input, from -2 to 2."""
    return (pixels.float() / 255 - 0.5) / 0.25


def with_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """The same layers, with batch normalization after each convolution."""
    norms = {nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
    return nn.Sequential(
        *(
            nn.Sequential(layer, norms[type(layer)](layer.out_channels)) if type(layer) in norms else layer
            for layer in layers
        )
    )


def fold_batch_norm(trained: nn.Sequential, plain: nn.Sequential) -> None:
    """Put the convolutions of `with_batch_norm(plain)` into `plain`, their batch normalization folded into them."""
    trained.eval()
    for number, layer in enumerate(trained):
        if isinstance(layer, nn.Sequential):
            plain[number] = fuse_conv_bn_eval(layer[0], layer[1])


def with_normalized_hidden_layer(head: nn.Sequential) -> nn.Sequential:
    """The same fully connected layers, with batch normalization after the first: without it the large steps at the
    start leave its ReLUs at 0."""
    first = next(number for number, layer in enumerate(head) if isinstance(layer, nn.Linear))
    return nn.Sequential(*head[: first + 1], nn.BatchNorm1d(head[first].out_features), *head[first + 1 :])


def fold_hidden_layer(trained: nn.Sequential, plain: nn.Sequential) -> None:
    """Fold the batch normalization of `with_normalized_hidden_layer(plain)` into `plain`, whose layers it shares."""
    trained.eval()
    number = next(number for number, layer in enumerate(trained) if isinstance(layer, nn.BatchNorm1d))
    plain[number - 1] = fuse_linear_bn_eval(trained[number - 1], trained[number])


def share_over_positions(layer: nn.Linear, channels: int) -> None:
    """Start a layer on flattened maps with the same weights at every position, so that what it learns of a shape in one
    corner helps in the others from the first step on. Training then lets the positions differ."""
    with torch.no_grad():
        by_position = layer.weight.view(layer.out_features, channels, -1)
        by_position.copy_(by_position[:, :, :1].expand_as(by_position))


def fit(
    model: nn.Module, losses: Callable[[Sequence[int]], Tensor], settings: Settings, report: Callable[[str], None]
) -> None:
    """Train a model in place.

    Args:
        model: what is trained.
        losses: from the seeds of a step's examples to one or more losses, which are added.
        settings: number of steps and their size.
        report: called with a line of text now and then.
    """
    start = time.monotonic()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    every = max(1, settings.steps // 20)
    mean: Any = 0
    for step in range(settings.steps):
        found = losses(settings.example_seeds(step))
        optimizer.zero_grad()
        torch.autograd.backward(found.sum())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = mean + found.detach() / every
        if (step + 1) % every == 0:
            numbers = ", ".join(f"{value:.4f}" for value in mean)
            report(f"{time.monotonic() - start:5.0f} s  step {step + 1}/{settings.steps}: losses {numbers}")
            mean = 0


def save(network: nn.Module, path: Path) -> None:
    """Save the weights as float16 in the safetensors format; the file appears when it is whole."""
    with written_whole(path) as unfinished:
        save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, unfinished)


def load(network: nn.Module, path: Path) -> None:
    """Read what `save` wrote into a network, which is then in float32 and in evaluation mode."""
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    network.eval()


def run(
    train: Callable[[Settings, Callable[[str], None]], nn.Module],
    accuracy: Callable[[Any, Sequence[int]], float],
    default: Settings,
    description: str | None,
    argv: Sequence[str] | None,
) -> None:
    """The command line of a training script: train, save, print the accuracy of what was saved on fresh examples."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write, in the safetensors format")
    parser.add_argument("--seed", type=int, default=default.seed, help="0 to 999 (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=default.steps, help="of training (default: %(default)s)")
    parser.add_argument("--fresh", type=int, default=2000, help="examples to judge it on (default: %(default)s)")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = Settings(chosen.seed, chosen.steps, default.batch_size, default.learning_rate)
    network = train(settings, lambda line: print(line, flush=True))
    print(f"trained in {time.process_time() / 60:.1f} minutes of one CPU")
    save(network, chosen.out)
    load(network, chosen.out)
    print(f"accuracy on {chosen.fresh} fresh examples: {100 * accuracy(network, fresh_seeds(chosen.fresh)):.2f} %")
