"""What a preprocessing does: its normalization, and all of it in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_sgcampp.vision.images import IMAGENET_MEAN, IMAGENET_STD


class Normalization(NamedTuple):
    """Of a preprocessing: what it subtracts from channels that go from 0 to 1, and divides by, `(C,)` each."""

    mean: Tensor
    std: Tensor


def normalization_of(transform: object) -> Normalization | None:
    """The normalization that a preprocessing ends with, where it can be asked for it.

    Args:
        transform: of torchvision, timm or Hugging Face; or a `functools.partial` with such an argument.

    Examples::

        >>> preset = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
        >>> normalization_of(preset).mean
        tensor([0.4850, 0.4560, 0.4060])
    """
    return next(filter(None, map(_own_normalization, _parts(transform))), None)


def in_words(transform: object) -> str:
    """What a preprocessing does to a picture, as far as it can be asked for it.

    Args:
        transform: as in `normalization_of`.

    Examples::

        >>> in_words(torchvision.models.ResNet18_Weights.DEFAULT.transforms())
        "resized to 256, cropped to 224 x 224, normalized with ImageNet's mean and standard deviation"
    """
    parts = list(_parts(transform))
    steps = [step for part in parts for step in _sizes(part)]
    normalization = normalization_of(transform)
    return ", ".join([*steps, *([] if normalization is None else [normalized(normalization)])])


def resized_and_cropped(resize: int, crop: int) -> list[str]:
    """The two steps of a classifier's usual preprocessing, in words."""
    return [f"resized to {resize}", f"cropped to {crop} x {crop}"]


def normalized(normalization: Normalization) -> str:
    """What is subtracted and divided by, in words."""
    mean, std = ([round(value, 4) for value in own.tolist()] for own in normalization)
    if (mean, std) == (list(IMAGENET_MEAN), list(IMAGENET_STD)):
        return "normalized with ImageNet's mean and standard deviation"
    return f"normalized with mean {mean} and standard deviation {std}"


def _parts(transform: object) -> Iterator[object]:
    yield transform
    for inside in (getattr(transform, "transforms", ()), getattr(transform, "args", ())):
        for part in inside if isinstance(inside, list | tuple) else ():
            yield from _parts(part)


def _own_normalization(part: object) -> Normalization | None:
    mean, std = (getattr(part, name, getattr(part, f"image_{name}", None)) for name in ("mean", "std"))
    if not isinstance(mean, Sequence | Tensor) or not isinstance(std, Sequence | Tensor):
        return None
    return Normalization(torch.as_tensor(mean).flatten(), torch.as_tensor(std).flatten())


def _sizes(part: Any) -> Iterator[str]:
    """To which sizes one step resizes and crops: torchvision's presets and image processors do both."""
    kind = type(part).__name__
    is_processor = hasattr(part, "image_mean")
    resize = getattr(part, "resize_size", getattr(part, "size", None) if is_processor or "Resize" in kind else None)
    crop = getattr(part, "crop_size", getattr(part, "size", None) if "Crop" in kind else None)
    if resize is not None and getattr(part, "do_resize", True):
        yield f"resized to {_sides(resize)}"
    if crop is not None and getattr(part, "do_center_crop", True):
        yield f"cropped to {_sides(crop, square=True)}"


def _sides(size: Any, square: bool = False) -> str:
    """`256` of a shorter side, `224 x 224` of both."""
    named = size if isinstance(size, Mapping) else vars(size) if hasattr(size, "shortest_edge") else {}  # processors'
    sides = [named[name] for name in ("shortest_edge", "height", "width") if named.get(name)]
    if not named:
        sides = list(size) if isinstance(size, Sequence) else [size]
    return " x ".join(map(str, sides * 2 if square and len(sides) == 1 else sides))
