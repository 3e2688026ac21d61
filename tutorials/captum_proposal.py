"""The tables and pictures of captum_proposal.md: infidelity, sensitivity and mosaics on a ResNet, a ViT and others.

    python captum_proposal.py
    python captum_proposal.py --model-factory my_models.py:load=mobilenet_v2 --layers features.18 --images photographs

The ResNet and the ViT are trained here, from a seed, on mosaics of scikit-learn's handwritten digits: which digits are
in the picture? So it is known where each digit is. Needs: pip install timm scikit-learn
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from PIL import Image
from sklearn.datasets import load_digits
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.metrics import as_input_attributions, bootstrap_interval, energy_inside, holm, sign_flip_test
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.model_factory import classifier_from_factory
from captum_sgcampp.visualization import compare_maps

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
SAMPLES, NOISE = 8, 0.15  # of the smooth methods
PERTURBATIONS = 10  # for each image and measure
TRAINED_ON = 1400  # of the 1,797 digits; the others are explained
RESNET_STEPS = 200  # it learns sooner than the ViT
SHOWN = 4

# From inputs (N, C, H, W) and the keyword `target` to a tuple of attributions in their shape.
Explain = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Task:
    """A network, a layer and its pictures.

    Attributes:
        name: of the network and layer.
        model: to logits.
        layer: of feature maps `(N, K, h, w)`.
        inputs: `(N, C, H, W)`.
        targets: the explained classes.
        cells: pixels of the class, `(N, H, W)`, where they are known.
        of: what a class is called in the pictures; without a name they are not shown.
    """

    name: str
    model: nn.Module
    layer: nn.Module
    inputs: Tensor
    targets: list[int]
    cells: Tensor | None = None
    of: str = ""


class AsMaps(nn.Module):
    """Hands tokens on unchanged; `maps` sees those of the patches as feature maps, so that any layer method can explain
    a vision transformer there."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.maps = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """`(N, 1 + side^2, C)` to the same."""
        grid = tokens[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        return torch.cat([tokens[:, :1], self.maps(grid).flatten(2).transpose(1, 2)], 1)


def resnet() -> ResNet:
    """A small ResNet of timm for 64 x 64 pixels, whose last feature maps are 8 x 8."""
    return ResNet(BasicBlock, [1, 1, 1, 1], 10, 1, output_stride=8, channels=(16, 32, 64, 64))


def vit() -> VisionTransformer:
    """A small ViT of timm with 8 x 8 patches; the input of its last block can be explained as feature maps."""
    model = VisionTransformer(64, 8, 1, 10, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2)
    model.blocks = nn.Sequential(*model.blocks[:-1], AsMaps(8), model.blocks[-1])
    return model


class Mosaics:
    """Pictures `(N, 1, 64, 64)` of four digits each, from 0 to 1, with what is where, `(N, 4)` by rows."""

    def __init__(self) -> None:
        digits = load_digits()
        pixels = torch.from_numpy(digits.images).float()[:, None] / 16
        self.pixels = interpolate(pixels, (32, 32), mode="bilinear")
        self.labels = torch.from_numpy(digits.target)

    def draw(self, count: int, generator: Generator, trained: bool) -> tuple[Tensor, Tensor]:
        """Four random digits in each, of those that are trained on or of the others."""
        first, last = (0, TRAINED_ON) if trained else (TRAINED_ON, len(self.labels))
        chosen = torch.randint(first, last, (count, 4), generator=generator)
        a, b, c, d = self.pixels[chosen].unbind(1)
        return torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2), self.labels[chosen]


def train(model: nn.Module, mosaics: Mosaics, steps: int, rate: float, seed: int = 0) -> nn.Module:
    """The model, trained to say which digits are there; in evaluation mode."""
    generator = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        pictures, labels = mosaics.draw(64, generator, trained=True)
        loss = binary_cross_entropy_with_logits(model(pictures), present(labels))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{type(model).__name__}: step {step + 1}, loss {loss.item():.4f}", file=sys.stderr)
    return model.eval()


def present(labels: Tensor) -> Tensor:
    """1 for each of the ten digits that is there, `(N, 10)`."""
    return torch.zeros(len(labels), 10).scatter(1, labels, 1.0)


def accuracy(model: nn.Module, mosaics: Mosaics) -> float:
    """The share of right answers, present or not, on 500 mosaics of digits that were not trained on."""
    pictures, labels = mosaics.draw(500, Generator().manual_seed(1), trained=False)
    with torch.no_grad():
        return float(((model(pictures) > 0) == (present(labels) > 0)).float().mean())


def digit_tasks(make: Callable[[], nn.Module], layers: Sequence[str], steps: int, count: int) -> Iterator[Task]:
    """A network that is trained here, at each of its layers."""
    mosaics = Mosaics()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = train(make(), mosaics, steps, 3e-3)
    share = accuracy(model, mosaics)
    print(f"{make.__name__}: {share:.4f} of the answers are right", file=sys.stderr)
    pictures, targets, cells = explained(mosaics, count)
    for layer in layers:
        name = f"{make.__name__} `{layer}`"
        yield Task(name, model, model.get_submodule(layer), pictures, targets, cells, "digit")


def explained(mosaics: Mosaics, count: int) -> tuple[Tensor, list[int], Tensor]:
    """Mosaics of four different digits; the class of the first to the fourth in turn, and the pixels of its cell."""
    pictures, labels = mosaics.draw(20 * count, Generator().manual_seed(2), trained=False)
    different = [k for k, row in enumerate(labels) if len(set(row.tolist())) == 4][:count]
    pictures, labels = pictures[different], labels[different]
    places = torch.arange(count) % 4
    cells = torch.zeros(count, 64, 64, dtype=torch.bool)
    for cell, place in zip(cells, places.tolist(), strict=True):
        row, column = divmod(place, 2)
        cell[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = True
    return pictures, labels[torch.arange(count), places].tolist(), cells


def scene_task(count: int) -> Task:
    """The bundled network, most probable classes."""
    model = load_shapes_vgg()
    scenes = [draw_scene(5_000_000_000 + k) for k in range(count)]
    inputs = torch.cat([preprocess(Image.fromarray(scene.image)) for scene in scenes])
    with torch.no_grad():
        targets = model(inputs).argmax(1).tolist()
    cells = torch.from_numpy(np.stack([s.class_mask(t) for s, t in zip(scenes, targets, strict=True)]))
    return Task("bundled VGG `features.14`", model, model.features[14], inputs, targets, cells, "class")


def given_task(factory: str, layer: str, folder: Path, count: int) -> Task:
    """A network of the user's on photographs, most probable classes."""
    classifier = classifier_from_factory(factory)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    chosen = [files[k * len(files) // count] for k in range(count)]
    inputs = torch.cat([classifier.prepare(read_image(path)) for path in chosen])
    with torch.no_grad():
        targets = [int(classifier.model(x[None]).argmax()) for x in inputs]
    model = classifier.model
    return Task(f"{classifier.name} `{layer}`", model, model.get_submodule(layer), inputs, targets)


def methods(task: Task) -> dict[str, Explain]:
    """By name. The smooth methods get the same noise at each call: what changes is the input alone."""
    plain, plus_plus = LayerGradCam(task.model, task.layer), LayerGradCamPlusPlus(task.model, task.layer)
    smooth = LayerSmoothGradCamPlusPlus(task.model, task.layer)
    two_sided = partial(_smooth, smooth, two_sided=True)
    return {
        "LayerGradCam": _positive(plain.attribute),
        "NoiseTunnel(LayerGradCam)": _positive(partial(_tunnel, NoiseTunnel(plain))),
        "LayerGradCamPlusPlus": _positive(plus_plus.attribute),
        "LayerSmoothGradCamPlusPlus": _positive(partial(_smooth, smooth)),
        "LayerSmoothGradCamPlusPlus, two_sided": _positive(two_sided),
        "a random map": _positive(_random),
        "a uniform map": _positive(_uniform),
    }


class _Function:
    """A function where `as_input_attributions` expects a method."""

    def __init__(self, attribute: Callable[..., Tensor]) -> None:
        self.attribute = attribute


def _positive(attribute: Callable[..., Tensor]) -> Explain:
    return as_input_attributions(_Function(partial(attribute, relu_attributions=True)))  # type: ignore[arg-type]


def _smooth(method: LayerSmoothGradCamPlusPlus, x: Tensor, **keywords: Any) -> Tensor:
    generator = Generator().manual_seed(0)
    maps: Tensor = method.attribute(x, nt_samples=SAMPLES, noise_level=NOISE, generator=generator, **keywords)
    return maps


def _tunnel(tunnel: NoiseTunnel, x: Tensor, **keywords: Any) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        deviation = NOISE * float(x.max() - x.min())
        maps: Tensor = tunnel.attribute(x, nt_samples=SAMPLES, stdevs=deviation, **keywords)
    return maps.detach()


def _random(x: Tensor, **_: Any) -> Tensor:
    """A coarse random map, another one for every input."""
    return torch.rand(len(x), 1, 8, 8, generator=Generator().manual_seed(int(x.double().sum() * 1e6) % 2**31))


def _uniform(x: Tensor, **_: Any) -> Tensor:
    return x.new_ones(len(x), 1, 8, 8)


def squares(x: Tensor) -> tuple[Tensor, Tensor]:
    """The perturbation of infidelity: a random square of a quarter of the side becomes 0, the mean color or the ground.

    Returns:
        What is taken away, and what is left, both `(N, C, H, W)`.
    """
    height, width = x.shape[2] // 4, x.shape[3] // 4
    taken = torch.zeros_like(x)
    for row, values in zip(taken, x, strict=True):
        top, left = (int(torch.randint(0, 3 * side + 1, ())) for side in (height, width))
        place = (slice(None), slice(top, top + height), slice(left, left + width))
        row[place] = values[place]
    return taken, x - taken


def measured(task: Task, explain: Explain) -> dict[str, list[float]]:
    """Each measure of each picture, by name."""
    rows: dict[str, list[float]] = {"infidelity": [], "sensitivity": []}
    for number, (x, target) in enumerate(zip(task.inputs.split(1), task.targets, strict=True)):
        found = explain(x, target=target)
        torch.manual_seed(number)  # the same squares for every method
        unfaithful = infidelity(
            task.model, squares, x, found, target=target, n_perturb_samples=PERTURBATIONS, normalize=True
        )
        radius = 0.02 * float(x.max() - x.min())
        torch.manual_seed(number)
        change = sensitivity_max(
            explain, x, perturb_radius=radius, n_perturb_samples=PERTURBATIONS, target=target, max_examples_per_batch=4
        )
        rows["infidelity"].append(float(unfaithful))
        rows["sensitivity"].append(float(change))
        if task.cells is not None:
            share = energy_inside(found[0].sum(1), task.cells[number : number + 1])
            rows.setdefault("share on the class", []).append(float(share))
    return rows


def table(task: Task) -> str:
    """Means with intervals, and the difference to the first method on the same pictures."""
    found = {}
    for name, explain in methods(task).items():
        print(f"{task.name}: {name}", file=sys.stderr)
        found[name] = {measure: torch.tensor(values) for measure, values in measured(task, explain).items()}
    reference, *others = found
    measures = list(found[reference])
    tests = {m: _p_values([found[other][m] - found[reference][m] for other in others]) for m in measures}
    p_values = {m: dict(zip(others, tests[m], strict=True)) for m in measures}
    lines = ["| method | " + " | ".join(measures) + " |", "| --- " * (len(measures) + 1) + "|"]
    for name, values in found.items():
        cells = [_cell(values[m], p_values[m].get(name, 1.0)) for m in measures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    off = f"closed form off by {closed_form_error(task):.0%}"
    return f"**{task.name}**, {len(task.targets)} pictures, {off}:\n\n" + "\n".join(lines)


def closed_form_error(task: Task) -> float:
    """How far the terms of Grad-CAM++'s weights are from those of exact derivatives: mean of the shown pictures."""
    method = LayerGradCamPlusPlus(task.model, task.layer)
    shown, targets = task.inputs[:SHOWN], task.targets[:SHOWN]
    error = method.closed_form_error(shown, targets, entries=16, generator=Generator().manual_seed(0))
    return float(error.terms.mean())


def _p_values(differences: Sequence[Tensor]) -> list[float]:
    """Of paired tests, corrected for their number."""
    return holm([sign_flip_test(values[~values.isnan()]) for values in differences])


def _cell(values: Tensor, p: float) -> str:
    known = values[~values.isnan()]
    low, high = bootstrap_interval(known)
    left = f", {len(known)} pictures" if len(known) < len(values) else ""
    return f"{float(known.mean()):.3f} ({low:.3f} to {high:.3f}{left}){' *' if p < 0.05 else ''}"


def picture(task: Task) -> Any:
    """The maps of some pictures, side by side."""
    shown = methods(task)
    images = [_as_image(x) for x in task.inputs[:SHOWN]]
    rows = []
    for x, target in zip(task.inputs[:SHOWN].split(1), task.targets, strict=False):
        names = {name.replace("Layer", "").replace(", ", "\n"): explain for name, explain in shown.items()}
        rows.append({name: e(x, target=target)[0].sum(1) for name, e in names.items() if not name.startswith("a ")})
    titles = [f"{task.of} {target}" for target in task.targets[:SHOWN]]
    return compare_maps(images, rows, titles)


def _as_image(x: Tensor) -> Tensor:
    return (x - x.min()) / (x.max() - x.min())


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, draw, and put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model-factory", action="append", default=[], metavar="WHERE:FUNCTION[=ARGUMENT]", help="a further network")
    add("--layers", action="append", default=[], metavar="NAME", help="its layer, once per network")
    add("--images", type=Path, metavar="FOLDER", help="photographs for these networks")
    add("--count", type=int, default=8, metavar="N", help="scenes, and photographs (default: 8)")
    add("--mosaics", type=int, default=24, metavar="N", help="mosaics of digits (default: 24)")
    add("--steps", type=int, default=2000, metavar="N", help="of the training of the ViT (default: 2000)")
    add("--page", type=Path, default=HERE / "captum_proposal.md", metavar="FILE", help="that gets the tables")
    add("--pictures", type=Path, default=HERE / "pictures", metavar="FOLDER", help="where the pictures go")
    arguments = parser.parse_args(argv)
    tables = []
    for task in tasks(arguments):
        if task.of:
            name = "".join(letter if letter.isalnum() else "-" for letter in task.name.lower()).strip("-")
            picture(task).savefig(arguments.pictures / f"proposal-{name.replace('--', '-')}.png", dpi=60)
        tables.append(table(task))
        write(arguments.page, tables)


def write(page: Path, tables: Sequence[str]) -> None:
    """Put the tables into the page, in place of those that are there."""
    text = page.read_text("utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(tables) + f"\n\n{END}{after}", "utf-8")


def tasks(arguments: argparse.Namespace) -> Iterator[Task]:
    """All of the page."""
    yield from digit_tasks(resnet, ("layer4", "layer2"), RESNET_STEPS, arguments.mosaics)
    yield scene_task(arguments.count)
    yield from digit_tasks(vit, ("blocks.3.maps",), arguments.steps, arguments.mosaics)
    for factory, layer in zip(arguments.model_factory, arguments.layers, strict=True):
        yield given_task(factory, layer, arguments.images, arguments.count)


if __name__ == "__main__":
    main()
