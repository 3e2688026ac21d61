"""Boxes of a picture, found in what a model sees of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from captum_sgcampp.vision.images import shown_crop
from captum_sgcampp.vision.places import Place, box_in_crop


def squeezed(picture: Image.Image) -> Image.Image:
    return picture.resize((128, 128), Image.Resampling.BILINEAR)


def mirrored_crop(picture: Image.Image) -> Image.Image:
    return ImageOps.mirror(shown_crop(picture, resize=200, crop=160))


# A slow truth: paint the box, see where the paint went.
def painted(box: tuple[int, ...], size: tuple[int, int], show: Callable[[Image.Image], Image.Image]) -> list[float]:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    seen = np.asarray(show(Image.fromarray(pixels)))[..., 0] > 127
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("show", [shown_crop, squeezed, mirrored_crop, lambda picture: picture])
@pytest.mark.parametrize("size", [(500, 400), (300, 1200), (90, 60), (2400, 1500)])
def test_a_box_is_where_its_pixels_went(show: Callable[[Image.Image], Image.Image], size: tuple[int, int]) -> None:
    width, height = size
    box = (width * 2 // 5, height * 9 // 20, width * 3 // 5, height * 11 // 20)
    found, is_cut = box_in_crop(box, size, show)
    assert not is_cut
    assert found == pytest.approx(painted(box, size, show), abs=0.75)


def test_what_the_model_does_not_see_is_cut_off_and_told() -> None:
    found, is_cut = box_in_crop((0, 0, 256, 128), (256, 256), shown_crop)
    assert is_cut and found == pytest.approx((0, 0, 224, 112), abs=0.1)
    found, is_cut = box_in_crop((16, 16, 240, 240), (256, 256), shown_crop)
    assert not is_cut and found == pytest.approx((0, 0, 224, 224), abs=0.1)


def test_small_boxes_of_large_pictures_are_found() -> None:
    found, _ = box_in_crop((2000, 1500, 2004, 1504), (4000, 3000), shown_crop)
    left, scale = 58, 256 / 3000  # 341 x 256 before the crop
    assert found == pytest.approx((2000 * 341 / 4000 - left, 112, 2004 * 341 / 4000 - left, 112 + 4 * scale), abs=0.1)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 301, 100), r"^box: expected a box in the picture of 300 x 300 pixels, found 0,0,301,100"),
        ((0, 0, 10, 100), r"^box: expected a box that meets what the model sees \(19,19,281,281\), found 0,0,10"),
    ],
)
def test_boxes_outside_are_refused(box: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_in_crop(box, (300, 300), shown_crop)


def test_a_picture_of_one_column_is_seen_whole() -> None:
    found, _ = box_in_crop((0, 10, 1, 20), (1, 100), squeezed)
    assert found == pytest.approx((0, 12.8, 128, 25.6), abs=0.2)


def test_places_give_the_neurons_of_a_layer() -> None:
    assert Place(neurons=(slice(0, 2), slice(None))).mask((4, 3), (8, 6)).sum() == 6
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:2, 2:] = True
    assert torch.equal(Place(box=(4, 0, 8, 4)).mask((4, 4), (8, 8)), expected)
