"""Means, differences and the win percentage by hand; what the table shows of them."""

from __future__ import annotations

import math

import pytest

from captum_sgcampp.evaluation.measures import Group, Metric
from captum_sgcampp.evaluation.records import Record
from captum_sgcampp.evaluation.report import figure, table
from captum_sgcampp.evaluation.summary import summarize

METRICS = (Metric("energy", "energy", 1), Metric("win", "win", 1))


def records(method: str, energies: list[float], explained: list[float]) -> list[Record]:
    values = zip(energies, explained, strict=True)
    return [Record(f"{k}", "conv", method, 0, 0.9, {"energy": e, "explained": o}) for k, (e, o) in enumerate(values)]


REFERENCE = records("a", [0.1 * k for k in range(10)], [0.5] * 10)
OTHER = records("b", [math.nan] + [0.1 * k + 0.2 for k in range(1, 10)], [0.6, 0.4, 0.5] + [0.7] * 7)


def test_differences_are_taken_on_the_images_where_both_have_a_value() -> None:
    rows = {(row.method, row.metric): row for row in summarize([*REFERENCE, *OTHER], METRICS, "a")}
    assert ("a", "win") not in rows
    energy = rows["b", "energy"]
    assert (energy.n, energy.paired) == (9, 9)
    assert energy.mean == pytest.approx(0.7) and energy.difference == pytest.approx(0.2)
    assert energy.difference_low == pytest.approx(0.2) and energy.p == pytest.approx(2 / 2**9)
    assert rows["a", "energy"].n == 10 and math.isnan(rows["a", "energy"].p)
    # Eight wins, one loss, one tie.
    assert rows["b", "win"].mean == pytest.approx(85) and rows["b", "win"].difference == pytest.approx(35)
    assert energy.p_holm == pytest.approx(2 * energy.p)


def test_the_table_marks_what_is_significant_and_counts_what_is_missing() -> None:
    rows = summarize([*REFERENCE, *OTHER], METRICS, "a")
    text = table(rows, {"drop": Group("", METRICS)}, "a", ["head"], {"grid": "needs mosaics"}, ["A note."])
    line = next(line for line in text.splitlines() if line.startswith("| b |"))
    assert "0.700" in line and " ^ (9)" in line
    assert "Left out: grid (needs mosaics)." in text and "A note." in text and "## conv" in text
    assert next(line for line in text.splitlines() if line.startswith("| a |")).endswith("|  |")


def test_the_figure_has_one_panel_per_metric_and_one_line_per_method() -> None:
    rows = summarize([*REFERENCE, *OTHER], METRICS, "a")
    panels = [axes for axes in figure(rows, METRICS).axes if axes.axison]
    assert [panel.get_title() for panel in panels] == ["energy (higher is better)", "win (higher is better)"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "b"]
