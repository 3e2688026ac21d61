"""Of every family of torchvision's detectors, the raw predictions hold what the detector returns, and the map of a
returned box is that of the returned score, by plain autograd through the detector's own selection."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from _asserts import Mistake, close, is_named
from calls import smooth
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.scores import DetectedBox, LogOdds
from captum_sgcampp.scores.torchvision_detectors import torchvision_predictions

CLASSES = 5
SIZE = {"min_size": 64, "max_size": 96}  # images are resized


class Backbone(nn.Sequential):
    """A small network; the last ReLU is the layer."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 32, 1)
        )


class BackboneOfMaps(nn.Module):
    """The same in the form that SSD takes."""

    out_channels = (32,)

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone()

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict([("0", self.body(x))])


def regions(size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(["0"], size, 2)


def of_regions(make: Any, **more: Any) -> Any:
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    return make(
        Backbone(),
        rpn_anchor_generator=anchors,
        rpn_post_nms_top_n_test=30,
        box_roi_pool=regions(7),
        box_head=TwoMLPHead(32 * 49, 16),
        box_predictor=FastRCNNPredictor(16, CLASSES),
        box_score_thresh=0.0,
        box_detections_per_img=4,
        **SIZE,
        **more,
    )


def of_boxes(**more: Any) -> Any:
    generator = DefaultBoxGenerator([[2, 3]], scales=[0.3, 0.6])
    return SSD(BackboneOfMaps(), generator, (64, 80), CLASSES, score_thresh=0.0, **more)


def of_light_boxes() -> Any:
    anchors = DefaultBoxGenerator([[2, 3]], scales=[0.3, 0.6]).num_anchors_per_location()
    return of_boxes(head=SSDLiteHead([32], anchors, CLASSES, nn.BatchNorm2d))


def of_points(make: Any, aspects: tuple[float, ...]) -> Any:
    anchors = AnchorGenerator(((16,),), (aspects,))
    return make(Backbone(), CLASSES, anchor_generator=anchors, score_thresh=0.0, **SIZE)


def with_masks() -> Any:
    head, predictor = MaskRCNNHeads(32, (8,), 1), MaskRCNNPredictor(8, 8, CLASSES)
    return of_regions(detection.MaskRCNN, mask_roi_pool=regions(14), mask_head=head, mask_predictor=predictor)


def with_keypoints() -> Any:
    head, predictor = KeypointRCNNHeads(32, (8,)), KeypointRCNNPredictor(8, 3)
    more = {"keypoint_head": head, "keypoint_predictor": predictor}
    return of_regions(detection.KeypointRCNN, keypoint_roi_pool=regions(14), **more)


FAMILIES: dict[str, Callable[[], Any]] = {
    "faster_rcnn": lambda: of_regions(detection.FasterRCNN),
    "mask_rcnn": with_masks,
    "keypoint_rcnn": with_keypoints,
    "retinanet": lambda: of_points(detection.RetinaNet, (0.5, 1.0, 2.0)),
    "fcos": lambda: of_points(detection.FCOS, (1.0,)),
    "ssd": of_boxes,
    "ssdlite": of_light_boxes,
}


def build(family: str) -> Any:
    """In float64, with random weights, and class scores that differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FAMILIES[family]().double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"(cls_logits|cls_score|classification_head\.module_list\.\d(\.1)?)\.weight$", name):
                parameter *= 10
        if family == "fcos":  # boxes with an area
            model.head.regression_head.bbox_reg.bias += 1
    return model


def photos(examples: int = 2) -> Tensor:
    return torch.rand(examples, 3, 48, 60, generator=torch.Generator().manual_seed(0)).double()


def layer_of(model: Any) -> nn.Module:
    body: Backbone = getattr(model.backbone, "body", model.backbone)
    return body[3]


def strongest(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The box (1, 4) of the highest score, its label (1,) and the score, as the detector returns them, with a graph."""
    (found,) = model(list(x))
    first = found["scores"].argmax()
    return found["boxes"][first][None].detach(), found["labels"][first][None], found["scores"][first]


def logit_of(model: Any, score: Tensor, x: Tensor) -> Tensor:
    """The logit of what was returned. FCOS returns the root of the class's times the center's probability: there it is
    the class logit whose score this is."""
    if not isinstance(model, detection.FCOS):
        return torch.logit(score)
    head = model.head(list(model.backbone(model.transform(x)[0].tensors).unsqueeze(0)))
    scores = (head["cls_logits"].sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt()
    place = (scores - score).abs().flatten().argmin()
    return head["cls_logits"].flatten()[place]


def map_by_hand(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The box and label of the strongest detection of one image, and the map of its score."""
    kept: list[Tensor] = []
    handle = layer_of(model).register_forward_hook(lambda module, args, output: kept.append(output))
    box, label, score = strongest(model, x)
    value = logit_of(model, score, x)
    handle.remove()
    a = kept[-1]
    (g,) = torch.autograd.grad(value, a)
    alpha = torch.where(g != 0, 1 / (2 + g * a.sum((2, 3), keepdim=True)), 0)
    return box, label, ((alpha * g.clamp_min(0)).sum((2, 3), keepdim=True) * a).sum(1, keepdim=True).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_map_of_a_returned_box_is_that_of_its_returned_score(family: str) -> None:
    model, x = build(family), photos()
    truth = [map_by_hand(model, x[i : i + 1]) for i in range(2)]
    boxes, labels, maps = (torch.cat(parts) for parts in zip(*truth, strict=True))
    has_softmax = family not in ("retinanet", "fcos")  # whose logit is the class's log-odds
    score = DetectedBox(model)
    found = LayerGradCamPlusPlus(LogOdds(score) if has_softmax else score, layer_of(model)).attribute(x, labels, boxes)
    assert maps.any() and close(found, maps, 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_raw_predictions_hold_the_returned_detections(family: str) -> None:
    model, x = build(family), photos()
    raw = torchvision_predictions(model, x)
    assert raw.logits.requires_grad and not raw.boxes.requires_grad and not raw.confidence.requires_grad
    for number in range(2):
        box, label, score = strongest(model, x[number : number + 1])
        place = int(raw.confidence[number].argmax())
        assert torch.allclose(raw.confidence[number, place], score)
        assert torch.allclose(raw.boxes[number, place], box[0])
        start = 0 if family in ("retinanet", "fcos") else 1  # the background
        assert int(raw.logits[number, place, start:].argmax()) + start == int(label)


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_follow_their_examples_through_the_noise(family: str) -> None:
    model, x = build(family), photos()
    found = [strongest(model, x[i : i + 1])[:2] for i in range(2)]
    boxes, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    options = {"stdevs": 0.05, "nt_samples": 4, "nt_samples_batch_size": 2}
    score, layer = DetectedBox(model, iou_threshold=0.4), layer_of(model)
    together = smooth(score, layer, x, labels, additional_forward_args=boxes, **options)
    alone = [
        smooth(score, layer, x[i : i + 1], labels[i : i + 1], additional_forward_args=boxes[i : i + 1], **options)
        for i in range(2)
    ]
    assert all(one.any() for one in alone) and close(together, torch.cat(alone), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"]
)
def test_torchvisions_own_networks_are_explained(name: str) -> None:
    threshold = "box_score_thresh" if "rcnn" in name else "score_thresh"
    make = getattr(detection, name)
    model = make(weights=None, weights_backbone=None, num_classes=CLASSES, **SIZE, **{threshold: 0.0}).eval()
    x = photos().float()
    with torch.no_grad():
        raw = torchvision_predictions(model, x).boxes
    sides = raw[..., 2:] - raw[..., :2]
    boxes = raw[[0, 1], sides.prod(2).argmax(1)]
    layer = list(model.backbone.body.values())[-1]
    found = smooth(DetectedBox(model), layer, x, 1, additional_forward_args=boxes, nt_samples=2, stdevs=0.01)
    assert found.shape[:2] == (2, 1) and found.isfinite().all()


MISTAKES: list[Mistake] = [
    (lambda: DetectedBox(build("ssd").train(), torch.tensor([1.0, 1, 9, 9]))(photos()), "model"),
    (lambda: DetectedBox(lambda x: build("ssd")(x), torch.tensor([1.0, 1, 9, 9]))(photos()), "predictions"),
    (lambda: DetectedBox(build("ssd"), torch.tensor([-90.0, -90, -80, -80]))(photos()), "box"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
