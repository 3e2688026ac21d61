"""Outputs in the forms of Ultralytics and Hugging Face are recognized and read: of stand-ins, and of small models of
transformers."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _asserts import Mistake, close, is_named
from networks import images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.scores import DetectedBox, OutputEntry, detr_predictions, yolo_predictions

CLASSES, PLACES = 3, 16


class Head(nn.Module):
    """Boxes in pixels, centers and sizes, and class logits, from images (N, 2, 8, 8)."""

    def __init__(self, columns: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.relu = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
            self.out = nn.Conv2d(4, 4 + columns, 3, 2, 1)
        rows, columns_ = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        self.register_buffer("centers", torch.stack([2 * columns_.flatten() + 1, 2 * rows.flatten() + 1], 1).double())
        self.double().eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.out(self.relu(x)).flatten(2).mT  # (N, 16, 4 + C)
        centers, sizes = self.centers + 0.1 * found[..., :2], 3 + found[..., 2:4].tanh()
        return torch.cat([centers, sizes], 2), 2 * found[..., 4:]


class Yolo(nn.Module):
    """As `ultralytics.nn.tasks.DetectionModel` in evaluation mode: `(N, 4 + C, anchors)`, and what its layers gave.
    `more` rows follow: angles, or mask coefficients, which come with their prototypes in a tuple of their own."""

    def __init__(self, alone: bool = False, more: int = 0, nested: bool = False, named: bool = False) -> None:
        super().__init__()
        self.head, self.alone, self.more, self.nested = Head(), alone, more, nested
        if named:
            self.names = {0: "bus", 1: "car", 2: "dog"}

    def forward(self, x: Tensor) -> Any:
        boxes, logits = self.head(x)
        coefficients = boxes[..., :1].sigmoid().expand(-1, -1, self.more)
        found = torch.cat([boxes, logits.sigmoid(), coefficients], 2).mT
        first = (found, found.new_ones(len(x), self.more, 4, 4)) if self.nested else found
        return first if self.alone else (first, {"feats": [found]})


class Detr(nn.Module):
    """As `transformers.DetrForObjectDetection`, with a class for no object, or as its successors without one."""

    def __init__(self, no_object: bool, configured: bool = True) -> None:
        super().__init__()
        self.head = Head(CLASSES + no_object)
        if configured:
            self.config = SimpleNamespace(num_labels=CLASSES)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        boxes, logits = self.head(pixel_values)
        return {"logits": logits, "pred_boxes": boxes / 8, "last_hidden_state": logits}


def corners(box: Tensor) -> Tensor:
    x, y, w, h = box.unbind(-1)
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).detach()


def check_is_explained(wrapper: DetectedBox, head: Head, confidence: Any) -> None:
    """For the box of the most confident prediction of each example, the map is that of its logit."""
    x = images().double()
    boxes, logits = head(x)
    place = confidence(logits).argmax(1)
    own = corners(boxes[[0, 1], place])
    assert torch.allclose(wrapper(x, own), logits[[0, 1], place], rtol=1e-9)
    found = LayerGradCamPlusPlus(wrapper, head.relu).attribute(x, [1, 2], own)
    wanted = LayerGradCamPlusPlus(lambda x: head(x)[1][[0, 1], place], head.relu).attribute(x, [1, 2])
    assert wanted.any() and close(found, wanted, 1e-9)


@pytest.mark.parametrize("alone", [True, False], ids=["tensor", "tuple"])
def test_ultralytics(alone: bool) -> None:
    model = Yolo(alone)
    check_is_explained(DetectedBox(model), model.head, lambda z: z.sigmoid().amax(2))


def test_ultralytics_with_mask_coefficients_after_the_classes() -> None:
    model = Yolo(more=2)
    read = partial(yolo_predictions, classes=CLASSES)
    check_is_explained(DetectedBox(model, predictions=read), model.head, lambda z: z.sigmoid().amax(2))


@pytest.mark.parametrize("nested", [True, False], ids=["masks", "angles"])
def test_the_names_of_a_network_of_ultralytics_tell_where_its_classes_end(nested: bool) -> None:
    """Also where what follows could be probabilities, as angles and coefficients in [0, 1] could."""
    model = Yolo(more=2, nested=nested, named=True)
    check_is_explained(DetectedBox(model), model.head, lambda z: z.sigmoid().amax(2))


def test_hugging_face_with_a_class_for_no_object() -> None:
    model = Detr(no_object=True)
    confidence = lambda z: z.softmax(2)[..., :-1].amax(2)  # noqa: E731
    check_is_explained(DetectedBox(model), model.head, confidence)
    read = partial(detr_predictions, no_object=True)
    other = Detr(no_object=True, configured=False)
    check_is_explained(DetectedBox(other, predictions=read), other.head, confidence)


def test_hugging_face_without_one() -> None:
    model = Detr(no_object=False)
    check_is_explained(DetectedBox(model), model.head, lambda z: z.sigmoid().amax(2))


def test_the_class_for_no_object_is_no_confidence() -> None:
    logits = torch.tensor([[[0.0, 1, 9], [0.0, 3, 1]]])
    output = {"logits": logits, "pred_boxes": torch.tensor([[[0.5, 0.5, 1, 1], [0.5, 0.25, 1, 0.5]]])}
    found = detr_predictions(output, torch.zeros(1, 3, 10, 20), no_object=True)
    assert torch.allclose(found.confidence, logits.softmax(2)[..., 1])
    assert found.boxes.tolist() == [[[0, 0, 20, 10], [0, 0, 20, 5]]]
    assert torch.equal(found.logits, logits)
    assert torch.allclose(
        detr_predictions(output, torch.zeros(1, 3, 10, 20), no_object=False).confidence, logits.amax(2).sigmoid()
    )
    original = {"pred_logits": logits, "pred_boxes": output["pred_boxes"]}
    as_object = SimpleNamespace(**original)
    for form in (original, as_object):
        assert all(
            torch.equal(a, b)
            for a, b in zip(detr_predictions(form, torch.zeros(1, 3, 10, 20), no_object=True), found, strict=True)
        )


def test_saturated_probabilities_have_finite_logits_and_the_right_gradient() -> None:
    z = torch.tensor([[-90.0, -30.0, -3.0, 3.0, 12.0, 30.0]]).requires_grad_()
    output = torch.cat([torch.ones(1, 4, 6), z[:, None].sigmoid()], 1)
    logits = yolo_predictions(output, torch.ones(1, 3, 8, 8)).logits[..., 0]
    (g,) = torch.autograd.grad(logits.sum(), z)
    assert logits.isfinite().all() and torch.allclose(logits[0, 2:5], z[0, 2:5], rtol=1e-2)
    assert torch.allclose(g[0, 2:5], torch.ones(3), rtol=1e-2) and g.isfinite().all()


def detr_of_transformers(family: str) -> nn.Module:
    """A small one with random weights, for 4 labels."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    parts = ("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone_config=transformers.ResNetConfig(**sizes, out_features=["stage2"]),
            d_model=16,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=7,
            num_labels=4,
            **dict.fromkeys(parts, 1),
        )
        return getattr(transformers, f"{family}ForObjectDetection")(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize("family, no_object", [("Detr", True), ("ConditionalDetr", False)])
def test_detectors_of_transformers(family: str, no_object: bool) -> None:
    model, x = detr_of_transformers(family), torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        output = model(x)
    confidence = output.logits.softmax(2)[..., :-1] if no_object else output.logits.sigmoid()
    query = confidence.amax(2).argmax(1)
    boxes = corners(output.pred_boxes[[0, 1], query] * torch.tensor([48, 32, 48, 32]))
    assert output.logits.shape[2] == 4 + no_object
    layer = next(module for name, module in model.named_modules() if name.endswith("encoder.stages.1"))
    found = LayerGradCamPlusPlus(DetectedBox(model), layer).attribute(x, 2, boxes)
    raw = OutputEntry(model, "logits")
    wanted = LayerGradCamPlusPlus(lambda x: raw(x)[[0, 1], query], layer).attribute(x, 2)
    assert wanted.any() and close(found, wanted)
    with pytest.raises(TypeError, match=rf"found {family}ObjectDetectionOutput; .*DetectedBox\(model\)"):
        LayerGradCamPlusPlus(model, layer).attribute(x, 2)


def read_yolo(output: Any) -> Any:
    return lambda: yolo_predictions(output, torch.ones(1, 3, 8, 8))


MISTAKES: list[Mistake] = [
    (read_yolo(torch.ones(2, 4, 10)), "model"),
    (read_yolo(torch.ones(2, 84)), "model"),
    (read_yolo([None]), "model"),
    (read_yolo(torch.full((1, 300, 6), 2.0)), "model"),  # selected already: x1, y1, x2, y2, score, class
    (lambda: detr_predictions({"logits": torch.ones(1, 2, 3)}, torch.ones(1, 3, 8, 8), no_object=True), "model"),
    (lambda: detr_predictions(torch.ones(1, 2, 3), torch.ones(1, 3, 8, 8), no_object=True), "model"),
    (read_yolo(((),)), "model"),
    (read_yolo(torch.cat([torch.ones(1, 7, 10), torch.full((1, 2, 10), 3.0)], 1)), "model"),  # coefficients follow
    (lambda: DetectedBox(Detr(True, configured=False))(images().double(), torch.ones(2, 4)), "predictions"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
