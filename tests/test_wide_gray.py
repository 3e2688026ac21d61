"""Gray of more than 8 bits: which values become black and white, and that the picture tells it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_sgcampp import explain
from captum_sgcampp.dataset import Options
from captum_sgcampp.evaluation.cases import ImageFolder
from captum_sgcampp.vision.classifiers import load_classifier
from captum_sgcampp.vision.images import as_rgb, read_image
from captum_sgcampp.wide_gray import different_limits, scaling_of


def ramp(largest: int) -> np.ndarray[Any, Any]:
    """Gray of 16 bits from 0 to the largest value."""
    return np.linspace(0, largest, 60).round().astype(np.uint16).reshape(6, 10)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    "largest, bits", [(255, 8), (256, 10), (1023, 10), (3900, 12), (4095, 12), (4096, 14), (16384, 16), (65535, 16)]
)
def test_white_is_the_largest_number_of_the_fewest_bits(largest: int, bits: int, suffix: str, tmp_path: Path) -> None:
    """A file of 16 bits with the 12 of a detector would otherwise be black."""
    Image.fromarray(ramp(largest)).save(tmp_path / f"ray.{suffix}")
    found = read_image(tmp_path / f"ray.{suffix}")
    white = 2**bits - 1
    np.testing.assert_array_equal(np.asarray(found)[..., 1], np.rint(ramp(largest) * (255 / white)))
    assert f"0 became black and {white} white (its values need {bits} bits)" in scaling_of(found)


def test_a_picture_in_memory_is_scaled_as_its_file() -> None:
    """Also once it was resized, and no longer knows its file."""
    stream = io.BytesIO()
    Image.fromarray(ramp(3900)).save(stream, "png")
    opened = Image.open(stream)
    for image in (opened, Image.fromarray(ramp(3900)), opened.resize((10, 6), Image.Resampling.NEAREST)):
        np.testing.assert_array_equal(np.asarray(as_rgb(image))[..., 0], np.rint(ramp(3900) * (255 / 4095)))


def test_a_white_that_the_file_tells_is_taken(tmp_path: Path) -> None:
    """Dark pictures stay dark: a PGM says how white its white is."""
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([0, 1000], ">u2").tobytes())
    found = read_image(tmp_path / "dark.pgm")
    assert np.asarray(found)[0, :, 0].tolist() == [0, 62] and "(as the file tells)" in scaling_of(found)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_white_that_is_asked_for_is_taken(kind: Any, tmp_path: Path) -> None:
    """So that several pictures are scaled alike; what is whiter is white."""
    Image.fromarray(np.array([[0, 924, 4095, 5000]], kind)).save(tmp_path / "ray.tif")
    found = read_image(tmp_path / "ray.tif", white=4095)
    assert np.asarray(found)[0, :, 0].tolist() == [0, 58, 255, 255]
    assert "0 became black and 4095 white (as asked for)" in scaling_of(found)


def test_what_needs_no_white_keeps_its_own(tmp_path: Path) -> None:
    """Pillow has scaled the values of a PGM. Pictures of 8 bits are as they are."""
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([0, 1000], ">u2").tobytes())
    assert np.asarray(read_image(tmp_path / "dark.pgm", white=2000))[0, 1, 0] == 62
    eight = Image.fromarray(np.full((2, 2), 100, np.uint8))
    assert np.asarray(as_rgb(eight, 200)).max() == 100


@pytest.mark.parametrize(
    "white, error", [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("9", TypeError)]
)
def test_a_white_is_a_number_above_0(white: Any, error: type[Exception], tmp_path: Path) -> None:
    for call in (
        lambda: read_image("nowhere.png", white=white),
        lambda: Options(white=white),
        lambda: explain(image=np.zeros((9, 9), np.uint16), white=white),
        lambda: ImageFolder(load_classifier(), tmp_path, torch.device("cpu"), white=white),
    ):
        with pytest.raises(error, match=r"^white: expected a"):
            call()


def test_32_bits_go_from_the_smallest_to_the_largest_value(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1000.5, 0, 1000]], np.float32)).save(tmp_path / "units.tif")
    told = scaling_of(read_image(tmp_path / "units.tif"))
    assert "-1000.5 became black and 1000 white (its smallest and largest value)" in told


def test_pictures_of_8_bits_tell_nothing(tmp_path: Path) -> None:
    Image.fromarray(ramp(255).astype(np.uint8)).save(tmp_path / "gray.png")
    assert scaling_of(read_image(tmp_path / "gray.png")) == "" and scaling_of(np.zeros(3)) == ""


def test_limits_are_counted_only_where_they_differ() -> None:
    said = {largest: scaling_of(as_rgb(Image.fromarray(ramp(largest)))) for largest in (924, 3900)}
    same = said[3900].replace("its values need 12 bits", "as the file tells")
    assert different_limits({said[3900]: 28, same: 1, "other words": 5}) == ""
    counts = {said[924]: 1, said[3900]: 28, same: 1, "other words": 5}
    assert different_limits(counts) == "29 with white 4095, 1 with white 1023"


def test_of_many_limits_the_most_frequent_are_named() -> None:
    units = [scaling_of(as_rgb(Image.fromarray(np.array([[-n, n]], np.float32)))) for n in range(1, 7)]
    named = "7 with black -3 and white 3, 2 with black -1 and white 1, 1 with black -2 and white 2, 3 with others"
    assert different_limits(dict(zip(units, (2, 1, 7, 1, 1, 1), strict=True))) == named
