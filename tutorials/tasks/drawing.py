"""Colored shapes on soft backgrounds, with the mask of each: what the three tasks draw with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 240),
    "yellow": (235, 215, 50),
    "purple": (200, 60, 215),
    "white": (240, 240, 240),
}
COLOR_NAMES = tuple(COLORS)
ANGLES = 48  # a turn in steps: outlines are drawn once for each
GAP = 3  # pixels between two objects

_OVERSAMPLING = 8
_KNOTS = 4  # of a background, per axis
_JITTER = 20  # of 255, by which a color differs from its name's

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def _spokes(*radii: float, count: int) -> npt.NDArray[np.float64]:
    """Corners `(points, 2)` at equal angles whose distances from the center repeat `radii`."""
    distances = np.tile(radii, count)
    angles = np.linspace(0, 2 * math.pi, len(distances), endpoint=False)
    return np.stack([distances * np.cos(angles), distances * np.sin(angles)], 1)


def _cross(arm: float = 0.3) -> npt.NDArray[np.float64]:
    long = math.sqrt(1 - arm * arm)
    turn = np.array([[0, 1], [-1, 0]])
    arms = [np.array([[long, -arm], [long, arm], [arm, arm]]) @ np.linalg.matrix_power(turn, k) for k in range(4)]
    return np.concatenate(arms)


_ROUND = _spokes(1, count=48)
_OUTLINES = {
    "circle": _ROUND,
    "square": _spokes(1, count=4),
    "triangle": _spokes(1, count=3),
    "star": _spokes(1, 0.42, count=5),
    "cross": _cross(),
    "ring": _ROUND,
}
_HOLES = {"ring": 0.55 * _ROUND}


@cache
def coverage(shape: str, half_radius: int, angle: int) -> Floats:
    """How much of each pixel a shape covers, from 0 to 1; its center is the middle pixel.

    Args:
        shape: one of `SHAPES`.
        half_radius: twice the radius of the enclosing circle in pixels.
        angle: in steps of a turn / `ANGLES`.
    """
    radius, turn = half_radius / 2, 2 * math.pi * angle / ANGLES
    side = 2 * math.ceil(radius) + 3
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    picture = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    draw = ImageDraw.Draw(picture)
    for outline, fill in ((_OUTLINES[shape], 255), (_HOLES.get(shape), 0)):
        if outline is not None:
            corners = (radius * outline @ rotation + side / 2) * _OVERSAMPLING - 0.5
            draw.polygon([(float(x), float(y)) for x, y in corners], fill=fill)
    return np.asarray(picture.reduce(_OVERSAMPLING), np.float32) / 255


@cache
def _upsampling(size: int) -> Floats:
    """Linear interpolation from `_KNOTS` values to `size`, `(size, _KNOTS)`."""
    along = np.linspace(0, _KNOTS - 1, size)[:, None]
    return np.clip(1 - np.abs(along - np.arange(_KNOTS)), 0, 1).astype(np.float32)


def background(rng: np.random.Generator, size: int) -> Floats:
    """A dim cloud of muted colors, `(size, size, 3)`, from 0 to 255."""
    knots = rng.uniform(20, 110) + rng.uniform(-30, 30, (1, 1, 3)) + rng.uniform(-25, 25, (_KNOTS, _KNOTS, 1))
    up = _upsampling(size)
    return np.einsum("ya,abc,xb->yxc", up, knots.astype(np.float32), up, optimize=True)


def paint(rng: np.random.Generator, color: str) -> Floats:
    """A color that its name fits, `(3,)`."""
    return (np.array(COLORS[color]) + rng.uniform(-_JITTER, _JITTER, 3)).astype(np.float32)


def window(covered: Floats, x: int, y: int) -> tuple[slice, slice]:
    """The pixels of a coverage whose center is at `(x, y)`."""
    half = len(covered) // 2
    return slice(y - half, y + half + 1), slice(x - half, x + half + 1)


def draw(canvas: Floats, covered: Floats, x: int, y: int, color: Floats) -> None:
    """Draw a shape onto a canvas `(H, W, 3)`, in place."""
    place = window(covered, x, y)
    canvas[place] += covered[..., None] * (color - canvas[place])


def mask(covered: Floats, x: int, y: int, size: int) -> Bools:
    """The pixels that a shape covers by at least half, `(size, size)`."""
    pixels = np.zeros((size, size), np.bool_)
    pixels[window(covered, x, y)] = covered >= 0.5
    return pixels


def grained(rng: np.random.Generator, canvas: Floats) -> npt.NDArray[np.uint8]:
    """Pixels with noise like that of a camera."""
    grain = rng.standard_normal(canvas.shape, np.float32) * rng.uniform(0, 6)
    return np.clip(np.rint(canvas + grain), 0, 255).astype(np.uint8)


def apart(centers: Sequence[tuple[int, int]], radii: Sequence[float]) -> bool:
    """Whether no two of these circles come closer than `GAP`."""
    return all(
        math.hypot(centers[i][0] - centers[j][0], centers[i][1] - centers[j][1]) >= radii[i] + radii[j] + GAP
        for i in range(len(radii))
        for j in range(i)
    )


def placed(
    rng: np.random.Generator, radii: Sequence[float], boxes: Sequence[tuple[float, float, float, float]]
) -> list[tuple[int, int]] | None:
    """Centers of circles that lie apart, each within its box `(x0, y0, x1, y1)`; None where chance finds no place."""
    centers: list[tuple[int, int]] = []
    for number, (radius, (x0, y0, x1, y1)) in enumerate(zip(radii, boxes, strict=True)):
        margin = math.ceil(radius) + 2
        if x1 - x0 <= 2 * margin or y1 - y0 <= 2 * margin:
            return None
        tries = rng.uniform((x0 + margin, y0 + margin), (x1 - margin, y1 - margin), (30, 2)).astype(int)
        for x, y in tries.tolist():
            if apart([*centers, (x, y)], radii[: number + 1]):
                centers.append((x, y))
                break
        else:
            return None
    return centers
