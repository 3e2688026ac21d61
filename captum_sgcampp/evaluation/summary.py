"""From the measured images to means with intervals and paired tests."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from captum_sgcampp.evaluation.groups import Metric
from captum_sgcampp.evaluation.rows import Measured
from captum_sgcampp.metrics import bootstrap_interval, holm, sign_flip_test, win


@dataclass(frozen=True)
class Row:
    """One metric of one method at one layer, over the images for which it has a value.

    Attributes:
        layer, method, metric: what is summarized.
        n: images.
        mean, low, high: mean with its 95 % bootstrap interval.
        paired: images for which method and reference both have a value.
        difference, difference_low, difference_high: mean difference from the reference on these, with its interval.
        p, p_holm: sign-flip test of the differences, and its p-value adjusted for all tests of the table.
    """

    layer: str
    method: str
    metric: str
    n: int
    mean: float
    low: float
    high: float
    paired: int = 0
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan


def summarize(measured: Sequence[Measured], metrics: Sequence[Metric], reference: str) -> list[Row]:
    """One row per layer, method and metric, in the order of what is measured and of the metrics.

    Args:

        measured: all of one run, with the same images in the same order for every layer and method.
        metrics: what is summarized.
        reference: the method that the others are compared with.
    """
    of_reference = {one.layer: one for one in measured if one.method == reference}
    rows = [
        _row(one, metric.name, of_reference[one.layer] if one.method != reference else None)
        for one in measured
        for metric in metrics
    ]
    adjusted = holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True) if row.n]


def _row(found: Measured, metric: str, other: Measured | None) -> Row:
    values = _values(found, metric, other)
    known = _known(values)
    row = Row(found.layer, found.method, metric, len(known), float(known.mean()), *bootstrap_interval(known))
    if other is None:
        return row
    # The win percentage already is a comparison with the reference, where 50 is even.
    differences = _known(values - (50.0 if metric == "win" else _column(other, metric)))
    if not len(differences):
        return row
    low, high = bootstrap_interval(differences)
    return replace(
        row,
        paired=len(differences),
        difference=float(differences.mean()),
        difference_low=low,
        difference_high=high,
        p=sign_flip_test(differences),
    )


def _values(found: Measured, metric: str, other: Measured | None) -> Tensor:
    """One number per image, NaN where there is none."""
    if metric != "win":
        return _column(found, metric)
    if other is None:
        return torch.full((len(found.images),), math.nan, dtype=torch.float64)
    # Confidences that agree in float32 are ties.
    return win(_column(found, "explained").float(), _column(other, "explained").float()).double()


def _column(found: Measured, name: str) -> Tensor:
    return torch.from_numpy(found.values[name])


def _known(values: Tensor) -> Tensor:
    return values[~values.isnan()]


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """The rows as CSV, unknown numbers empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows([_cell(value) for value in asdict(row).values()] for row in rows)


def write_images(path: Path, measured: Iterable[Measured]) -> None:
    """Every value of every image as CSV, without images that failed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "target", "confidence", "layer", "method", "metric", "value"])
        for one in measured:
            for number, (image, target) in enumerate(zip(one.images, one.targets, strict=True)):
                head = [image, target, _cell(float(one.confidence[number])), one.layer, one.method]
                for metric, values in one.values.items() if target is not None else ():
                    writer.writerow([*head, metric, _cell(float(values[number]))])


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value
