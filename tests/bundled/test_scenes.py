"""Scenes are the same for the same seed, their masks are exact, and colour tells nothing about the shape."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest

from captum_sgcampp.bundled import CLASSES, draw_scene, draw_scenes
from captum_sgcampp.bundled.scenes import MAX_OBJECTS

Mask = npt.NDArray[np.bool_]


def grown(mask: Mask, pixels: int = 2) -> Mask:
    """The mask and what lies at most so many pixels from it."""
    padded = np.pad(mask, pixels)
    rows, columns = mask.shape
    offsets = range(2 * pixels + 1)
    return np.any([padded[y : y + rows, x : x + columns] for y in offsets for x in offsets], axis=0)


def shrunk(mask: Mask) -> Mask:
    """The mask without its outermost pixels."""
    return ~grown(~mask)


def test_same_seed_same_scene_and_other_seed_other_scene() -> None:
    first, again, other = draw_scene(11), draw_scene(11), draw_scene(12)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.masks, again.masks)
    assert first.classes == again.classes
    assert not np.array_equal(first.image, other.image)


def test_draw_scenes_draws_the_scene_of_every_seed() -> None:
    for seed, scene in zip([5, 3], draw_scenes([5, 3], size=96), strict=True):
        assert np.array_equal(scene.image, draw_scene(seed, size=96).image)


@pytest.mark.parametrize("size", [64, 128, 160])
def test_shapes_and_types(size: int) -> None:
    scene = draw_scene(1, size=size)
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    assert scene.masks.shape == (len(scene.classes), size, size) and scene.masks.dtype == np.bool_
    assert scene.labels.shape == (len(CLASSES),) and scene.labels.dtype == np.float32


def test_scene_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        draw_scene(0).classes = (1,)  # type: ignore[misc]


def test_forced_classes_and_their_labels() -> None:
    scene = draw_scene(4, classes=[3, 3, 5])
    assert scene.classes == (3, 3, 5) and len(scene.masks) == 3
    assert scene.labels.tolist() == [0, 0, 0, 1, 0, 1, 0, 0]
    assert np.array_equal(scene.class_mask(3), scene.masks[0] | scene.masks[1])
    assert not scene.class_mask(0).any()


def test_forcing_the_classes_it_has_changes_nothing() -> None:
    scene = draw_scene(8)
    assert np.array_equal(draw_scene(8, classes=scene.classes).image, scene.image)


def test_every_object_finds_a_place_even_in_the_smallest_scene() -> None:
    for seed in range(20):
        masks = draw_scene(seed, size=64, classes=[0] * MAX_OBJECTS).masks
        assert masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": []}, "1 to 6 objects, found 0"),
        ({"classes": [0] * 7}, "1 to 6 objects, found 7"),
        ({"classes": [0, 8, -1]}, r"from 0 to 7, found \[8, -1\]"),
        ({"size": 63}, "at least 64 pixels, found 63"),
    ],
)
def test_refuses_what_it_cannot_draw(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_scene(0, **options)  # type: ignore[arg-type]


def test_number_of_objects_and_of_every_class() -> None:
    scenes = list(draw_scenes(range(400)))
    counts = np.bincount([len(scene.classes) for scene in scenes], minlength=5)
    assert counts[0] == 0 and len(counts) == 5 and (counts[1:] > 40).all()
    share = np.mean([scene.labels for scene in scenes], axis=0)
    assert (share > 0.15).all() and (share < 0.4).all()
    repeated = [len(set(scene.classes)) < len(scene.classes) for scene in scenes]
    several = [len(set(scene.classes)) > 1 for scene in scenes]
    assert np.mean(repeated) > 0.2 and np.mean(several) > 0.4


def test_masks_never_overlap_nor_touch() -> None:
    for scene in draw_scenes(range(100)):
        assert np.sum([grown(mask, 1) for mask in scene.masks], axis=0).max() == 1


@pytest.mark.parametrize("index", range(len(CLASSES)))
def test_an_object_changes_its_own_pixels_only(index: int) -> None:
    # Two scenes of one seed differ in nothing but the shape of their first object. They have to
    # agree inside both shapes and outside of both. Only at their edges, two pixels at most from
    # those of the masks, does an object cover a part of a pixel.
    for seed in range(10):
        one = draw_scene(seed, classes=[index, 1])
        two = draw_scene(seed, classes=[(index + 1) % len(CLASSES), 1])
        same = (one.image == two.image).all(axis=2)
        assert same[shrunk(one.masks[0]) & shrunk(two.masks[0])].all()
        assert same[~grown(one.masks[0] | two.masks[0])].all()
        assert not same[shrunk(one.masks[0]) & ~grown(two.masks[0])].any()


def test_colour_is_the_same_for_every_class() -> None:
    # All shapes but ring and crescent cover their middle, where the paint shows.
    for seed in range(10):
        scenes = [draw_scene(seed, classes=[index]) for index in (0, 1, 2, 3, 4, 6)]
        common = np.all([shrunk(scene.masks[0]) for scene in scenes], axis=0)
        assert common.sum() > 20
        for scene in scenes[1:]:
            assert np.array_equal(scene.image[common], scenes[0].image[common])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, area",
    [
        ("circle", math.pi),
        ("square", 2.0),
        ("triangle", 0.75 * math.sqrt(3.0)),
        ("star", 5 * 0.42 * math.sin(math.pi / 5)),
        ("cross", 8 * 0.32 * math.sqrt(1 - 0.32**2) - 4 * 0.32**2),
        ("ring", math.pi * (1 - 0.58**2)),
    ],
)
def test_mask_has_the_area_of_its_shape(name: str, area: float) -> None:
    # Areas in squared radii, from geometry. The circle of the same seed has the same radius.
    for seed in range(10):
        shape, circle = (draw_scene(seed, size=512, classes=[CLASSES.index(one)]) for one in (name, "circle"))
        rows = np.flatnonzero(circle.masks[0].any(axis=1))
        radius = (rows[-1] - rows[0] + 1) / 2
        assert shape.masks[0].sum() == pytest.approx(area * radius**2, rel=0.04)


def test_mask_of_a_circle_is_a_disc() -> None:
    for seed in range(20):
        mask = draw_scene(seed, classes=[0]).masks[0]
        ys, xs = np.nonzero(mask)
        radius = math.sqrt(mask.sum() / math.pi)
        rows, columns = np.indices(mask.shape)
        distance = np.hypot(rows - ys.mean(), columns - xs.mean())
        assert mask[distance < radius - 0.75].all() and not mask[distance > radius + 0.75].any()


def test_objects_stand_out_from_what_is_behind_them() -> None:
    contrasts = []
    for scene in draw_scenes(range(200)):
        for mask in scene.masks:
            edge = grown(mask, 3) & ~grown(mask, 1)
            contrasts.append(np.linalg.norm(scene.image[mask].mean(axis=0) - scene.image[edge].mean(axis=0)))
    assert np.quantile(contrasts, 0.02) > 50
