"""Image files as they come: read upright as 8-bit RGB, and prepared for a classifier as torchvision does it.

Nothing here changes a setting of Pillow or of the warnings module, so threads may read at the same time.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captum_sgcampp.checks import check_count

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Nearly all photographs have fewer pixels; in RGB, Pillow takes 256 MB for this many.
MAX_PIXELS = 64_000_000

# Formats that are not read, though Pillow knows them: EPS runs another program; WMF, BUFR, GRIB, HDF5 and MPEG need a
# decoder that Pillow does not have; ICNS and DCX hide the size of the image inside until Pillow is past its own check.
NOT_READ = frozenset({"BUFR", "DCX", "EPS", "GRIB", "HDF5", "ICNS", "MPEG", "WMF"})

# What turns the stored pixels upright, by the value of the EXIF tag Orientation (0x0112).
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_TILE_WIDTH, TIFF_TILE_LENGTH, TIFF_SAMPLE_FORMAT = 258, 262, 322, 323, 339
TIFF_WHITE_IS_ZERO, TIFF_UNSIGNED = 0, (1,)


class ImageError(ValueError):
    """A file that exists but is not read: no image, a damaged one, one too large, or one in no usable colours."""


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image file in whatever format and colours it comes.

    - The image is turned upright as its EXIF orientation says. An EXIF block that cannot be read turns nothing.
    - Transparent pixels are put on white.
    - Grey of 12 or 16 bits is scaled so that the format's white becomes 255. Grey of 32 bits, floating point or signed
      integers has no agreed white: it is stretched from its smallest finite value (0) to its largest (255). NaN
      becomes 0, and so does an image of one value.
    - Colours of 16 bits keep their upper 8, CMYK is converted without its colour profile, and colour profiles are
      ignored, all as Pillow does it: classifiers are trained on such pixels.
    - Of an animation or a file of several pages, the first image is read.

    The size is checked before any pixel is decoded. Pillow's own limit (``PIL.Image.MAX_IMAGE_PIXELS``, whose double
    is an error) is neither used nor changed, but for TIFF it holds too where `max_pixels` is larger.

    Args:

        path (str or os.PathLike): The file. Pipes and devices are not read.

        max_pixels (int, optional): The most pixels (width times height) that the image may have.
                    Default: 64,000,000

    Returns:
        PIL.Image.Image: The upright image, mode ``RGB``, 8 bits per channel, without metadata.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: `path` is a directory.
        OSError: The file may not be opened.
        ImageError: The file is empty, no image, damaged, truncated or of more than `max_pixels` pixels, in a format
            that is not read (``NOT_READ``), or in colours that Pillow does not convert. The message names the file.

    Examples::

        >>> image = read_image("holiday photo.jpg")
        >>> image.mode, image.size
        ('RGB', (3024, 4032))
    """
    check_count("max_pixels", max_pixels)
    name = repr(os.fspath(path))
    _check_regular_file(path)
    with open(path, "rb") as stream:
        for size in _sizes_before_opening(stream):
            _check_size(name, size, max_pixels)
        image = _open(stream, name)
        try:
            for size in _sizes_before_decoding(image):
                _check_size(name, size, max_pixels)
            _scale_transparent_sample(image)
            image.load()
            rgb = _to_rgb(image)
        except ImageError:
            raise
        except Exception as error:  # the decoders raise whatever the damage leads to, up to MemoryError
            raise ImageError(
                f"{name}: expected a complete {image.format} image, found one that cannot be read ({_reason(error)})"
            ) from error
        orientation = _orientation(image)
    upright = rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
    upright.info = {}  # it may hold the orientation, which must not be applied twice
    return upright


def shown_crop(image: Image.Image, *, resize: int = 256, crop: int = 224) -> Image.Image:
    """The part of an image that a classifier sees, as an image: the shorter side resized, then the centre cut out.

    Args:

        image (PIL.Image.Image): An image of any mode and size. Other modes than ``RGB`` are converted as by
                    :func:`read_image`.

        resize (int, optional): The length of the shorter side, in pixels, before the crop; the aspect ratio stays.
                    The resampling is bilinear with antialiasing.
                    Default: 256

        crop (int, optional): Width and height of the crop, in pixels, at most `resize`.
                    Default: 224

    Returns:
        PIL.Image.Image: `crop` x `crop` pixels, mode ``RGB``.

    Raises:
        ValueError: `resize` or `crop` is below 1, or `crop` is larger than `resize`.
        ImageError: The image has no pixels, its colours cannot be converted, or it is so elongated that it would be
            resized to more than 64,000,000 pixels (at the defaults: one side about 1000 times the other).
    """
    # torchvision takes long to import and reading needs none of it.
    from torchvision.transforms import functional

    _check_crop(image.size, resize, crop)
    try:
        rgb = _to_rgb(image)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"image: expected colours that can be converted to RGB, found mode {image.mode} ({_reason(error)})"
        ) from error
    resized = functional.resize(rgb, [resize], antialias=True)
    cropped: Image.Image = functional.center_crop(resized, [crop])
    return cropped


def classifier_input(
    image: Image.Image,
    *,
    resize: int = 256,
    crop: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """An image as the input of a classifier, in exactly the values of torchvision's ``ImageClassification`` preset.

    Args:

        image (PIL.Image.Image): An image, see :func:`shown_crop`.

        resize (int, optional): See :func:`shown_crop`.
                    Default: 256

        crop (int, optional): See :func:`shown_crop`.
                    Default: 224

        mean (sequence of 3 floats, optional): What is subtracted from red, green and blue, which go from 0 to 1.
                    Default: ImageNet's mean, ``IMAGENET_MEAN``

        std (sequence of 3 floats, optional): What the differences are divided by, per channel, above 0.
                    Default: ImageNet's standard deviation, ``IMAGENET_STD``

    Returns:
        Tensor: Shape ``(1, 3, crop, crop)``, ``torch.float32``, on the CPU.

    Raises:
        ValueError: As :func:`shown_crop`, or `mean` or `std` is not three finite numbers, or one of `std` is not
            above 0.
        ImageError: As :func:`shown_crop`.

    Examples::

        >>> x = classifier_input(read_image("dog.png"))
        >>> x.shape
        torch.Size([1, 3, 224, 224])
        >>> scores = model(x)
    """
    import torch
    from torchvision.transforms import functional

    _check_channels("mean", mean)
    _check_channels("std", std)
    if min(std) <= 0:
        raise ValueError(f"std: expected numbers above 0, found {tuple(std)}")
    samples = functional.pil_to_tensor(shown_crop(image, resize=resize, crop=crop))
    unit = functional.convert_image_dtype(samples, torch.float)
    normalised: Tensor = functional.normalize(unit, mean=list(mean), std=list(std))
    return normalised.unsqueeze(0)


def _check_regular_file(path: str | os.PathLike[str]) -> None:
    """A file that can be opened without waiting and read from any place."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "expected an image file, found a directory", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise ImageError(f"{os.fspath(path)!r}: expected an image file, found a pipe, a socket or a device")


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: expected at most {max_pixels:,} pixels, found {width} x {height} = {width * height:,}"
        )


def _check_crop(size: tuple[int, int], resize: int, crop: int) -> None:
    check_count("resize", resize)
    check_count("crop", crop)
    if crop > resize:
        raise ValueError(f"crop: expected at most resize ({resize}), found {crop}")
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


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _open(stream: IO[bytes], name: str) -> ImageFile:
    """The image that Pillow finds in the stream, its pixels not decoded yet.

    `PIL.Image.open` would do, but for its warning about large images, which can only be kept off by changing settings
    that all threads share.
    """
    stream.seek(0)
    start = stream.read(16)
    if not start:
        raise ImageError(f"{name}: expected an image file, found an empty file")
    findings: list[str] = []
    tried: set[str] = set()
    for register_formats in (Image.preinit, Image.init):  # the few common ones, then all
        register_formats()
        for kind in [kind for kind in Image.ID if kind not in tried]:
            tried.add(kind)
            image = _open_as(kind, stream, start, findings)
            if image is not None:
                return image
    found = findings[0] if findings else f"data in none of the formats that are read (it starts with {start!r})"
    raise ImageError(f"{name}: expected an image file, found {found}")


def _open_as(kind: str, stream: IO[bytes], start: bytes, findings: list[str]) -> ImageFile | None:
    """The image if the stream holds one of this format, else None; a file that only starts like one adds a finding."""
    opener, starts_like = Image.OPEN[kind]
    signed = starts_like is not None  # a few formats have no signature: Pillow tries them on any data
    try:
        verdict = starts_like is None or starts_like(start)
    except Exception:  # fewer bytes than the signature
        return None
    if not verdict:
        return None
    if isinstance(verdict, str):  # the reason why this build of Pillow lacks the format
        findings.append(f"{kind}, a format that this Pillow does not read ({verdict})")
        return None
    if kind in NOT_READ:
        if signed:
            findings.append(f"{kind}, a format that is not read")
        return None
    stream.seek(0)
    try:
        return opener(stream, "")
    except Exception as error:  # the openers raise whatever the damage leads to
        if signed:
            findings.append(f"a damaged {kind} file ({_reason(error)})")
        return None


def _sizes_before_opening(stream: IO[bytes]) -> Iterator[tuple[int, int]]:
    """The sizes that the file states, for the formats for which Pillow takes memory as soon as it opens a file."""
    start = stream.read(30)
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
    """The canvas, extended to the first frame where that reaches beyond, as Pillow does it."""
    stream.seek(0)
    head = stream.read(13)
    width, height, flags = struct.unpack_from("<HHB", head, 6)
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
    """The sizes of the PNG or BMP images inside: the icon's own list of sizes may state others."""
    stream.seek(4)
    count = struct.unpack("<H", stream.read(2))[0]
    entries = stream.read(16 * count)
    for index in range(count):
        stream.seek(struct.unpack_from("<I", entries, 16 * index + 12)[0])
        inner = stream.read(24)
        if inner.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", inner, 16)
            yield width, height
        elif struct.unpack_from("<I", inner)[0] == 12:
            width, height = struct.unpack_from("<HH", inner, 4)
            yield width, height // 2
        else:
            width, height = struct.unpack_from("<ii", inner, 4)
            yield width, abs(height) // 2  # the image and its mask, one on top of the other


def _sizes_before_decoding(image: ImageFile) -> Iterator[tuple[int, int]]:
    """The image's size, and that of a TIFF's tiles: the decoder takes memory for a whole tile."""
    yield image.size
    tags = _tiff_tags(image)
    if TIFF_TILE_WIDTH in tags and TIFF_TILE_LENGTH in tags:
        yield tags[TIFF_TILE_WIDTH], tags[TIFF_TILE_LENGTH]


def _tiff_tags(image: Image.Image) -> Any:
    """The tags of a TIFF by number; none for other formats."""
    return getattr(image, "tag_v2", {})


def _scale_transparent_sample(image: ImageFile) -> None:
    """Scales a PNG's transparent grey or colour to 8 bits: Pillow does that to the pixels only."""
    sample = image.info.get("transparency")
    raw_mode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    factor = {"L;2": 85, "L;4": 17}.get(raw_mode) if isinstance(raw_mode, str) else None
    if factor and isinstance(sample, int) and sample * factor <= 255:
        image.info["transparency"] = sample * factor
    elif raw_mode == "RGB;16B" and isinstance(sample, tuple) and max(sample) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in sample)


def _orientation(image: ImageFile) -> int:
    """The EXIF orientation, 1 (upright) if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block is common in edited photographs and hides no pixel
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, 8 bits per channel, what is transparent on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_rgb(image)
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image  # Pillow has no direct way from La
        rgba = straight.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(rgba, mask=rgba)
        return on_white
    return image.convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # it is None only when it converts in place
    return converted


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: Pillow's own conversion would cut off all above 255."""
    tags = _tiff_tags(image)
    values = np.asarray(image)
    if image.mode == "I" and TIFF_BITS in tags and tags.get(TIFF_SAMPLE_FORMAT, TIFF_UNSIGNED) == TIFF_UNSIGNED:
        values = values.view(np.uint32)  # Pillow keeps unsigned 32-bit samples in signed ones
    if image.mode.startswith("I;16"):
        bits = tags.get(TIFF_BITS, (16,))[0]
        black, white = 0.0, float(2**bits - 1)
    elif image.mode == "I" and image.format in ("PNG", "PPM"):  # these hold 16 bits at most
        black, white = 0.0, 65535.0
    else:
        black, white = _finite_range(values)
    grey = _stretch(values, black, white)
    if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:  # Pillow inverts up to 8 bits only
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _finite_range(values: np.ndarray[Any, np.dtype[Any]]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("expected some finite values, found only NaN and infinity")
    return float(finite.min()), float(finite.max())


def _stretch(values: np.ndarray[Any, np.dtype[Any]], black: float, white: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """From black (0) to white (255), rounded to the nearest, in blocks of rows: float64 takes 8 bytes per pixel."""
    grey = np.zeros(values.shape, np.uint8)
    if white <= black:
        return grey
    rows = max(1, 1_000_000 // values.shape[1])
    for top in range(0, len(values), rows):
        block = values[top : top + rows].astype(np.float64)
        levels = np.clip((block - black) / (white - black) * 255, 0, 255)
        grey[top : top + rows] = np.rint(np.nan_to_num(levels, nan=0.0)).astype(np.uint8)
    return grey
