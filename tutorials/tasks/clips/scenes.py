"""Clips in which one shape acts for a while and others do not, with the mask of each in every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.drawing import ANGLES, COLOR_NAMES, background, coverage, draw, grained, mask, paint, placed

SIZE = 48
FRAMES = 16
ACTIONS = ("moves left", "moves right", "moves up", "moves down", "bounces", "grows", "shrinks", "turns", "hides")

_SHAPES = ("square", "triangle", "star", "cross")  # one can see them turn
_DURATION = (6, 10)  # frames that an action takes, both ends included
_MOVER_HALF_RADII = (10, 13)  # twice the radius in pixels, both ends included
_OTHER_HALF_RADII = (8, 14)
_OTHERS = (1, 2)  # how many, both ends included
_TREMBLE_CHANCE = 0.4  # that another object trembles, which is no action
_FAR = (9, 13)  # pixels of a move
_HIGH = (6, 9)  # pixels of a bounce
_GROWTH = (1.5, 1.8)  # largest by smallest radius
_STEPS = (14, 24)  # of a turn, in turns / ANGLES


@dataclass(frozen=True)
class Pose:
    """An object in one frame."""

    x: int
    y: int
    half_radius: int
    angle: int
    visible: bool = True


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip.

    Attributes:
        frames: RGB, uint8, `(FRAMES, SIZE, SIZE, 3)`.
        action: index in `ACTIONS`.
        start: first frame that differs from the one before, or the first hidden one.
        stop: the frame after the last of these.
        masks: pixels of each object, the acting one first, `(objects, FRAMES, SIZE, SIZE)`. A hidden object has those
            of the place where it was.
    """

    frames: npt.NDArray[np.uint8]
    action: int
    start: int
    stop: int
    masks: npt.NDArray[np.bool_]

    @property
    def acting(self) -> npt.NDArray[np.bool_]:
        """The frames in which something happens, `(FRAMES,)`."""
        frames = np.arange(FRAMES)
        return (frames >= self.start) & (frames < self.stop)


def draw_clip(seed: int) -> Clip:
    """One clip, the same for the same seed."""
    rng = np.random.default_rng(seed)
    action = int(rng.integers(len(ACTIONS)))
    duration = int(rng.integers(*_DURATION, endpoint=True))
    start = int(rng.integers(1, FRAMES - duration, endpoint=True))
    progress = np.clip((np.arange(FRAMES) - start + 1) / duration, 0, 1)
    tracks = None
    while tracks is None:
        tracks = _tracks(rng, ACTIONS[action], progress)
    canvas = background(rng, SIZE)
    shapes = [_SHAPES[rng.integers(len(_SHAPES))] for _ in tracks]
    paints = [paint(rng, COLOR_NAMES[rng.integers(len(COLOR_NAMES))]) for _ in tracks]
    frames = np.repeat(canvas[None], FRAMES, 0)
    masks = np.zeros((len(tracks), FRAMES, SIZE, SIZE), np.bool_)
    for number, (shape, color, track) in enumerate(zip(shapes, paints, tracks, strict=True)):
        for time, pose in enumerate(track):
            covered = coverage(shape, pose.half_radius, pose.angle % ANGLES)
            masks[number, time] = mask(covered, pose.x, pose.y, SIZE)
            if pose.visible:
                draw(frames[time], covered, pose.x, pose.y, color)
    return Clip(grained(rng, frames), action, start, start + duration, masks)


def _tracks(rng: np.random.Generator, action: str, progress: npt.NDArray[np.float64]) -> list[list[Pose]] | None:
    """Poses of the acting object and the others in each frame; None where chance finds no room."""
    mover = _acting(rng, action, progress)
    dx, dy, reach = _reach(mover)
    others = int(rng.integers(*_OTHERS, endpoint=True))
    half_radii = [int(half) for half in rng.integers(*_OTHER_HALF_RADII, others, endpoint=True)]
    radii = [reach, *(half / 2 + 1 for half in half_radii)]  # a pixel more, for those that tremble
    centers = placed(rng, radii, [(0, 0, SIZE, SIZE)] * len(radii))
    if centers is None:
        return None
    (x, y), *places = centers
    moved = [Pose(x - dx + p.x, y - dy + p.y, p.half_radius, p.angle, p.visible) for p in mover]
    return [moved, *(_still(rng, *place, half) for place, half in zip(places, half_radii, strict=True))]


def _reach(track: list[Pose]) -> tuple[int, int, float]:
    """Center and radius of a circle that holds an object in all frames."""
    xs, ys = [p.x for p in track], [p.y for p in track]
    x, y = (min(xs) + max(xs)) // 2, (min(ys) + max(ys)) // 2
    return x, y, max(math.hypot(p.x - x, p.y - y) + p.half_radius / 2 for p in track)


def _still(rng: np.random.Generator, x: int, y: int, half_radius: int) -> list[Pose]:
    trembles = rng.random() < _TREMBLE_CHANCE
    shifts = rng.integers(-1, 1, (FRAMES, 2), endpoint=True) if trembles else np.zeros((FRAMES, 2), int)
    angle = int(rng.integers(ANGLES))
    return [Pose(x + int(dx), y + int(dy), half_radius, angle) for dx, dy in shifts]


def _acting(rng: np.random.Generator, action: str, progress: npt.NDArray[np.float64]) -> list[Pose]:
    """The acting object in each frame, around (0, 0); `progress` goes from 0 to 1 while it acts."""
    radius = float(rng.integers(*_MOVER_HALF_RADII, endpoint=True))
    angle = float(rng.integers(ANGLES))
    far, high = rng.uniform(*_FAR), rng.uniform(*_HIGH)
    growth, steps = rng.uniform(*_GROWTH), rng.choice([-1, 1]) * rng.uniform(*_STEPS)
    x = y = np.zeros(FRAMES)
    radii, angles, visible = np.full(FRAMES, radius), np.full(FRAMES, angle), np.ones(FRAMES, np.bool_)
    if action in ("moves left", "moves right"):
        x = progress * (far if action == "moves right" else -far)
    elif action in ("moves up", "moves down"):
        y = progress * (far if action == "moves down" else -far)
    elif action == "bounces":
        y = -high * np.abs(np.sin(2 * math.pi * progress))
    elif action in ("grows", "shrinks"):
        grown = 1 - progress if action == "shrinks" else progress
        radii = radius / 1.25 * (1 + (growth - 1) * grown)
    elif action == "turns":
        angles = angle + steps * progress
    else:
        visible = (progress <= 0) | (np.arange(FRAMES) > np.argmax(progress))
    rows = (np.rint(values).astype(int).tolist() for values in (x, y, radii, angles))
    return [Pose(*numbers, shown) for *numbers, shown in zip(*rows, visible.tolist(), strict=True)]
