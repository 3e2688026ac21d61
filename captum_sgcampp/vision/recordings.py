"""Clips, volumes and signals in files: read as arrays, with what is needed to show them."""

from __future__ import annotations

import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from captum_sgcampp.vision.images import ImageError

Array = npt.NDArray[Any]
IMAGE, CLIP, VOLUME, SIGNAL = KINDS = ("image", "clip", "volume", "signal")
# A gigabyte as float32. Checked before anything is decoded.
MOST_VALUES = 250_000_000
SUFFIXES = {".nii": VOLUME, ".nii.gz": VOLUME, ".wav": SIGNAL}
_SHAPES = {CLIP: "(T, H, W) or (T, H, W, 3)", VOLUME: "(D, H, W)", SIGNAL: "(L,) or (C, L)"}
_WIDTHS = {1: "<u1", 2: "<i2", 4: "<i4"}  # bytes of one sample


@dataclass(frozen=True, eq=False)
class Recording:
    """What a file holds.

    Attributes:
        kind: `"clip"`, `"volume"` or `"signal"`.
        values: `(T, H, W, 3)` or `(T, H, W)`; `(D, H, W)`; `(C, L)`. Integers as the file has them, or floats.
        rate: frames or samples per second, where the file tells it.
        affine: of a NIfTI volume, from voxels to millimeters, `(4, 4)`.
    """

    kind: str
    values: Array
    rate: float | None = None
    affine: Array | None = None


def kind_of(path: Path, named: str | None) -> str:
    """What a file is: as it is named, or as its suffix says.

    Raises:
        ValueError: an array, which can be any of them, without a name.
    """
    name = path.name.lower()
    if named is not None:
        return named
    if name.endswith(".npy"):
        raise ValueError(f"--kind: expected one of {', '.join(KINDS[1:])} for {path.name}, found none")
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), IMAGE)


def read_recording(path: Path, kind: str) -> Recording:
    """Reads a file of a kind that is no image.

    Args:
        path: `.npy` of any kind; `.gif` of a clip; `.nii` or `.nii.gz` of a volume; `.wav` of a signal.
        kind: `"clip"`, `"volume"` or `"signal"`.

    Raises:
        OSError: no file that can be opened.
        ImageError: a damaged file, one of another kind, one too large, or values that are not finite.
        ImportError: a NIfTI file without the package nibabel.
    """
    readers = {".npy": _read_npy, **READERS[kind]}
    suffix = next((suffix for suffix in readers if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise ImageError(f"{path.name!r}: expected a {kind} in a file {' or '.join(readers)}, found another name")
    with path.open("rb"):  # errors of the system keep their own words
        pass
    try:
        found = readers[suffix](path, kind)
    except (ImageError, ImportError):
        raise
    except Exception as error:  # decoders raise anything on damage
        reason = f"{type(error).__name__}: {error}"
        raise ImageError(f"{path.name!r}: expected a complete {suffix} file, found {reason}") from error
    _check(path, found)
    return found


def _read_npy(path: Path, kind: str) -> Recording:
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    _check_size(path, values.shape)
    return Recording(kind, np.atleast_2d(values) if kind == SIGNAL else np.asarray(values))


def _read_gif(path: Path, kind: str) -> Recording:
    with Image.open(path, formats=["GIF"]) as image:
        _check_size(path, (getattr(image, "n_frames", 1), *image.size, 3))
        frames, durations = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info.get("duration", 0))
    seconds = sum(durations) / 1000
    return Recording(kind, np.stack(frames), len(frames) / seconds if seconds else None)


def _read_nifti(path: Path, kind: str) -> Recording:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(f"{path.name!r}: expected the package nibabel for NIfTI files, found none") from error
    image: Any = nibabel.load(path)  # type: ignore[attr-defined]
    _check_size(path, image.shape)
    return Recording(kind, np.asarray(image.dataobj, np.float32), affine=np.asarray(image.affine))


def _read_wav(path: Path, kind: str) -> Recording:
    with wave.open(str(path), "rb") as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        _check_size(path, (file.getnframes(), channels))
        samples, rate = file.readframes(file.getnframes()), file.getframerate()
    if len(samples) != file.getnframes() * width * channels:
        raise ImageError(f"{path.name!r}: expected a complete .wav file, found one that was cut off")
    return Recording(kind, _pcm(samples, width).reshape(-1, channels).T, float(rate))


def _pcm(samples: bytes, width: int) -> Array:
    """Whole numbers of any width, from -1 to 1."""
    if width == 3:  # as the upper bytes of 32 bits
        wide = np.zeros((len(samples) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(samples, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    values = np.frombuffer(samples, _WIDTHS[width]).astype(np.float64)
    scaled: Array = (values - 128) / 128 if width == 1 else values / 2.0 ** (8 * width - 1)
    return scaled.astype(np.float32)


READERS: Mapping[str, Mapping[str, Callable[[Path, str], Recording]]] = {
    CLIP: {".gif": _read_gif},
    VOLUME: {".nii": _read_nifti, ".nii.gz": _read_nifti},
    SIGNAL: {".wav": _read_wav},
}


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= MOST_VALUES:
        raise ImageError(f"{path.name!r}: expected 1 to {MOST_VALUES} values, found {count} of shape {shape}")


def _check(path: Path, found: Recording) -> None:
    """The shape that its kind has, and finite numbers."""
    shape = found.values.shape
    fits = {
        CLIP: len(shape) == 3 or (len(shape) == 4 and shape[3] == 3),
        VOLUME: len(shape) == 3,
        SIGNAL: len(shape) == 2,
    }
    if not fits[found.kind]:
        raise ImageError(f"{path.name!r}: expected a {found.kind} {_SHAPES[found.kind]}, found shape {shape}")
    if found.values.dtype.kind not in "uif":
        raise ImageError(f"{path.name!r}: expected whole numbers or floats, found {found.values.dtype}")
    if not np.isfinite(found.values).all():
        raise ImageError(f"{path.name!r}: expected finite values, found NaN or infinity")
