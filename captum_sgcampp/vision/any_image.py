"""One image in any of the forms that people have, as a picture or as the input of a model; and such inputs as
pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from captum_sgcampp.names import nearest, printable
from captum_sgcampp.vision.images import as_rgb, read_image, resizable_rgb
from captum_sgcampp.vision.preprocessing import Normalization
from captum_sgcampp.vision.recordings import SUFFIXES

ROUNDING = 0.01  # by which undoing a normalization may leave [0, 1]
MANY = (
    "captum_sgcampp.dataset.attribute_dataset or the command `captum-sgcampp attribute` explains a folder, and "
    "`attribute` of LayerSmoothGradCamPlusPlus a batch"
)
FORMS = (
    "a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (C, H, W) or (1, C, H, W); integers from 0 to 255, "
    "gray of uint16, or floats from 0 to 1, but for tensors that are the model's input"
)


class OneImage(NamedTuple):
    """What the user gave.

    Attributes:
        name: of its file, or `image`.
        content: an RGB picture; or a tensor `(1, C, H, W)`, the model's input.
        note: how a tensor was taken, in words, where that is not certain.
    """

    name: str
    content: Image.Image | Tensor
    note: str = ""


def one_image(image: object, white: float | None = None) -> OneImage:
    """The image that the user gave.

    Args:
        image: one of `FORMS`. Float tensors `(1, C, H, W)`, and those `(C, H, W)` whose values leave [0, 1], are the
            model's input, as in Captum. All others are pictures.
        white: of gray pictures of more than 8 bits, as in `read_image`.

    Raises:
        TypeError, ValueError: none of these, or several images.
        OSError: a file that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return _of_file(Path(image), white)
    if isinstance(image, Image.Image):
        name = Path(str(getattr(image, "filename", ""))).name
        return OneImage(printable(name) or "image", resizable_rgb(image, 256, 224, white))
    if isinstance(image, Tensor):
        return _of_tensor(image, white)
    if isinstance(image, np.ndarray):
        return OneImage("image", _picture(_channels_last(image), image, white))
    if isinstance(image, list | tuple):
        raise TypeError(f"image: expected one image, found a {type(image).__name__} of {len(image)}; {MANY}")
    raise TypeError(f"image: expected {FORMS}, found {type(image).__name__}")


def _of_file(path: Path, white: float | None) -> OneImage:
    if path.is_dir():
        raise IsADirectoryError(f"image: expected an image file, found the folder {os.fspath(path)!r}; {MANY}")
    suffix = next((end for end in (*SUFFIXES, ".npy") if path.name.lower().endswith(end)), None)
    if suffix is not None:
        kind = SUFFIXES.get(suffix, "array")
        raise ValueError(
            f"image: expected an image file, found {path.name!r} ({kind}); the command `captum-sgcampp explain` takes "
            "clips, volumes and signals"
        )
    check_exists(path)
    return OneImage(printable(path.name), read_image(path, white=white))


def check_exists(path: Path) -> None:
    """The error names the nearest files of the folder.

    Raises:
        FileNotFoundError: no such file.
    """
    if path.exists():
        return
    try:
        names = os.listdir(path.parent)
    except OSError:  # no such folder either, or one that may not be listed
        names = []
    raise FileNotFoundError(
        f"image: expected an image file, found none at {os.fspath(path)!r}{nearest(path.name, names)}"
    )


def _of_tensor(image: Tensor, white: float | None) -> OneImage:
    values = image.detach()
    if values.dim() == 4 and len(values) != 1:
        raise ValueError(f"image: expected one image, found a batch of {len(values)}; {MANY}")
    if values.is_floating_point():
        if values.dim() == 4:
            return OneImage("image", values)
        if values.dim() == 3 and not _is_unit(values):
            note = "image: a tensor whose values leave [0, 1], taken as the model's input"
            return OneImage("image", values[None], note)
    pixels = values[0] if values.dim() == 4 else values
    array: NDArray[Any] = (pixels.permute(1, 2, 0) if pixels.dim() == 3 else pixels).cpu().numpy()
    note = "image: a tensor of values from 0 to 1, taken as a picture; (1, C, H, W) is taken as the model's input"
    return OneImage("image", _picture(array, image, white), note if values.is_floating_point() else "")


def _is_unit(values: Tensor) -> bool:
    return values.numel() > 0 and float(values.min()) >= 0 and float(values.max()) <= 1


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """Without the transparency of RGBA images, which Pillow's own pictures keep."""
    return array[..., :3] if array.ndim == 3 and array.shape[2] == 4 else array


def _picture(array: NDArray[Any], given: Any, white: float | None) -> Image.Image:
    """An array `(H, W)`, `(H, W, 1)` or `(H, W, 3)` as an RGB picture."""
    gray = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    kind = f"{type(given).__name__} of {array.dtype} and shape {tuple(given.shape)}"
    if gray.size == 0 or not (gray.ndim == 2 or (gray.ndim == 3 and gray.shape[2] == 3)):
        raise ValueError(f"image: expected {FORMS}, found {kind}")
    if gray.dtype == np.uint16 and gray.ndim == 2:
        return as_rgb(Image.fromarray(gray), white)
    if gray.dtype != np.uint8:
        low, high = float(gray.min()), float(gray.max())
        if gray.dtype.kind != "f" or not (low >= 0 and high <= 1):
            raise ValueError(f"image: expected {FORMS}, found {kind} from {low:g} to {high:g}")
        gray = np.rint(255 * gray).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(gray)).convert("RGB")


def drawn_input(inputs: Tensor, normalization: Normalization | None) -> Image.Image:
    """The input of a model as a picture: with its normalization undone, or else stretched over all channels alike.

    Args:
        inputs: `(1, C, H, W)`.
        normalization: of its preprocessing. None: not known.
    """
    values = inputs[0].detach().float().cpu()
    if not _is_unit(values):
        values = _without_normalization(values, normalization)
    if len(values) != 3:
        values = values.mean(0, keepdim=True).expand(3, -1, -1)
    return Image.fromarray((255 * values).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def _without_normalization(values: Tensor, normalization: Normalization | None) -> Tensor:
    if normalization is not None and len(normalization.mean) in (1, len(values)):
        mean, std = (one.float().cpu()[:, None, None] for one in normalization)
        undone = values * std + mean
        if bool(((undone >= -ROUNDING) & (undone <= 1 + ROUNDING)).all()):
            return undone.clamp(0, 1)
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp_min(1e-12)
