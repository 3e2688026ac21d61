"""Image files of any origin, read upright as 8-bit RGB and prepared for a classifier as torchvision does it.

Nothing here changes a setting of Pillow or of the warnings module, so threads may read at the same time.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

from PIL import ExifTags, Image, ImageOps
from PIL.BmpImagePlugin import DibImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from captum_sgcampp.checks import check_count
from captum_sgcampp.wide_gray import SCALED, check_white, is_wide_gray, scaling_of, tiff_tags, wide_gray_as_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Nearly all photographs have fewer pixels. In RGB, Pillow takes 256 MB for this many.
MAX_PIXELS = 64_000_000

# TGA is last: it has no signature, so any data may be tried as TGA.
FORMATS = (
    *("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000"),
    *("PPM", "ICO", "PCX", "SGI", "QOI", "TGA"),
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm", ".pgm")

TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323


class ImageError(ValueError):
    """A file that is not read: no image, a damaged one, one too large, or one without usable colors."""


def read_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, white: float | None = None
) -> Image.Image:
    """Reads the first image of a file in one of `FORMATS`, whatever its colors.

    - It is turned upright by its EXIF orientation. Transparency is put on white.
    - Gray of 16 bits is scaled from 0 to the white that the format tells, or else to the largest number of 8, 10, 12,
      14 or 16 bits, the fewest that hold all values (X-rays have 12). Gray of 32 bits, which has no agreed white, is
      stretched from its smallest finite value to its largest. `wide_gray.scaling_of` tells the limits of a picture.
    - Colors of 16 bits keep their upper 8, and color profiles are ignored: classifiers are trained on such pixels.

    Args:
        path: a file; pipes and devices are not read.
        max_pixels: the most pixels (width times height), checked before any is decoded.
        white: the value that becomes 255 in gray of 16 and 32 bits, as 4095, while 0 becomes 0. Several images are then
            scaled alike. PGM and JPEG 2000 keep the white that they tell. None: as above.

    Returns:
        The image in mode `RGB`, without the file's metadata.

    Raises:
        OSError: no file that can be opened.
        ImageError: no image that is read. The message names the file.

    Examples::

        >>> image = read_image("holiday photo.jpg")
        >>> image.mode, image.size
        ('RGB', (3024, 4032))
    """
    check_count("max_pixels", max_pixels)
    check_white(white)
    _check_regular_file(path)
    with open(path, "rb") as stream:
        return decode_image(stream, repr(os.fspath(path)), max_pixels=max_pixels, white=white)


def decode_image(
    stream: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS, white: float | None = None
) -> Image.Image:
    """As `read_image`, from an open file or from bytes in memory (`io.BytesIO`).

    Args:
        stream: the content of the file, read from its beginning.
        name: for messages.
        max_pixels, white: as in `read_image`.
    """
    check_count("max_pixels", max_pixels)
    check_white(white)
    for size in _sizes_before_opening(stream):
        _check_size(name, size, max_pixels)
    image = _open(stream, name)
    try:
        for size in _sizes_before_decoding(image):
            _check_size(name, size, max_pixels)
        _scale_transparent_sample(image)
        image.load()
        rgb = as_rgb(image, white)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on damage, up to MemoryError
        _raise_if_of_the_system(error)
        found = f"one that cannot be read ({_reason(error)})"
        raise ImageError(f"{name}: expected a complete {image.format} image, found {found}") from error
    scaling = scaling_of(rgb) if is_wide_gray(image) else ""
    _turn_upright(rgb, image)
    if scaling:
        rgb.info = {SCALED: scaling}
    return rgb


def shown_crop(
    image: Image.Image,
    *,
    resize: int = 256,
    crop: int = 224,
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
) -> Image.Image:
    """The part of an image that a classifier sees: the shorter side resized, then the center cut out.

    Args:
        image: of any mode; others than `RGB` are converted as by `read_image`.
        resize: length of the shorter side before the crop, in pixels.
        crop: width and height of the crop, at most `resize`.
        interpolation: of the resizing, with antialiasing.

    Raises:
        ValueError: sizes that make no sense.
        ImageError: no pixels, no usable colors, or so elongated that it would be resized to more than `MAX_PIXELS`
            pixels (at the defaults, one side about 1000 times the other).
    """
    rgb = resizable_rgb(image, resize, crop)
    cropped: Image.Image = functional.center_crop(functional.resize(rgb, [resize], interpolation), [crop])
    return cropped


def classifier_input(
    image: Image.Image,
    *,
    resize: int = 256,
    crop: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """An image as the input `(1, 3, crop, crop)` of a classifier, by default as most of torchvision's take it.

    Args:
        image, resize, crop: as in `shown_crop`, whose errors are raised too.
        mean: what is subtracted from red, green and blue, which go from 0 to 1.
        std: what the differences are divided by.

    Raises:
        ValueError: `mean` or `std` is not three finite numbers, or one of `std` is not above 0.

    Examples::

        >>> x = classifier_input(read_image("dog.png"))
        >>> x.shape
        torch.Size([1, 3, 224, 224])
    """
    _check_channels("mean", mean)
    _check_channels("std", std)
    if min(std) <= 0:
        raise ValueError(f"std: expected numbers above 0, found {tuple(std)}")
    unit = functional.to_tensor(shown_crop(image, resize=resize, crop=crop))
    normalized: Tensor = functional.normalize(unit, list(mean), list(std))
    return normalized[None]


def resizable_rgb(image: Image.Image, resize: int, crop: int, white: float | None = None) -> Image.Image:
    """The image in RGB, checked as `shown_crop` says. `white` is as in `read_image`."""
    check_count("resize", resize)
    check_count("crop", crop)
    if crop > resize:
        raise ValueError(f"crop: expected at most resize ({resize}), found {crop}")
    _check_resized(image.size, resize)
    try:
        return as_rgb(image, white)
    except Exception as error:  # Pillow raises anything on odd modes
        found = f"mode {image.mode} ({_reason(error)})"
        raise ImageError(f"image: expected colors that can be converted to RGB, found {found}") from error


def _check_resized(size: tuple[int, int], resize: int) -> None:
    shorter, longer = sorted(size)
    if shorter < 1:
        raise ImageError(f"image: expected at least one pixel, found {size[0]} x {size[1]}")
    resized = resize * (resize * longer // shorter)
    if resized > MAX_PIXELS:
        raise ImageError(
            f"image: expected at most {MAX_PIXELS:,} pixels once the shorter side is resized to {resize}, found "
            f"{resized:,} from {size[0]} x {size[1]}: cut out the part to be classified"
        )


def _check_channels(argument: str, values: Sequence[float]) -> None:
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{argument}: expected 3 finite numbers, found {tuple(values)}")


def _check_regular_file(path: str | os.PathLike[str]) -> None:
    """A file that can be opened without waiting and read from any place."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        found = "expected an image file, found a directory (captum-sgcampp attribute explains all images in it)"
        raise IsADirectoryError(errno.EISDIR, found, os.fspath(path))
    if not stat.S_ISREG(mode):
        raise ImageError(f"{os.fspath(path)!r}: expected an image file, found a pipe, a socket or a device")


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise ImageError(f"{name}: expected at most {max_pixels:,} pixels, found {size[0]} x {size[1]} = {pixels:,}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _open(stream: IO[bytes], name: str) -> ImageFile:
    """The image, its pixels not decoded yet.

    `PIL.Image.open(formats=FORMATS)` warns at a size of its own, and does not name the damage.
    """
    Image.init()
    stream.seek(0)
    start = stream.read(16)
    signed = [kind for kind in Image.ID if _has_signature(kind, start)]
    found = [f"{kind}, a format that is not read" for kind in signed if kind not in FORMATS]
    for kind in (kind for kind in FORMATS if kind in (*signed, "TGA")):
        stream.seek(0)
        try:
            return Image.OPEN[kind][0](stream, "")
        except Exception as error:  # openers raise anything on damage
            _raise_if_of_the_system(error)
            found += [f"a damaged {kind} file ({_reason(error)})"] if kind in signed else []
    found += [f"data in none of the formats that are read (it starts with {start!r})" if start else "an empty file"]
    raise ImageError(f"{name}: expected an image file, found {found[0]}")


def _raise_if_of_the_system(error: Exception) -> None:
    """Raise what the disk or the network says. Damage that Pillow finds has no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _has_signature(kind: str, start: bytes) -> bool:
    starts_like = Image.OPEN[kind][1]
    try:
        return starts_like is not None and starts_like(start) is True  # a string says why Pillow lacks the format
    except (IndexError, struct.error):  # fewer bytes than the signature
        return False


def _sizes_before_opening(stream: IO[bytes]) -> Iterator[tuple[int, int]]:
    """The sizes in files that Pillow decodes, takes memory for or warns of as soon as it opens them."""
    start = stream.read(30)
    stream.seek(0)
    try:
        if start[:6] in (b"GIF87a", b"GIF89a"):
            yield _gif_size(stream)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            yield _webp_size(start)
        elif start[:4] == b"\0\0\1\0":
            yield from _icon_sizes(stream)
    except (IndexError, struct.error):
        return  # cut short: Pillow says how


def _gif_size(stream: IO[bytes]) -> tuple[int, int]:
    """The canvas, extended to the first frame as Pillow does it."""
    width, height, flags = struct.unpack_from("<HHB", stream.read(13), 6)
    if flags & 0x80:
        stream.seek(3 << (flags & 7) + 1, os.SEEK_CUR)  # the palette
    while (block := stream.read(1)) not in (b",", b";", b""):
        if block == b"!":  # an extension: its label, then parts up to an empty one
            stream.seek(1, os.SEEK_CUR)
            while length := stream.read(1)[0]:
                stream.seek(length, os.SEEK_CUR)
    left, top, frame_width, frame_height = struct.unpack("<4H", stream.read(8))
    return max(width, left + frame_width), max(height, top + frame_height)


def _webp_size(start: bytes) -> tuple[int, int]:
    if start[12:16] == b"VP8X":  # 24 bits each, less one
        return int.from_bytes(start[24:27], "little") + 1, int.from_bytes(start[27:30], "little") + 1
    if start[12:16] == b"VP8L":  # 14 bits each, less one
        bits = struct.unpack_from("<I", start, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", start, 26)
    return width & 0x3FFF, height & 0x3FFF


def _icon_sizes(stream: IO[bytes]) -> Iterator[tuple[int, int]]:
    """The sizes of the PNG or BMP images inside. The icon's own list of sizes may be wrong."""
    count = struct.unpack("<4xH", stream.read(6))[0]
    for (offset,) in list(struct.iter_unpack("<12xI", stream.read(16 * count))):
        size = 0, 0
        with suppress(Exception):  # what Pillow does not open here, it does not decode either
            size = _size_inside(stream, offset)
        yield size


def _size_inside(stream: IO[bytes], offset: int) -> tuple[int, int]:
    stream.seek(offset)
    is_png = stream.read(4) == b"\x89PNG"
    stream.seek(offset)
    inner = PngImageFile(stream) if is_png else DibImageFile(stream)
    # A BMP holds the image and its mask, one on top of the other.
    return inner.width, inner.height if is_png else inner.height // 2


def _sizes_before_decoding(image: ImageFile) -> Iterator[tuple[int, int]]:
    """The image's size, and that of a TIFF's tiles: the decoder takes memory for a whole tile."""
    yield image.size
    tags = tiff_tags(image)
    yield tags.get(TIFF_TILE_WIDTH, 0), tags.get(TIFF_TILE_LENGTH, 0)


def _scale_transparent_sample(image: ImageFile) -> None:
    """Scales a PNG's transparent gray or color to 8 bits: Pillow does that to the pixels only."""
    sample = image.info.get("transparency")
    raw_mode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    if raw_mode in ("L;2", "L;4") and isinstance(sample, int):
        image.info["transparency"] = sample * {"L;2": 85, "L;4": 17}[raw_mode]
    elif raw_mode == "RGB;16B" and isinstance(sample, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in sample)


def _turn_upright(rgb: Image.Image, image: ImageFile) -> None:
    """Turns the pixels by the file's EXIF orientation. The rest of the EXIF block need not be readable."""
    rgb.info = {}
    try:
        rgb.getexif()[ExifTags.Base.Orientation] = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block is common in edited photographs and hides no pixel
        return
    ImageOps.exif_transpose(rgb, in_place=True)
    rgb.getexif().clear()


def as_rgb(image: Image.Image, white: float | None = None) -> Image.Image:
    """The image in RGB, 8 bits per channel, transparency on white. `white` is as in `read_image`."""
    if is_wide_gray(image):
        return wide_gray_as_rgb(image, white)
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image  # Pillow has no direct way from La
    rgba = straight.convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(rgba, mask=rgba)
    return on_white
