"""Trains the bundled network from nothing but a seed.

    python train.py --seed 0 --out shapes_vgg.safetensors

The scenes are drawn once at the start and kept in memory. Flips, quarter turns and swapped color channels make every
epoch see them differently. Two helpers make the training fast and are not part of the trained network: batch
normalization, which is folded into the convolutions at the end, and a linear layer that has to name the class at every
position of the last feature maps. The latter also keeps what the network knows about an object at the object's place.

No noise is added to the scenes, as it is not in the training of most networks either. A network that was trained on
noise hardly changes its gradients under it, and would leave Smooth Grad-CAM++ little to smooth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captum_sgcampp.bundled.network import ShapesVGG, normalise
from captum_sgcampp.bundled.scenes import CLASSES, SIZE, Scene, draw_scenes

# Training with seed 0 draws its scenes from here on; smaller seeds are never trained on.
FIRST_TRAINING_SEED = 1_000_000_000
SEEDS_PER_RUN = 1_000_000  # how far the scenes of two training seeds are apart; more cannot be asked for

_CELL = 8  # pixels per axis that one position of the last feature maps stands for
_CELL_COVERAGE = 0.25  # share of a cell that an object has to cover to count as present there
_NOTHING = len(CLASSES)  # class of the cells without an object
_NOTHING_WEIGHT = 0.2  # weight of a cell without an object; 1 for all others, which are far fewer


@dataclass(frozen=True)
class Settings:
    """What one training run does.

    Attributes:
        seed: of the scenes, the first weights and the order, 0 to 999.
        scenes: number of scenes to draw, each about 50 kilobytes of memory.
        epochs: how often every scene is shown.
        batch_size: scenes per step.
        learning_rate: the largest, reached early and then lowered.
    """

    seed: int = 0
    scenes: int = 10_000
    epochs: int = 8
    batch_size: int = 16
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1000:
            raise ValueError(f"seed must lie between 0 and 999, got {self.seed}")
        if not self.batch_size <= self.scenes <= SEEDS_PER_RUN:
            raise ValueError(f"scenes must lie between {self.batch_size} and {SEEDS_PER_RUN}, got {self.scenes}")

    @property
    def scene_seeds(self) -> range:
        """Seeds of the scenes that are trained on."""
        first = FIRST_TRAINING_SEED + self.seed * SEEDS_PER_RUN
        return range(first, first + self.scenes)


def train(settings: Settings, report: Callable[[str], None] = print) -> ShapesVGG:
    """A network trained from new weights, in evaluation mode. PyTorch's random state is left as it was.

    The same settings give the same weights on the same machine with the same number of threads.

    Args:
        settings: seed, amount of data and number of steps.
        report: called with a line of text after the drawing and every epoch.
    """
    start = time.monotonic()

    def timed(line: str) -> None:
        report(f"{time.monotonic() - start:4.0f} s  {line}")

    data = _draw_data(settings)
    timed(f"drew {settings.scenes} scenes")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = _TrainingNetwork()
        _fit(model, data, settings, timed)
    return model.finished()


def save(network: ShapesVGG, path: Path) -> None:
    """Save the weights as float16 in the safetensors format."""
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, path)


@dataclass(frozen=True)
class _Data:
    pixels: Tensor  # uint8, (scenes, 3, SIZE, SIZE)
    labels: Tensor  # float32, (scenes, classes)
    cells: Tensor  # int64 class or _NOTHING, (scenes, SIZE / _CELL, SIZE / _CELL)


def _draw_data(settings: Settings) -> _Data:
    # Written into tensors made beforehand: the masks of all scenes together would fill the memory.
    count, cells_per_axis = settings.scenes, SIZE // _CELL
    pixels = torch.empty((count, 3, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.empty((count, len(CLASSES)))
    cells = torch.empty((count, cells_per_axis, cells_per_axis), dtype=torch.int64)
    for number, scene in enumerate(draw_scenes(settings.scene_seeds)):
        pixels[number] = torch.from_numpy(scene.image).permute(2, 0, 1)
        labels[number] = torch.from_numpy(scene.labels)
        cells[number] = _cells(scene)
    return _Data(pixels, labels, cells)


def _cells(scene: Scene) -> Tensor:
    # The class that covers most of every cell, where it covers enough of it.
    coverage, owner = avg_pool2d(torch.from_numpy(scene.masks).float(), _CELL).max(0)
    return torch.where(coverage >= _CELL_COVERAGE, torch.tensor(scene.classes)[owner], _NOTHING)


class _TrainingNetwork(nn.Module):
    # The network with batch normalisation, and the layer that names the class at every position.
    def __init__(self) -> None:
        super().__init__()
        self.network = ShapesVGG()
        _share_over_positions(self.network)
        layers = list(self.network.features)
        self.pool = layers.pop()
        self.maps = nn.Sequential(*(_normalised(layer) for layer in layers))
        self.cells = nn.Conv2d(self.network.channels, len(CLASSES) + 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(images)
        return self.network.classifier(self.pool(maps)), self.cells(maps)

    def finished(self) -> ShapesVGG:
        # The plain network, with the batch normalisation folded into its convolutions.
        self.eval()
        for number, layer in enumerate(self.maps):
            if isinstance(layer, nn.Sequential):
                self.network.features[number] = fuse_conv_bn_eval(*layer)
        return self.network.to(memory_format=torch.contiguous_format)


def _normalised(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)) if isinstance(layer, nn.Conv2d) else layer


def _share_over_positions(network: ShapesVGG) -> None:
    # Starts with the same weights at every position, so that what is learnt about a shape in one
    # corner helps in the others from the first step on. Training then lets the positions differ.
    hidden = next(layer for layer in network.classifier if isinstance(layer, nn.Linear))
    with torch.no_grad():
        by_position = hidden.weight.view(hidden.out_features, network.channels, -1)
        by_position.copy_(by_position[:, :, :1].expand_as(by_position))


def _fit(model: nn.Module, data: _Data, settings: Settings, report: Callable[[str], None]) -> None:
    model.to(memory_format=torch.channels_last).train()
    steps = settings.scenes // settings.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, epochs=settings.epochs, steps_per_epoch=steps, pct_start=0.15
    )
    for epoch in range(1, settings.epochs + 1):
        total = torch.zeros(2)
        for batch in _batches(data, settings.batch_size):
            losses = _losses(model, batch)
            optimizer.zero_grad()
            torch.autograd.backward(losses.sum())
            optimizer.step()
            schedule.step()
            total += losses.detach() / steps
        report(f"epoch {epoch}/{settings.epochs}: loss {total[0]:.4f} (labels), {total[1]:.4f} (positions)")


def _losses(model: nn.Module, batch: _Data) -> Tensor:
    images = normalise(batch.pixels).contiguous(memory_format=torch.channels_last)
    labels, cells = model(images)
    weights = torch.ones(len(CLASSES) + 1)
    weights[_NOTHING] = _NOTHING_WEIGHT
    of_labels = binary_cross_entropy_with_logits(labels, batch.labels)
    return torch.stack([of_labels, cross_entropy(cells, batch.cells, weights)])


def _batches(data: _Data, batch_size: int) -> Iterator[_Data]:
    # The scenes in a new order and pose; those left over after the last full batch are left out.
    order = torch.randperm(len(data.labels))
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        turns, flip = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        pixels, cells = (_pose(maps[chosen], turns, flip) for maps in (data.pixels, data.cells))
        yield _Data(pixels[:, torch.randperm(3)], data.labels[chosen], cells)


def _pose(maps: Tensor, turns: int, flip: bool) -> Tensor:
    turned = torch.rot90(maps, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def main(argv: Sequence[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write, in the safetensors format")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="0 to 999 (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=Settings.scenes, help="scenes to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=Settings.epochs, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads)
    settings = Settings(chosen.seed, chosen.scenes, chosen.epochs)
    save(train(settings, lambda line: print(line, flush=True)), chosen.out)


if __name__ == "__main__":
    main()
