"""Maps of signals: lines whose color is the map.

`captum.attr.visualization.visualize_timeseries_attr` (captum 0.9) does not serve. It calls `matplotlib.cm.get_cmap`,
which matplotlib 3.9 and newer lack, and pyplot even with `use_pyplot=False`. It fails for maps of zeros, and crops
signals that do not cross 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from captum_sgcampp.names import printable
from captum_sgcampp.visualization.arrays import Array, finite, interpolated
from captum_sgcampp.visualization.colors import Colors, draw_color_bar
from captum_sgcampp.visualization.panels import TITLE_SIZE, draw_title

WIDTH, HEIGHT = 8.0, 1.4  # inches, of each channel


def show_signal(
    signal: Tensor | Array,
    maps: Tensor | Array,
    times: Sequence[float] | Tensor | Array | None = None,
    title: str = "",
    *,
    channel_names: Sequence[str] | None = None,
    time_name: str | None = None,
    **options: Any,
) -> Figure:
    r"""
    The channels of a signal below each other, as lines that have the colors of the map.

    The line between two samples has the color of the mean of the map's values there. One scale of colors holds for all
    channels.

    Args:

        signal (Tensor or numpy.ndarray): What the map explains, `(L,)`, `(C, L)` or `(1, C, L)`.
        maps (Tensor or numpy.ndarray): One map for all channels, `(l,)`, `(1, l)` or `(1, 1, l)`, or one for each,
                    `(C, l)` or `(1, C, l)`, upsampled linearly to the signal.
        times (sequence of float, Tensor or numpy.ndarray, optional): Times of the samples, increasing, `(L,)`.
                    Default: None, their numbers
        title (str, optional): Title of the figure, shown as it is.
                    Default: nothing
        channel_names (sequence of str, optional): Names of the channels.
                    Default: None, their numbers if there are several
        time_name (str, optional): Name of the axis of times.
                    Default: None, `"sample"` or `"time"`
        **options (Any, optional): For `Colors`: `sign`, `cmap`, `outlier_perc`.
                    Default: positive values

    Returns:
        *matplotlib.figure.Figure*

    Examples::

        >>> times = torch.arange(200) / 100
        >>> signal, attr = torch.sin(torch.stack([9 * times, 7 * times])), torch.rand(1, 1, 25)
        >>> figure = show_signal(signal, attr, times, channel_names=["I", "II"], time_name="seconds")
        >>> figure.savefig("signal.png")
    """
    colors, channels = Colors(**options), _channels("signal", signal)
    count, length = channels.shape
    if length < 2:
        raise ValueError(f"signal: expected at least two samples along the last dimension, found {length}")
    values = _values(maps, count, length)
    points = _times(times, length)
    names = _names(channel_names, count)
    end = colors.end([values])
    figure = Figure(figsize=(WIDTH, HEIGHT * count + 0.8), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axis, channel, row, name in zip(panels, channels, values, names, strict=True):
        _draw_line(axis, points, channel, colors.rgb((row[:-1] + row[1:]) / 2, end) if end else "gray")
        axis.set_ylabel(printable(name), fontsize=TITLE_SIZE, parse_math=False)
        axis.tick_params(labelsize=TITLE_SIZE - 2)
    panels[-1].set_xlabel(
        printable(time_name or ("sample" if times is None else "time")), fontsize=TITLE_SIZE - 1, parse_math=False
    )
    if title or not end:
        draw_title(figure, "\n".join(text for text in (title, "" if end else "all zero") if text))
    draw_color_bar(figure, colors.cmap, colors.sign)
    return figure


def _channels(argument: str, values: object) -> Array:
    """As `(C, L)`."""
    array = finite(argument, values)
    if array.ndim not in (1, 2, 3) or (array.ndim == 3 and len(array) != 1):
        raise ValueError(f"{argument}: expected shape (L,), (C, L) or (1, C, L), found {array.shape}")
    return array.reshape(-1, array.shape[-1])


def _values(maps: object, count: int, length: int) -> Array:
    """The map of each channel, `(C, L)`."""
    rows = _channels("maps", maps)
    if len(rows) not in (1, count):
        raise ValueError(f"maps: expected one map or one per channel ({count}), found {len(rows)}")
    return np.broadcast_to(interpolated(rows, (length,)), (count, length))


def _times(times: object, length: int) -> Array:
    if times is None:
        return np.arange(length, dtype=np.float32)
    # Differences of times since 1970 need float64.
    array = np.asarray(times.detach().cpu() if isinstance(times, Tensor) else times, np.float64)
    if array.shape != (length,):
        raise ValueError(f"times: expected one per sample of the signal, ({length},), found shape {array.shape}")
    if not (np.diff(array) > 0).all() or not np.isfinite(array).all():
        raise ValueError("times: expected finite, increasing numbers, found others")
    return array


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"channel {number}" for number in range(count)] if count > 1 else [""]
    if len(names) != count:
        raise ValueError(f"channel_names: expected one per channel ({count}), found {len(names)}")
    return [str(name) for name in names]


def _draw_line(axis: Axes, times: Array, channel: Array, colors: Any) -> None:
    """One segment from each sample to the next."""
    points = np.stack([times, channel], -1)
    segments = np.stack([points[:-1], points[1:]], 1)
    axis.add_collection(LineCollection(list(segments), colors=colors, linewidths=2, capstyle="round"))
    axis.autoscale_view()
    axis.margins(x=0)
