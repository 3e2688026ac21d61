"""Means, differences and the win percentage by hand; what the table shows of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from captum_sgcampp.evaluation.groups import Group, Metric
from captum_sgcampp.evaluation.report import failures, figure, table
from captum_sgcampp.evaluation.rows import Measured
from captum_sgcampp.evaluation.summary import summarize, write_images

METRICS = (Metric("energy", "energy", 1), Metric("win", "win", 1))


def measured(method: str, energies: list[float], explained: list[float]) -> Measured:
    values = {"energy": np.array(energies), "explained": np.array(explained)}
    count = len(energies)
    return Measured("conv", method, [f"{k}" for k in range(count)], [0] * count, np.full(count, 0.9), values)


REFERENCE = measured("a", [0.1 * k for k in range(10)], [0.5] * 10)
OTHER = measured("b", [math.nan] + [0.1 * k + 0.2 for k in range(1, 10)], [0.6, 0.4, 0.5] + [0.7] * 7)


def test_differences_are_taken_on_the_images_where_both_have_a_value() -> None:
    rows = {(row.method, row.metric): row for row in summarize([REFERENCE, OTHER], METRICS, "a")}
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
    rows = summarize([REFERENCE, OTHER], METRICS, "a")
    text = table(rows, {"drop": Group("", METRICS)}, "a", ["head"], {"grid": "needs mosaics"}, ["A note."])
    line = next(line for line in text.splitlines() if line.startswith("| b |"))
    assert "0.700" in line and " ^ (9)" in line
    assert "Left out: grid (needs mosaics)." in text and "A note." in text and "## conv" in text
    assert next(line for line in text.splitlines() if line.startswith("| a |")).endswith("|  |")


def test_the_figure_has_one_panel_per_metric_and_one_line_per_method() -> None:
    rows = summarize([REFERENCE, OTHER], METRICS, "a")
    panels = [axes for axes in figure(rows, METRICS).axes if axes.axison]
    assert [panel.get_title() for panel in panels] == ["energy (higher is better)", "win (higher is better)"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "b"]


def test_confidences_that_agree_in_float32_are_ties() -> None:
    rows = summarize([measured("a", [0.0], [1 - 1e-9]), measured("b", [0.0], [1.0])], METRICS, "a")
    assert {row.metric: row.mean for row in rows if row.method == "b"}["win"] == 50


def test_images_that_failed_are_not_in_the_csv(tmp_path: Path) -> None:
    found = Measured("conv", "a", ["x", "y"], [None, 3], np.array([math.nan, 0.5]), {"e": np.array([math.nan, 0.25])})
    write_images(tmp_path / "images.csv", [found])
    assert (tmp_path / "images.csv").read_text().splitlines()[1:] == ["y,3,0.5,conv,a,e,0.25"]


def test_many_failures_are_counted() -> None:
    lines = failures({f"{k}.jpg": "ImageError: empty" for k in range(25)})
    assert lines[0] == "Not measured: 0.jpg (ImageError: empty)." and lines[-1].startswith("Not measured: 5 more")
    assert len(lines) == 21 and failures({}) == []
