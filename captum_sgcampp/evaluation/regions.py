"""Where the objects are: masks and boxes, as the classifier sees the image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_sgcampp.metrics import boxes_to_regions
from captum_sgcampp.vision.classifiers import Classifier


class Boxed(NamedTuple):
    """What a file of boxes says of an image.

    Attributes:
        boxes: of the class's objects, `(x0, y0, x1, y1)` in pixels of the file, once it is upright.
        target: class index. None: not said.
    """

    boxes: Sequence[Sequence[float]]
    target: int | None = None


def read_boxes(path: Path) -> dict[str, Boxed]:
    """Boxes by the images' names.

    Args:
        path: JSON as `{"cat.jpg": {"target": 281, "boxes": [[10, 20, 90, 80]]}}`; `target` may be left out.

    Raises:
        ValueError: another content.
    """
    try:
        return {name: _boxed(entry) for name, entry in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'--boxes: expected {{"cat.jpg": {{"target": 281, "boxes": [[10, 20, 90, 80]]}}}} in {path}, found '
            f"{type(error).__name__}: {error}"
        ) from error


def _boxed(entry: Mapping[str, Any]) -> Boxed:
    boxes = [tuple(map(float, box)) for box in entry["boxes"]]
    if not boxes or any(len(box) != 4 for box in boxes):
        raise ValueError(f"boxes {entry['boxes']}")
    target = entry.get("target")
    return Boxed(boxes, None if target is None else int(target))


def box_regions(classifier: Classifier, picture: Image.Image, boxes: Sequence[Sequence[float]]) -> Tensor:
    """Each box as a region of the model's input, `(I, H, W)`, without boxes outside the classifier's crop.

    Raises:
        ValueError: none is inside.
    """
    size = picture.height, picture.width
    drawn = (boxes_to_regions([[box]], size)[0].numpy().astype(np.uint8) * 255 for box in boxes)
    found = [_shown(classifier, Image.fromarray(one).convert("RGB")) for one in drawn]
    visible = [region for region in found if region.any()]
    if not visible:
        raise ValueError(f"--boxes: expected a box in the classifier's crop, found none of {len(boxes)} there")
    return torch.stack(visible)


def mask_region(classifier: Classifier, picture: Image.Image, name: str) -> Tensor:
    """A mask, not black where the object is, as a region of the model's input, `(H, W)`."""
    region = _shown(classifier, picture)
    if not region.any():
        raise ValueError(f"--masks: expected some pixels of the object in the classifier's crop of {name}, found none")
    return region


def _shown(classifier: Classifier, picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(classifier.show(picture).convert("L")) > 127)


def enclosing_box(region: Tensor) -> Tensor:
    """The smallest box around a region `(H, W)`, as a region."""
    rows, columns = region.any(1).nonzero().flatten(), region.any(0).nonzero().flatten()
    box = torch.zeros_like(region)
    box[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = True
    return box
