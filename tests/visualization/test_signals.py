"""Lines with the colors of the map: segments, channels, times, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from captum_sgcampp.visualization import show_signal

SIGNAL = torch.tensor([[1.0, 3.0, 2.0, 5.0], [-1.0, 0.0, 4.0, 4.0]])


def line(axis: Axes) -> LineCollection:
    (found,) = axis.collections
    assert isinstance(found, LineCollection)
    return found


def test_each_segment_has_the_color_of_the_mean_of_its_ends() -> None:
    figure = show_signal(SIGNAL, torch.tensor([0.0, 1.0, 4.0, -2.0]), outlier_perc=0)
    expected = matplotlib.colormaps["jet"]([0.5 / 4, 2.5 / 4, 1 / 4])
    for axis in figure.axes[:2]:  # one map for all channels
        np.testing.assert_allclose(line(axis).get_colors()[:, :3], expected[:, :3])  # type: ignore[index]


def test_segments_join_the_samples_at_their_times() -> None:
    times = [0.0, 0.5, 3.0, 4.0]
    figure = show_signal(SIGNAL[None], torch.rand(1, 1, 3), times)
    for axis, channel in zip(figure.axes, SIGNAL.tolist(), strict=False):
        points = list(zip(times, channel, strict=True))
        expected = [list(pair) for pair in pairwise(points)]
        np.testing.assert_allclose(line(axis).get_segments(), expected)
        assert axis.get_xlim() == (0, 4)
        assert axis.get_ylim()[0] < min(channel) and max(channel) < axis.get_ylim()[1]
    assert figure.axes[1].get_xlabel() == "time"


def test_maps_are_upsampled_linearly_to_the_signal() -> None:
    small = torch.rand(1, 1, 3, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, 40, mode="linear")
    signal = torch.randn(40)
    ours, expected = (line(show_signal(signal, maps).axes[0]).get_colors() for maps in (small, large))
    assert np.array_equal(ours, expected)


def test_channels_may_have_maps_of_their_own_with_one_scale() -> None:
    maps = torch.tensor([[1.0, 1.0, 1.0, 1.0], [4.0, 4.0, 4.0, 4.0]])
    figure = show_signal(SIGNAL, maps, outlier_perc=0, cmap="viridis")
    for axis, share in zip(figure.axes, (0.25, 1.0), strict=False):
        np.testing.assert_allclose(line(axis).get_colors()[0], matplotlib.colormaps["viridis"](share))  # type: ignore[index]


def test_channels_stand_below_each_other_with_their_names() -> None:
    figure = show_signal(SIGNAL, torch.rand(4), title="$5", channel_names=["I", "II"], time_name="seconds")
    assert [axis.get_ylabel() for axis in figure.axes[:2]] == ["I", "II"]
    assert figure.axes[1].get_xlabel() == "seconds" and figure.get_suptitle() == "$5"
    FigureCanvasAgg(figure).draw()
    first, second, bar = (axis.get_window_extent() for axis in figure.axes)
    assert first.y0 > second.y1 and second.y0 > bar.y1
    assert [axis.get_ylabel() for axis in show_signal(SIGNAL, torch.rand(4)).axes[:2]] == ["channel 0", "channel 1"]
    assert show_signal(SIGNAL[0], torch.rand(4)).axes[0].get_ylabel() == ""


def test_times_since_1970_are_told_apart() -> None:
    times = 1.7e9 + np.arange(4) / 100
    x = np.asarray(line(show_signal(SIGNAL[0], torch.rand(4), times).axes[0]).get_segments())[:, 0, 0]
    np.testing.assert_allclose(np.diff(x), 0.01, rtol=1e-3)


def test_a_map_without_positive_values_is_said_to_be_so() -> None:
    figure = show_signal(SIGNAL, -torch.rand(4))
    assert figure.get_suptitle() == "all zero"
    np.testing.assert_allclose(line(figure.axes[0]).get_colors()[0], matplotlib.colors.to_rgba("gray"))  # type: ignore[index]


def test_pyplot_knows_nothing_of_it() -> None:
    before = matplotlib.pyplot.get_fignums()
    show_signal(SIGNAL, torch.rand(4))
    assert matplotlib.pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("signal", "maps", "options", "message"),
    [
        (torch.rand(2, 1, 4), torch.rand(4), {}, r"^signal: expected shape .*found \(2, 1, 4\)"),
        (torch.rand(2, 1), torch.rand(4), {}, r"^signal: expected at least two samples .*found 1"),
        (torch.rand(2, 0), torch.rand(4), {}, r"^signal: expected values"),
        (SIGNAL * torch.nan, torch.rand(4), {}, r"^signal: expected finite values"),
        (SIGNAL, torch.rand(3, 4), {}, r"^maps: expected one map or one per channel \(2\), found 3"),
        (SIGNAL, torch.rand(2, 1, 4), {}, r"^maps: expected shape .*found \(2, 1, 4\)"),
        (SIGNAL, torch.rand(1, 1, 4) * torch.nan, {}, r"^maps: expected finite values"),
        (SIGNAL, torch.rand(0), {}, r"^maps: expected values"),
        (SIGNAL, torch.rand(4), {"times": [0, 1, 2]}, r"^times: expected one per sample .*found shape \(3,\)"),
        (SIGNAL, torch.rand(4), {"times": [0, 1, 1, 2]}, r"^times: expected finite, increasing"),
        (SIGNAL, torch.rand(4), {"times": [0, 1, 2, np.inf]}, r"^times: expected finite, increasing"),
        (SIGNAL, torch.rand(4), {"channel_names": ["I"]}, r"^channel_names: expected one per channel \(2\), found 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(signal: Any, maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        show_signal(signal, maps, **options)
