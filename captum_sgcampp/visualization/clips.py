"""Maps of clips: chosen frames as a strip, or the whole clip as a file that browsers play."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_sgcampp.checks import check_count, check_positive
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.visualization.arrays import Array, Frames, frames_from_0_to_1, upsampled
from captum_sgcampp.visualization.colors import Colors, blended, check_alpha, draw_color_bar
from captum_sgcampp.visualization.panels import draw_all_zero, draw_title

INCHES = 1.6  # width of a frame in a strip
LEAST_FPS, MOST_FPS = 0.01, 50  # browsers show frames of less than 0.02 s for 0.1 s


def show_clip(
    frames: Frames,
    maps: Tensor | Array,
    shown: int | Sequence[int] = 6,
    title: str = "",
    *,
    alpha_overlay: float = 0.5,
    **options: Any,
) -> Figure:
    r"""
    Frames of a clip above the same frames with the map over them. One scale of colors holds for the whole clip.

    Args:

        frames (Tensor, numpy.ndarray or sequence of images): What the map explains: a tensor `(3, T, H, W)`,
                    `(1, T, H, W)` or `(T, H, W)`, an array `(T, H, W, 3)` or `(T, H, W)`, or images as in
                    `compare_maps`. Values are integers from 0 to 255 or floats from 0 to 1.
        maps (Tensor or numpy.ndarray): The map, `(t, h, w)`, `(1, t, h, w)` or `(1, 1, t, h, w)`, upsampled
                    trilinearly to the clip. A product in the clip's size, `(3, T, H, W)` or `(1, C, T, H, W)`, is
                    summed over its channels.
        shown (int or sequence of int, optional): How many frames, evenly spaced from the first to the last, or which.
                    Default: 6, or as many as the clip has
        title (str, optional): Title of the figure, shown as it is.
                    Default: nothing
        alpha_overlay (float, optional): Share of the colors over the gray frames.
                    Default: 0.5
        **options (Any, optional): For `Colors`: `sign`, `cmap`, `outlier_perc`.
                    Default: positive values

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> clip, attr = torch.rand(3, 16, 48, 48), torch.rand(1, 1, 8, 6, 6)
        >>> figure = show_clip(clip, attr, shown=[0, 4, 8, 12])
        >>> figure.savefig("clip.png")
    """
    colors = Colors(**options)
    pixels, mixed, all_zero = _drawn(frames, maps, colors, alpha_overlay)
    numbers = _numbers(shown, len(pixels))
    height = INCHES * pixels.shape[1] / pixels.shape[2]
    figure = Figure(figsize=(INCHES * max(len(numbers), 2), 2 * height + 0.5), layout="compressed")
    panels = figure.subplots(2, len(numbers), squeeze=False)
    for number, (above, below) in zip(numbers, panels.T, strict=True):
        above.imshow(pixels[number])
        below.imshow(mixed[number])
        draw_title(above, f"frame {number}")
        if all_zero:
            draw_all_zero(below)
    for axis in panels.flat:
        axis.set_axis_off()
    if title:
        draw_title(figure, title)
    draw_color_bar(figure, colors.cmap, colors.sign)
    return figure


def save_clip(
    path: str | os.PathLike[str],
    frames: Frames,
    maps: Tensor | Array,
    *,
    fps: float = 10,
    zoom: int = 1,
    alpha_overlay: float = 0.5,
    **options: Any,
) -> None:
    r"""
    The clip with the map over its gray frames, as a GIF that repeats forever.

    One scale of colors holds for the whole clip. Consecutive frames that are alike are stored as one that lasts longer.

    Args:

        path (str or Path): The file, with the suffix `.gif`. One that is there is replaced.
        frames (Tensor, numpy.ndarray or sequence of images): As in `show_clip`.
        maps (Tensor or numpy.ndarray): As in `show_clip`.
        fps (float, optional): Frames per second, at most 50. A GIF counts in 1/100 s, so single frames may last that
                    much longer or shorter, but not the clip.
                    Default: 10
        zoom (int, optional): Width and height in the file of one pixel of a frame.
                    Default: 1
        alpha_overlay (float, optional): Share of the colors over the gray frames.
                    Default: 0.5
        **options (Any, optional): For `Colors`: `sign`, `cmap`, `outlier_perc`.
                    Default: positive values

    Examples::

        >>> clip, attr = torch.rand(3, 16, 48, 48), torch.rand(1, 1, 8, 6, 6)
        >>> save_clip("clip.gif", clip, attr, fps=8, zoom=4)
    """
    file, zoom = Path(os.path.realpath(path)), check_count("zoom", zoom)
    if file.suffix.lower() != ".gif":
        raise ValueError(f"path: expected a file name that ends in .gif, found {file.name!r}")
    check_positive("fps", fps)
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise ValueError(f"fps: expected {LEAST_FPS} to {MOST_FPS}, which browsers can play, found {fps}")
    _, mixed, _ = _drawn(frames, maps, Colors(**options), alpha_overlay)
    first, *others = (Image.fromarray(frame.repeat(zoom, 0).repeat(zoom, 1)) for frame in mixed)
    with written_whole(file) as unfinished:
        first.save(
            unfinished, save_all=True, append_images=others, duration=_durations(len(mixed), fps), loop=0, disposal=1
        )


def _drawn(frames: Frames, maps: Tensor | Array, colors: Colors, alpha: float) -> tuple[Array, Array, bool]:
    """The frames and the frames with the map over them, `(T, H, W, 3)`, and whether the map has no color anywhere."""
    check_alpha(alpha)
    pixels = frames_from_0_to_1(frames)
    values = upsampled(maps, pixels.shape[:3])
    end = colors.end([values])
    return pixels, blended(pixels.mean(-1), values, colors, end, alpha), end == 0


def _numbers(shown: int | Sequence[int], count: int) -> list[int]:
    """The frames to show."""
    if isinstance(shown, Integral):
        most = min(check_count("shown", shown), count)
        return [int(number) for number in np.rint(np.linspace(0, count - 1, most))]
    numbers = [int(number) for number in np.ravel(shown)]
    if not numbers or not all(0 <= number < count for number in numbers):
        raise ValueError(f"shown: expected numbers of frames from 0 to {count - 1}, found {numbers}")
    return numbers


def _durations(count: int, fps: float) -> list[int]:
    """Milliseconds of each frame, multiples of 10, which add up to the clip's."""
    times = np.rint(100 * np.arange(count + 1) / fps)
    return [10 * int(hundredths) for hundredths in np.diff(times)]
