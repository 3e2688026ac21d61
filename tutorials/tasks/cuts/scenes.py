"""Clips with one cut that is known: pans over photographs, joined.

In a clip with a whole cut, one pan follows another. In one with a half cut, only the left or the right half of the
picture changes, while the pan in the other half goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

FRAMES = 24
HEIGHT, WIDTH = 27, 48  # of TransNet V2

_MARGIN = 8  # frames before and after the cut, at least
_SHARE = (0.5, 0.7)  # of the photograph's width that a frame shows
_SPEED = 0.006  # of the photograph's size per frame, at most, along each axis
_ZOOM = 0.004  # growth of the shown part per frame, at most

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CutClip:
    """One clip.

    Attributes:
        frames: RGB, uint8, `(FRAMES, HEIGHT, WIDTH, 3)`.
        cut: the last frame before the change, which the network calls a cut.
        changed: the pixels that change, `(HEIGHT, WIDTH)`: all, or those of one half.
    """

    frames: Frames
    cut: int
    changed: npt.NDArray[np.bool_]


def near(cut: int, reach: int, count: int = FRAMES) -> npt.NDArray[np.bool_]:
    """The `reach` frames before a change and as many after it, `(count,)`; `cut` is the last of those before."""
    frames = np.arange(count)
    return (frames > cut - reach) & (frames <= cut + reach)


def draw_clip(seed: int, photographs: Sequence[Path], half: bool = False) -> CutClip:
    """One clip, the same for the same seed and photographs."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(photographs), 3, replace=False)
    first, second, other = (_pan(rng, photographs[number]) for number in chosen)
    cut = int(rng.integers(_MARGIN - 1, FRAMES - _MARGIN))
    frames = np.concatenate([first[: cut + 1], second[cut + 1 :]])
    changed = np.ones((HEIGHT, WIDTH), np.bool_)
    if half:
        changed = np.broadcast_to((np.arange(WIDTH) < WIDTH // 2) ^ bool(rng.integers(2)), changed.shape)
        frames = np.where(changed[None, :, :, None], frames, other)
    return CutClip(frames, cut, changed)


def _pan(rng: np.random.Generator, path: Path) -> Frames:
    """A window that moves evenly over a photograph and grows or shrinks a little."""
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    shares = rng.uniform(*_SHARE) * np.exp(rng.uniform(-_ZOOM, _ZOOM) * np.arange(FRAMES))
    scale = min(photograph.width, photograph.height * WIDTH / HEIGHT)
    widths = shares * scale
    sizes = np.stack([widths, widths * HEIGHT / WIDTH], 1)
    whole = np.array([photograph.width, photograph.height])
    low, high = sizes.max(0) / 2, whole - sizes.max(0) / 2
    moved = rng.uniform(-_SPEED, _SPEED, 2) * scale * np.arange(FRAMES)[:, None]
    centers = np.clip(rng.uniform(low, high) + moved, low, high)
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], 1)
    return np.stack([_frame(photograph, box) for box in boxes.tolist()])


def _frame(photograph: Image.Image, box: Sequence[float]) -> Frames:
    left, top, right, bottom = box
    return np.asarray(
        photograph.resize((WIDTH, HEIGHT), Image.Resampling.BOX, (left, top, right, bottom), reducing_gap=None)
    )


def inputs(clips: Sequence[CutClip]) -> Tensor:
    """Clips as the network's input, `(N, 3, FRAMES, HEIGHT, WIDTH)`, from 0 to 255."""
    return torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 4, 1, 2, 3).float()
