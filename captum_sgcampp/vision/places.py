"""Where maps are restricted to: some neurons, or a box in pixels of the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_sgcampp.functional.selection import box_to_neurons


@dataclass(frozen=True)
class Place:
    """One of both.

    Attributes:
        neurons: rows and columns of the layer.
        box: `(x0, y0, x1, y1)` in pixels of what the model sees.
    """

    neurons: tuple[slice, ...] | None = None
    box: tuple[float, ...] | None = None

    def mask(self, layer_size: Sequence[int], input_size: Sequence[int]) -> Tensor:
        """The neurons of a layer of that size, bool, `(h, w)`."""
        slices = self.neurons if self.box is None else box_to_neurons(self.box, input_size, layer_size)
        mask = torch.zeros(tuple(layer_size), dtype=torch.bool)
        mask[slices] = True
        return mask


def box_in_crop(
    box: Sequence[float], size: tuple[int, int], show: Callable[[Image.Image], Image.Image]
) -> tuple[tuple[float, ...], bool]:
    """A box in pixels of a picture, in pixels of the part that a model sees.

    Args:
        box: `(x0, y0, x1, y1)`.
        size: width and height of the picture.
        show: from a picture to what the model sees of it, by resizing and cutting only. See `Classifier.show`.

    Returns:
        The box, cut off at the borders, and whether it was cut off.

    Raises:
        ValueError: it leaves the picture, or the model sees nothing of it.

    Examples::

        >>> box, is_cut = box_in_crop((100, 0, 300, 200), (400, 200), lambda picture: picture.crop((80, 0, 320, 200)))
        >>> [round(side) for side in box], is_cut
        ([20, 0, 220, 200], False)
    """
    if box[2] > size[0] or box[3] > size[1]:
        raise ValueError(f"box: expected a box in the picture of {size[0]} x {size[1]} pixels, found {_text(box)}")
    low, high, seen = [], [], []
    for axis in (0, 1):
        offset, step, limit = _scale(axis, size, show)
        ends = sorted((coordinate - offset) / step for coordinate in (box[axis], box[axis + 2]))
        low.append(ends[0])
        high.append(ends[1])
        seen.append((offset, offset + step * limit, limit))
    cut = [max(value, 0.0) for value in low] + [min(value, float(s[2])) for value, s in zip(high, seen, strict=True)]
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        part = _text([seen[0][0], seen[1][0], seen[0][1], seen[1][1]])
        raise ValueError(f"box: expected a box that meets what the model sees ({part}), found {_text(box)}")
    return tuple(cut), max(abs(a - b) for a, b in zip([*low, *high], cut, strict=True)) > 0.5


def _scale(axis: int, size: tuple[int, int], show: Callable[[Image.Image], Image.Image]) -> tuple[float, float, int]:
    """The picture's coordinate of the crop's first border along an axis, the step per pixel, and the crop's length.

    Measured on a picture whose pixels hold their coordinate: whatever `show` does, it tells where they went.
    """
    levels = np.linspace(0, 255, size[axis])
    # Three roundings, of which the mean is finer than one.
    line = np.stack([np.rint(levels + third) for third in (-1 / 3, 0, 1 / 3)], axis=-1).astype(np.uint8)
    ramp = Image.fromarray(line[None] if axis == 0 else line[:, None]).resize(size, Image.Resampling.NEAREST)
    shown: np.ndarray[Any, Any] = np.asarray(show(ramp), dtype=np.float64).mean(axis=(axis, 2))
    limit = len(shown)
    if size[axis] == 1:
        return 0.0, 1 / limit, limit
    middle = slice(limit // 4, limit - limit // 4)  # at the borders, enlarged pictures repeat their last pixel
    coordinates = shown * (size[axis] - 1) / 255 + 0.5
    step, offset = np.polyfit(np.arange(limit)[middle] + 0.5, coordinates[middle], 1)
    return float(offset), float(step), limit


def _text(box: Sequence[float]) -> str:
    return ",".join(f"{number:.0f}" for number in box)
