"""Maps of images: side by side, single feature maps with their weights, a selection drawn on the input, products.

Further keywords go to `captum.attr.visualization.visualize_image_attr`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from captum.attr import visualization as captum_visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_sgcampp.functional.selection import Neurons, neuron_mask
from captum_sgcampp.visualization.arrays import COLORS, Array, Picture, finite, pixels, upsampled
from captum_sgcampp.visualization.colors import CMAP, Colors, draw_color_bar
from captum_sgcampp.visualization.panels import draw_all_zero, draw_outline, draw_title, grid, wrapped

# What `visualize_image_attr` gets unless the caller says otherwise.
OPTIONS: dict[str, Any] = {"method": "blended_heat_map", "sign": "positive", "cmap": CMAP, "alpha_overlay": 0.5}
COLORED = ("blended_heat_map", "heat_map")  # methods that show values as colors


def compare_maps(
    image: Picture | Sequence[Picture],
    maps: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    titles: str | Sequence[str] = "",
    *,
    common_scale: bool = False,
    **options: Any,
) -> Figure:
    r"""
    The image and several maps of it side by side, one row per image.

    Args:

        image (PIL.Image, numpy.ndarray, Tensor or sequence of them): What the maps explain: RGB or gray, as a PIL
                    image, an array `(H, W)` or `(H, W, 3)`, or a tensor `(3, H, W)` or `(1, H, W)`. Values are
                    integers from 0 to 255 or floats from 0 to 1. Others, as those of a normalized tensor, are stretched
                    from the smallest to the largest. PIL images of 16 bits are scaled as by `vision.images.read_image`.
        maps (mapping of str to Tensor, or sequence of them): Maps by title: `(h, w)`, `(1, h, w)` or
                    `(1, 1, h, w)`, upsampled bilinearly to the image. Products in the image's size, `(3, H, W)` or
                    `(1, C, H, W)`, are summed over their channels. `show_product` draws them in colors.
        titles (str or sequence of str, optional): Title of each image. It is shown as it is: `$` begins no formula.
                    Default: nothing
        common_scale (bool, optional): Whether a color means the same value in all maps. Their sizes can then be
                    compared, which says something only of maps of one method, layer and score.
                    Default: False, the colors of each map end at its own largest values
        **options (Any, optional): For `captum.attr.visualization.visualize_image_attr`. `show_colorbar=True` draws
                    one color bar below all panels.
                    Default: positive values over the image

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> figure = compare_maps(photo, {"Grad-CAM++": attr[0], "Smooth Grad-CAM++": smooth[0]}, titles="tabby")
        >>> figure.savefig("maps.png")
    """
    if isinstance(image, str | os.PathLike):
        raise TypeError(
            f"image: expected a picture or a list of them, found the path {os.fspath(image)!r}; "
            "captum_sgcampp.vision.images.read_image reads it"
        )
    images = [image] if isinstance(image, Image.Image | np.ndarray | Tensor) else list(image)
    rows = [maps] if isinstance(maps, Mapping) else list(maps)
    names = [titles] * len(images) if isinstance(titles, str) else list(titles)
    if not len(images) == len(rows) == len(names) or not images:
        raise ValueError(
            f"image, maps, titles: expected one of each per row, found {len(images)}, {len(rows)} and {len(names)}"
        )
    for picture, row in zip(images, rows, strict=True):
        for values in row.values():
            _check_no_signal(picture, values)
    shown = [pixels(picture) for picture in images]
    has_bar = options.pop("show_colorbar", False)
    end = _common_end(shown, rows, {**OPTIONS, **options}) if common_scale else None
    figure, panels = grid(len(rows), 1 + max(len(row) for row in rows))
    for axes, picture, row, name in zip(panels, shown, rows, names, strict=True):
        axes[0].imshow(picture)
        draw_title(axes[0], wrapped(name))
        for axis, (title, values) in zip(axes[1:], row.items(), strict=False):
            draw_map(axis, picture, values, wrapped(title), end=end, **options)
    return _with_bar(figure, options) if has_bar else figure


def _with_bar(figure: Figure, options: Mapping[str, Any]) -> Figure:
    """With one color bar below all panels. Captum's own would lie over the titles of the next row."""
    options = {**OPTIONS, **options}
    if options["method"] in COLORED:
        draw_color_bar(figure, options["cmap"], options["sign"])
    return figure


def _common_end(images: Sequence[Array], rows: Sequence[Mapping[str, Tensor]], options: Mapping[str, Any]) -> float:
    """Where the one scale of all maps ends."""
    if options["method"] not in COLORED:
        raise ValueError(f"common_scale: expected one of the methods {', '.join(COLORED)}, found {options['method']!r}")
    maps = [upsampled(v, i.shape[:2]) for i, row in zip(images, rows, strict=True) for v in row.values()]
    return _colors(options).end(maps)


def _colors(options: Mapping[str, Any]) -> Colors:
    return Colors(options["sign"], outlier_perc=options.get("outlier_perc", 2))


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


def show_neurons(image: Picture, values: Tensor, neurons: Neurons, title: str = "", **options: Any) -> Figure:
    r"""
    A selection of neurons drawn on the image, and the map that it gives.

    Args:

        image (PIL.Image, numpy.ndarray or Tensor): As in `compare_maps`.
        values (Tensor): The map, `(h, w)`, `(1, h, w)` or `(1, 1, h, w)`.
        neurons (tuple of slices, list of coordinates or bool tensor): The selected neurons, as `attribute` takes them
                    and `box_to_neurons` gives them. A bool tensor is `(h, w)`.
        title (str, optional): Title of the map.
                    Default: nothing
        **options (Any, optional): For `captum.attr.visualization.visualize_image_attr`.

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> neurons = box_to_neurons((6, 4, 14, 10), input_size=(32, 32), layer_size=(16, 16))
        >>> attr = method.attribute(images, target=3, neurons=neurons)
        >>> figure = show_neurons(photo, attr[0], neurons)
    """
    shown, selected = pixels(image), _selected(neurons, values)
    has_bar = options.pop("show_colorbar", False)
    figure, [[left, right]] = grid(1, 2)
    left.imshow(shown)
    draw_title(left, f"{int(selected.sum())} selected neurons")
    draw_map(right, shown, values, wrapped(title), **options)
    for axis in (left, right):
        draw_outline(axis, selected, shown.shape[:2])
    return _with_bar(figure, options) if has_bar else figure


def _selected(neurons: Neurons, values: Tensor) -> Tensor:
    """The selected neurons of the map as a bool tensor `(h, w)`."""
    if values.dim() < 2 or values.numel() != values.shape[-2:].numel():
        raise ValueError(f"values: expected one map of shape (h, w) or (1, h, w), found {tuple(values.shape)}")
    if isinstance(neurons, Tensor) and neurons.shape == values.shape[-2:]:
        return neurons
    mask = neuron_mask(neurons, values.detach().cpu().reshape(1, 1, *values.shape[-2:]))
    if mask is None:
        raise TypeError("neurons: expected a tuple of slices, a list of coordinates or a bool tensor, found None")
    return mask.expand(1, 1, *values.shape[-2:])[0, 0]


def show_product(image: Picture, product: Tensor, title: str = "", **options: Any) -> Figure:
    r"""
    A product of a map and an attribution of the image, as of `GuidedGradCamPlusPlus` and `multiply_by_map`: the image,
    the product in its own colors as in the Grad-CAM papers (0 is gray), and the sum of its channels over the image.

    Products of clips, volumes and signals go to `show_clip`, `show_volume` and `show_signal` as maps do.

    Args:

        image (PIL.Image, numpy.ndarray or Tensor): As in `compare_maps`.
        product (Tensor): `(C, H, W)` or `(1, C, H, W)`, in the image's size, with 1 or 3 channels.
        title (str, optional): Title of the product.
                    Default: nothing
        **options (Any, optional): For `captum.attr.visualization.visualize_image_attr`.
                    Default: magnitudes over the image

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> product = GuidedGradCamPlusPlus(net, net.conv).attribute(images, target=3)
        >>> figure = show_product(photo, product[0], "Guided Grad-CAM++")
    """
    shown = pixels(image)
    values = finite("product", product).reshape(-1, *product.shape[-2:])
    if values.shape[1:] != shown.shape[:2] or len(values) not in (1, COLORS):
        raise ValueError(
            f"product: expected shape (C, H, W) with 1 or 3 channels and the image's {shown.shape[:2]}, found "
            f"{tuple(product.shape)}"
        )
    has_bar, options = options.pop("show_colorbar", False), {"sign": "absolute_value", **options}
    figure, [[left, middle, right]] = grid(1, 3)
    left.imshow(shown)
    middle.imshow(_around_gray(values))
    draw_title(middle, wrapped(title))
    draw_map(right, shown, torch.from_numpy(values.sum(0)), "sum of the channels", **options)
    return _with_bar(figure, options) if has_bar else figure


def _around_gray(values: Array) -> Array:
    """Values `(C, H, W)` as colors `(H, W, 3)`: 0 is gray. The largest 0.5 % are cut off, or all else would be gray."""
    end = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    colors = np.clip(0.5 + 0.5 * values / end, 0, 1)
    return np.broadcast_to(colors.transpose(1, 2, 0), (*values.shape[1:], COLORS))


def draw_map(
    axis: Axes, image: Picture, values: Tensor, title: str = "", *, end: float | None = None, **options: Any
) -> None:
    """One map over the image on `axis`, by Captum's `visualize_image_attr`. A map with no value of the wanted sign gets
    the text "all zero", since Captum cannot draw it (captum issue 959).

    Args:
        axis: matplotlib axes.
        image: as in `compare_maps`.
        values: the map, `(h, w)` after up to two dimensions of 1.
        title: above it.
        end: the value where the colors end, from `Colors.end`; None for Captum's choice.
        options: for `visualize_image_attr`.
    """
    _check_no_signal(image, values)
    shown = pixels(image)
    options = {**OPTIONS, **options}
    attribution, colors = upsampled(values, shown.shape[:2]), _colors(options)
    axis.set_xticks([])
    axis.set_yticks([])
    if not colors.part(attribution).any():
        axis.imshow(shown, alpha=0.35)
        draw_all_zero(axis)
    else:
        # Captum takes values below 1e-5 for zero, and the scale of a map is arbitrary.
        scaled = attribution / np.abs(attribution).max()
        captum_visualization.visualize_image_attr(
            scaled[..., None], shown, plt_fig_axis=(axis.figure, axis), use_pyplot=False, **options
        )
        if end is not None:
            axis.images[-1].set_data(colors.shares(attribution, end))
    draw_title(axis, title)


def _check_no_signal(image: Picture, values: Tensor) -> None:
    """Channels of a signal `(C, L)` look like a gray picture; the single row of its map tells them apart."""
    shape, size = tuple(values.shape), getattr(image, "shape", ())
    if len(size) == 2 and len(shape) > 1 and shape[-2] == 1 < shape[-1]:
        raise ValueError(
            f"image: expected a picture, found shape {tuple(size)} with a map of one row, {shape}, as of a signal, "
            "which show_signal draws; image[None] is a gray picture"
        )
