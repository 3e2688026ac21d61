"""From values to colors: one scale for all that is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from captum_sgcampp.visualization.arrays import Array
from captum_sgcampp.visualization.panels import TITLE_SIZE

CMAP = "jet"
BAR_INCHES = 0.7  # height of the color bar with its words
BAR_WIDTH = 1.8  # inches, at least, where the panels fill the figure
_PARTS: dict[str, Callable[[Array], Array]] = {
    "positive": lambda values: np.maximum(values, 0),
    "negative": lambda values: np.maximum(-values, 0),
    "absolute_value": np.abs,
    "all": lambda values: values,
}


@dataclass(frozen=True)
class Colors:
    r"""
    How the values of maps become colors, in the words of `captum.attr.visualization.visualize_image_attr`.

    Captum gives each map a scale of its own. Here one scale holds for all values that `end` is asked for.

    Args:

        sign (str, optional): The values that count: `"positive"`, `"negative"`, `"absolute_value"` or `"all"`.
                    Default: "positive"
        cmap (str or matplotlib.colors.Colormap, optional): The colors from 0 to the largest value; for `"all"`, from
                    its negative.
                    Default: "jet"
        outlier_perc (float, optional): The largest values, which together are this percentage of the sum of all, get
                    the last color.
                    Default: 2

    Examples::

        >>> colors = Colors(outlier_perc=0)
        >>> maps = [torch.tensor([0.0, 2.0]).numpy(), torch.tensor([1.0, -8.0]).numpy()]
        >>> end = colors.end(maps)
        >>> end, [colors.shares(values, end).tolist() for values in maps]
        (2.0, [[0.0, 1.0], [0.5, 0.0]])
    """

    sign: str = "positive"
    cmap: str | Colormap = CMAP
    outlier_perc: float = 2

    def __post_init__(self) -> None:
        if self.sign not in _PARTS:
            raise ValueError(f"sign: expected one of {', '.join(_PARTS)}, found {self.sign!r}")
        if not isinstance(self.cmap, Colormap) and self.cmap not in matplotlib.colormaps:
            raise ValueError(f"cmap: expected a color map of matplotlib, found {self.cmap!r}")
        if not 0 <= self.outlier_perc < 100:
            raise ValueError(f"outlier_perc: expected a percentage below 100, found {self.outlier_perc}")

    def part(self, values: Array) -> Array:
        """The values of the sign that counts, those of `"negative"` as positive numbers; 0 elsewhere."""
        return _PARTS[self.sign](values)

    def end(self, maps: Sequence[Array]) -> float:
        """The magnitude where the scale of all these maps ends; 0 if no value has the sign."""
        ordered = np.sort(np.concatenate([np.abs(self.part(values)).ravel() for values in maps]))
        sums = np.cumsum(ordered, dtype=np.float64)
        last = int(np.searchsorted(sums, sums[-1] * (1 - self.outlier_perc / 100)))
        return float(ordered[last])

    def shares(self, values: Array, end: float) -> Array:
        """The values as shares of `end`, from 0 to 1; from -1 for `"all"`."""
        shares: Array = np.clip(self.part(values) / (end or 1.0), -1, 1)
        return shares

    def rgb(self, values: Array, end: float) -> Array:
        """The colors of values, `(*values.shape, 3)`, floats from 0 to 1."""
        shares = self.shares(values, end)
        places = (shares + 1) / 2 if self.sign == "all" else shares
        colors: Array = matplotlib.colormaps.get_cmap(self.cmap)(places)[..., :3]
        return colors

    @property
    def mappable(self) -> ScalarMappable:
        """From shares to colors."""
        return ScalarMappable(Normalize(-1 if self.sign == "all" else 0, 1), self.cmap)


def blended(gray: Array, values: Array, colors: Colors, end: float, alpha: float) -> Array:
    """Colors over gray, `(*gray.shape, 3)`. Without a value of the wanted sign (`end` 0) there are no colors.

    Args:
        gray: from 0 to 1.
        values: of the map, in the same shape.
        colors: of the map.
        end: where their scale ends.
        alpha: share of the colors, from 0 to 1.
    """
    share = alpha if end > 0 else 0.0
    mixed: Array = colors.rgb(values, end).astype(np.float32, order="C")
    mixed *= 255 * share  # in place: large arrays take longer to be made than to be filled
    mixed += (255 * (1 - share) * gray)[..., None]
    rounded: Array = np.rint(mixed, out=mixed).astype(np.uint8)
    return rounded


def check_alpha(alpha: float) -> None:
    """A share of the colors."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha_overlay: expected a number from 0 to 1, found {alpha}")


def draw_color_bar(figure: Figure, cmap: str | Colormap = CMAP, sign: str = "positive") -> None:
    """Below the panels: which colors stand for which share of the largest value."""
    figure.set_figheight(figure.get_figheight() + BAR_INCHES)
    places = [(axis, axis.get_subplotspec()) for axis in figure.axes]
    panels = [axis for axis, place in places if place is not None and place.is_last_row()]
    shrink = max(0.35, BAR_WIDTH / figure.get_figwidth())
    bar = figure.colorbar(
        Colors(sign, cmap).mappable, ax=panels, location="bottom", shrink=shrink, aspect=30, fraction=0.05
    )
    ticks, words = [0, 0.5, 1], {"negative": ["0", "half", "most negative"]}.get(sign, ["0", "half", "largest"])
    if sign == "all":
        ticks, words = [-1, 0, 1], ["-largest", "0", "largest"]
    bar.set_ticks(ticks, labels=words, fontsize=TITLE_SIZE - 2)
    bar.set_label("value of the map", fontsize=TITLE_SIZE - 1)
