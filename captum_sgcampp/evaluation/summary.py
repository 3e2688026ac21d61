"""From the records of the images to means with intervals and paired tests."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from captum_sgcampp.evaluation.measures import Metric
from captum_sgcampp.evaluation.records import Record
from captum_sgcampp.metrics import bootstrap_interval, holm, sign_flip_test, win


@dataclass(frozen=True)
class Row:
    """One metric of one method at one layer, over the images for which it has a value.

    Attributes:
        layer, method, metric: what is summarized.
        n: images.
        mean, low, high: mean with its 95 % bootstrap interval.
        paired: images for which method and reference both have a value.
        difference, difference_low, difference_high: mean difference to the reference on these, with its interval.
        p, p_holm: sign-flip test of the differences, and adjusted for all tests of the table.
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


def summarize(records: Iterable[Record], metrics: Sequence[Metric], reference: str) -> list[Row]:
    """One row per layer, method and metric, in the order of the records and the metrics.

    Args:

        records: all of one run; the images in the same order for every layer and method.
        metrics: what is summarized.
        reference: the method that the others are compared with.
    """
    table: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        table.setdefault((record.layer, record.method), {})[record.image] = record
    rows = [
        _row(layer, method, metric.name, of_images, table[layer, reference] if method != reference else None)
        for (layer, method), of_images in table.items()
        for metric in metrics
    ]
    adjusted = holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True) if row.n]


def _row(layer: str, method: str, metric: str, found: dict[str, Record], other: dict[str, Record] | None) -> Row:
    values = {image: _value(record, metric, other) for image, record in found.items()}
    known = _tensor(values[image] for image in values)
    row = Row(layer, method, metric, len(known), float(known.mean()), *bootstrap_interval(known))
    if other is None:
        return row
    # The win percentage is a comparison with the reference already; even is 50.
    baseline = {i: 50.0 if metric == "win" else other[i].values.get(metric, math.nan) for i in values}
    differences = _tensor(values[image] - baseline[image] for image in values)
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


def _value(record: Record, metric: str, other: dict[str, Record] | None) -> float:
    if metric != "win":
        return record.values.get(metric, math.nan)
    if other is None or "explained" not in record.values:
        return math.nan
    explained = (torch.tensor(r.values["explained"]) for r in (record, other[record.image]))
    return float(win(*explained))


def _tensor(values: Iterable[float]) -> Tensor:
    """The values that are known, as `(n,)`."""
    return torch.tensor([value for value in values if not math.isnan(value)], dtype=torch.float64)


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """The rows as CSV, unknown numbers empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows([_cell(value) for value in asdict(row).values()] for row in rows)


def write_images(path: Path, records: Iterable[Record]) -> None:
    """Every value of every image as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "target", "confidence", "layer", "method", "metric", "value"])
        for r in records:
            for metric, value in r.values.items():
                writer.writerow([r.image, r.target, _cell(r.confidence), r.layer, r.method, metric, _cell(value)])


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value
