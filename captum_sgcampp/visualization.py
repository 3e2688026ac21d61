"""Pictures of maps: side by side, single feature maps with their weights, a selection drawn on the input.

Figures are matplotlib's own, unknown to pyplot: there is nothing to close. Further keywords go to
`captum.attr.visualization.visualize_image_attr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from captum.attr import LayerAttribution
from captum.attr import visualization as captum_visualization
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from PIL import Image
from torch import Tensor

from captum_sgcampp.storage.printable import printable

Picture: TypeAlias = Image.Image | np.ndarray[Any, Any] | Tensor

# What `visualize_image_attr` gets unless the caller says otherwise.
OPTIONS: dict[str, Any] = {"method": "blended_heat_map", "sign": "positive", "cmap": "jet", "alpha_overlay": 0.5}
INCHES = 2.6  # side of a panel
BAR_INCHES = 0.7  # height of the color bar with its words
TITLE_SIZE = 9
# Of what is selected: white on dark pictures and black on light ones.
BORDER: dict[str, Any] = {"linewidth": 1.5, "path_effects": [Stroke(linewidth=3, foreground="black"), Normal()]}


def compare_maps(
    image: Picture | Sequence[Picture],
    maps: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    titles: str | Sequence[str] = "",
    **options: Any,
) -> Figure:
    r"""
    The image and several maps of it side by side, one row per image.

    Args:

        image (PIL.Image, numpy.ndarray, Tensor or sequence of them): What the maps explain: RGB or gray, as a PIL
                    image, an array `(H, W)` or `(H, W, 3)`, or a tensor `(3, H, W)` or `(1, H, W)`. Values are
                    integers from 0 to 255 or floats from 0 to 1.
        maps (mapping of str to Tensor, or sequence of them): Maps by title: `(h, w)`, `(1, h, w)` or
                    `(1, 1, h, w)`, upsampled bilinearly to the image.
        titles (str or sequence of str, optional): Title of each image. It is shown as it is: `$` begins no formula.
                    Default: nothing
        **options (Any, optional): For `captum.attr.visualization.visualize_image_attr`.
                    Default: positive values over the image

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> figure = compare_maps(photo, {"Grad-CAM++": attr[0], "Smooth Grad-CAM++": smooth[0]}, titles="tabby")
        >>> figure.savefig("maps.png")
    """
    images = [image] if isinstance(image, Image.Image | np.ndarray | Tensor) else list(image)
    rows = [maps] if isinstance(maps, Mapping) else list(maps)
    names = [titles] * len(images) if isinstance(titles, str) else list(titles)
    if not len(images) == len(rows) == len(names) or not images:
        raise ValueError(
            f"image, maps, titles: expected one of each per row, found {len(images)}, {len(rows)} and {len(names)}"
        )
    figure, grid = _grid(len(rows), 1 + max(len(row) for row in rows))
    for axes, picture, row, name in zip(grid, images, rows, names, strict=True):
        pixels = _pixels(picture)
        axes[0].imshow(pixels)
        draw_title(axes[0], name)
        for axis, (title, values) in zip(axes[1:], row.items(), strict=False):
            draw_map(axis, pixels, values, title, **options)
    return figure


def show_feature_maps(
    image: Picture, maps: Tensor, weights: Tensor, indices: Sequence[int] | Tensor, **options: Any
) -> Figure:
    r"""
    Single feature maps with their weights, each over the image.

    Args:

        image (PIL.Image, numpy.ndarray or Tensor): As in `compare_maps`.
        maps (Tensor): Weighted feature maps of one example, `(K, h, w)`, from `attribute` with
                    `attr_dim_summation=False`.
        weights (Tensor): Weights of the shown feature maps, `(k,)`, as from `top_feature_maps`.
        indices (sequence of int or Tensor): Their numbers, `(k,)`.
        **options (Any, optional): For `captum.attr.visualization.visualize_image_attr`.

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> weights, indices = method.top_feature_maps(images, target=3, k=4)
        >>> maps = method.attribute(images, target=3, attr_dim_summation=False)
        >>> figure = show_feature_maps(photo, maps[0], weights[0], indices[0])
    """
    numbers = [int(index) for index in indices]
    titles = [f"feature map {k}, w = {float(w):.3g}" for k, w in zip(numbers, weights, strict=True)]
    return compare_maps(image, {title: maps[k] for title, k in zip(titles, numbers, strict=True)}, **options)


def show_neurons(image: Picture, values: Tensor, neurons: Tensor, title: str = "", **options: Any) -> Figure:
    r"""
    A selection of neurons drawn on the image, and the map that it gives.

    Args:

        image (PIL.Image, numpy.ndarray or Tensor): As in `compare_maps`.
        values (Tensor): The map, `(h, w)`, `(1, h, w)` or `(1, 1, h, w)`.
        neurons (Tensor): The selected neurons, bool, `(h, w)`.
        title (str, optional): Title of the map.
                    Default: nothing
        **options (Any, optional): For `captum.attr.visualization.visualize_image_attr`.

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> neurons = torch.zeros(16, 16, dtype=torch.bool)
        >>> neurons[2:5, 3:7] = True
        >>> attr = method.attribute(images, target=3, neurons=neurons)
        >>> figure = show_neurons(photo, attr[0], neurons)
    """
    pixels = _pixels(image)
    figure, grid = _grid(1, 2)
    grid[0][0].imshow(pixels)
    draw_title(grid[0][0], f"{int(neurons.sum())} selected neurons")
    draw_map(grid[0][1], pixels, values, title, **options)
    for axis in grid[0]:
        draw_outline(axis, neurons, pixels.shape[:2])
    return figure


def draw_map(axis: Axes, image: Picture, values: Tensor, title: str = "", **options: Any) -> None:
    """One map over the image on `axis`, by Captum's `visualize_image_attr`. A map with no value of the wanted sign gets
    the text "all zero", since Captum cannot draw it (captum issue 959).

    Args:
        axis: matplotlib axes.
        image: as in `compare_maps`.
        values: the map, `(h, w)` after up to two dimensions of 1.
        title: above it.
        options: for `visualize_image_attr`.
    """
    pixels = _pixels(image)
    options = {**OPTIONS, **options}
    attribution = upsampled(values, pixels.shape[:2])
    axis.set_xticks([])
    axis.set_yticks([])
    if not _shown_part(attribution, options["sign"]).any():
        axis.imshow(pixels, alpha=0.35)
        axis.text(0.5, 0.5, "all zero", transform=axis.transAxes, ha="center", va="center", fontsize=TITLE_SIZE)
    else:
        # Captum takes values below 1e-5 for zero, and the scale of a map is arbitrary.
        attribution = attribution / np.abs(attribution).max()
        captum_visualization.visualize_image_attr(
            attribution[..., None], pixels, plt_fig_axis=(axis.figure, axis), use_pyplot=False, **options
        )
    draw_title(axis, title)


def draw_title(axis: Axes, text: str) -> None:
    """The text above `axis` as it is. Names of files and classes may look like matplotlib's formulas."""
    axis.set_title(printable(text, keep="\n"), fontsize=TITLE_SIZE, parse_math=False, usetex=False)


def draw_color_bar(figure: Figure, cmap: str = OPTIONS["cmap"]) -> None:
    """Below the panels: which colors stand for which share of a map's largest value."""
    figure.set_figheight(figure.get_figheight() + BAR_INCHES)
    places = [(axis, axis.get_subplotspec()) for axis in figure.axes]
    panels = [axis for axis, place in places if place is not None and place.is_last_row()]
    bar = figure.colorbar(
        ScalarMappable(cmap=cmap), ax=panels, location="bottom", shrink=0.35, aspect=30, fraction=0.05
    )
    bar.set_ticks([0, 0.5, 1], labels=["0", "half", "largest"], fontsize=TITLE_SIZE - 2)
    bar.set_label("value of the map", fontsize=TITLE_SIZE - 1)


def draw_box(axis: Axes, box: Sequence[float]) -> None:
    """The border of a box `(x0, y0, x1, y1)` in pixels of the image."""
    left, top, right, bottom = box
    corner = left - 0.5, top - 0.5
    axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor="white", **BORDER))


def upsampled(values: Tensor, size: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The map as an array of the image's size, upsampled bilinearly as in the Grad-CAM papers."""
    maps = values.detach().float().cpu()
    if maps.dim() < 2 or maps.numel() != maps.shape[-1] * maps.shape[-2]:
        raise ValueError(f"maps: expected one map of shape (h, w) or (1, h, w), found {tuple(values.shape)}")
    result = LayerAttribution.interpolate(maps.reshape(1, 1, *maps.shape[-2:]), tuple(size), "bilinear")
    array: np.ndarray[Any, np.dtype[np.float32]] = result[0, 0].numpy()
    return array


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


def _shown_part(attribution: np.ndarray[Any, Any], sign: str) -> np.ndarray[Any, Any]:
    shown: np.ndarray[Any, Any] = {"positive": attribution > 0, "negative": attribution < 0}.get(sign, attribution != 0)
    return shown


def _grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(INCHES * columns, (INCHES + 0.5) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    return figure, [list(row) for row in grid]


def _pixels(image: Picture) -> np.ndarray[Any, Any]:
    """The image as an array `(H, W, 3)` of uint8 or of floats from 0 to 1."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = image
    if isinstance(array, Tensor):
        values = array.detach().cpu()
        array = (
            (values.permute(1, 2, 0) if values.dim() == 3 else values)
            .to(torch.float32 if values.is_floating_point() else values.dtype)
            .numpy()
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"image: expected a gray or an RGB image, found shape {tuple(image.shape)}")
    rgb = np.broadcast_to(array, (*array.shape[:2], 3))
    return np.asarray(rgb)
