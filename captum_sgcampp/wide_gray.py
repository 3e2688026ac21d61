"""Gray of more than 8 bits, as of X-rays and microscopes, brought to 8 bits by one rule, which the picture tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from captum_sgcampp.checks import check_positive
from captum_sgcampp.names import printable

# What detectors give. A file of 16 bits does not tell how many of them they used.
DEPTHS = (8, 10, 12, 14, 16)
MOST = 2**16 - 1
SCALED = "captum_sgcampp.scaled"  # in a picture's `info`: what became black and white, in words

TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_SAMPLE_FORMAT = 258, 262, 339
TIFF_WHITE_IS_ZERO, TIFF_UNSIGNED = 0, (1,)
DECLARED = "PPM", "JPEG2000"  # Pillow scales their values, so that the white which they tell is 65535

LIMITS = re.compile(r"gray of more than 8 bits: (\S+) became black and (\S+) white")
SAID = 3  # different limits, in messages


def is_wide_gray(image: Image.Image) -> bool:
    """Whether it is gray of 16 or 32 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def scaling_of(picture: object) -> str:
    """What became black and white in a picture that was gray of more than 8 bits, in words; empty for others."""
    return printable(str(getattr(picture, "info", {}).get(SCALED, "")))


def counted_limits(scalings: Mapping[str, int]) -> str:
    """The limits of pictures with their counts, the most frequent first.

    Args:
        scalings: how many pictures were scaled so, by the words of `scaling_of`. Other words are left out.

    Examples::

        >>> ray = "gray of more than 8 bits: 0 became black and {} white (...)"
        >>> counted_limits({ray.format(1023): 1, ray.format(4095): 29})
        '29 with white 4095, 1 with white 1023'
    """
    limits = _limits(scalings)
    named = limits.most_common(SAID)
    others = limits.total() - sum(count for _, count in named)
    said = [f"{count} with {one}" for one, count in named]
    return ", ".join([*said, *([f"{others} with others"] if others else [])])


def different_limits(scalings: Mapping[str, int]) -> str:
    """`counted_limits`, but empty where all pictures have the same ones."""
    return counted_limits(scalings) if len(_limits(scalings)) > 1 else ""


def _limits(scalings: Mapping[str, int]) -> Counter[str]:
    limits: Counter[str] = Counter()
    for words, count in scalings.items():
        if found := LIMITS.match(words):
            limits[_said(*found.groups())] += count
    return limits


def _said(black: str, white: str) -> str:
    return f"white {white}" if black == "0" else f"black {black} and white {white}"


def check_white(white: float | None) -> None:
    """A finite number above 0, or None."""
    if white is not None:
        check_positive("white", white)


def wide_gray_as_rgb(image: Image.Image, white: float | None = None) -> Image.Image:
    """In RGB. Pillow's own conversion would make white of all above 255.

    - Of 16 bits, 0 becomes black. White is what the format tells, and else the largest number of 8, 10, 12, 14 or 16
      bits, the fewest that hold all values: an X-ray of 12 bits uses 4095 of 65535, and would be black.
    - Of 32 bits, which have no agreed white, the smallest finite value becomes black and the largest white. NaN and
      images of one value become black.

    Args:
        image: one for which `is_wide_gray` holds.
        white: what becomes white, and 0 black, whatever the values are. PGM and JPEG 2000 keep the white that they
            tell. None: the rule above.

    Raises:
        ValueError: no finite value.
    """
    tags = tiff_tags(image)
    values = np.asarray(image)
    if image.mode == "I" and TIFF_BITS in tags and tags.get(TIFF_SAMPLE_FORMAT, TIFF_UNSIGNED) == TIFF_UNSIGNED:
        values = values.view(np.uint32)  # Pillow keeps unsigned 32-bit samples in signed ones
    black, white, reason = _black_and_white(image, values, white)
    gray = _stretched(values, black, white)
    if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:  # Pillow inverts up to 8 bits only
        gray, black, white = 255 - gray, white, black
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    rgb = Image.fromarray(gray).convert("RGB")
    rgb.info = {
        SCALED: f"gray of more than 8 bits: {black:.9g} became black and {white:.9g} white ({reason}); `white` or "
        "an image of 8 bits gives other limits"
    }
    return rgb


def tiff_tags(image: Image.Image) -> Any:
    """The tags of a TIFF by number; none for other formats."""
    return getattr(image, "tag_v2", {})


def _black_and_white(image: Image.Image, values: np.ndarray[Any, Any], asked: float | None) -> tuple[float, float, str]:
    """The values that become 0 and 255, and why."""
    if image.format in DECLARED:
        return 0, MOST, "as the file tells"
    if asked is not None and np.isfinite(values).any():
        return 0, asked, "as asked for"
    declared = tiff_tags(image).get(TIFF_BITS, (16,))[0]
    if image.mode.startswith("I;16") and declared < 16:
        return 0, 2**declared - 1, "as the file tells"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        largest = int(values.max())
        bits = next(depth for depth in DEPTHS if largest < 2**depth)
        return 0, 2**bits - 1, f"its values need {bits} bits"
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("expected some finite values, found only NaN and infinity")
    return float(finite.min()), float(finite.max()), "its smallest and largest value"


def _stretched(values: np.ndarray[Any, Any], black: float, white: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """From black (0) to white (255), rounded to the nearest."""
    gray = np.zeros(values.shape, np.uint8)
    if white > black:
        pieces = 1 + values.size // 1_000_000  # float64 takes 8 bytes per pixel
        parts, levels = np.array_split(values.ravel(), pieces), np.array_split(gray.ravel(), pieces)
        for part, level in zip(parts, levels, strict=True):
            unit = np.clip((part.astype(np.float64) - black) / (white - black), 0, 1)
            level[:] = np.rint(255 * np.nan_to_num(unit))
    return gray
