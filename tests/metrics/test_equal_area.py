"""Confidence at equal area: by hand, and that area alone gains nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import ConvNet, images

from captum_sgcampp.metrics import (
    class_confidence,
    confidence_kept,
    explanation_inputs,
    insertion_curve,
    relative_confidence_area,
    top_pixels,
)


@pytest.mark.parametrize("share, count", [(0.1, 6), (0.25, 16), (0.5, 32), (1, 64)])
def test_as_many_pixels_for_every_map_and_the_largest(share: float, count: int) -> None:
    maps = torch.stack([torch.rand(8, 8), torch.ones(8, 8), torch.eye(8)])
    kept = top_pixels(maps, share)
    assert kept.sum((1, 2)).tolist() == [count] * 3 and kept.unique().tolist() in ([0, 1], [1])
    assert share == 1 or maps[0][kept[0] == 1].min() >= maps[0][kept[0] == 0].max()
    assert (kept[2] * maps[2]).sum() == min(count, 8)


def test_equal_values_come_in_a_random_order() -> None:
    kept = top_pixels(torch.ones(1, 40, 40), 0.25)[0]
    assert all(0.15 < float(half.mean()) < 0.35 for half in (kept[:20], kept[20:], kept[:, :20], kept[:, 20:]))
    assert not torch.equal(kept, top_pixels(torch.ones(1, 40, 40), 0.25, seed=1)[0])


def test_kept_by_hand() -> None:
    y, o = torch.tensor([0.8, 0.5, 0.4]), torch.tensor([0.2, 0.6, 0.4])
    assert confidence_kept(y, o).tolist() == pytest.approx([0.25, 1.0, 1.0])


def test_relative_area_by_hand_and_from_occluding_one_share_after_the_other() -> None:
    assert relative_confidence_area(torch.tensor([0.5]), torch.tensor([[0.0, 0.25, 1.0]])).tolist() == [0.75]
    model, inputs, maps = ConvNet(), 3 * images(2), torch.rand(2, 8, 8)
    curve = insertion_curve(model, inputs, maps, 1, steps=4, baseline="zero")
    y = class_confidence(model, inputs, 1)
    shown = [torch.zeros_like(maps), *(top_pixels(maps, share) for share in (0.25, 0.5, 0.75, 1))]
    relative = torch.stack([class_confidence(model, explanation_inputs(inputs, x), 1) / y for x in shown])
    expected = (relative[:-1] + relative[1:]).mean(0) / 2
    assert torch.allclose(relative_confidence_area(y, curve), expected, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: top_pixels(torch.rand(1, 4, 4), 0), "^share: expected above 0 to 1, found 0"),
        (lambda: top_pixels(torch.rand(1, 4, 4), 1.5), "^share: expected"),
        (lambda: top_pixels(torch.rand(4, 4), 0.5), "^maps: expected"),
        (lambda: confidence_kept(torch.rand(2), torch.rand(3)), "^explained: expected"),
        (lambda: relative_confidence_area(torch.rand(2), torch.rand(3, 4)), r"^confidence: expected shape \(3,\)"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
