"""Images, frames and maps of any form as arrays. Each error names the argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from captum.attr import LayerAttribution
from PIL import Image
from torch import Tensor

from captum_sgcampp.wide_gray import is_wide_gray, wide_gray_as_rgb

Array: TypeAlias = np.ndarray[Any, Any]
Picture: TypeAlias = Image.Image | Array | Tensor
Frames: TypeAlias = Array | Tensor | Sequence[Picture]

COLORS = 3  # channels of a picture
ROUNDING = 1e-3  # by which floats may leave [0, 1]
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_SHAPES = {1: "(l,)", 2: "(h, w)", 3: "(d, h, w)"}  # where frames are the depth of a clip


def upsampled(values: Tensor | Array, size: Sequence[int]) -> Array:
    """The map as an array of the given size, upsampled linearly along each axis as in the Grad-CAM papers.

    Args:
        values: the map, with as many dimensions as `size` after any of length 1. A product of a map and an attribution
            of the inputs, `(1, C, *size)` or in colors `(3, *size)`, is summed over its channels, as Captum does it.
        size: `(L,)` of a signal, `(H, W)` of an image, `(T, H, W)` of a clip or `(D, H, W)` of a volume.

    Examples::

        >>> upsampled(attr[0], (32, 32)).shape
        (32, 32)
    """
    maps = _channels_summed(finite("maps", values), tuple(size))
    axes, shape = len(size), _SHAPES[len(size)]
    if maps.ndim < axes or maps.size != np.prod(maps.shape[-axes:]):
        raise ValueError(f"maps: expected one map of shape {shape} or (1, {shape[1:]}, found {tuple(values.shape)}")
    array: Array = interpolated(maps.reshape(1, *maps.shape[-axes:]), size)[0]
    return array


def _channels_summed(maps: Array, size: tuple[int, ...]) -> Array:
    """The sum over the channels of a product, which has the size of the inputs; other maps as they are."""
    before = maps.shape[: -len(size)]
    is_product = (len(before) == 2 and before[0] == 1) or before == (COLORS,)
    if maps.shape[-len(size) :] == size and is_product and before[-1] > 1:
        return np.asarray(maps.sum(len(before) - 1))
    return maps


def interpolated(maps: Array, size: Sequence[int]) -> Array:
    """Several maps `(K, *space)`, each upsampled linearly along each axis, `(K, *size)`."""
    result = LayerAttribution.interpolate(torch.from_numpy(maps)[:, None], tuple(size), _MODES[len(size)])
    array: Array = result[:, 0].numpy()
    return array


def finite(argument: str, values: object) -> Array:
    """A tensor or an array as a float32 array that holds finite numbers, at least one."""
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"{argument}: expected a tensor or an array, found {type(values).__name__}")
    array: Array = (
        values.detach().float().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float32)
    )
    if array.size == 0:
        raise ValueError(f"{argument}: expected values, found shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{argument}: expected finite values, found NaN or infinity")
    return np.ascontiguousarray(array)


def pixels(image: Picture) -> Array:
    """The image as an array `(H, W, 3)` of integers from 0 to 255 or of floats from 0 to 1.

    Values that leave this range, as those of a normalized tensor or of an X-ray of 12 bits, are stretched from the
    smallest to the largest.
    """
    rgb = _rgb(image, "image")
    floating = np.issubdtype(rgb.dtype, np.floating)
    low, high, most = float(rgb.min()), float(rgb.max()), 1 if floating else 255
    if not np.isfinite(low + high):
        raise ValueError("image: expected finite values, found NaN or infinity")
    if low >= -ROUNDING and high <= most + ROUNDING:
        return np.clip(rgb, 0, most)
    return np.asarray((rgb - low) / ((high - low) or 1.0), np.float32)


def _rgb(image: Picture, argument: str) -> Array:
    """The image as an array `(H, W, 3)`, its values as they are."""
    if isinstance(image, Image.Image):
        return np.asarray(_picture_as_rgb(image, argument))
    array = image
    if isinstance(array, Tensor):
        values = array.detach().cpu()
        array = (
            (values.permute(1, 2, 0) if values.dim() == 3 else values)
            .to(torch.float32 if values.is_floating_point() else values.dtype)
            .numpy()
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"{argument}: expected a gray or an RGB image, found shape {tuple(image.shape)}")
    rgb = np.broadcast_to(array, (*array.shape[:2], 3))
    return np.asarray(rgb)


def _picture_as_rgb(image: Image.Image, argument: str) -> Image.Image:
    """In RGB. Gray of more than 8 bits is scaled as for the model."""
    if not is_wide_gray(image):
        return image.convert("RGB")
    try:
        return wide_gray_as_rgb(image)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def frames_from_0_to_1(frames: Frames) -> Array:
    """The clip as an array `(T, H, W, 3)` of floats from 0 to 1."""
    array = _channels_last(frames)
    if array.size == 0:
        raise ValueError(f"frames: expected at least one frame, found shape {array.shape}")
    floating = np.issubdtype(array.dtype, np.floating)
    low, high, most = float(array.min()), float(array.max()), 1 if floating else 255
    # Undoing a normalization rounds. The comparison also fails for NaN.
    if not (low >= -ROUNDING and high <= most + ROUNDING):
        raise ValueError(
            "frames: expected floats from 0 to 1 or integers from 0 to 255, "
            f"found {'floats' if floating else 'integers'} from {low:g} to {high:g}"
        )
    return np.clip(np.asarray(array / np.float32(most), np.float32), 0, 1)


def _channels_last(frames: Frames) -> Array:
    if not isinstance(frames, Tensor | np.ndarray):
        return _stacked([_rgb(image, "frames") for image in frames])
    is_tensor, found = isinstance(frames, Tensor), tuple(frames.shape)
    # Three dimensions of which one is 3 are one image in colors rather than a clip in gray.
    if len(found) == 3 and found[0 if is_tensor else -1] != 3:
        frames = frames[None] if is_tensor else frames[..., None]
    array = frames
    if isinstance(array, Tensor):
        values = array.detach().cpu()
        array = (values.float() if values.is_floating_point() else values).numpy()
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise ValueError(
            "frames: expected a tensor (3, T, H, W), (1, T, H, W) or (T, H, W), an array (T, H, W, 3) or (T, H, W),"
            f" or a sequence of images, found {type(frames).__name__} of shape {found}"
        )
    return np.broadcast_to(array, (*array.shape[:3], 3))


def _stacked(images: Sequence[Array]) -> Array:
    """Images `(H, W, 3)` as `(T, H, W, 3)`."""
    kinds = {(image.shape, image.dtype.kind) for image in images}
    if len(kinds) != 1:
        sizes = sorted({image.shape[:2] for image in images})
        raise ValueError(f"frames: expected images of one size and kind, found {len(images)} of sizes {sizes}")
    return np.stack(images)
