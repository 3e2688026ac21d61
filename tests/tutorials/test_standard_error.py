"""The measurement of the reported standard error, and the table that the page has of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import standard_error
from networks import ConvNet, images

PAGE = Path(__file__).resolve().parents[2] / "tutorials" / "method.md"


def test_spread_and_reported_error_agree_where_many_samples_count() -> None:
    model = ConvNet().double()
    one = standard_error.Case("net", model, model.relu2, images(2).double(), [1, 1])
    mean_square, median = standard_error.measured(one, samples=16, seeds=24, bound_alpha=True)
    assert mean_square == pytest.approx(1, abs=0.4) and median == pytest.approx(1, abs=0.4)


def test_the_page_has_a_line_for_each_kind_of_alpha_and_a_column_for_each_number_of_samples() -> None:
    table = PAGE.read_text("utf-8").split("<!-- standard error: begin -->")[1].split("<!-- standard error: end -->")[0]
    head, _, *rows = table.strip().splitlines()
    assert [int(n) for n in re.findall(r"n = (\d+)", head)] == list(standard_error.SAMPLES)
    assert {row.split(" | ")[1] for row in rows} == set(standard_error.ALPHA.values())
    assert all(len(re.findall(r"\d\.\d\d \(\d\.\d\d\)", row)) == len(standard_error.SAMPLES) for row in rows)
