"""Average drop, increase and win: by hand, and against torchcam on the same maps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from networks import ConvNet, images
from peers import FixedMaps

from captum_sgcampp.metrics import (
    average_drop,
    class_confidence,
    explanation_inputs,
    increase_in_confidence,
    win,
)


def test_agrees_with_torchcam_on_the_same_maps() -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    model, inputs, maps = ConvNet(), 3 * images(6), torch.rand(6, 8, 8)
    targets = [0, 1, 2, 3, 4, 0]
    theirs = metrics.ClassificationMetric(FixedMaps(model, maps), partial(torch.softmax, dim=-1))
    theirs.update(inputs, targets)
    y = class_confidence(model, inputs, torch.tensor(targets))
    o = class_confidence(model, explanation_inputs(inputs, maps), torch.tensor(targets))
    expected = theirs.summary()
    assert 0 < expected["avg_drop"] < 1 and 0 < expected["conf_increase"] < 1
    assert average_drop(y, o).mean().item() / 100 == pytest.approx(expected["avg_drop"], abs=1e-5)
    assert increase_in_confidence(y, o).mean().item() / 100 == pytest.approx(expected["conf_increase"], abs=1e-5)


def test_by_hand() -> None:
    y, o = torch.tensor([0.8, 0.5, 0.0]), torch.tensor([0.2, 0.6, 0.0])
    assert torch.allclose(average_drop(y, o), torch.tensor([75.0, 0.0, 0.0]))
    assert increase_in_confidence(y, o).tolist() == [0.0, 100.0, 0.0]
    assert (win(y, o) + win(o, y)).tolist() == [100.0] * 3
    assert win(y, o).tolist() == [100.0, 0.0, 50.0]


@pytest.mark.parametrize("measure", [average_drop, increase_in_confidence, win])
def test_nan_stays_nan(measure: Any) -> None:
    known, unknown = torch.tensor([0.5, 0.5]), torch.tensor([torch.nan, 0.5])
    for found in (measure(known, unknown), measure(unknown, known)):
        assert found.isnan().tolist() == [True, False]


@pytest.mark.parametrize("measure", [average_drop, increase_in_confidence, win])
def test_confidences_of_different_shapes_are_refused(measure: Any) -> None:
    with pytest.raises(ValueError, match=r"^(explained|other): expected .* \(2,\), found \(2, 1\)"):
        measure(torch.rand(2), torch.rand(2, 1))


def test_what_the_map_leaves_out_becomes_the_mean_colour_or_black() -> None:
    mean, std = (0.4, 0.5), (0.2, 0.1)
    pixels = torch.rand(1, 2, 3, 3)
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    inputs, maps = (pixels - shift) / scale, torch.rand(1, 3, 3)
    assert torch.equal(explanation_inputs(inputs, maps), inputs * maps)
    shown = explanation_inputs(inputs, maps, mean=mean, std=std) * scale + shift
    assert torch.allclose(shown, pixels * maps, atol=1e-6)


def test_confidence_does_not_depend_on_the_batches_and_knows_both_links() -> None:
    model, inputs = ConvNet(), images(5)
    targets = torch.tensor([0, 1, 2, 3, 4])
    whole = class_confidence(model, inputs, targets)
    assert torch.allclose(class_confidence(model, inputs, targets, batch_size=2), whole, atol=1e-6)
    rows = torch.arange(5)
    assert torch.allclose(whole, model(inputs).softmax(1)[rows, targets].double(), atol=1e-6)
    sigmoid = class_confidence(model, inputs, targets, link="sigmoid")
    assert torch.allclose(sigmoid, model(inputs).sigmoid()[rows, targets].double(), atol=1e-6)
    assert not whole.requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explanation_inputs(images(2), torch.rand(2, 4, 4)), r"^maps: expected shape"),
        (lambda: explanation_inputs(images(2), torch.rand(2, 8, 8) + 1), r"^maps: expected values in \[0, 1\]"),
        (lambda: explanation_inputs(images(2), torch.full((2, 8, 8), torch.nan)), "^maps: expected finite"),
        (lambda: explanation_inputs(images(2), torch.rand(2, 8, 8), mean=(0.5,)), "^std: expected both"),
        (lambda: explanation_inputs(images(2), torch.rand(2, 8, 8), std=(0.5,)), "^mean: expected both"),
        (
            lambda: explanation_inputs(images(2), torch.rand(2, 8, 8), mean=(0.5,) * 9, std=(1.0,) * 9),
            "^mean: expected one number per channel",
        ),
        (lambda: explanation_inputs(images(2).byte(), torch.rand(2, 8, 8)), "^inputs: expected .* found torch.uint8"),
        (lambda: class_confidence(ConvNet(), images(2), 0, link="tanh"), "^link: expected"),
        (lambda: class_confidence(ConvNet(), images(2), 5), r"^target: expected classes from 0 to 4, found \[5\]"),
        (lambda: class_confidence(ConvNet(), images(2), torch.tensor([-1, 0])), "^target: expected classes from 0"),
        (lambda: class_confidence(lambda x: x[:, 0, 0, 0], images(2), 0), "^model: expected logits"),
        (lambda: class_confidence(lambda x: {"logits": x}, images(2), 0), "^model: expected logits"),
        (lambda: class_confidence(ConvNet(), images(2), torch.tensor([1, 2, 3])), "^target: expected"),
        (lambda: class_confidence(ConvNet(), images(2), 0, batch_size=0), "^batch_size: expected"),
        (lambda: class_confidence(ConvNet().train(), images(2), 0), "^model: expected a model in evaluation mode"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        call()
