"""Localisation: by hand, against Quantus, and at the ends of the scale on scenes with exact masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.metrics import (
    boxes_to_regions,
    energy_inside,
    image_maps,
    instance_balance,
    instance_shares,
    localization_score,
    pointing_game,
    sparseness,
    unit_range,
)


def scene_masks(count: int = 6) -> Tensor:
    """Masks of the first object of some scenes."""
    return torch.stack([torch.from_numpy(draw_scene(seed).masks[0]) for seed in range(count)])


def random_maps(count: int = 6) -> Tensor:
    return torch.rand(count, 128, 128, generator=torch.Generator().manual_seed(1))


def test_a_perfect_map_reaches_the_upper_end_of_every_measure_on_the_scenes() -> None:
    masks = scene_masks()
    perfect = masks.float()
    assert (energy_inside(perfect, masks) == 1).all()
    assert (pointing_game(perfect, masks) == 1).all()
    for threshold in (0, 0.25, 0.5):
        assert (localization_score(perfect, masks, threshold) == 1).all()
        assert (localization_score(perfect, masks, threshold, measure="energy") == 1).all()


def test_a_random_map_scores_what_chance_gives_on_the_scenes() -> None:
    masks, maps = scene_masks(), random_maps()
    area = masks.float().mean((1, 2))
    assert torch.allclose(energy_inside(maps, masks), area, atol=0.005)
    # Half of the pixels lie above 0.5, inside and outside alike.
    assert torch.allclose(localization_score(maps, masks, 0.5), 0.5 * area / (area + 0.5 * (1 - area)), atol=0.005)
    many = torch.stack([random_maps(1)[0].roll(shift, 0) for shift in range(128)])
    hits = pointing_game(many, masks[:1].expand(128, -1, -1)).mean()
    assert hits < 0.3


def test_a_map_beside_the_object_reaches_the_lower_end() -> None:
    masks = scene_masks()
    beside = (~masks).float()
    for score in (energy_inside(beside, masks), pointing_game(beside, masks), localization_score(beside, masks, 0.5)):
        assert (score == 0).all()


def test_instances_of_the_scenes() -> None:
    scene = draw_scene(7, classes=[3, 3, 5])
    instances = torch.from_numpy(scene.masks[:2])[None]
    both, one = instances.any(1).float(), instances[:, 0].float()
    assert instance_balance(both, instances).item() == pytest.approx(1)
    assert instance_balance(one, instances).item() == 0
    assert instance_shares(one, instances).tolist() == [[1, 0]]
    assert instance_shares(both, instances).sum().item() == pytest.approx(1)
    uneven = (instances * torch.tensor([1.0, 0.25])[None, :, None, None]).sum(1)
    assert instance_balance(uneven, instances).item() == pytest.approx(0.25)


def test_localization_score_by_hand() -> None:
    maps = torch.tensor([[[0.0, 0.3, 0.6], [0.2, 1.0, 0.5]]])
    region = torch.tensor([[[True, True, False], [True, True, False]]])
    # Above 0.25: 0.3 and 1.0 inside, 0.6 and 0.5 outside.
    assert localization_score(maps, region, 0.25).item() == pytest.approx(2 / (4 + 2))
    assert localization_score(maps, region, 0.25, measure="energy").item() == pytest.approx(1.3 / (4 + 1.1))
    assert localization_score(maps, region, 0.5).item() == pytest.approx(1 / (4 + 1))


def test_localization_score_is_the_iou_of_the_thresholded_map() -> None:
    masks, maps = scene_masks(), random_maps()
    above = maps > 0.7
    iou = (above & masks).sum((1, 2)) / (above | masks).sum((1, 2))
    assert torch.allclose(localization_score(maps, masks, 0.7), iou)


def test_energy_ignores_negative_values_and_an_empty_map_scores_nothing() -> None:
    maps = torch.tensor([[[2.0, -7.0], [6.0, 0.0]], [[0.0, -1.0], [0.0, 0.0]]])
    region = torch.tensor([[[True, True], [False, False]]]).expand(2, 2, 2)
    assert energy_inside(maps, region).tolist() == [0.25, 0.0]
    assert pointing_game(torch.zeros(1, 2, 2), region[:1]).tolist() == [0.0]


def test_pointing_game_with_tolerance_is_euclidean_and_shares_ties() -> None:
    maps, region = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.bool)
    maps[0, 5, 5], region[0, 2, 1] = 1, True  # 3 rows and 4 columns apart
    assert pointing_game(maps, region, tolerance=4.9).item() == 0
    assert pointing_game(maps, region, tolerance=5).item() == 1
    maps[0, 2, 1] = 1
    assert pointing_game(maps, region).item() == 0.5


def test_agrees_with_quantus() -> None:
    quantus = pytest.importorskip("quantus")
    masks, maps = scene_masks(), random_maps() ** 4
    common: dict[str, Any] = {
        "model": None,
        "x_batch": np.zeros((6, 3, 128, 128), np.float32),
        "y_batch": np.zeros(6, int),
        "a_batch": maps[:, None].numpy(),
        "s_batch": masks[:, None].numpy(),
    }
    quiet = {"disable_warnings": True, "normalise": False, "abs": False}
    mass = quantus.RelevanceMassAccuracy(**quiet)(**common)
    assert np.allclose(energy_inside(maps, masks).numpy(), mass, atol=1e-5)
    pointed = quantus.PointingGame(**quiet)(**common)
    assert pointing_game(maps, masks).tolist() == [float(hit) for hit in pointed]
    gini = quantus.Sparseness(**quiet)(**{**common, "s_batch": None})
    assert np.allclose(sparseness(maps).numpy(), gini, atol=1e-5)


def test_boxes_hold_the_pixels_whose_centres_lie_in_them() -> None:
    regions = boxes_to_regions([[(0, 0, 2, 1), (3, 1, 4, 3)], [(0.4, 0.6, 1.6, 2.4)]], (3, 4))
    assert regions[0].int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert regions[1].int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_maps_of_any_size_come_to_the_image() -> None:
    channels = torch.randn(2, 3, 4, 5)
    assert torch.allclose(image_maps(channels, (4, 5)), channels.sum(1))
    upsampled = image_maps(channels[:, :1], (8, 10))
    expected = torch.nn.functional.interpolate(channels[:, :1], (8, 10), mode="bilinear")[:, 0]
    assert torch.equal(upsampled, expected)
    scaled = unit_range(upsampled)
    assert scaled.amin((1, 2)).tolist() == [0, 0] and scaled.amax((1, 2)).tolist() == [1, 1]
    assert not unit_range(torch.full((1, 2, 2), 5.0)).any()
    assert image_maps(channels.half(), (4, 5)).dtype == torch.float32


def test_sparseness_of_one_pixel_and_of_a_uniform_map() -> None:
    one = torch.zeros(1, 10, 10)
    one[0, 3, 4] = 2
    assert sparseness(one).item() == pytest.approx(0.99)
    assert sparseness(torch.ones(1, 10, 10)).item() == pytest.approx(0)
    assert sparseness(torch.zeros(1, 10, 10)).item() == 0


EMPTY = torch.zeros(1, 2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy_inside(torch.rand(1, 2, 2), EMPTY), "^regions: expected at least one pixel"),
        (lambda: energy_inside(torch.rand(1, 2, 2), torch.ones(1, 2, 2)), "^regions: expected bool"),
        (lambda: energy_inside(torch.rand(2, 2), ~EMPTY), "^maps: expected floats of shape"),
        (lambda: energy_inside(torch.full((1, 2, 2), math.inf), ~EMPTY), "^maps: expected finite"),
        (lambda: localization_score(torch.rand(1, 2, 2), ~EMPTY, 1.0), "^threshold: expected"),
        (lambda: localization_score(torch.rand(1, 2, 2), ~EMPTY, 0.5, measure="x"), "^measure: expected"),
        (lambda: localization_score(torch.rand(1, 2, 2) + 1, ~EMPTY, 0.5, measure="energy"), r"^maps: .*in \[0, 1\]"),
        (lambda: localization_score(torch.rand(1, 2, 2) - 1, ~EMPTY, 0.5), r"^maps: expected values in \[0, 1\]"),
        (lambda: boxes_to_regions([[(3, 0, 1, 2)]], (3, 4)), "^boxes: expected"),
        (lambda: boxes_to_regions([[(0, 2, 1, 1)]], (3, 4)), "^boxes: expected"),
        (lambda: pointing_game(torch.rand(1, 2, 2), ~EMPTY, tolerance=-1), "^tolerance: expected"),
        (lambda: instance_shares(torch.rand(1, 2, 2), torch.ones(2, 2, 2)), "^instances: expected bool"),
        (lambda: instance_shares(torch.rand(2, 2, 2), ~EMPTY.expand(3, 1, 2, 2)), r"^instances: .* \(2, I, 2, 2\)"),
        (lambda: instance_shares(torch.rand(2, 2, 2), ~EMPTY[0]), "^instances: expected"),
        (lambda: image_maps(torch.rand(2, 2), (4, 4)), r"^attributions: expected shape \(N, C, h, w\)"),
        (lambda: image_maps(torch.full((1, 1, 2, 2), math.nan), (4, 4)), "^attributions: expected finite"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
