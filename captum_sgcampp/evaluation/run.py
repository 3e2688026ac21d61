"""A run: measures what is missing, then writes the results of all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_sgcampp._version import __version__
from captum_sgcampp.evaluation.cases import Cases
from captum_sgcampp.evaluation.measures import Bench, Group, Settings, Shared, Trial, groups, measure, missing
from captum_sgcampp.evaluation.methods import Method
from captum_sgcampp.evaluation.records import Record, Records
from captum_sgcampp.evaluation.report import figure, head, notes, table
from captum_sgcampp.evaluation.summary import Row, summarize, write_images, write_summary
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.storage.progress import progress
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.layer_choice import deepest_layer, fitting_layer
from captum_sgcampp.vision.weights_files import weights_digest

RESULTS = ("table.md", "summary.csv", "images.csv", "figure.png")
SCENE_WINDOW, SCENE_STRIDE = 32, 16  # of the bundled network's input of 128 pixels
WINDOW, STRIDE = 64, 32
# Larger blocks of memory go back to the system after each use, which costs more than larger batches save.
CPU_ROWS, ACCELERATOR_ROWS = 4, 32


def evaluate(
    classifier: Classifier,
    cases: Cases,
    methods: Sequence[Method],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    reference: str | None = None,
    metrics: Sequence[str] | None = None,
    **options: Any,
) -> str:
    """Measure methods on many images. A stopped run resumes.

    Args:
        classifier: its model is on the device of the cases.
        cases: images and the classes to explain.
        methods: what is compared.
        out: folder of the records and the results.
        layers: names of the layers to explain. None: the deepest one.
        reference: name of the method that the others are tested against. None: the first.
        metrics: names of groups of metrics. None: all that the images allow.
        options: fields of `Settings`. What is missing or None is chosen for the images and the device.

    Returns:
        The table in Markdown, which is also in `out`.
    """
    layers = layers or [deepest_layer(classifier.model, cases.load(0).inputs)]
    for name in layers:
        _check_layer(classifier.model, name, cases.load(0).inputs)
    reference = _reference(reference, methods)
    known = groups(options.get("randomization_steps") or Settings.randomization_steps)
    reasons = {name: missing(known[name], cases) for name in known if metrics is None or name in metrics}
    chosen = {name: known[name] for name, reason in reasons.items() if not reason}
    settings = suited_settings(classifier, cases, tuple(chosen), options)
    records = Records(out, _identity(classifier, cases, settings))
    bench = Bench(classifier.model, settings)
    _measure_all(bench, cases, layers, methods, records)
    done = [records[name, layer, m.name] for layer in layers for m in methods for name in cases.names]
    rows = summarize(done, [metric for group in chosen.values() for metric in group.metrics], reference)
    left_out = {name: reason for name, reason in reasons.items() if reason}
    text = table(rows, chosen, reference, head(classifier, cases, settings), left_out, notes(bench))
    _write(out, text, done, rows, chosen)
    return text


def _check_layer(model: nn.Module, name: str, example: torch.Tensor) -> None:
    """Captum's methods, which are compared here, would take tokens for feature maps."""
    if fitting_layer(model, name, example).reshape_transform is not None:
        raise ValueError(
            f"--layers: expected layers with feature maps (N, K, h, w), found {name}, whose features come last; name "
            "another layer"
        )


def _reference(wanted: str | None, methods: Sequence[Method]) -> str:
    """The first method of that name. Names of methods with noise include their settings."""
    names = [method.name for method in methods]
    wanted = wanted or names[0]
    matches = [name for name in names if name == wanted or name.startswith(f"{wanted} ")]
    if not matches:
        raise ValueError(f"--reference: expected one of {', '.join(names)}, found {wanted!r}")
    return matches[0]


def suited_settings(
    classifier: Classifier, cases: Cases, chosen: tuple[str, ...], options: Mapping[str, Any]
) -> Settings:
    """The settings: the given options, the others by the images and the device."""
    inputs = cases.load(0).inputs
    small = min(inputs.shape[2:]) < 2 * WINDOW or cases.kind.endswith("scenes")
    suited: dict[str, Any] = {
        "groups": chosen,
        "link": "sigmoid" if classifier.independent else "softmax",
        "batch_size": CPU_ROWS if inputs.device.type == "cpu" else ACCELERATOR_ROWS,
        "window": SCENE_WINDOW if small else WINDOW,
        "stride": SCENE_STRIDE if small else STRIDE,
        "grid_size": "auto",
    }
    suited |= {name: value for name, value in options.items() if value is not None}
    if suited["grid_size"] == "auto":
        suited["grid_size"] = _grid_size(classifier.model, inputs) if "grid" in chosen else "full"
    return Settings(**suited)


def _grid_size(model: nn.Module, inputs: torch.Tensor) -> str:
    """Whether the model takes images of twice the side. A fully connected head of fixed size does not."""
    try:
        with torch.no_grad():
            model(inputs.repeat(1, 1, 2, 2))
    except RuntimeError:
        return "half"
    return "full"


def _identity(classifier: Classifier, cases: Cases, settings: Settings) -> dict[str, Any]:
    """What records of one table must have in common, by the name of the option."""
    options = {f"--{name.replace('_', '-')}": value for name, value in asdict(settings).items()}
    options["--metrics"] = options.pop("--groups")
    return {
        "version": __version__,
        "--model": classifier.name,
        "--weights": weights_digest(classifier.model),
        "images": cases.kind,
        "images and targets": cases.digest(),
        "--masks": cases.mask_digest(),
        **options,
    }


def _measure_all(
    bench: Bench, cases: Cases, layers: Sequence[str], methods: Sequence[Method], records: Records
) -> None:
    todo = [[(x, m) for x in layers for m in methods if (name, x, m.name) not in records] for name in cases.names]
    total = len(cases.names) * len(layers) * len(methods)
    with progress(total, "map", done=total - sum(map(len, todo))) as advance:
        for index, missing_maps in enumerate(todo):
            for record in _measured(bench, cases, index, missing_maps) if missing_maps else ():
                records.add(record)
                advance(1)


def _measured(bench: Bench, cases: Cases, index: int, todo: list[tuple[str, Method]]) -> Iterator[Record]:
    shared = Shared(bench, cases, index)
    for layer, method in todo:
        values = measure(Trial(shared, layer, method))
        yield Record(shared.case.name, layer, method.name, shared.case.target, float(shared.confidence), values)


def _write(
    folder: Path, text: str, records: Sequence[Record], rows: Sequence[Row], chosen: Mapping[str, Group]
) -> None:
    table_file, summary, images, picture = (folder / name for name in RESULTS)
    with written_whole(table_file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    with written_whole(summary) as unfinished:
        write_summary(unfinished, rows)
    with written_whole(images) as unfinished:
        write_images(unfinished, records)
    drawn = figure(rows, [metric for group in chosen.values() for metric in group.metrics])
    with written_whole(picture) as unfinished:
        drawn.savefig(unfinished, dpi=150)
