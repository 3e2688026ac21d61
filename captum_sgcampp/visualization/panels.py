"""Panels of a figure: their titles, and borders drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from torch import Tensor

from captum_sgcampp.names import printable

INCHES = 2.6  # side of a panel
TITLE_SIZE = 9
TITLE_LENGTH = 36  # characters of this size that a panel has room for
# Of what is selected: white on dark pictures and black on light ones.
BORDER: dict[str, Any] = {"linewidth": 1.5, "path_effects": [Stroke(linewidth=3, foreground="black"), Normal()]}


def grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows of equally large panels, without axes."""
    figure = Figure(figsize=(INCHES * columns, (INCHES + 0.5) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axis in panels.flat:
        axis.set_axis_off()
    return figure, [list(row) for row in panels]


def draw_title(place: Axes | Figure, text: str) -> None:
    """The text above axes or a figure as it is. Names of files and classes may look like matplotlib's formulas."""
    write = place.suptitle if isinstance(place, Figure) else place.set_title
    write(printable(text, keep="\n"), fontsize=TITLE_SIZE, parse_math=False, usetex=False)


def wrapped(title: str) -> str:
    """Lines no longer than a panel is wide: longer ones would run into the next title."""
    return "\n".join("\n".join(wrap(line, TITLE_LENGTH)) or line for line in title.split("\n"))


def draw_all_zero(axis: Axes) -> None:
    """Words in the middle of a panel without colors."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    middle: dict[str, Any] = {"transform": axis.transAxes, "ha": "center", "va": "center"}
    axis.text(0.5, 0.5, "all zero", fontsize=TITLE_SIZE, bbox=box, **middle)


def draw_box(axis: Axes, box: Sequence[float]) -> None:
    """The border of a box `(x0, y0, x1, y1)` in pixels of the image."""
    left, top, right, bottom = box
    corner = left - 0.5, top - 0.5
    axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor="white", **BORDER))


def draw_outline(axis: Axes, neurons: Tensor, size: Sequence[int]) -> None:
    """The border of the selected neurons. The layer's neurons tile the image."""
    mask = neurons.detach().cpu().numpy().astype(float)
    height, width = size[0] / mask.shape[0], size[1] / mask.shape[1]
    segments = []
    for row, column in zip(*np.nonzero(mask), strict=True):
        top, left = row * height - 0.5, column * width - 0.5
        edges = {
            (row - 1, column): ((left, left + width), (top, top)),
            (row + 1, column): ((left, left + width), (top + height, top + height)),
            (row, column - 1): ((left, left), (top, top + height)),
            (row, column + 1): ((left + width, left + width), (top, top + height)),
        }
        for (i, j), (x, y) in edges.items():
            if not (0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j]):
                segments.append(list(zip(x, y, strict=True)))
    axis.add_collection(LineCollection(segments, colors="white", capstyle="projecting", **BORDER), autolim=False)
