"""`vision.images`: what is read is compared with pixel values computed here, never with the reader's own."""

from __future__ import annotations

import os
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile, features
from torchvision.transforms._presets import ImageClassification

from captum_sgcampp.vision.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    ImageError,
    classifier_input,
    read_image,
    shown_crop,
)
from captum_sgcampp.wide_gray import SCALED

# A warning of Pillow's that gets out fails the test.
pytestmark = pytest.mark.filterwarnings("error")

Array = np.ndarray[Any, np.dtype[Any]]

COLORS = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
GRAYS = COLORS[:, :, 0]
ALPHAS = COLORS[:, :, 1].copy()
ALPHAS[0, :2] = 0, 255


def pixels(path: Path, **settings: Any) -> Array:
    """What `read_image` makes of the file, after checks of what holds for every file."""
    image = read_image(path, **settings)
    assert image.mode == "RGB"
    assert type(image) is Image.Image
    assert set(image.info) <= {SCALED} and not image.getexif()
    return np.asarray(image)


def as_rgb(gray: Any) -> Array:
    return np.repeat(np.asarray(gray, np.uint8)[:, :, None], 3, axis=2)


def on_white(samples: Array, alpha: Array) -> Array:
    """The samples (H, W, 3) at opacity alpha (H, W) in front of white, before rounding."""
    opacity = alpha[:, :, None] / 255
    return samples * opacity + 255 * (1 - opacity)


def close(found: Array, expected: Array, tolerance: float) -> bool:
    return found.shape == expected.shape and bool(np.abs(found.astype(float) - expected).max() <= tolerance)


def skip_unless_written(suffix: str) -> None:
    """Skips the test where this Pillow does not write the format."""
    if Image.registered_extensions().get(f".{suffix}") not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {suffix}")


def skip_unless_read(path: Path) -> None:
    """Skips the test where this Pillow cannot read the file: older ones know fewer kinds of TIFF."""
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        pytest.skip("this Pillow does not read this kind of TIFF")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of unfiltered rows, which are given without their filter bytes."""
    stride = len(rows) // height
    body = b"".join(b"\0" + rows[top : top + stride] for top in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, bits: int, samples: bytes, extra: dict[int, int] | None = None) -> bytes:
    """A little-endian TIFF of one uncompressed strip, unsigned gray unless extra tags say otherwise."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: len(samples)}
    tags = dict(sorted({**tags, **(extra or {})}.items()))
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + samples


# ---------------------------------------------------------------------------------------------------------------------
# Formats and colors


LOSSLESS: dict[str, dict[str, Any]] = {
    "png": {},
    "bmp": {},
    "tga": {},
    "ppm": {},
    "pcx": {},
    "sgi": {},
    "qoi": {},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
    "webp": {"lossless": True},
    "jp2": {},
    "ico": {"sizes": [(9, 7)]},
}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats(suffix: str, tmp_path: Path) -> None:
    skip_unless_written(suffix)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(COLORS).save(path, **LOSSLESS[suffix])
    assert np.array_equal(pixels(path), COLORS)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_lossy_formats(suffix: str, tmp_path: Path) -> None:
    skip_unless_written(suffix)
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    smooth = np.stack([2 * x + 40, 3 * y + 60, x + y + 50], axis=2).astype(np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth).save(path, quality=95)
    assert close(pixels(path), smooth, 6)


def test_the_name_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(COLORS).save(path, format="PNG")
    assert np.array_equal(pixels(path), COLORS)


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2", "bmp"])
def test_gray(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"gray.{suffix}"
    Image.fromarray(GRAYS).save(path)
    assert np.array_equal(pixels(path), as_rgb(GRAYS))


@pytest.mark.parametrize(
    ("suffix", "settings"), [("png", {}), ("bmp", {}), ("pbm", {}), ("tif", {}), ("tif", {"compression": "group4"})]
)
def test_one_bit(suffix: str, settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"one.{suffix}"
    Image.fromarray(GRAYS > 127).save(path, **settings)
    assert np.array_equal(pixels(path), as_rgb(np.where(GRAYS > 127, 255, 0)))


PALETTE = np.array([[10, 20, 30], [200, 100, 50], [255, 0, 255], [0, 128, 64]], np.uint8)
INDICES = (GRAYS % 4).astype(np.uint8)


def palette_image() -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(PALETTE.tobytes())
    return image


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_palette(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"palette.{suffix}"
    palette_image().save(path)
    assert np.array_equal(pixels(path), PALETTE[INDICES])


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_a_transparent_entry(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"palette.{suffix}"
    palette_image().save(path, transparency=1)
    expected = PALETTE[INDICES]
    expected[INDICES == 1] = 255
    assert np.array_equal(pixels(path), expected)


def test_palette_with_half_transparent_entries(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    opacity = np.array([0, 85, 255, 170], np.uint8)
    palette_image().save(path, transparency=opacity.tobytes())
    assert close(pixels(path), on_white(PALETTE[INDICES], opacity[INDICES]), 0.51)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "tga", "ico"])
def test_alpha_is_put_on_white(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"alpha.{suffix}"
    per_format: dict[str, dict[str, Any]] = {"webp": {"lossless": True, "exact": True}, "ico": {"sizes": [(9, 7)]}}
    Image.fromarray(np.dstack([COLORS, ALPHAS])).save(path, **per_format.get(suffix, {}))
    found = pixels(path)
    assert close(found, on_white(COLORS, ALPHAS), 0.51)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == COLORS[0, 1].tolist()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_with_alpha(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"alpha.{suffix}"
    Image.fromarray(np.dstack([GRAYS, ALPHAS])).save(path)
    assert close(pixels(path), on_white(as_rgb(GRAYS), ALPHAS), 0.51)


@pytest.mark.parametrize(("mode", "photometric"), [("RGBA", 2), ("La", 1)])
def test_premultiplied_alpha(mode: str, photometric: int, tmp_path: Path) -> None:
    path = tmp_path / "premultiplied.tif"
    colors = COLORS if mode == "RGBA" else GRAYS[:, :, None]
    samples = np.dstack([np.rint(colors * (ALPHAS[:, :, None] / 255)), ALPHAS]).astype(np.uint8)
    path.write_bytes(tiff(9, 7, 8, samples.tobytes(), {262: photometric, 277: samples.shape[2], 338: 1}))
    skip_unless_read(path)
    with Image.open(path) as image:
        assert image.mode == mode
    # Pillow divides by the opacity, rounding down, before it is applied again.
    assert close(pixels(path), on_white(np.broadcast_to(colors, COLORS.shape), ALPHAS), 1.51)


def test_transparent_color(tmp_path: Path) -> None:
    path = tmp_path / "color.png"
    r, g, b = COLORS[3, 4].tolist()
    rows = COLORS.tobytes()
    path.write_bytes(png(9, 7, 8, 2, rows, chunk(b"tRNS", struct.pack(">HHH", r, g, b))))
    expected = COLORS.copy()
    expected[(COLORS[3, 4] == COLORS).all(axis=2)] = 255
    assert np.array_equal(pixels(path), expected)


def test_transparent_color_of_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "color.png"
    rows = struct.pack(">9H", 0x1234, 0x5678, 0x9ABC, 0x3412, 0x7856, 0xBC9A, 0x3434, 0x7878, 0xBCBC)
    path.write_bytes(png(3, 1, 16, 2, rows, chunk(b"tRNS", rows[:6])))
    assert pixels(path).tolist() == [[[255, 255, 255], [0x34, 0x78, 0xBC], [0x34, 0x78, 0xBC]]]


@pytest.mark.parametrize(
    ("depth", "rows", "key", "expected"),
    [
        (1, b"\x40", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x0a\x5f", 10, [0, 255, 85, 255]),
        (8, b"\x00\x0a\x55\xff", 10, [0, 255, 85, 255]),
        (16, struct.pack(">4H", 0, 10, 11, 65535), 10, [0, 255, 0, 255]),
    ],
)
def test_transparent_gray(depth: int, rows: bytes, key: int, expected: list[int], tmp_path: Path) -> None:
    path = tmp_path / "gray.png"
    path.write_bytes(png(4, 1, depth, 0, rows, chunk(b"tRNS", struct.pack(">H", key))))
    assert pixels(path).tolist() == as_rgb([expected]).tolist()


# Steps of 257 are the levels of 8 bits; around them, rounding to the nearest shows.
SIXTEEN = np.array([[0, 128, 129, 256, 257, 300], [4095, 32767, 32768, 65278, 65406, 65535]], np.uint16)
EIGHT = as_rgb(np.floor(SIXTEEN / 257 + 0.5))


@pytest.mark.parametrize("kind", ["png", "tif", "tif of big-endian", "tif, compressed", "pgm", "jp2"])
def test_16_bit_gray(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"sixteen.{kind[:3]}"
    if kind == "png":
        path.write_bytes(png(6, 2, 16, 0, SIXTEEN.astype(">u2").tobytes()))
    elif kind == "pgm":
        path.write_bytes(b"P5 6 2 65535\n" + SIXTEEN.astype(">u2").tobytes())
    elif kind == "tif of big-endian":
        Image.frombytes("I;16B", (6, 2), SIXTEEN.astype(">u2").tobytes()).save(path)
    else:
        settings: dict[str, Any] = {"compression": "tiff_deflate"} if kind == "tif, compressed" else {}
        Image.fromarray(SIXTEEN).save(path, **settings)
    assert np.array_equal(pixels(path), EIGHT)


def test_16_bit_gray_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "sixteen.png"
    path.write_bytes(png(2, 1, 16, 4, struct.pack(">4H", 0x4000, 0xFFFF, 0x4000, 0)))
    assert pixels(path).tolist() == [[[0x40] * 3, [255] * 3]]


def test_16_bit_colors_keep_their_upper_8(tmp_path: Path) -> None:
    path = tmp_path / "sixteen.png"
    samples = np.random.default_rng(1).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    path.write_bytes(png(5, 4, 16, 2, samples.astype(">u2").tobytes()))
    assert np.array_equal(pixels(path), samples >> 8)


def test_pgm_of_12_bits(tmp_path: Path) -> None:
    path = tmp_path / "twelve.pgm"
    path.write_bytes(b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095))
    assert close(pixels(path), as_rgb([[0, 128, 255]]), 0)


def test_tiff_of_12_bits(tmp_path: Path) -> None:
    path = tmp_path / "twelve.tif"
    path.write_bytes(tiff(4, 1, 12, bytes.fromhex("000800fff100")))
    assert pixels(path).tolist() == as_rgb([[0, 128, 255, 16]]).tolist()


def test_tiff_in_which_zero_is_white(tmp_path: Path) -> None:
    path = tmp_path / "negative.tif"
    path.write_bytes(tiff(6, 2, 16, SIXTEEN.tobytes(), {262: 0}))
    assert np.array_equal(pixels(path), 255 - EIGHT)


@pytest.mark.parametrize(
    ("dtype", "sample_format", "values", "expected"),
    [
        ("<u4", 1, [0, 2**31, 2**32 - 1, 2**30], [0, 128, 255, 64]),
        ("<u4", 1, [100, 150, 200, 100], [0, 128, 255, 0]),
        ("<i4", 2, [-1000, 0, 1000, 500], [0, 128, 255, 191]),
        ("<i2", 2, [-32768, 0, 32767, -32768], [0, 128, 255, 0]),
        ("<f4", 3, [-0.5, 0.0, 0.5, 0.25], [0, 128, 255, 191]),
        ("<f4", 3, [np.nan, 0.0, np.inf, 2.0], [0, 0, 255, 255]),
        ("<f4", 3, [-3e38, 3e38, -np.inf, 0.0], [0, 255, 0, 128]),
        ("<f4", 3, [7.5, 7.5, 7.5, 7.5], [0, 0, 0, 0]),
    ],
)
def test_gray_without_an_agreed_white_is_stretched(
    dtype: str, sample_format: int, values: list[float], expected: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "wide.tif"
    samples = np.array(values, dtype)
    path.write_bytes(tiff(4, 1, 8 * samples.itemsize, samples.tobytes(), {339: sample_format}))
    assert pixels(path).tolist() == as_rgb([expected]).tolist()


def test_floating_point_by_pillow(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    values = np.linspace(-1, 3, 256 * 5, dtype=np.float32).reshape(5, 256)
    Image.fromarray(values).save(path)
    assert np.array_equal(pixels(path), as_rgb(np.rint((values.astype(float) + 1) / 4 * 255)))


def test_gray_in_several_blocks_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "tall.png"
    values = np.random.default_rng(2).integers(0, 65536, (1001, 2100), dtype=np.uint16)
    Image.fromarray(values).save(path, compress_level=0)
    assert np.array_equal(pixels(path), as_rgb((values.astype(int) + 128) // 257))


def test_no_finite_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nan.tif"
    path.write_bytes(tiff(2, 1, 32, np.array([np.nan, np.inf], "<f4").tobytes(), {339: 3}))
    with pytest.raises(ImageError, match=r"nan\.tif.*some finite values"):
        read_image(path)


def cmyk_as_rgb(samples: Array) -> Array:
    ink = samples.astype(float) / 255
    return 255 * (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:])


def test_cmyk_tiff(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.tif"
    samples = np.random.default_rng(3).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    Image.frombytes("CMYK", (6, 5), samples.tobytes()).save(path)
    assert close(pixels(path), cmyk_as_rgb(samples), 1.01)


def test_cmyk_jpeg_with_adobes_inverted_samples(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    samples = np.tile(np.array([200, 30, 90, 40], np.uint8), (16, 16, 1))
    Image.frombytes("CMYK", (16, 16), samples.tobytes()).save(path, quality=100)
    assert b"Adobe" in path.read_bytes()
    assert close(pixels(path), cmyk_as_rgb(samples), 3)


def test_ycbcr_tiff(tmp_path: Path) -> None:
    path = tmp_path / "ycbcr.tif"
    samples = np.array([[[150, 100, 160], [80, 128, 128], [200, 120, 110]]], np.uint8)
    Image.frombytes("YCbCr", (3, 1), samples.tobytes()).save(path)
    skip_unless_read(path)
    y, cb, cr = np.moveaxis(samples.astype(float), 2, 0)
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    assert close(pixels(path), np.stack([red, green, blue], axis=2), 1.5)


@pytest.mark.skipif(not features.check("littlecms2"), reason="this Pillow has no LittleCMS")
def test_lab_tiff(tmp_path: Path) -> None:
    path = tmp_path / "lab.tif"
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    muted = 80 + COLORS // 4
    converted = ImageCms.profileToProfile(Image.fromarray(muted), srgb, lab, outputMode="LAB")
    assert converted is not None
    converted.save(path)
    assert close(pixels(path), muted, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_first_of_several_frames(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"frames.{suffix}"
    frames = [Image.fromarray(np.roll(PALETTE, shift, axis=0)[INDICES]) for shift in range(3)]
    settings: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **settings)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.array_equal(pixels(path), PALETTE[INDICES])


def test_gif_whose_first_frame_leaves_a_transparent_border(tmp_path: Path) -> None:
    path = tmp_path / "border.gif"
    image = Image.new("P", (6, 5), 3)
    image.putpalette(PALETTE.tobytes())
    image.paste(1, (2, 1, 4, 3))
    image.save(path, transparency=3)
    expected = np.full((5, 6, 3), 255, np.uint8)
    expected[1:3, 2:4] = PALETTE[1]
    assert np.array_equal(pixels(path), expected)


# ---------------------------------------------------------------------------------------------------------------------
# Orientation


def stored(upright: Array, orientation: int) -> Array:
    """The pixels as a camera stores them, from the definition of EXIF: which side the first row and column show."""
    as_stored: dict[int, Array] = {
        1: upright,
        2: upright[:, ::-1],  # the first column is the right side
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),  # the first row is the left side, the first column the top
        6: upright.swapaxes(0, 1)[::-1],  # the first row is the right side, the first column the top
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }
    return as_stored[orientation]


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8], upright[8:, 24:], upright[:8, 24:] = (200, 50, 20), (30, 60, 220), (20, 180, 90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    settings: dict[str, dict[str, Any]] = {
        "webp": {"lossless": True},
        "jpg": {"quality": 95, "subsampling": 0},
        "tiff": {"compression": "tiff_lzw"},
    }
    image = Image.fromarray(np.ascontiguousarray(stored(upright, orientation)))
    image.save(path, exif=exif, **settings.get(suffix, {}))
    assert close(pixels(path), upright, 5 if suffix == "jpg" else 0)


def test_orientation_of_16_bit_gray_and_of_alpha(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gray, alpha = tmp_path / "gray.png", tmp_path / "alpha.png"
    Image.fromarray(np.ascontiguousarray(stored(SIXTEEN, 6))).save(gray, exif=exif)
    Image.fromarray(np.ascontiguousarray(stored(np.dstack([COLORS, ALPHAS]), 6))).save(alpha, exif=exif)
    assert np.array_equal(pixels(gray), EIGHT)
    assert close(pixels(alpha), on_white(COLORS, ALPHAS), 0.51)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage of some length", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_broken_exif_turns_nothing(exif: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    Image.fromarray(COLORS).save(path, exif=exif)
    assert np.array_equal(pixels(path), COLORS)


def test_unknown_orientation_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "unknown.png"
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(COLORS).save(path, exif=exif)
    assert np.array_equal(pixels(path), COLORS)


# ---------------------------------------------------------------------------------------------------------------------
# Sizes


def huge_png(side: int) -> bytes:
    """One bit per pixel, all black: the rows compress to a thousandth."""
    return png(side, side, 1, 0, bytes((side + 7) // 8 * side))


def webp(kind: bytes, payload: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", len(body)) + body


def icon(inner: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def two_in_an_icon(side: int) -> bytes:
    """An icon whose first entry lies outside the file, and whose second is a PNG."""
    entries = [
        struct.pack("<BBBBHHII", 9, 9, 0, 0, 1, 32, 99, 10**8),
        struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 99, 38),
    ]
    return struct.pack("<HHH", 0, 1, 2) + b"".join(entries) + huge_png(side)


def gif(canvas: int, frame: int) -> bytes:
    """A GIF with a palette and a comment, whose frame starts at the canvas' top left corner."""
    head = b"GIF89a" + struct.pack("<HHBBB", canvas, canvas, 0x80, 0, 0) + bytes(6)
    comment = b"!\xfe\x05hello\x03abc\x00"
    return head + comment + b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x4c\x01\x00;"


def jpeg(side: int) -> bytes:
    components = b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    frame = b"\xff\xc0" + struct.pack(">HBHH", 8 + 9, 8, side, side) + components
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
    return b"\xff\xd8\xff\xdb\x00\x43\x00" + b"\x01" * 64 + frame + scan + bytes(100)


def bitmap(side: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + info + bytes(100)


HUGE: dict[str, Callable[[int], bytes]] = {
    "PNG": huge_png,
    "BMP": bitmap,
    "JPEG": jpeg,
    "PPM": lambda side: f"P6 {side} {side} 255\n".encode() + bytes(100),
    "TIFF": lambda side: tiff(side, side, 8, bytes(100)),
    "GIF canvas": lambda side: gif(side, 1),
    "GIF frame": lambda side: gif(1, side),
    "WebP VP8": lambda side: webp(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(100)),
    "WebP VP8L": lambda side: webp(b"VP8L", b"\x2f" + struct.pack("<I", side - 1 | side - 1 << 14) + bytes(100)),
    "WebP VP8X": lambda side: webp(b"VP8X", bytes(4) + 2 * (side - 1).to_bytes(3, "little")),
    "PNG in an icon": lambda side: icon(huge_png(side)),
    "PNG in an icon after an entry that leads nowhere": two_in_an_icon,
    "BMP in an icon": lambda side: icon(struct.pack("<IiiHHIIiiII", 40, side, 2 * side, 1, 24, 0, 0, 0, 0, 0, 0)),
    "old BMP in an icon": lambda side: icon(struct.pack("<IHHHH", 12, side, 2 * side, 1, 24) + bytes(100)),
}


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Pillow starts to decode, by the class of the image."""
    started: list[str] = []
    for base in (ImageFile.ImageFile, Image.Image):
        load = base.load

        def noted(self: Any, load: Any = load, *args: Any, **settings: Any) -> Any:
            started.append(type(self).__name__)
            return load(self, *args, **settings)

        monkeypatch.setattr(base, "load", noted)
    return started


# Pillow's own limit is 89 million pixels: from there it warns, from its double it raises an exception.
@pytest.mark.parametrize("side", [9000, 10000, 16000])
@pytest.mark.parametrize("kind", HUGE)
def test_huge_images_are_refused_by_their_header(kind: str, side: int, tmp_path: Path, decodings: list[str]) -> None:
    path = tmp_path / f"huge {kind}"
    path.write_bytes(HUGE[kind](side))
    assert path.stat().st_size < 40_000
    start = time.perf_counter()
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert time.perf_counter() - start < 1
    assert decodings == []
    assert str(refusal.value) == (
        f"{str(path)!r}: expected at most 64,000,000 pixels, found {side} x {side} = {side * side:,}"
    )


def test_huge_tile_of_a_small_tiff(tmp_path: Path, decodings: list[str]) -> None:
    path = tmp_path / "tile.tif"
    path.write_bytes(tiff(8, 8, 8, bytes(64), {259: 8, 322: 16384, 323: 16384, 324: 8, 325: 50}))
    with pytest.raises(ImageError, match=r"tile\.tif.*found 16384 x 16384"):
        read_image(path)
    assert decodings == []


def test_the_limit_is_the_callers_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "ppm"):
        path = tmp_path / f"image.{suffix}"
        Image.new("RGB", (9, 2), (80, 80, 80)).save(path)
        assert pixels(path, max_pixels=18).shape == (2, 9, 3)
        with pytest.raises(ImageError, match="at most 17 pixels, found 9 x 2 = 18"):
            read_image(path, max_pixels=17)


def test_nothing_global_changes_and_threads_may_read(tmp_path: Path) -> None:
    def settings() -> tuple[Any, ...]:
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    good, bad, turned = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "turned.jpg"
    Image.fromarray(COLORS).save(good)
    bad.write_bytes(huge_png(10000))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (20, 10)).save(turned, exif=exif)
    before = settings()

    def read(index: int) -> None:
        assert np.array_equal(pixels(good), COLORS)
        assert read_image(turned).size == (10, 20)
        with pytest.raises(ImageError):
            read_image(bad)
        assert settings() == before

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(32)))
    assert settings() == before


@pytest.mark.parametrize("value", [0, -1])
def test_the_limit_must_be_positive(value: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_pixels: expected at least 1"):
        read_image(tmp_path / "image.png", max_pixels=value)


# ---------------------------------------------------------------------------------------------------------------------
# Files that hold no image, and names


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "tiff", "webp", "ppm", "tga", "jp2", "avif"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files(suffix: str, part: float, tmp_path: Path) -> None:
    skip_unless_written(suffix)
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(4).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if suffix == "tiff" else {}))
    complete = path.read_bytes()
    path.write_bytes(complete[: int(part * len(complete))])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}'?: expected"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\n", "data in none of the formats"),
        (b"Once upon a time there was no image at all.\n" * 20, "data in none of the formats"),
        (bytes(5000), "data in none of the formats"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "data in none of the formats"),
        (b"\x89PNG\r\n\x1a\n", "a damaged PNG file"),
        (b"\x89PNG\r\n\x1a\nand then something else", "a damaged PNG file"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a damaged JPEG file"),
        (b"GIF89a", "a damaged GIF file"),
        (b"\0\0\1\0\1\0", "a damaged ICO file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS, a format that is not read"),
        (b"8BPS\0\1" + bytes(100), "PSD, a format that is not read"),
    ],
)
def test_no_images(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "none.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert str(refusal.value).startswith(f"{str(path)!r}: expected an image file, found {found}")


def test_damage_inside_is_refused_or_read_but_no_other_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ico"):
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(COLORS).save(path)
        complete = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(15):
            damaged = complete.copy()
            damaged[generator.integers(0, len(damaged), 4)] = generator.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert read_image(path).mode == "RGB"
                except ImageError as refusal:
                    assert path.name in str(refusal)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"not here\.png"):
        read_image(tmp_path / "not here.png")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="expected an image file, found a directory") as refusal:
        read_image(tmp_path)
    assert refusal.value.filename == str(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"pipe'?: expected an image file, found a pipe"):
        read_image(tmp_path / "pipe")


@pytest.mark.parametrize(
    "name", ["with spaces .png", "картинка.png", "画像 (1).PNG", "🐕.png", "é'\"%s{}.png", "no suffix"]
)
def test_names_of_any_alphabet(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(COLORS).save(path, format="PNG")
    assert np.array_equal(pixels(path), COLORS)
    assert np.array_equal(np.asarray(read_image(str(path))), COLORS)
    path.write_bytes(b"")
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert repr(str(path)) in str(refusal.value)


def test_the_file_is_closed(tmp_path: Path) -> None:
    for suffix in ("png", "gif", "tif", "webp", "jpg"):
        path = tmp_path / f"image.{suffix}"
        frames = [Image.fromarray(COLORS), Image.fromarray(255 - COLORS)]
        settings: dict[str, Any] = {} if suffix == "jpg" else {"save_all": True, "append_images": frames[1:]}
        frames[0].save(path, **settings)
        read_image(path)  # an open file that is collected warns, and warnings are errors here
        path.unlink()


# ---------------------------------------------------------------------------------------------------------------------
# What the classifier gets


def picture(width: int, height: int) -> Image.Image:
    samples = np.random.default_rng(width + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


@pytest.mark.parametrize("size", [(640, 480), (480, 641), (224, 224), (256, 256), (100, 30), (1, 1), (3, 700)])
def test_classifier_input_is_torchvisions(size: tuple[int, int]) -> None:
    image = picture(*size)
    found = classifier_input(image)
    assert found.shape == (1, 3, 224, 224)
    assert found.dtype == torch.float32
    assert torch.equal(found[0], ImageClassification(crop_size=224)(image))


def test_classifier_input_with_other_settings() -> None:
    image = picture(300, 200)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    found = classifier_input(image, resize=128, crop=97, mean=list(mean), std=std)
    assert torch.equal(found[0], ImageClassification(crop_size=97, resize_size=128, mean=mean, std=std)(image))


def test_classifier_input_by_hand() -> None:
    x, y = np.meshgrid(np.arange(12), np.arange(8))
    image = Image.fromarray(np.stack([x * 20, y * 30, x + y], axis=2).astype(np.uint8))
    found = classifier_input(image, resize=8, crop=4)
    expected = (np.asarray(image)[2:6, 4:8] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_shown_crop_is_what_the_classifier_gets() -> None:
    image = picture(400, 300)
    shown = shown_crop(image)
    assert (shown.mode, shown.size) == ("RGB", (224, 224))
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    samples = ((classifier_input(image)[0] * std + mean) * 255).round().to(torch.uint8)
    assert np.array_equal(np.asarray(shown), samples.permute(1, 2, 0).numpy())


def test_other_modes_are_converted() -> None:
    alpha = Image.fromarray(np.dstack([COLORS, ALPHAS])).resize((64, 64), Image.Resampling.NEAREST)
    gray = Image.fromarray(SIXTEEN)
    white = np.asarray(alpha)
    expected = on_white(white[:, :, :3], white[:, :, 3])
    assert close(np.asarray(shown_crop(alpha, resize=64, crop=64)), expected, 0.51)
    assert np.array_equal(np.asarray(shown_crop(gray, resize=2, crop=2)), EIGHT[:, 2:4])
    assert classifier_input(gray).shape == (1, 3, 224, 224)


def test_the_image_given_is_not_changed() -> None:
    image = picture(300, 260)
    before = image.tobytes()
    shown_crop(image, resize=260, crop=260).paste(0, (0, 0, 260, 260))
    small = picture(50, 50)
    kept = small.tobytes()
    shown_crop(small, resize=50, crop=50).paste(0, (0, 0, 50, 50))
    assert (image.tobytes(), small.tobytes()) == (before, kept)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (2, 65000)])
def test_elongated_images_are_refused(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    with pytest.raises(ImageError, match=rf"at most {MAX_PIXELS:,} pixels once .* from {size[0]} x {size[1]}"):
        classifier_input(Image.new("RGB", size))
    with pytest.raises(ImageError, match="cut out the part"):
        shown_crop(Image.new("RGB", size))
    assert time.perf_counter() - start < 1


def test_elongated_images_within_the_limit_are_taken() -> None:
    image = picture(30, 6000)
    assert torch.equal(classifier_input(image)[0], ImageClassification(crop_size=224)(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": 0}, "resize: expected at least 1, found 0"),
        ({"crop": 0}, "crop: expected at least 1, found 0"),
        ({"resize": 200}, r"crop: expected at most resize \(200\), found 224"),
        ({"mean": (0.5,)}, "mean: expected 3 finite numbers, found"),
        ({"std": (0.5, 0.5, float("nan"))}, "std: expected 3 finite numbers, found"),
        ({"std": (0.5, 0.5, 0.0)}, "std: expected numbers above 0, found"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier_input(picture(30, 20), **settings)


def test_images_without_pixels_or_usable_colors_are_refused() -> None:
    with pytest.raises(ImageError, match="expected at least one pixel, found 0 x 5"):
        shown_crop(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match="found mode F"):
        shown_crop(Image.fromarray(np.full((4, 4), np.nan, np.float32)))
