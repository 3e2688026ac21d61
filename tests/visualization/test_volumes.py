"""Slices of volumes: which, how they lie, their aspect, their colors, and what is refused."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from captum_sgcampp.visualization import show_volume

SHAPE, PEAK = (5, 7, 9), (3, 1, 6)
VOLUME = np.linspace(-3, 8, 5 * 7 * 9).reshape(SHAPE)


def peaked(value: float = 2.0) -> torch.Tensor:
    maps = torch.zeros(SHAPE)
    maps[PEAK] = value
    return maps


def panels(figure: Figure) -> list[Axes]:
    return figure.axes[:3]


def shown(axis: Axes) -> np.ndarray[Any, Any]:
    return np.asarray(axis.images[0].get_array())


def crossing(axis: Axes) -> tuple[float, float]:
    """Row and column where the lines cross."""
    across, down = axis.lines
    return float(np.unique(across.get_ydata())[0]), float(np.unique(down.get_xdata())[0])  # type: ignore[arg-type]


def test_slices_go_through_the_largest_value() -> None:
    axes = panels(show_volume(VOLUME, peaked()))
    assert [axis.get_title() for axis in axes] == ["axis 0 = 3", "axis 1 = 1", "axis 2 = 6"]
    assert [shown(axis).shape for axis in axes] == [(7, 9, 3), (5, 9, 3), (5, 7, 3)]
    assert [crossing(axis) for axis in axes] == [(1, 6), (3, 6), (3, 1)]
    assert [(axis.get_ylabel(), axis.get_xlabel()) for axis in axes] == [
        ("axis 1", "axis 2"),
        ("axis 0", "axis 2"),
        ("axis 0", "axis 1"),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_value_is_that_of_the_upsampled_map(seed: int) -> None:
    small = torch.rand(1, 1, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(small, SHAPE, mode="trilinear")[0, 0]
    place = np.unravel_index(int(large.argmax()), SHAPE)
    titles = [axis.get_title() for axis in panels(show_volume(VOLUME, small))]
    assert titles == [f"axis {number} = {index}" for number, index in enumerate(place)]


def test_colors_lie_over_the_grays_of_the_whole_volume() -> None:
    for alpha in (0.5, 0.2):
        axes = panels(show_volume(VOLUME, peaked(), alpha_overlay=alpha, outlier_perc=0))
        gray = (VOLUME - VOLUME.min()) / (VOLUME.max() - VOLUME.min())
        for axis, place, other in zip(axes, [(1, 6), (3, 6), (3, 1)], [(3, 0, 0), (0, 1, 0), (0, 0, 6)], strict=True):
            for pixel, voxel, share in ((place, PEAK, 1.0), ((0, 0), other, 0.0)):
                color = np.asarray(matplotlib.colormaps["jet"](share)[:3])
                expected = 255 * (alpha * color + (1 - alpha) * gray[voxel])
                np.testing.assert_allclose(shown(axis)[pixel], expected, atol=0.51)


def test_the_sign_chooses_the_place() -> None:
    maps = peaked()
    maps[0, 5, 2] = -9
    assert panels(show_volume(VOLUME, maps))[0].get_title() == "axis 0 = 3"
    assert panels(show_volume(VOLUME, maps, sign="negative"))[0].get_title() == "axis 0 = 0"
    assert panels(show_volume(VOLUME, maps, sign="all", cmap="coolwarm"))[1].get_title() == "axis 1 = 5"


def test_another_place_can_be_chosen() -> None:
    axes = panels(show_volume(VOLUME, peaked(), at=(0, 6, 8)))
    assert [crossing(axis) for axis in axes] == [(6, 8), (0, 8), (0, 6)]


AFFINE = np.array([[0, 0, 1.5, -10], [0, 2, 0, 20], [-5, 0, 0, 30], [0, 0, 0, 1]])


@pytest.mark.parametrize("options", [{"spacing": (5, 2, 1.5)}, {"affine": AFFINE}], ids=["spacing", "affine"])
def test_the_spacing_sets_the_aspect(options: dict[str, Any]) -> None:
    figure = show_volume(VOLUME, peaked(), **options)
    FigureCanvasAgg(figure).draw()
    boxes = [axis.get_window_extent() for axis in panels(figure)]
    sides = [(7 * 2, 9 * 1.5), (5 * 5, 9 * 1.5), (5 * 5, 7 * 2)]
    for box, (down, across) in zip(boxes, sides, strict=True):
        assert box.height / box.width == pytest.approx(down / across, rel=1e-3)


def test_the_affine_tells_the_position() -> None:
    figure = show_volume(VOLUME, peaked(), title="left", affine=AFFINE)
    assert figure.get_suptitle() == "left\nat voxel (3, 1, 6), position (-1, 22, 15)"


def test_voxels_are_square_and_the_place_is_told_without_spacing() -> None:
    figure = show_volume(VOLUME, peaked(), axis_names=("slice", "row", "column"))
    assert [axis.get_aspect() for axis in panels(figure)] == [1, 1, 1]
    assert figure.get_suptitle() == "at voxel (3, 1, 6)"
    assert panels(figure)[2].get_ylabel() == "slice" and panels(figure)[1].get_title() == "row = 1"


def test_a_map_without_positive_values_is_said_to_be_so() -> None:
    figure = show_volume(torch.zeros(1, 1, *SHAPE), -torch.rand(2, 2, 2))
    assert figure.get_suptitle().endswith("all zero")
    assert not shown(panels(figure)[0]).any()


@pytest.mark.parametrize("spacing", [(1, 1, 1), (9, 1, 1), (1, 9, 1)])
def test_titles_have_room(spacing: tuple[float, float, float]) -> None:
    figure = show_volume(VOLUME, peaked(), title="a title", spacing=spacing)
    FigureCanvasAgg(figure).draw()
    (words,) = figure.texts
    for axis in panels(figure):
        assert axis.title.get_window_extent().y1 < words.get_window_extent().y0
        assert figure.axes[3].get_tightbbox().y1 < axis.xaxis.label.get_window_extent().y0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("volume", "maps", "options", "message"),
    [
        (VOLUME[0], peaked(), {}, r"^volume: expected one volume .*found \(7, 9\)"),
        (torch.rand(2, *SHAPE), peaked(), {}, r"^volume: expected one volume .*found \(2, 5, 7, 9\)"),
        (VOLUME * np.nan, peaked(), {}, r"^volume: expected finite values"),
        (VOLUME[:0], peaked(), {}, r"^volume: expected values, found shape"),
        (VOLUME, torch.rand(7, 9), {}, r"^maps: expected one map .*found \(7, 9\)"),
        (VOLUME, peaked(float("nan")), {}, r"^maps: expected finite values"),
        (VOLUME, peaked(), {"at": (5, 0, 0)}, r"^at: expected a voxel .*found \[5, 0, 0\]"),
        (VOLUME, peaked(), {"at": (1, 2)}, r"^at: expected a voxel .*found \[1, 2\]"),
        (VOLUME, peaked(), {"spacing": (1, 2)}, r"^spacing: expected three .*found \[1.0, 2.0\]"),
        (VOLUME, peaked(), {"spacing": (1, 2, 0)}, r"^spacing: expected three finite distances above 0"),
        (VOLUME, peaked(), {"affine": np.eye(3)}, r"^affine: expected a matrix of shape \(4, 4\), found \(3, 3\)"),
        (VOLUME, peaked(), {"affine": np.zeros((4, 4))}, r"^affine: expected three finite distances above 0"),
        (VOLUME, peaked(), {"axis_names": ("x", "y")}, r"^axis_names: expected three names"),
        (VOLUME, peaked(), {"alpha_overlay": -0.1}, r"^alpha_overlay: expected"),
    ],
)
def test_what_cannot_be_shown_is_refused(volume: Any, maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        show_volume(volume, maps, **options)
