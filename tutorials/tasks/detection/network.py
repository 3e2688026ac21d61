"""A small RetinaNet: the convolutions of the bundled network, and torchvision's heads on their maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import batched_nms, masks_to_boxes

from captum_sgcampp.bundled import CLASSES, Scene, load_shapes_vgg
from captum_sgcampp.bundled.network import MEAN, STD
from captum_sgcampp.bundled.scenes import SIZE
from captum_sgcampp.scores import Predictions
from captum_sgcampp.scores.torchvision_detectors import torchvision_predictions
from tasks.training import load

WEIGHTS = Path(__file__).with_name("detection.safetensors")
LAYER = "backbone.16"  # the ReLU of the backbone's last convolution, 48 maps of 16 x 16

_CHANNELS = 48
_ANCHORS = ((20, 30, 44),)  # sides in pixels, at each position
_THRESHOLD = 0.5  # of the score, for a box to be returned


def new_detector() -> RetinaNet:
    """From images `(N, 3, 128, 128)` in [0, 1] to boxes, labels (numbers in `CLASSES`) and scores.

    RetinaNet (Lin et al., https://arxiv.org/abs/1708.02002) with one level of maps and no normalization layers, so that
    all that follows a layer is piecewise linear. The convolutions start as the bundled network's, the heads as new.
    """
    backbone = nn.Sequential(*load_shapes_vgg().features[:15], nn.Conv2d(96, _CHANNELS, 3, padding=1), nn.ReLU())
    backbone.out_channels = _CHANNELS  # type: ignore[assignment]
    detector = RetinaNet(
        backbone,
        len(CLASSES),
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
        anchor_generator=AnchorGenerator(_ANCHORS, ((1.0,),)),
        score_thresh=_THRESHOLD,
    )
    for layer in _hidden(detector):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return detector


def _hidden(detector: RetinaNet) -> Iterator[nn.Conv2d]:
    """The heads' convolutions before a ReLU."""
    for head in (detector.head.classification_head, detector.head.regression_head):
        yield from (layer for layer in head.conv.modules() if isinstance(layer, nn.Conv2d))


def load_detector(path: Path = WEIGHTS) -> RetinaNet:
    """The trained network, on the CPU, in float32 and in evaluation mode."""
    network = new_detector()
    load(network, path)
    return network


def inputs(scenes: Sequence[Scene]) -> Tensor:
    """Scenes as the network's input, `(N, 3, 128, 128)` in [0, 1]."""
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255


def object_boxes(scene: Scene) -> Tensor:
    """The boxes around the objects, `(objects, 4)`: (x1, y1, x2, y2) in pixels, from edge to edge."""
    return masks_to_boxes(torch.from_numpy(scene.masks)) + torch.tensor([0, 0, 1, 1])


class ByIndex(nn.Module):
    """The class logits `(N, C)` of the box that has a place in the detector's own order: the most confident first,
    after non-maximum suppression. What `DetectedBox` is compared with: noise changes the order.

    Args:
        detector: whose boxes are sorted.
        place: from 0.
    """

    def __init__(self, detector: RetinaNet, place: int) -> None:
        super().__init__()
        self.detector, self.place = detector, place

    def forward(self, images: Tensor) -> Tensor:
        found = torchvision_predictions(self.detector, images)
        return found.logits[torch.arange(len(images)), in_order(self.detector, found, self.place)]


def in_order(detector: RetinaNet, found: Predictions, place: int) -> Tensor:
    """In each image the number of the prediction that the detector returns at a place from 0, `(N,)`."""
    labels = found.logits.detach().argmax(2)
    rows = zip(found.boxes, found.confidence, labels, strict=True)
    return torch.stack([batched_nms(*row, detector.nms_thresh)[place] for row in rows])
