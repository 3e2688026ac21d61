"""What all forms need of a picture, stored once: the activation, and gradients at the clean input and noisy samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import table_pictures as pictures
import torch
import trained_networks
from forms import Stored
from torch import Generator, Tensor, nn

from captum_sgcampp import metrics as m
from captum_sgcampp.evaluation.cases import image_seed, most_probable
from captum_sgcampp.evaluation.regions import box_regions
from captum_sgcampp.functional.noise import draw_seed, noisy_rows, relative_sigma
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import read_image

NOISE_LEVEL = 0.15
DRAWS = 2  # mosaics of every photograph


@dataclass(frozen=True)
class Setting:
    """What is searched.

    Attributes:
        name: of the folder and the table; the network's, with `-inner` for an inner layer.
        layer: where.
        samples: noisy ones.
        is_pooled: whether only global pooling and a linear score follow the layer.
    """

    name: str
    layer: str
    samples: int = 4
    is_pooled: bool = True

    @property
    def network(self) -> str:
        """Of `trained_networks.py`."""
        return self.name.removesuffix("-inner")


SETTINGS = [
    Setting("mobilenet_v2", "features.18"),
    Setting("squeezenet1_1", "features.12"),
    Setting("googlenet", "inception_5b"),
    Setting("gtsrb", "features.8", samples=8, is_pooled=False),
    Setting("mobilenet_v2-inner", "features.14.conv.0", is_pooled=False),
    Setting("squeezenet1_1-inner", "features.9", is_pooled=False),
    Setting("googlenet-inner", "inception_4e", is_pooled=False),
]


def store(setting: Setting, work: Path) -> Path:
    """Stores what is missing of a setting. Returns its folder."""
    folder = work / setting.name
    folder.mkdir(parents=True, exist_ok=True)
    classifier = trained_networks.load(setting.network)
    classifier.model.requires_grad_(False)
    parts = signs(classifier) if setting.network == "gtsrb" else photographs(classifier, folder)
    for name, seed, prepare in parts:
        path = folder / f"{name}.pt"
        if not path.exists():
            inputs, target, more = prepare()
            found = derivatives(setting, classifier.model, inputs, target, seed) | more
            with written_whole(path) as unfinished:
                torch.save(found, unfinished)
    return folder


def derivatives(setting: Setting, model: nn.Module, inputs: Tensor, target: int, seed: int) -> Stored:
    """Rows: the clean input, then the samples with the noise that `captum-sgcampp evaluate` draws.

    Returns:
        `a` `(K, h, w)`, the activation; `sc`, `so` `(rows,)`, the logit of the class and log-sum-exp of the others;
        `gc`, `go`, their gradients, `(rows, K, h, w)`, or `(rows, K, 1, 1)` where they do not depend on the position.
    """
    sigma, drawn = relative_sigma(inputs, NOISE_LEVEL), draw_seed(Generator().manual_seed(seed))
    rows = noisy_rows(inputs, sigma, drawn, 0, range(setting.samples), True)
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().clone().requires_grad_())
        return kept[0]

    handle = model.get_submodule(setting.layer).register_forward_hook(keep)
    with torch.enable_grad():
        logits = model(rows).double()
        handle.remove()
        own = logits[:, target]
        others = torch.cat([logits[:, :target], logits[:, target + 1 :]], 1).logsumexp(1)
        (of_own,) = torch.autograd.grad(own.sum(), kept[0], retain_graph=True)
        (of_others,) = torch.autograd.grad(others.sum(), kept[0])
    if bool((of_own == of_own[..., :1, :1]).all()):
        of_own, of_others = of_own[..., :1, :1].clone(), of_others[..., :1, :1].clone()
    return {
        "a": kept[0].detach()[0].clone(),
        "gc": of_own,
        "go": of_others,
        "sc": own.detach(),
        "so": others.detach(),
        "target": target,
    }


Part = tuple[str, int, partial[tuple[Tensor, int, dict[str, Any]]]]  # name, seed of the noise, what prepares it


def signs(classifier: Classifier) -> Iterator[Part]:
    """Of their most probable class."""
    for path in sorted((trained_networks.assets() / "samples" / "signs").glob("*.*")):
        yield f"photo-signs-{path.name}", image_seed(0, path.name, "noise"), partial(_sign, classifier, path)


def _sign(classifier: Classifier, path: Path) -> tuple[Tensor, int, dict[str, Any]]:
    inputs = classifier.prepare(read_image(path))
    return inputs, most_probable(classifier, inputs), {"x": inputs}


def photographs(classifier: Classifier, folder: Path) -> Iterator[Part]:
    """All recognized photographs with boxes, and mosaics of the others, each of photographs of one half."""
    boxed = trained_networks.assets() / "photos_with_boxes"
    for name, entry in sorted(_recognized(boxed, classifier, folder).items()):
        yield f"boxed-{name}", image_seed(0, name, "noise"), partial(_boxed, classifier, boxed / name, entry)
    paths = sorted((trained_networks.assets() / "imagenet").glob("*.jpg"))
    for half in (paths[::2], paths[1::2]):
        for draw in range(DRAWS):
            chosen = m.sample_mosaics([int(path.stem) for path in half], Generator().manual_seed(draw))
            for path, three in zip(half, chosen, strict=True):
                assert three is not None
                tiles = [path, *(half[other] for other in three)]
                seed = image_seed(0, path.name, "mosaic")
                yield f"mosaic-{draw}-{path.name}", seed, partial(_mosaic, classifier, tiles, draw)


def _recognized(boxed: Path, classifier: Classifier, folder: Path) -> dict[str, Any]:
    """Of the photographs that are recognized those with a box in the classifier's crop."""
    out = folder / "boxed.json"
    if not out.exists():
        entries = pictures.recognized(boxed, classifier)
        seen = {name: entry for name, entry in entries if _in_the_crop(classifier, boxed / name, entry)}
        with written_whole(out) as unfinished:
            unfinished.write_text(json.dumps(seen))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _in_the_crop(classifier: Classifier, path: Path, entry: dict[str, Any]) -> bool:
    try:
        return len(box_regions(classifier, read_image(path), entry["boxes"])) > 0
    except ValueError:
        return False


def _boxed(classifier: Classifier, path: Path, entry: dict[str, Any]) -> tuple[Tensor, int, dict[str, Any]]:
    picture = read_image(path)
    inputs = classifier.prepare(picture)
    return inputs, entry["target"], {"inst": box_regions(classifier, picture, entry["boxes"])}


def _mosaic(classifier: Classifier, tiles: list[Path], draw: int) -> tuple[Tensor, int, dict[str, Any]]:
    seed = image_seed(draw, tiles[0].name, "mosaic")
    places = torch.randperm(4, generator=Generator().manual_seed(seed)).tolist()
    ordered = [tile for _, tile in sorted(zip(places, tiles, strict=True))]
    inputs = m.mosaics(torch.stack([classifier.prepare(read_image(tile)) for tile in ordered], 1))
    return inputs, int(tiles[0].stem), {"own": places[0]}
