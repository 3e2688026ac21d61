"""The picture of an explanation: what the model sees, and its maps side by side."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.explained_classes import Maps, Subject
from captum_sgcampp.vision.places import Place
from captum_sgcampp.visualization import compare_maps, draw_box, draw_color_bar, draw_outline

TITLE_LENGTH = 40  # characters of names


def picture_figure(
    subjects: Sequence[Subject],
    rows: Sequence[Maps],
    places: Sequence[Place | None] = (),
    *,
    cmap: str = "jet",
    note: str = "",
) -> Figure:
    """One row per subject: the picture and its maps.

    Args:
        subjects: of the rows.
        rows: their maps.
        places: what the maps are restricted to. It is outlined.
        cmap: color map of matplotlib.
        note: a line in the title of every map.
    """
    titled = [{"\n".join([*key, *([note] if note else [])]): maps for key, maps in row.items()} for row in rows]
    titles = [f"{shortened(s.name)}\n{shortened(s.label)}" for s in subjects]
    figure = compare_maps([s.shown for s in subjects], titled, titles, cmap=cmap)
    panels = len(figure.axes) // len(rows)
    for number, (place, row) in enumerate(zip(places, rows, strict=False)):
        if place is not None:
            _outline(figure.axes[number * panels :], place, row, subjects[number].shown)
    draw_color_bar(figure, cmap)
    return figure


def save_picture(path: Path, figure: Figure) -> None:
    """Write a figure as a file. One that is there is replaced."""
    with written_whole(Path(os.path.realpath(path))) as unfinished:
        _save(figure, unfinished, 150)


def png_of(figure: Figure, dots_per_inch: int) -> bytes:
    """The figure as the content of a `.png` file."""
    stream = io.BytesIO()
    _save(figure, stream, dots_per_inch)
    return stream.getvalue()


def _save(figure: Figure, file: Path | io.BytesIO, dots_per_inch: int) -> None:
    with warnings.catch_warnings():  # letters that matplotlib's font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, dpi=dots_per_inch, bbox_inches="tight")


def _outline(axes: Sequence[Axes], place: Place, row: Maps, shown: Image.Image) -> None:
    """The box on the picture, and on each map the neurons that it is restricted to."""
    size = shown.height, shown.width
    masks = [place.mask(maps.shape[2:], size) for maps in row.values()]
    if place.box is None:
        draw_outline(axes[0], masks[0], size)
    else:
        draw_box(axes[0], place.box)
    for axis, mask in zip(axes[1:], masks, strict=False):
        draw_outline(axis, mask, size)


def shortened(text: str) -> str:
    """A name, at most as long as a panel is wide."""
    return text if len(text) <= TITLE_LENGTH else f"{text[: TITLE_LENGTH // 2]}...{text[-TITLE_LENGTH // 2 + 3 :]}"
