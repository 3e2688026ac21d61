"""From values to colors: where a scale ends, and what stands below the panels."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from captum_sgcampp.visualization import Colors, compare_maps, draw_color_bar
from captum_sgcampp.visualization.colors import blended

MAPS = [np.array([[0.0, 1.0, -4.0]], np.float32), np.array([[2.0, 0.5]], np.float32)]


@pytest.mark.parametrize(
    ("sign", "end", "shares"),
    [
        ("positive", 2.0, [[0, 0.5, 0], [1, 0.25]]),
        ("negative", 4.0, [[0, 0, 1], [0, 0]]),
        ("absolute_value", 4.0, [[0, 0.25, 1], [0.5, 0.125]]),
        ("all", 4.0, [[0, 0.25, -1], [0.5, 0.125]]),
    ],
)
def test_one_scale_holds_for_all_maps_of_each_sign(sign: str, end: float, shares: list[list[float]]) -> None:
    colors = Colors(sign, outlier_perc=0)
    assert colors.end(MAPS) == end
    assert [colors.shares(values, end)[0].tolist() for values in MAPS] == shares


@pytest.mark.parametrize("outlier_perc", [0, 2, 10, 50])
def test_the_scale_ends_where_the_smaller_values_sum_up_to_the_rest(outlier_perc: float) -> None:
    values = np.random.default_rng(0).exponential(size=200).astype(np.float32)
    sums = {end: sum(v for v in values.tolist() if v <= end) for end in values.tolist()}
    enough = [end for end in sorted(sums) if sums[end] >= (1 - outlier_perc / 100) * max(sums.values()) - 1e-9]
    assert Colors(outlier_perc=outlier_perc).end([values[:70], values[70:]]) == enough[0]


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute_value", "all"])
def test_the_scale_of_one_map_is_captums(sign: str) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    captums, ours = (
        compare_maps(torch.rand(3, 5, 7), {"map": values}, sign=sign, common_scale=common).axes[1].images[-1]
        for common in (False, True)
    )
    np.testing.assert_allclose(captums.get_array(), ours.get_array(), atol=1e-6)  # type: ignore[arg-type]
    assert captums.get_clim() == ours.get_clim()


@pytest.mark.parametrize("cmap", ["jet", "viridis", matplotlib.colormaps["Reds"]])
def test_values_get_the_colors_of_the_color_map(cmap: Any) -> None:
    values = np.array([[[0.0, 0.7], [1.4, 9.0]]], np.float32)
    expected = matplotlib.colormaps.get_cmap(cmap)([[[0.0, 0.5], [1.0, 1.0]]])[..., :3]
    np.testing.assert_allclose(Colors(cmap=cmap).rgb(values, 1.4), expected)
    middle = Colors("all", cmap).rgb(np.zeros(1, np.float32), 1.0)
    np.testing.assert_allclose(middle[0], matplotlib.colormaps.get_cmap(cmap)(0.5)[:3])


def test_a_map_without_a_value_of_the_sign_gives_no_color() -> None:
    gray, values = np.array([0.0, 1.0], np.float32), np.array([-1.0, -2.0], np.float32)
    end = Colors().end([values])
    assert end == 0
    assert blended(gray, values, Colors(), end, 0.5).tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sign": "plus"}, r"^sign: expected one of positive, .*found 'plus'"),
        ({"cmap": "jett"}, r"^cmap: expected .*found 'jett'"),
        ({"outlier_perc": 100}, r"^outlier_perc: expected .*found 100"),
        ({"outlier_perc": -1}, r"^outlier_perc: expected .*found -1"),
    ],
)
def test_unknown_colors_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Colors(**options)


@pytest.mark.parametrize(
    ("sign", "limits", "words"),
    [
        ("positive", (0, 1), ["0", "half", "largest"]),
        ("negative", (0, 1), ["0", "half", "most negative"]),
        ("all", (-1, 1), ["-largest", "0", "largest"]),
    ],
)
def test_the_color_bar_tells_the_sign(sign: str, limits: tuple[float, float], words: list[str]) -> None:
    figure = compare_maps(torch.rand(3, 5, 7), {"map": torch.rand(5, 7)})
    draw_color_bar(figure, "viridis", sign)
    bar = figure.axes[-1]
    assert bar.get_xlim() == limits and [text.get_text() for text in bar.get_xticklabels()] == words
