r"""
Trains the bundled network from nothing but a seed.

    python -m captum_sgcampp.bundled.train --seed 0 --out shapes_vgg.safetensors

The scenes are drawn once at the start and kept in memory; flips, quarter turns, swapped colour
channels and noise make every epoch see them differently. Besides the labels of the whole picture,
the network learns from the masks: a linear layer, which is not kept, has to name the classes at
every position of the last feature maps. That speeds the training up and keeps what the network
knows about an object at the object's place.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

from captum_sgcampp.bundled.network import ShapesVGG, normalise
from captum_sgcampp.bundled.scenes import CLASSES, SIZE, Scene, draw_scenes

__all__ = ["FIRST_TRAINING_SEED", "Settings", "save", "train"]

FIRST_TRAINING_SEED = 1_000_000_000
"""Training with seed 0 draws its scenes from this seed on; smaller seeds are never trained on."""

SEEDS_PER_RUN = 1_000_000
"""How far the scenes of two training seeds are apart; more scenes than this cannot be asked for."""

_CELLS = SIZE // 8  # positions per axis of the last feature maps before their pooling
_CELL_COVERAGE = 0.25  # share of a cell that a class has to cover to count as present there
_CELL_WEIGHT = 5.0  # weight of the loss at the positions; 1 for the labels of the whole picture


@dataclass(frozen=True)
class Settings:
    r"""
    What one training run does.

    Args:

        seed (int, optional): Seed of the scenes, the first weights and the order, 0 to 999.
                    Default: 0
        scenes (int, optional): Number of scenes to draw, each about 50 kilobytes of memory.
                    Default: 10000
        epochs (int, optional): How often every scene is shown.
                    Default: 12
        batch_size (int, optional): Scenes per step.
                    Default: 64
        learning_rate (float, optional): Largest learning rate, reached early and then lowered.
                    Default: 0.002
    """

    seed: int = 0
    scenes: int = 10_000
    epochs: int = 12
    batch_size: int = 16
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class _Data:
    pixels: Tensor  # uint8, (scenes, 3, SIZE, SIZE)
    labels: Tensor  # float32, (scenes, classes)
    cells: Tensor  # bool, (scenes, classes, _CELLS, _CELLS)


class _TrainingNetwork(nn.Module):
    # The network and the layer that names the classes at every position during training.
    def __init__(self, network: ShapesVGG) -> None:
        super().__init__()
        layers = list(network.features)
        self.pool = layers.pop()
        self.maps = nn.Sequential(*(_with_batch_norm(layer) for layer in layers))
        self.classifier = network.classifier
        self.cells = nn.Conv2d(layers[-2].out_channels, len(CLASSES), 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(images)
        return self.classifier(self.pool(maps)), self.cells(maps)


def _with_batch_norm(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)) if isinstance(layer, nn.Conv2d) else layer


def train(settings: Settings, report: Callable[[str], None] = print) -> ShapesVGG:
    r"""
    Trains a network from new weights. The global random generator of PyTorch is seeded for it.

    Args:

        settings (Settings): Seed, amount of data and number of steps.
        report (Callable, optional): Called with a line of text after every epoch.
                    Default: print

    Returns:
        *ShapesVGG*: The trained network in evaluation mode. The same settings give the same
        weights on the same machine with the same number of threads.

    Examples::

        >>> network = train(Settings(scenes=64, epochs=1))
    """
    if not 0 <= settings.seed < 1000:
        raise ValueError(f"seed must lie between 0 and 999, got {settings.seed}")
    if not settings.batch_size <= settings.scenes <= SEEDS_PER_RUN:
        raise ValueError(f"scenes must lie between {settings.batch_size} and {SEEDS_PER_RUN}, got {settings.scenes}")
    start = time.monotonic()
    data = _draw_data(settings)
    report(f"drew {settings.scenes} scenes in {time.monotonic() - start:.0f} s")
    torch.manual_seed(settings.seed)
    network = ShapesVGG()
    _initialise(network)
    _fit(network, data, settings, lambda line: report(f"{line}, {time.monotonic() - start:.0f} s"))
    return network.to(memory_format=torch.contiguous_format).eval()


def save(network: ShapesVGG, path: Path) -> None:
    r"""
    Saves the weights as float16 in the safetensors format.

    Args:

        network (ShapesVGG): Network to save.
        path (Path): File to write.
    """
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, path)


def _draw_data(settings: Settings) -> _Data:
    # Written into tensors made beforehand: the masks of all scenes together would fill the memory.
    count = settings.scenes
    pixels = torch.empty((count, 3, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.empty((count, len(CLASSES)))
    cells = torch.empty((count, len(CLASSES), _CELLS, _CELLS), dtype=torch.bool)
    first = FIRST_TRAINING_SEED + settings.seed * SEEDS_PER_RUN
    for number, scene in enumerate(draw_scenes(range(first, first + count))):
        pixels[number] = torch.from_numpy(scene.image).permute(2, 0, 1)
        labels[number] = torch.from_numpy(scene.labels)
        cells[number] = _cells(scene)
    return _Data(pixels, labels, cells)


def _cells(scene: Scene) -> Tensor:
    masks = torch.stack([torch.from_numpy(scene.class_mask(index)) for index in range(len(CLASSES))])
    return adaptive_avg_pool2d(masks.float(), _CELLS) >= _CELL_COVERAGE


def _initialise(network: ShapesVGG) -> None:
    # Keeps the spread of the activations through the ReLUs, which takes the place of batch norm.
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    nn.init.normal_(network.classifier[-1].weight, std=0.01)
    h, c = network.classifier[2].weight.shape
    network.classifier[2].weight.data = (torch.randn(h, c // 16, 1) * (2 / c) ** 0.5).expand(-1, -1, 16).reshape(h, c).clone()


def _fit(network: ShapesVGG, data: _Data, settings: Settings, report: Callable[[str], None]) -> None:
    model = _TrainingNetwork(network).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = settings.epochs * (settings.scenes // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=0.15
    )
    for epoch in range(1, settings.epochs + 1):
        total = torch.zeros(2)
        for batch in _batches(data, settings.batch_size):
            losses = _losses(model, batch)
            optimizer.zero_grad()
            (losses[0] + _CELL_WEIGHT * losses[1]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += losses.detach()
        labels, cells = (total / (settings.scenes // settings.batch_size)).tolist()
        from torch.nn.utils.fusion import fuse_conv_bn_eval
        model.eval()
        for number, layer in enumerate(model.maps):
            if isinstance(layer, nn.Sequential):
                network.features[number] = fuse_conv_bn_eval(layer[0], layer[1])
        model.train()
        report(f"epoch {epoch}/{settings.epochs}: loss {labels:.4f} (labels), {cells:.4f} (positions)")


def _losses(model: nn.Module, batch: _Data) -> Tensor:
    images = _add_noise(normalise(batch.pixels)).contiguous(memory_format=torch.channels_last)
    labels, cells = model(images)
    return torch.stack(
        [
            binary_cross_entropy_with_logits(labels, batch.labels),
            binary_cross_entropy_with_logits(cells, batch.cells.float()),
        ]
    )


def _batches(data: _Data, batch_size: int) -> Iterator[_Data]:
    # The scenes in a new order and pose; those left over after the last full batch are left out.
    order = torch.randperm(len(data.labels))
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        turns, flip = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        pixels, cells = (_pose(maps[chosen], turns, flip) for maps in (data.pixels, data.cells))
        yield _Data(pixels[:, torch.randperm(3)], data.labels[chosen], cells)


def _pose(maps: Tensor, turns: int, flip: bool) -> Tensor:
    turned = torch.rot90(maps, turns, (2, 3))
    return turned.flip(3) if flip else turned


def _add_noise(images: Tensor) -> Tensor:
    # Up to 0.6 on a scale from -2 to 2, less noise more often. Smooth Grad-CAM++ shows the network
    # noisy pictures, so it has to keep its judgement on them.
    spread = 0.6 * torch.rand(len(images), 1, 1, 1) ** 2
    return images + spread * torch.randn_like(images)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled network.")
    parser.add_argument("--out", type=Path, required=True, help="file to write, in the safetensors format")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="0 to 999 (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=Settings.scenes, help="scenes to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=Settings.epochs, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    r"""
    Runs the training from the command line.
    """
    arguments = _parse_arguments()
    torch.set_num_threads(arguments.threads)
    save(train(Settings(arguments.seed, arguments.scenes, arguments.epochs)), arguments.out)


if __name__ == "__main__":
    main()
