"""Maps of volumes: three slices that meet where the map is largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import Normal, Stroke
from torch import Tensor

from captum_sgcampp.visualization.arrays import Array, finite, upsampled
from captum_sgcampp.visualization.colors import Colors, blended, check_alpha, draw_color_bar
from captum_sgcampp.visualization.panels import INCHES, TITLE_SIZE, draw_title

PLANES = ((1, 2), (0, 2), (0, 1))  # axes down and across of the slice through axis 0, 1 and 2


def show_volume(
    volume: Tensor | Array,
    maps: Tensor | Array,
    at: Sequence[int] | None = None,
    title: str = "",
    *,
    spacing: Sequence[float] | None = None,
    affine: Tensor | Array | None = None,
    axis_names: Sequence[str] = ("axis 0", "axis 1", "axis 2"),
    alpha_overlay: float = 0.5,
    **options: Any,
) -> Figure:
    r"""
    Three orthogonal slices of a volume with the map over them, through the map's largest value.

    One scale of grays and one of colors hold for the whole volume. Ticks count voxels.

    Args:

        volume (Tensor or numpy.ndarray): What the map explains, `(D, H, W)`, `(1, D, H, W)` or `(1, 1, D, H, W)`, in
                    any unit.
        maps (Tensor or numpy.ndarray): The map, `(d, h, w)`, `(1, d, h, w)` or `(1, 1, d, h, w)`, upsampled
                    trilinearly to the volume. A product in the volume's size, `(1, C, D, H, W)`, is summed over its
                    channels.
        at (sequence of int, optional): The voxel through which the slices go.
                    Default: None, the one of the largest value of the wanted sign
        title (str, optional): Title of the figure, shown as it is.
                    Default: nothing
        spacing (sequence of float, optional): Distance of the voxels along each axis. It sets the aspect of the slices.
                    Default: None, that of `affine`, or equal
        affine (Tensor or numpy.ndarray, optional): The matrix `(4, 4)` from voxels to positions, as in NIfTI. The title
                    then tells the position of `at`. Slices stay along the array's axes.
                    Default: None
        axis_names (sequence of str, optional): Names of the array's three axes.
                    Default: their numbers
        alpha_overlay (float, optional): Share of the colors over the gray slices.
                    Default: 0.5
        **options (Any, optional): For `Colors`: `sign`, `cmap`, `outlier_perc`.
                    Default: positive values

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> scan, attr = torch.rand(24, 64, 64), torch.rand(1, 1, 6, 8, 8)
        >>> figure = show_volume(scan, attr, spacing=(3.0, 1.0, 1.0))
        >>> figure.savefig("volume.png")
    """
    check_alpha(alpha_overlay)
    colors, gray = Colors(**options), _gray(volume)
    values = upsampled(maps, gray.shape)
    sizes, matrix = _spacing(spacing, affine)
    names = [str(name) for name in axis_names]
    if len(names) != 3:
        raise ValueError(f"axis_names: expected three names, found {names}")
    voxel = _largest(colors.part(values)) if at is None else _voxel(at, gray.shape)
    end = colors.end([values])
    widths = [gray.shape[across] * sizes[across] for _, across in PLANES]
    heights = [gray.shape[down] * sizes[down] for down, _ in PLANES]
    inches = INCHES / max(*widths, *heights)
    layout = ConstrainedLayoutEngine(compress=True, h_pad=0.08)
    figure = Figure(figsize=(inches * sum(widths) + 2, inches * max(heights) + 1.2), layout=layout)
    for number, axis in enumerate(figure.subplots(1, 3, width_ratios=widths)):
        grays, part = (np.take(array, voxel[number], number) for array in (gray, values))
        axis.imshow(blended(grays, part, colors, end, alpha_overlay), aspect=_aspect(sizes, number))
        _draw_place(axis, voxel, number, names)
    texts = [title, _place(voxel, matrix), "" if end else "all zero"]
    draw_title(figure, "\n".join(text for text in texts if text))
    draw_color_bar(figure, colors.cmap, colors.sign)
    return figure


def _gray(volume: object) -> Array:
    """The volume from 0, its least value, to 1, its largest."""
    array = finite("volume", volume)
    if array.ndim not in (3, 4, 5) or array.size != np.prod(array.shape[-3:]):
        raise ValueError(f"volume: expected one volume of shape (D, H, W) or (1, D, H, W), found {array.shape}")
    array = array.reshape(array.shape[-3:])
    low, high = float(array.min()), float(array.max())
    return np.asarray((array - low) / ((high - low) or 1.0), np.float32)


def _spacing(spacing: Sequence[float] | None, affine: object) -> tuple[list[float], Array | None]:
    """Distances of the voxels along the axes, and the affine matrix if there is one."""
    matrix = None if affine is None else finite("affine", affine)
    if matrix is not None and matrix.shape != (4, 4):
        raise ValueError(f"affine: expected a matrix of shape (4, 4), found {matrix.shape}")
    if spacing is not None:
        sizes = [float(size) for size in spacing]
    else:
        sizes = [1.0] * 3 if matrix is None else np.linalg.norm(matrix[:3, :3], axis=0).tolist()
    if len(sizes) != 3 or not all(np.isfinite(size) and size > 0 for size in sizes):
        argument = "affine" if spacing is None else "spacing"
        raise ValueError(f"{argument}: expected three finite distances above 0, found {sizes}")
    return sizes, matrix


def _largest(part: Array) -> list[int]:
    """The voxel with the largest magnitude, the first of several."""
    return [int(index) for index in np.unravel_index(int(np.abs(part).argmax()), part.shape)]


def _voxel(at: Sequence[int], shape: Sequence[int]) -> list[int]:
    voxel = [int(index) for index in at]
    if len(voxel) != 3 or not all(0 <= index < size for index, size in zip(voxel, shape, strict=True)):
        raise ValueError(f"at: expected a voxel of the volume of shape {tuple(shape)}, found {voxel}")
    return voxel


def _aspect(sizes: Sequence[float], number: int) -> float:
    down, across = PLANES[number]
    return sizes[down] / sizes[across]


def _place(voxel: Sequence[int], matrix: Array | None) -> str:
    """Voxel and position in words."""
    text = f"at voxel ({', '.join(str(index) for index in voxel)})"
    if matrix is None:
        return text
    position = matrix[:3] @ np.asarray([*voxel, 1.0], np.float32)
    return f"{text}, position ({', '.join(f'{value:.4g}' for value in position)})"


def _draw_place(axis: Axes, voxel: Sequence[int], number: int, names: Sequence[str]) -> None:
    """Names of the axes, the slice's number, and lines that cross at the voxel."""
    down, across = PLANES[number]
    line: dict[str, Any] = {
        "color": "white",
        "linewidth": 0.7,
        "path_effects": [Stroke(linewidth=1.4, foreground="black"), Normal()],
    }
    axis.axhline(voxel[down], **line)
    axis.axvline(voxel[across], **line)
    draw_title(axis, f"{names[number]} = {voxel[number]}")
    axis.set_xlabel(names[across], fontsize=TITLE_SIZE - 1)
    axis.set_ylabel(names[down], fontsize=TITLE_SIZE - 1)
    axis.tick_params(labelsize=TITLE_SIZE - 2)
    axis.locator_params(nbins=4, integer=True)
