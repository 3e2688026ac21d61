"""Pictures of the page: maps over the image, single feature maps, and the grid of the layer."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from PIL import Image
from torch import Tensor

from captum_sgcampp.demo.maps import ShownMap
from captum_sgcampp.demo.methods import is_guided
from captum_sgcampp.demo.selection import Cell
from captum_sgcampp.visualization.arrays import Array, upsampled
from captum_sgcampp.visualization.colors import Colors, blended

SIDE = 336  # pixels of the longer side, at least
TILE = 72


def overlay(picture: Image.Image, shown: ShownMap, cmap: str, opacity: float) -> Image.Image:
    """The map over the picture in gray; a guided map alone, its strongest colors at both ends."""
    if is_guided(shown.method):
        return enlarged(_guided(shown.maps))
    gray = np.asarray(enlarged(picture).convert("L"), np.float32) / 255
    values, colors = upsampled(shown.maps, gray.shape), Colors(cmap=_colors_of(cmap))
    return Image.fromarray(blended(gray, values, colors, colors.end([values]), opacity))


@lru_cache
def _colors_of(cmap: str) -> Colormap:
    """By its name, matplotlib would make it anew for every picture."""
    return matplotlib.colormaps[cmap]


def _guided(maps: Tensor) -> Image.Image:
    values = maps[0].permute(1, 2, 0).numpy()
    if values.shape[2] != 3:
        values = np.repeat(values.mean(2, keepdims=True), 3, 2)
    end = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    return Image.fromarray(np.rint(255 * (0.5 + 0.5 * np.clip(values / end, -1, 1))).astype(np.uint8))


def enlarged(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """At least so many pixels along the longer side."""
    factor = side / max(picture.size)
    if factor <= 1:
        return picture
    size = round(picture.width * factor), round(picture.height * factor)
    return picture.resize(size, Image.Resampling.BICUBIC)


def tile(values: Tensor, cmap: str) -> Image.Image:
    """One feature map, `(h, w)`, in colors, a pixel for each cell. The browser enlarges it; large ones shrink here."""
    array: Array = values.numpy()
    colors = Colors("all" if bool((values < 0).any()) else "positive", _colors_of(cmap), outlier_perc=0)
    rgb = np.rint(255 * colors.rgb(array, colors.end([array]))).astype(np.uint8)
    picture = Image.fromarray(rgb)
    return picture.resize([min(side, TILE) for side in picture.size], Image.Resampling.NEAREST)


def data_url(picture: Image.Image, lossless: bool = False) -> str:
    """The picture inside a page, so that no file is needed."""
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "JPEG", quality=92)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cell_style(cell: Cell, size: Sequence[int]) -> str:
    """Where a cell lies in the picture, in CSS."""
    (row, column), (rows, columns) = cell, size
    parts = {"top": row / rows, "left": column / columns, "height": 1 / rows, "width": 1 / columns}
    return ";".join(f"{name}:{100 * share:.4g}%" for name, share in parts.items())
