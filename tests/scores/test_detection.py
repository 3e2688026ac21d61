"""The scores of a box are those of the object in it, in every noisy sample, in whatever order a detector returns it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from _asserts import Mistake, close, is_named
from calls import received_rows, seeded
from captum.attr import LayerGradCam
from networks import ConvNet, images
from reference import reference_map, relative_error
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.model.clean_rows import clean_rows_at
from captum_sgcampp.scores import DetectedBox, LogOdds, Predictions, detr_predictions

CLASSES, COPIES = 3, 6


class Detector(nn.Module):
    """Two objects side by side in images (N, 2, 8, 8). Its predictions, two of each object and one of none, are sorted
    by confidence, as detectors return them. All boxes move a little with the image."""

    def __init__(self, shift: float = 0.3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.conv, self.relu = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()
            self.logits, self.offsets = nn.Linear(4 * 64, 5 * CLASSES), nn.Linear(4 * 64, 5 * 4)
        self.shift = shift
        self.register_buffer(
            "places", torch.tensor([[2, 4, 4, 8], [2, 4, 4, 7], [6, 4, 4, 8], [6, 4, 4, 7.5], [4, 4, 1, 1]])
        )
        self.double().eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.relu(self.conv(x)).flatten(1)
        logits = 3 * self.logits(features).unflatten(1, (5, CLASSES))
        boxes = (self.places + self.shift * self.offsets(features).unflatten(1, (5, 4))) / 8
        order = logits.amax(2).argsort(dim=1, descending=True)[:, :, None]
        return {
            "logits": logits.gather(1, order.expand(-1, -1, CLASSES)),
            "pred_boxes": boxes.gather(1, order.expand(-1, -1, 4)),
        }


READ = partial(detr_predictions, no_object=False)
LEFT, RIGHT = torch.tensor([0.0, 0, 4, 8]).double(), torch.tensor([4.0, 0, 8, 8]).double()


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = wide * high
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def followed(output: dict[str, Tensor], box: Tensor, threshold: float) -> tuple[int, bool]:
    """The number of the prediction that is taken for the box in one row, by loops, and whether it overlaps enough."""
    best, found, nearest, largest = 0.0, None, 0, 0.0
    for number, (x, y, w, h) in enumerate((8 * output["pred_boxes"][0]).tolist()):
        overlap = iou((x - w / 2, y - h / 2, x + w / 2, y + h / 2), box.tolist())
        value = overlap * float(output["logits"][0, number].detach().sigmoid().max())
        if overlap >= threshold and value > best:
            best, found = value, number
        if overlap > largest:
            nearest, largest = number, overlap
    return (nearest, False) if found is None else (found, True)


def by_loops(model: Detector, box: Tensor, threshold: float, kept: list[tuple[int, bool]]) -> Any:
    """The scores (1, C) of the box in one row."""

    def scores(x: Tensor) -> Tensor:
        output = model(x)
        kept.append(followed(output, box, threshold))
        return output["logits"][:, kept[-1][0]]

    return scores


def explained(forward: Any, model: Detector, x: Tensor, target: Any, *args: Tensor, sigma: float = 0.5) -> Any:
    method = LayerSmoothGradCamPlusPlus(forward, model.relu)
    return received_rows(
        model,
        lambda: method.attribute(
            x, target, args or None, nt_samples=COPIES, nt_samples_batch_size=4, stdevs=sigma, generator=seeded()
        ),
    )


@pytest.mark.parametrize("box", [LEFT, RIGHT], ids=["left", "right"])
def test_the_box_is_followed_where_noise_changes_the_order_and_the_index_is_not(box: Tensor) -> None:
    model, x, sigma = Detector(), images(1).double(), 0.8
    found, rows = explained(DetectedBox(model, predictions=READ), model, x, 1, box[None], sigma=sigma)
    kept: list[tuple[int, bool]] = []
    copies = [(row[None],) for row in rows[1:]]
    assert len(copies) == COPIES and torch.equal(rows[:1], x)
    wanted = reference_map(by_loops(model, box, 0.5, kept), model.relu, (x,), copies, 1)
    clean_index, *numbers = [number for number, _ in kept]
    assert len(set(numbers)) > 1 and all(overlaps for _, overlaps in kept)  # the noise reorders them, and loses none
    assert relative_error(found[0], wanted) <= 1e-9
    by_index = explained(lambda x: model(x)["logits"][:, clean_index], model, x, 1, sigma=sigma)[0]
    assert relative_error(by_index[0], wanted) > 0.1


def test_where_no_prediction_overlaps_enough_the_nearest_is_taken() -> None:
    model, x = Detector(shift=1.5), images(1).double()
    kept: list[tuple[int, bool]] = []
    found, rows = explained(DetectedBox(model, LEFT, 0.7, READ), model, x, 2, sigma=0.8)
    wanted = reference_map(by_loops(model, LEFT, 0.7, kept), model.relu, (x,), [(row[None],) for row in rows[1:]], 2)
    overlaps = [enough for _, enough in kept]
    assert overlaps[0] and 0 < overlaps[1:].count(False) < COPIES
    assert relative_error(found[0], wanted) <= 1e-9


def test_a_sample_without_any_prediction_on_the_box_adds_nothing() -> None:
    model, x = Detector(), images(1).double()

    def is_lost(x: Tensor) -> Tensor:
        return x[:, 0, 0, 0] < images(1).double()[0, 0, 0, 0]  # of about every second noisy sample

    def read(output: dict[str, Tensor], x: Tensor) -> Predictions:
        found = READ(output, x)
        return found._replace(boxes=found.boxes + 100 * is_lost(x)[:, None, None])

    kept: list[tuple[int, bool]] = []
    found, rows = explained(DetectedBox(model, LEFT, predictions=read), model, x, 2)
    remaining = [(row[None],) for row in rows[1:] if not is_lost(row[None])]
    assert 0 < len(remaining) < COPIES
    wanted = reference_map(by_loops(model, LEFT, 0.5, kept), model.relu, (x,), remaining, 2)
    assert close(found[0] / found.norm(), wanted / wanted.norm(), 1e-9)  # the others count as 0: another scale
    lost = DetectedBox(model, LEFT, predictions=lambda o, x: read(o, x)._replace(boxes=READ(o, x).boxes + 100))
    with clean_rows_at(0):
        scores = lost(x)
    assert torch.equal(scores, model(x)["logits"].amin(1))
    assert not torch.autograd.grad(scores.sum(), model.conv.weight)[0].any()


def test_examples_have_their_own_boxes_and_labels() -> None:
    model, x = Detector(), images(3).double()
    boxes, labels = torch.stack([LEFT, RIGHT, LEFT]), [1, 0, 2]
    score = DetectedBox(model, predictions=READ)
    together = explained(score, model, x, labels, boxes)[0]
    for number in range(3):
        one = x[number : number + 1]
        alone = explained(score, model, one, labels[number], boxes[number : number + 1])[0]
        shared = explained(DetectedBox(model, boxes[number], predictions=READ), model, one, labels[number])[0]
        assert close(together[number], alone[0], 1e-9) and torch.equal(alone, shared)
    assert not close(explained(score, model, x, labels, boxes.roll(1, 0))[0], together, 0.01)


def test_among_predictions_of_the_box_the_most_confident_counts_and_its_whole_row() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 8], [0, 0, 4, 7], [4, 0, 8, 8]]])
    logits = torch.tensor([[[0.0, 1.0], [3.0, -1.0], [9.0, 9.0]]])

    def read(output: Tensor, x: Tensor) -> Predictions:
        return Predictions(boxes, logits, logits.sigmoid().amax(2))

    x = torch.zeros(1, 1, 8, 8)
    assert torch.equal(DetectedBox(nn.Identity(), LEFT, 0.5, read)(x), logits[:, 1])
    assert torch.equal(DetectedBox(nn.Identity(), LEFT, 0.9, read)(x), logits[:, 0])
    assert torch.equal(DetectedBox(nn.Identity(), RIGHT, 0.5, read)(x), logits[:, 2])
    assert torch.allclose(LogOdds(DetectedBox(nn.Identity(), LEFT, 0.5, read))(x), torch.tensor([[4.0, -4.0]]))


def test_boxes_of_infinite_size_are_no_candidates() -> None:
    boxes = torch.tensor([[[0.0, 0, math.inf, math.inf], [0, 0, 4, 8], [math.nan] * 4]])
    logits = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [-9.0, -9.0]]])
    score = DetectedBox(nn.Identity(), LEFT, predictions=lambda o, x: Predictions(boxes, logits, torch.ones(1, 3)))
    assert torch.equal(score(torch.zeros(1, 1, 8, 8)), logits[:, 1])


def test_a_box_without_a_prediction_for_the_clean_input_is_refused_by_name() -> None:
    model, x, nowhere = Detector(), images(2).double(), torch.tensor([[0.0, 0, 4, 8], [0.0, 0, 2, 2]])
    output = model(x[1:])
    places = [(8 * p).tolist() for p in output["pred_boxes"][0]]
    best = max(iou((a - w / 2, b - h / 2, a + w / 2, b + h / 2), (0, 0, 2, 2)) for a, b, w, h in places)
    message = rf"^box: expected .*IoU of at least 0.5, found a best IoU of {best:.2f} \(row "
    score = DetectedBox(model, predictions=READ)
    for method in (LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, LayerGradCam):
        with pytest.raises(ValueError, match=message):
            method(score, model.relu).attribute(x, 1, nowhere)
    with pytest.raises(ValueError, match=message):
        score(x, nowhere)


def test_exact_derivatives_are_those_of_the_closed_form_where_the_detector_is_piecewise_linear() -> None:
    model, x = Detector(), images(1).double()
    score = DetectedBox(model, LEFT, predictions=READ)
    maps = [
        LayerGradCamPlusPlus(score, model.relu).attribute(x, 1, derivatives=derivatives)
        for derivatives in ("closed_form", "exact")
    ]
    assert maps[0].any() and close(maps[1], maps[0], 1e-6)


def parts(**other: Any) -> Any:
    found = {"boxes": LEFT.expand(2, 3, 4), "logits": torch.ones(2, 3, 2), "confidence": torch.ones(2, 3), **other}
    return lambda output, x: Predictions(**found)


MISTAKES: list[Mistake] = [
    (lambda: DetectedBox(ConvNet(), [1, 2, 3, 4]), "box"),  # type: ignore[arg-type]
    (lambda: DetectedBox(ConvNet(), LEFT, 0), "iou_threshold"),
    (lambda: DetectedBox(ConvNet(), LEFT, 1.5), "iou_threshold"),
    (lambda: DetectedBox(ConvNet(), LEFT, "a"), "iou_threshold"),  # type: ignore[arg-type]
    (lambda: DetectedBox(ConvNet(), LEFT, predictions=3), "predictions"),  # type: ignore[arg-type]
    (lambda: DetectedBox(ConvNet(), predictions=parts())(images()), "additional_forward_args"),
    (lambda: DetectedBox(ConvNet(), predictions=parts())(images(), LEFT.expand(3, 4)), "box"),
    (lambda: DetectedBox(ConvNet(), LEFT[:3], predictions=parts())(images()), "box"),
    (lambda: DetectedBox(ConvNet(), LEFT.flip(0), predictions=parts())(images()), "box"),
    (lambda: DetectedBox(ConvNet(), RIGHT, predictions=parts())(images()), "box"),
    (lambda: DetectedBox(ConvNet(), LEFT, predictions=parts(boxes=LEFT.expand(2, 2, 4)))(images()), "predictions"),
    (lambda: DetectedBox(ConvNet(), LEFT, predictions=parts(logits=torch.ones(2, 3)))(images()), "predictions"),
    (lambda: DetectedBox(ConvNet(), LEFT, predictions=parts(confidence=torch.ones(3)))(images()), "predictions"),
    (lambda: DetectedBox(ConvNet(), LEFT)(images()), "predictions"),
    (lambda: DetectedBox(lambda x: [{"boxes": x}], LEFT)(images()), "predictions"),
    (lambda: DetectedBox(Detector(), LEFT)(images().double()), "predictions"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
