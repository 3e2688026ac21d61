r"""
Pictures of colored shapes on cluttered backgrounds, with the exact mask of every shape.

The bundled network is trained and measured on these scenes. The same seed always gives the same
scene. Place, size, rotation, color and shading of an object are drawn independently of its class,
so they tell nothing about it.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["CLASSES", "MAX_OBJECTS", "SIZE", "Scene", "draw_scene", "draw_scenes"]

CLASSES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
"""Names of the classes; a class is given by its index in this tuple."""

SIZE = 128
"""Default height and width of a scene in pixels."""

MIN_SIZE = 64
"""Smallest height and width of a scene in pixels; smaller shapes would be too coarse to tell apart."""

MAX_OBJECTS = 6
"""Largest number of objects in one scene."""

_OBJECT_COUNTS = (0.2, 0.3, 0.3, 0.2)  # chances of 1, 2, 3 and 4 objects
_REPEAT_CHANCE = 0.3  # chance that an object takes the class of an earlier one
_RADIUS_RANGE = (0.10, 0.20)  # radius of the enclosing circle, in image sizes
_GAP = 3.0  # pixels between the enclosing circles of two objects
_MIN_CONTRAST = 100.0  # RGB distance (0 to 441) between an object and the background behind it
_OVERSAMPLING = 4  # sub-pixels per pixel and axis when a shape is drawn

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    r"""
    One picture with its objects.

    Args:

        image (ndarray of uint8): Picture in RGB, of shape (H, W, 3).
        classes (tuple[int]): Class index of every object, see :data:`CLASSES`.
        masks (ndarray of bool): Visible pixels of every object, of shape (objects, H, W). A pixel
                    belongs to an object that covers at least half of it. Masks never overlap.

    Examples::

        >>> scene = draw_scene(0, classes=[0, 3])
        >>> scene.image.shape, scene.classes, scene.masks.shape
        ((128, 128, 3), (0, 3), (2, 128, 128))
    """

    image: npt.NDArray[np.uint8]
    classes: tuple[int, ...]
    masks: npt.NDArray[np.bool_]

    @property
    def labels(self) -> Floats:
        r"""
        Returns:
            *ndarray of float32* of shape (classes,): 1 for every class with an object, else 0.
        """
        labels = np.zeros(len(CLASSES), np.float32)
        labels[list(self.classes)] = 1.0
        return labels

    def class_mask(self, index: int) -> npt.NDArray[np.bool_]:
        r"""
        Args:

            index (int): Class index, see :data:`CLASSES`.

        Returns:
            *ndarray of bool* of shape (H, W): Pixels of all objects of that class together.
        """
        of_class = [number == index for number in self.classes]
        return cast("npt.NDArray[np.bool_]", self.masks[of_class].any(axis=0))


def draw_scene(seed: int, *, size: int = SIZE, classes: Sequence[int] | None = None) -> Scene:
    r"""
    Draws one scene, the same one for the same arguments.

    Args:

        seed (int): Seed of the scene, 0 or larger.
        size (int, optional): Height and width in pixels, at least 64.
                    Default: 128
        classes (sequence of int, optional): Class index of every object, one to six of them. If
                    None, one to four objects of random classes are drawn.
                    Default: None

    Returns:
        *Scene*: The picture, its classes and its masks.

    Examples::

        >>> # Two stars and a ring.
        >>> scene = draw_scene(7, classes=[3, 3, 5])
        >>> [CLASSES[index] for index in scene.classes]
        ['star', 'star', 'ring']
    """
    if size < MIN_SIZE:
        raise ValueError(f"size: expected at least {MIN_SIZE} pixels, found {size}")
    rng = np.random.default_rng(seed)
    drawn = _draw_classes(rng)
    chosen = drawn if classes is None else _check_classes(classes)
    canvas = _draw_background(rng, size)
    placements = _place(rng, len(chosen), size)
    masks = np.zeros((len(chosen), size, size), np.bool_)
    # All paint is mixed for the bare background, so that colors do not depend on classes.
    paints = [_mix_paint(rng, canvas[placement.window()]) for placement in placements]
    for mask, index, placement, paint in zip(masks, chosen, placements, paints, strict=True):
        _draw_object(canvas, mask, index, placement, paint)
    return Scene(_add_grain(rng, canvas), chosen, masks)


def draw_scenes(seeds: Iterable[int], *, size: int = SIZE) -> Iterator[Scene]:
    r"""
    Draws many scenes, one after the other.

    Args:

        seeds (iterable of int): Seed of every scene.
        size (int, optional): Height and width in pixels, at least 64.
                    Default: 128

    Returns:
        *iterator of Scene*: The scenes in the order of their seeds, each drawn when asked for.

    Examples::

        >>> counts = [len(scene.classes) for scene in draw_scenes(range(100))]
    """
    return (draw_scene(seed, size=size) for seed in seeds)


def _check_classes(classes: Sequence[int]) -> tuple[int, ...]:
    if not 1 <= len(classes) <= MAX_OBJECTS:
        raise ValueError(f"classes: expected 1 to {MAX_OBJECTS} objects, found {len(classes)}")
    unknown = [index for index in classes if not 0 <= index < len(CLASSES)]
    if unknown:
        raise ValueError(f"classes: expected indices from 0 to {len(CLASSES) - 1}, found {unknown}")
    return tuple(int(index) for index in classes)


def _draw_classes(rng: np.random.Generator) -> tuple[int, ...]:
    count = 1 + int(rng.choice(len(_OBJECT_COUNTS), p=_OBJECT_COUNTS))
    classes: list[int] = []
    for _ in range(count):
        repeat = bool(classes) and rng.random() < _REPEAT_CHANCE
        classes.append(int(rng.choice(classes)) if repeat else int(rng.integers(len(CLASSES))))
    return tuple(classes)


# Outlines of the shapes. All lie in the unit circle, so that the radius of an object is its size.


def _circle(radius: float = 1.0, shift: float = 0.0) -> Points:
    angles = np.linspace(0.0, 2.0 * math.pi, 64, endpoint=False)
    return np.stack([radius * np.cos(angles) + shift, radius * np.sin(angles)], axis=1)


def _spokes(*radii: float, count: int) -> Points:
    # Corners at equal angles whose distances from the center repeat `radii`.
    distances = np.tile(radii, count)
    angles = np.linspace(0.0, 2.0 * math.pi, len(distances), endpoint=False)
    return np.stack([distances * np.cos(angles), distances * np.sin(angles)], axis=1)


def _cross(arm: float = 0.32) -> Points:
    long = math.sqrt(1.0 - arm * arm)
    quarter = np.array([[long, -arm], [long, arm], [arm, arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _heart() -> Points:
    angles = np.linspace(0.0, 2.0 * math.pi, 64, endpoint=False)
    across = 16.0 * np.sin(angles) ** 3
    down = -(13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles))
    points = np.stack([across, down - 3.0], axis=1)
    return np.asarray(points / np.linalg.norm(points, axis=1).max())


# Outline of every class, and the outline that is cut out of it where there is one.
_OUTLINES: dict[str, tuple[Points, Points | None]] = {
    "circle": (_circle(), None),
    "square": (_spokes(1.0, count=4), None),
    "triangle": (_spokes(1.0, count=3), None),
    "star": (_spokes(1.0, 0.42, count=5), None),
    "cross": (_cross(), None),
    "ring": (_circle(), _circle(0.58)),
    "heart": (_heart(), None),
    "crescent": (_circle(), _circle(0.88, shift=0.52)),
}


@dataclass(frozen=True)
class _Placement:
    x: float
    y: float
    radius: float
    angle: float

    def box(self) -> tuple[int, int, int]:
        # Left, top and side of the square of whole pixels that holds the object.
        left, top = math.floor(self.x - self.radius), math.floor(self.y - self.radius)
        return left, top, math.ceil(2.0 * self.radius) + 1

    def window(self) -> tuple[slice, slice]:
        left, top, side = self.box()
        return slice(top, top + side), slice(left, left + side)


def _place(rng: np.random.Generator, count: int, size: int) -> list[_Placement]:
    # Later objects are tried at smaller radii when the place left is too narrow.
    placed: list[_Placement] = []
    for _ in range(count):
        radius = size * rng.uniform(*_RADIUS_RANGE)
        while (candidate := _find_place(rng, placed, radius, size)) is None:
            radius *= 0.9
        placed.append(candidate)
    return placed


def _find_place(rng: np.random.Generator, placed: list[_Placement], radius: float, size: int) -> _Placement | None:
    margin = radius + 2.0
    centers = rng.uniform(margin, size - margin, (40, 2))
    angle = rng.uniform(0.0, 2.0 * math.pi)
    for x, y in centers:
        if all(math.hypot(x - o.x, y - o.y) >= radius + o.radius + _GAP for o in placed):
            return _Placement(float(x), float(y), radius, angle)
    return None


def _coverage(index: int, placement: _Placement) -> Floats:
    # Share of every pixel of the object's box that the object covers, from 0 to 1.
    left, top, side = placement.box()
    outline, hole = _OUTLINES[CLASSES[index]]
    picture = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    draw = ImageDraw.Draw(picture)
    draw.polygon(_corners(outline, placement, left, top), fill=255)
    if hole is not None:
        draw.polygon(_corners(hole, placement, left, top), fill=0)
    return np.asarray(picture.reduce(_OVERSAMPLING), np.float32) / 255.0


def _corners(outline: Points, placement: _Placement, left: int, top: int) -> list[tuple[float, float]]:
    cos, sin = math.cos(placement.angle), math.sin(placement.angle)
    turned = placement.radius * outline @ np.array([[cos, sin], [-sin, cos]])
    # Pillow counts from pixel centers, the placement from the picture's corner.
    corners = (turned + np.array([placement.x - left, placement.y - top])) * _OVERSAMPLING - 0.5
    return [(float(x), float(y)) for x, y in corners]


def _draw_object(canvas: Floats, mask: npt.NDArray[np.bool_], index: int, placement: _Placement, paint: Floats) -> None:
    window = placement.window()
    coverage = _coverage(index, placement)
    canvas[window] += coverage[..., None] * (paint - canvas[window])
    mask[window] = coverage >= 0.5


def _mix_paint(rng: np.random.Generator, behind: Floats) -> Floats:
    # Vivid, and unlike the background: the first color that is unlike enough, else the best one.
    tries = [_random_color(rng, (0.55, 1.0), (0.6, 1.0)) for _ in range(8)]
    distances = np.linalg.norm(np.stack(tries) - behind.mean(axis=(0, 1)), axis=1)
    enough = np.minimum(distances, _MIN_CONTRAST)
    return _shade(rng, tries[int(enough.argmax())], len(behind))


def _random_color(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Floats:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array([255.0 * channel for channel in rgb], np.float32)


def _shade(rng: np.random.Generator, color: Floats, side: int) -> Floats:
    # Light from one side: up to a fifth brighter there, as much darker on the other.
    angle, strength = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.0, 0.2)
    across = np.linspace(-1.0, 1.0, side)
    light = 1.0 + strength * (math.sin(angle) * across[:, None] + math.cos(angle) * across[None, :])
    return np.asarray(np.clip(color * light[..., None], 0.0, 255.0), np.float32)


# Backgrounds: one of four textures of two muted colors, then strokes and dots.


def _draw_background(rng: np.random.Generator, size: int) -> Floats:
    first, second = (_random_color(rng, (0.0, 0.4), (0.12, 0.97)) for _ in range(2))
    texture = (_gradient, _stripes, _cloud, _checks)[int(rng.integers(4))]
    share = texture(rng, size)[..., None]
    strength = np.float32(rng.uniform(0.35, 1.0))
    return _add_clutter(rng, first + strength * share * (second - first))


def _grid(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
    # Coordinates in pixels along two axes at right angles, turned by a random angle.
    angle = rng.uniform(0.0, 2.0 * math.pi)
    ys, xs = np.ogrid[:size, :size]
    return xs * math.cos(angle) + ys * math.sin(angle), ys * math.cos(angle) - xs * math.sin(angle)


def _gradient(rng: np.random.Generator, size: int) -> Floats:
    along, _ = _grid(rng, size)
    share = (along - along.min()) / np.ptp(along)
    return np.asarray(share, np.float32)


def _stripes(rng: np.random.Generator, size: int) -> Floats:
    along, _ = _grid(rng, size)
    return _wave(along, rng.uniform(0.05, 0.3) * size, rng.uniform(0.5, 6.0))


def _checks(rng: np.random.Generator, size: int) -> Floats:
    along, across = _grid(rng, size)
    period, steepness = rng.uniform(0.08, 0.3) * size, rng.uniform(0.5, 3.0)
    first, second = _wave(along, period, steepness), _wave(across, period, steepness)
    return np.asarray(first * second + (1.0 - first) * (1.0 - second), np.float32)


def _wave(along: Any, period: float, steepness: float) -> Floats:
    # From soft waves (low steepness) to nearly hard stripes (high steepness), between 0 and 1.
    wave = np.tanh(steepness * np.sin(along * (2.0 * math.pi / period))) / math.tanh(steepness)
    return np.asarray(0.5 + 0.5 * wave, np.float32)


def _cloud(rng: np.random.Generator, size: int) -> Floats:
    # Smooth noise on three scales.
    share = np.zeros((size, size), np.float32)
    cells = int(rng.integers(3, 9))
    for weight in (0.55, 0.3, 0.15):
        coarse = Image.fromarray(rng.random((cells, cells), np.float32))
        share += weight * np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        cells *= 2
    return np.asarray(np.clip(2.0 * share - 0.5, 0.0, 1.0), np.float32)


def _add_clutter(rng: np.random.Generator, canvas: Floats) -> Floats:
    # Drawn at twice the resolution for smooth edges. Everything is much thinner or smaller than
    # the smallest object, so that clutter is no shape.
    size = canvas.shape[0]
    picture = Image.fromarray(np.clip(canvas, 0.0, 255.0).astype(np.uint8)).resize((2 * size, 2 * size))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 14))):
        kind = (_line, _arc, _dots)[int(rng.integers(3))]
        kind(rng, draw, 2.0 * size, _ink(rng))
    return np.array(picture.reduce(2), np.float32)


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = _random_color(rng, (0.0, 1.0), (0.1, 1.0))
    return int(red), int(green), int(blue)


def _line(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: float, ink: tuple[int, int, int]) -> None:
    x, y = rng.uniform(0.0, size, 2)
    angle, length = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.06, 0.5) * size
    end = x + length * math.cos(angle), y + length * math.sin(angle)
    draw.line([(x, y), end], fill=ink, width=int(rng.integers(2, 5)))


def _arc(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: float, ink: tuple[int, int, int]) -> None:
    x, y = rng.uniform(0.0, size, 2)
    radius, start = rng.uniform(0.05, 0.25) * size, rng.uniform(0.0, 360.0)
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.arc(box, start, start + rng.uniform(30.0, 150.0), fill=ink, width=int(rng.integers(2, 5)))


def _dots(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: float, ink: tuple[int, int, int]) -> None:
    x, y = rng.uniform(0.0, size, 2)
    for dx, dy in rng.normal(0.0, 0.04 * size, (int(rng.integers(1, 7)), 2)):
        radius = rng.uniform(0.004, 0.016) * size
        draw.ellipse((x + dx - radius, y + dy - radius, x + dx + radius, y + dy + radius), fill=ink)


def _add_grain(rng: np.random.Generator, canvas: Floats) -> npt.NDArray[np.uint8]:
    # Noise like that of a camera, at most 6 of 255 levels in standard deviation.
    grain = rng.standard_normal(canvas.shape, np.float32) * rng.uniform(0.0, 6.0)
    return np.asarray(np.clip(np.rint(canvas + grain), 0.0, 255.0), np.uint8)
