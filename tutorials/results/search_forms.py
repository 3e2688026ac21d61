"""Searches for better forms of Grad-CAM++ (see `forms.py`) with photographs, and writes the tables of `forms/`.

    export SGCAMPP_ASSETS=/path/to/assets
    python search_forms.py                      # all networks and layers
    python search_forms.py --only mobilenet_v2 mobilenet_v2-inner

Every second photograph is for choosing, the others are for reporting. Activations and gradients are stored once in
`--work`, and so are the measures of every picture and form. So a stopped run goes on, and a further form costs little.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
import trained_networks
from form_samples import SETTINGS, Setting, store
from form_tables import report
from forms import POOLED, SHORT, SPATIAL, Form, Stored, map_of
from torch import Tensor, nn

from captum_sgcampp import metrics as m
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import read_image

HERE = Path(__file__).resolve().parent
MOSAIC = (448, 448)
KEPT = 0.25
BASELINES = ("zero", "mean", "blur")
UNIFORM, CENTER = "uniform map", "Gaussian in the center"

Values = dict[str, dict[str, float]]  # of one picture, by form and measure
Measure = Callable[[Path, Stored, Classifier, dict[str, Tensor]], Values]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [setting.name for setting in SETTINGS]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--work", type=Path, default=Path("build/forms"), metavar="FOLDER", help="what is stored")
    parser.add_argument("--out", type=Path, default=HERE / "forms", metavar="FOLDER", help="tables")
    options = parser.parse_args(arguments)
    torch.set_grad_enabled(False)
    options.out.mkdir(parents=True, exist_ok=True)
    for setting in SETTINGS:
        if setting.name in options.only:
            values = measured(setting, store(setting, options.work))
            text = report(f"{setting.network}, `{setting.layer}`", values)
            (options.out / f"{setting.name}.md").write_text(text, encoding="utf-8")


def measured(setting: Setting, folder: Path) -> pd.DataFrame:
    """One row for every picture, form and measure, with the picture's half: 0 for choosing, 1 for reporting."""
    classifier = trained_networks.load(setting.network)
    forms, kept_of = (POOLED, SHORT) if setting.is_pooled else (SPATIAL, SPATIAL)
    measures: dict[str, Measure] = {
        "mosaic-0": of_mosaic,
        "mosaic-1": of_mosaic,
        "boxed": partial(of_boxed, kept_of),
        "photo-signs": of_sign,
    }
    rows = []
    for kind, measure in measures.items():
        for number, path in enumerate(sorted(folder.glob(f"{kind}-*.pt"))):
            picture = path.stem.removeprefix(f"{kind}-")
            for form, values in once(path, classifier, measure, forms).items():
                rows += [(picture, number % 2, form, name, value) for name, value in values.items()]
    frame = pd.DataFrame(rows, columns=["picture", "half", "form", "measure", "value"])
    # The mosaics of one photograph are not independent: their mean counts once.
    return frame.groupby(["picture", "half", "form", "measure"], sort=False, as_index=False).value.mean()


def once(path: Path, classifier: Classifier, measure: Measure, forms: dict[str, Form]) -> Values:
    """The measures of a stored picture. Those of forms that have been measured are read from the disk."""
    results = path.with_suffix(".json")
    known: dict[str, list[object]] = json.loads(results.read_text()) if results.exists() else {}
    missing = {name: form for name, form in forms.items() if known.get(name, [""])[0] != repr(form)}
    if missing:
        stored: Stored = torch.load(path)
        maps = {name: map_of(form, stored) for name, form in missing.items()}
        found = measure(path, stored, classifier, maps)
        known |= {name: [repr(forms.get(name)), values] for name, values in found.items()}
        with written_whole(results) as unfinished:
            unfinished.write_text(json.dumps(known))
    return {name: values for name, (_, values) in known.items() if name in forms or name in (UNIFORM, CENTER)}


def of_mosaic(path: Path, stored: Stored, classifier: Classifier, maps: dict[str, Tensor]) -> Values:
    """The share of the positive map in the photograph's own cell, and that of its highest quarter of pixels."""
    stacked = torch.stack(list(maps.values()))
    energy = torch.stack([(stacked.relu() * weight).sum((1, 2)) for weight in cell_weights(stacked.shape[1:])])
    shares = energy[stored["own"]] / energy.sum(0).clamp_min(torch.finfo(energy.dtype).tiny)
    size = (MOSAIC[0] // 4, MOSAIC[1] // 4)
    top = m.top_pixels(m.image_maps(stacked[:, None], size), KEPT)
    inside = (top * m.cell_masks(size)[stored["own"]]).sum((1, 2)) / top.sum((1, 2))
    return {
        name: {"mosaic": float(share), "mosaic_top": float(part)}
        for name, share, part in zip(maps, shares, inside, strict=True)
    }


@cache
def cell_weights(size: torch.Size) -> list[Tensor]:
    """What each position of a layer adds to each cell of a mosaic once its map is upsampled: the map is not negative,
    so the shares are those of `metrics.instance_shares` in a fraction of the time."""
    with torch.enable_grad():
        positions = torch.zeros(1, 1, *size, dtype=torch.float64, requires_grad=True)
        upsampled = torch.nn.functional.interpolate(positions, MOSAIC, mode="bilinear")[0, 0]
        cells = [(upsampled * cell).sum() for cell in m.cell_masks(MOSAIC)]
        return [torch.autograd.grad(cell, positions, retain_graph=True)[0][0, 0] for cell in cells]


def of_boxed(
    kept_of: dict[str, Form], path: Path, stored: Stored, classifier: Classifier, maps: dict[str, Tensor]
) -> Values:
    """Localization, also at equal area; recall of several objects; confidence kept, by the forms of `kept_of`."""
    instances: Tensor = stored["inst"]
    size = tuple(instances.shape[1:])
    shown = upsampled(maps, size)
    found = dict(zip(shown, (_located(one, instances) for one in shown.values()), strict=True))
    wanted = {name: one for name, one in shown.items() if name in kept_of or name in (UNIFORM, CENTER)}
    inputs = classifier.prepare(read_image(trained_networks.assets() / "photos_with_boxes" / path.stem[6:]))
    for name, value in kept(classifier.model, inputs, stored["target"], wanted, BASELINES[0]).items():
        found[name]["kept"] = value
    return found


def of_sign(path: Path, stored: Stored, classifier: Classifier, maps: dict[str, Tensor]) -> Values:
    """Confidence kept with each replacement, and the area above half the maximum."""
    shown = upsampled(maps, tuple(stored["x"].shape[2:]))
    found = {name: {"half_area": _half_area(one)} for name, one in shown.items()}
    for baseline in BASELINES:
        for name, value in kept(classifier.model, stored["x"], stored["target"], shown, baseline).items():
            found[name][f"kept_{baseline}"] = value
    return found


def upsampled(maps: dict[str, Tensor], size: tuple[int, ...]) -> dict[str, Tensor]:
    """Maps of the image's size `(1, H, W)`, and what knows neither network nor class."""
    ys, xs = torch.linspace(-2, 2, size[0])[:, None], torch.linspace(-2, 2, size[1])
    shown = {name: m.image_maps(one[None, None].float(), size) for name, one in maps.items()}
    return {**shown, UNIFORM: torch.ones(1, *size), CENTER: torch.exp(-(ys**2 + xs**2) / 2)[None]}


def _located(shown: Tensor, instances: Tensor) -> dict[str, float]:
    box = instances.any(0)[None]
    values = {
        "loc": float(m.localization_score(_scaled(shown), box, 0.5)),
        "half_area": _half_area(shown),
        "loc_equal": float(m.localization_score(m.top_pixels(shown, float(box.float().mean())), box, 0.5)),
    }
    return values | ({"recall": float(m.instance_recall(shown, instances))} if len(instances) > 1 else {})


def _half_area(shown: Tensor) -> float:
    return float((_scaled(shown) > 0.5).float().mean())


def _scaled(shown: Tensor) -> Tensor:
    """As `captum-sgcampp evaluate` does it: a uniform map shows the whole image."""
    return m.unit_range(shown) if bool(shown.min() < shown.max()) else (shown > 0).float()


def kept(model: nn.Module, inputs: Tensor, target: int, shown: dict[str, Tensor], baseline: str) -> dict[str, float]:
    """Share of the confidence that the highest quarter of the pixels keeps. Equal masks pass through the model once."""
    whole, other = m.class_confidence(model, inputs, target), m.baseline_images(inputs, baseline)
    masks = {name: m.top_pixels(one, KEPT) for name, one in shown.items()}
    rows = {mask.numpy().tobytes(): mask for mask in masks.values()}
    top = torch.stack(list(rows.values()))
    values = m.class_confidence(model, torch.where(top > 0, inputs, other), target, batch_size=8)
    shares = dict(zip(rows, m.confidence_kept(whole.expand(len(rows)), values).tolist(), strict=True))
    return {name: shares[mask.numpy().tobytes()] for name, mask in masks.items()}


if __name__ == "__main__":
    main()
