"""How honest is the reported standard error? The real spread of maps over seeds, divided by what is reported.

    python standard_error.py
    python standard_error.py --network results/trained_networks.py:load=gtsrb features.8 PHOTOGRAPHS

The first is the bundled network on scenes. Others are given as a factory, a layer and a folder of photographs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.model_factory import classifier_from_factory

SAMPLES = (4, 8, 16, 32, 64)
ALPHA = {False: "the papers' formula", True: "`bound_alpha=True`"}
FIRST_SCENE = 6_000_000_000


@dataclass(frozen=True)
class Case:
    """A layer of a network, its inputs `(N, C, H, W)`, and the most probable class of each."""

    name: str
    model: nn.Module
    layer: nn.Module
    inputs: Tensor
    targets: list[int]


def scenes(layer: str, count: int) -> Case:
    """The bundled network."""
    pictures = [Image.fromarray(draw_scene(FIRST_SCENE + k).image) for k in range(count)]
    return case(f"bundled VGG `{layer}`", load_shapes_vgg(), layer, torch.cat([preprocess(one) for one in pictures]))


def photographs(factory: str, layer: str, folder: str, count: int) -> Case:
    """A network of the user's on photographs, evenly chosen."""
    classifier = classifier_from_factory(factory)
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in (".jpg", ".png"))
    chosen = [files[k * len(files) // count] for k in range(count)]
    inputs = torch.cat([classifier.prepare(read_image(path)) for path in chosen])
    return case(f"{classifier.name} `{layer}`", classifier.model, layer, inputs)


def case(name: str, model: nn.Module, layer: str, inputs: Tensor) -> Case:
    with torch.no_grad():
        targets = model(inputs).argmax(1).tolist()
    return Case(name, model, model.get_submodule(layer), inputs, targets)


def measured(one: Case, samples: int, seeds: int, bound_alpha: bool) -> tuple[float, float]:
    """The real spread divided by the reported standard error: by its root mean square over the seeds, and by its
    median. Geometric means of the pictures.

    The spread is that of the maps divided by their L2 norm: the root of the summed variances of the entries.
    """
    method = LayerSmoothGradCamPlusPlus(one.model, one.layer)
    maps, errors = [], []
    for seed in range(seeds):
        found, statistics = method.attribute(
            one.inputs,
            one.targets,
            nt_samples=samples,
            generator=Generator().manual_seed(1000 * samples + seed),
            return_statistics=True,
            bound_alpha=bound_alpha,
        )
        maps.append(normalize(found.detach().flatten(1).double()))
        errors.append(statistics.standard_error.double())
    spread, reported = torch.stack(maps).var(0).sum(1).sqrt(), torch.stack(errors)
    mean_square = reported.square().mean(0).sqrt()
    return _geometric_mean(spread / mean_square), _geometric_mean(spread / reported.median(0).values)


def _geometric_mean(values: Tensor) -> float:
    return math.exp(float(values.log().mean()))


def row(one: Case, seeds: int, bound_alpha: bool) -> str:
    """A line of the table."""
    found = [measured(one, samples, seeds, bound_alpha) for samples in SAMPLES]
    cells = [f"{mean_square:.2f} ({median:.2f})" for mean_square, median in found]
    return f"| {one.name} | {ALPHA[bound_alpha]} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--network", nargs=3, action="append", default=[], metavar=("WHERE:FUNCTION[=ARGUMENT]", "LAYER", "FOLDER"))
    add("--count", type=int, default=4, metavar="N", help="pictures of each network (default: 4)")
    add("--seeds", type=int, default=16, metavar="N", help="of the noise (default: 16)")
    arguments = parser.parse_args(argv)
    cases = [scenes("features.14", arguments.count)]
    cases += [photographs(*network, arguments.count) for network in arguments.network]
    print("| network, layer | alpha | " + " | ".join(f"n = {samples}" for samples in SAMPLES) + " |")
    print("| --- " * (2 + len(SAMPLES)) + "|")
    for one in cases:
        for bound_alpha in (False, True):
            print(row(one, arguments.seeds, bound_alpha), flush=True)


if __name__ == "__main__":
    main()
