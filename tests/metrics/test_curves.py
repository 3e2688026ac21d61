"""Deletion and insertion: against torchcam, and against a loop that takes one pixel after the other."""

from __future__ import annotations

import pytest
import torch
from networks import ConvNet, images
from peers import FixedMaps
from torch import Tensor

from captum_sgcampp.metrics import (
    area_under_curve,
    baseline_images,
    class_confidence,
    deletion_curve,
    insertion_curve,
    pixel_order,
)


def test_agrees_with_torchcam_on_the_same_maps() -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    model, inputs, maps = ConvNet(), 3 * images(3), torch.rand(3, 8, 8)
    theirs = metrics.DeletionInsertionMetric(FixedMaps(model, maps), lambda logits: logits.softmax(-1), steps=16)
    theirs.update(inputs, [1, 2, 3])
    target = torch.tensor([1, 2, 3])
    deletion = area_under_curve(deletion_curve(model, inputs, maps, target, steps=16, baseline="zero"))
    insertion = area_under_curve(insertion_curve(model, inputs, maps, target, steps=16, baseline="zero"))
    expected = theirs.summary()
    assert deletion.mean().item() == pytest.approx(expected["deletion_auc"], abs=1e-5)
    assert insertion.mean().item() == pytest.approx(expected["insertion_auc"], abs=1e-5)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_agrees_with_taking_one_pixel_after_the_other(baseline: str) -> None:
    model, inputs, maps = ConvNet(), 3 * images(2, size=8), torch.rand(2, 8, 8)
    base = baseline_images(inputs, baseline)
    found = deletion_curve(model, inputs, maps, 1, steps=64, baseline=baseline, batch_size=7)
    for example in range(2):
        x, left = inputs[example : example + 1].clone(), maps[example].flatten().tolist()
        expected = [class_confidence(model, x, 1).item()]
        for _ in range(64):
            pixel = max(range(64), key=left.__getitem__)
            left[pixel] = -1
            x[0, :, pixel // 8, pixel % 8] = base[example, :, pixel // 8, pixel % 8]
            expected.append(class_confidence(model, x, 1).item())
        assert found[example].tolist() == pytest.approx(expected, abs=1e-5)


class MeanOfCentre(torch.nn.Module):
    """The logit of class 1 is the brightness of the centre."""

    def forward(self, x: Tensor) -> Tensor:
        score = 10 * x[:, :, 12:20, 12:20].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)


def test_a_faithful_map_has_the_smaller_deletion_and_the_larger_insertion_area() -> None:
    model, inputs = MeanOfCentre().eval(), torch.ones(1, 1, 32, 32)
    faithful = torch.zeros(1, 32, 32)
    faithful[:, 12:20, 12:20] = 1
    areas = [
        [area_under_curve(curve(model, inputs, maps, 1, baseline="zero")).item() for maps in (faithful, 1 - faithful)]
        for curve in (deletion_curve, insertion_curve)
    ]
    assert areas[0][0] < areas[0][1] - 0.2 and areas[1][0] > areas[1][1] + 0.2


def test_equal_values_come_in_no_order_of_rows() -> None:
    order = pixel_order(torch.zeros(2, 16, 16))
    assert torch.equal(order[0], order[1]) and sorted(order[0].tolist()) == list(range(256))
    assert order[0, :128].float().mean().item() == pytest.approx(127.5, abs=20)
    maps = torch.rand(1, 4, 4)
    assert torch.equal(pixel_order(maps)[0], maps.flatten().argsort(descending=True))


def test_baselines() -> None:
    inputs = torch.randn(2, 3, 32, 32)
    assert not baseline_images(inputs, "zero").any()
    mean = baseline_images(inputs, "mean")
    assert torch.allclose(mean[1, 2], inputs[1, 2].mean().expand(32, 32))
    blurred = baseline_images(inputs, "blur")
    assert blurred.std() < 0.3 * inputs.std()


def test_bad_input_is_named() -> None:
    model, inputs, maps = ConvNet(), images(2), torch.rand(2, 8, 8)
    with pytest.raises(ValueError, match=r"^baseline: expected"):
        deletion_curve(model, inputs, maps, 1, baseline="black")
    with pytest.raises(ValueError, match=r"^steps: expected"):
        deletion_curve(model, inputs, maps, 1, steps=0)
    with pytest.raises(ValueError, match=r"^maps: expected shape"):
        deletion_curve(model, inputs, maps[:1], 1)
    with pytest.raises(ValueError, match=r"^inputs: expected images .*6 x 6"):
        baseline_images(torch.rand(1, 3, 5, 20), "blur")
    assert baseline_images(torch.rand(1, 3, 6, 6), "blur").isfinite().all()
    for curve in (torch.rand(5), torch.rand(2, 1)):
        with pytest.raises(ValueError, match=r"^curve: expected shape"):
            area_under_curve(curve)
