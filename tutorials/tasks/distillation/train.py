"""Trains a teacher, and a student for each loss of `LOSSES`, for many seeds. In `tutorials`:

    python -m tasks.distillation.train --seeds 16 --out errors.csv

A seed gives the split of the digits, the teacher, and the first weights and batches of the students. So students of one
seed differ in their loss alone. A run that was stopped goes on after the last seed that was finished.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, pad

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.distillation import explanation_loss
from captum_sgcampp.storage.atomic import written_whole
from tasks.distillation.network import TRAINING_DIGITS, DigitNet, Digits, split

TEACHER_WIDTH, STUDENT_WIDTH = 32, 8
TEACHER_EPOCHS, EPOCHS, BATCH, LEARNING_RATE = 80, 60, 40, 3e-3
TEMPERATURE = 4.0  # of L_KD, the paper's
PAPER_WEIGHT = 0.01  # of the maps, the paper's a in eq 27
TUNED = {"Grad-CAM": 1e-1, "Grad-CAM++": 1e-5}  # the best of `WEIGHTS` on the seeds from `FIRST_TUNING_SEED` on
WEIGHTS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FIRST_TUNING_SEED = 1000

METHODS: Mapping[str, Callable[..., LayerGradCam | LayerGradCamPlusPlus]] = {
    "Grad-CAM": LayerGradCam,
    "Grad-CAM++": LayerGradCamPlusPlus,
}


@dataclass(frozen=True)
class Loss:
    """What a student learns from, besides the labels.

    Attributes:
        maps: the method of the maps that it shares with its teacher, or "".
        weight: of these, a in eq 27.
        logits: whether it learns its teacher's logits (L_KD).
    """

    maps: str = ""
    weight: float = 0.0
    logits: bool = False


LOSSES: Mapping[str, Loss] = {
    "cross-entropy": Loss(),
    "+ Grad-CAM, paper's weight": Loss("Grad-CAM", PAPER_WEIGHT),
    "+ Grad-CAM++, paper's weight": Loss("Grad-CAM++", PAPER_WEIGHT),
    "+ Grad-CAM": Loss("Grad-CAM", TUNED["Grad-CAM"]),
    "+ Grad-CAM++": Loss("Grad-CAM++", TUNED["Grad-CAM++"]),
    "+ L_KD": Loss(logits=True),
    "+ L_KD + Grad-CAM": Loss("Grad-CAM", TUNED["Grad-CAM"], logits=True),
    "+ L_KD + Grad-CAM++": Loss("Grad-CAM++", TUNED["Grad-CAM++"], logits=True),
}


def maps(network: DigitNet, method: str, images: Tensor, labels: Tensor, create_graph: bool = False) -> Tensor:
    """Maps of the labels at the last convolution, `(N, 1, 4, 4)`. With a graph, a loss can be taken of them."""
    explain = METHODS[method](network, network.features)
    found: Tensor = explain.attribute(images, labels, grad_kwargs={"create_graph": create_graph})
    return found


def train_teacher(learned: Digits, seed: int) -> DigitNet:
    """A wide network, which sees every digit shifted by at most a pixel."""
    torch.manual_seed(seed)
    network = DigitNet(TEACHER_WIDTH)

    def loss(batch: Tensor) -> Tensor:
        return cross_entropy(network(_shifted(learned.images[batch])), learned.labels[batch])

    fit(network, loss, seed, TEACHER_EPOCHS)
    return network


def train_student(learned: Digits, teacher: DigitNet, chosen: Loss, seed: int, epochs: int) -> DigitNet:
    """A narrow network that learns from the labels, and from what its loss takes from the teacher."""
    torch.manual_seed(seed)
    network = DigitNet(STUDENT_WIDTH)
    with torch.no_grad():
        logits = teacher(learned.images)
    seen = maps(teacher, chosen.maps, learned.images, learned.labels).detach() if chosen.maps else None

    def loss(batch: Tensor) -> Tensor:
        images, labels = learned.images[batch], learned.labels[batch]
        found = network(images)
        total = cross_entropy(found, labels)
        if chosen.logits:
            total = total + logits_loss(found, logits[batch])
        if seen is not None:
            own = maps(network, chosen.maps, images, labels, create_graph=True)
            total = total + chosen.weight * explanation_loss(own, seen[batch])
        return total

    fit(network, loss, seed, epochs)
    return network


def logits_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_KD: how far the softened probabilities are apart, times the square of the temperature (Hinton et al., 2015)."""
    softened = [(logits / TEMPERATURE).log_softmax(1) for logits in (student, teacher)]
    return TEMPERATURE**2 * kl_div(*softened, reduction="batchmean", log_target=True)


def fit(network: nn.Module, loss: Callable[[Tensor], Tensor], seed: int, epochs: int) -> None:
    """Train a network in place, by the loss of batches of numbers of digits."""
    network.train()
    batches = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    steps = [part for _ in range(epochs) for part in torch.randperm(TRAINING_DIGITS, generator=batches).split(BATCH)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=len(steps))
    for batch in steps:
        optimizer.zero_grad()
        torch.autograd.backward(loss(batch))
        optimizer.step()
        schedule.step()
    network.eval()


def _shifted(images: Tensor) -> Tensor:
    """All moved by the same step of at most a pixel along each axis."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return pad(images, (1, 1, 1, 1), value=-1.0)[:, :, down : down + 8, right : right + 8]


@torch.no_grad()
def error(network: DigitNet, judged: Digits) -> float:
    """Percent of the digits that are not recognized."""
    return 100 * float((network(judged.images).argmax(1) != judged.labels).double().mean())


def errors(seed: int, losses: Mapping[str, Loss]) -> dict[str, float]:
    """Test errors of the teacher and of a student for each loss. PyTorch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        learned, judged = split(seed)
        teacher = train_teacher(learned, seed)
        students = {name: train_student(learned, teacher, chosen, seed, EPOCHS) for name, chosen in losses.items()}
    return {"teacher": error(teacher, judged)} | {name: error(one, judged) for name, one in students.items()}


def tuning_losses() -> dict[str, Loss]:
    """Both kinds of maps with every weight."""
    found = {f"{method}, {weight}": Loss(method, weight) for method in METHODS for weight in WEIGHTS}
    return {"cross-entropy": Loss()} | found


def read(path: Path) -> dict[str, list[float]]:
    """The errors of every loss, in the order of the seeds."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}


def run(seeds: Sequence[int], losses: Mapping[str, Loss], path: Path) -> Iterator[dict[str, float]]:
    """Adds a row to the file for each seed that it lacks."""
    columns = read(path) if path.exists() else {}
    done = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for seed in seeds:
        if seed in columns.get("seed", ()):
            continue
        done.append({"seed": seed} | errors(seed, losses))
        with written_whole(path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(done[0]))
            writer.writeheader()
            writer.writerows(done)
        yield done[-1]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and print the errors of each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16, help="how many (default: %(default)s)")
    parser.add_argument("--tune", action="store_true", help="other seeds, and all weights of the maps")
    parser.add_argument("--out", type=Path, required=True, help="the table of errors")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    first = FIRST_TUNING_SEED if chosen.tune else 0
    rows = partial(run, range(first, first + chosen.seeds), tuning_losses() if chosen.tune else LOSSES)
    for row in rows(chosen.out):
        print(", ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
