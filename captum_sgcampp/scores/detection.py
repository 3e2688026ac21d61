"""The scores of one box of a detector, followed through the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from captum_sgcampp.checks import check_positive
from captum_sgcampp.model.clean_rows import is_clean
from captum_sgcampp.scores.predictions import Predictions, recognized_predictions
from captum_sgcampp.scores.torchvision_detectors import DETECTORS, torchvision_predictions
from captum_sgcampp.scores.wrapped import Wrapped

ReadPredictions = Callable[[Any, Tensor], Predictions]


class DetectedBox(Wrapped):
    r"""
    The class logits that a detector gives to the object in a box, `(N, C)`: `target` is the label. The box is followed
    through the noise by its place. By index it would not be: the first box of a noisy sample is another box.

    In every row, the prediction of the largest IoU times confidence is taken, among those whose IoU with the box is at
    least `iou_threshold`. Which one is taken is not differentiated. Predictions are those before non-maximum
    suppression, all anchors or queries: a detection that a sample lost would leave no score to differentiate.

    - **Torchvision** (Faster, Mask, Keypoint R-CNN, RetinaNet, FCOS, SSD, SSDlite): give the detector itself. `target`
      is a label as the detector returns it, and the scores are logits before softmax or sigmoid. Images are `(N, 3, H,
      W)` in [0, 1].
    - **Hugging Face** (DETR and successors) and **Ultralytics** (YOLO, `YOLO(...).model` in evaluation mode): give the
      network, whose output is recognized.
    - **Others**: give `predictions`.

    Where no prediction for the clean input overlaps enough, there is nothing to explain: an error names the best IoU.
    Noise moves boxes, so that a noisy sample may have none either. Then the one of the largest IoU is taken: its score
    is low where the object is hidden, and so is the sample's weight `exp(S)`. If none touches the box, the score is the
    lowest of any prediction for the class, with a zero gradient: the sample adds nothing. Methods of Captum itself do
    not say which rows are clean, and every row must have the box.

    Args:

        model (Callable): Detector.
        box (Tensor, optional): `(4,)`: (x1, y1, x2, y2) in pixels of the input, shared by all examples.
                    Default: None, `(N, 4)` follows as the last of the additional arguments
        iou_threshold (float, optional): Least IoU of a prediction for the clean input with the box. Default: 0.5
        predictions (Callable, optional): A function of the model's output and its images that gives `Predictions`:
                    `yolo_predictions`, `detr_predictions` or your own.
                    Default: None, recognized

    Examples::

        >>> backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 16, 1), torch.nn.ReLU())
        >>> backbone.out_channels = 8
        >>> anchors = torchvision.models.detection.anchor_utils.AnchorGenerator(((24,),), ((0.5, 1.0, 2.0),))
        >>> detector = torchvision.models.detection.RetinaNet(
        ...     backbone, num_classes=5, anchor_generator=anchors, score_thresh=0, min_size=64, max_size=64
        ... ).eval()
        >>> photos = torch.rand(2, 3, 64, 64)
        >>> with torch.no_grad():
        ...     detections = detector(photos)
        >>> boxes = torch.stack([found["boxes"][0] for found in detections])
        >>> labels = torch.stack([found["labels"][0] for found in detections])
        >>> method = LayerSmoothGradCamPlusPlus(DetectedBox(detector), backbone[1])
        >>> method.attribute(photos, labels, additional_forward_args=boxes, nt_samples=4).shape
        torch.Size([2, 1, 4, 4])
    """

    box: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        box: Tensor | None = None,
        iou_threshold: float = 0.5,
        predictions: ReadPredictions | None = None,
    ) -> None:
        super().__init__(model)
        self.hold("box", box)
        check_positive("iou_threshold", iou_threshold)
        if iou_threshold > 1:
            raise ValueError(f"iou_threshold: expected at most 1, found {iou_threshold}")
        if predictions is not None and not callable(predictions):
            raise TypeError(f"predictions: expected a function or None, found {type(predictions).__name__}")
        self.iou_threshold = float(iou_threshold)
        self.predictions = predictions

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, C)`."""
        arguments, box = self.split("box", self.box, arguments)
        found = self._read(arguments)
        _check_predictions(found)
        overlap = _overlap(found.boxes.detach(), box)
        largest = overlap.amax(1, keepdim=True)
        self._check_clean(largest[:, 0])
        inside = overlap >= largest.clamp_max(self.iou_threshold)
        best = (overlap * found.confidence.detach()).masked_fill(~inside, -1.0).argmax(1)
        scores = found.logits[torch.arange(len(best), device=best.device), best]
        return torch.where(largest > 0, scores, found.logits.detach().amin(1))

    def _read(self, arguments: tuple[Any, ...]) -> Predictions:
        if self.predictions is None and isinstance(self.model, DETECTORS):
            return torchvision_predictions(self.model, *arguments)
        output = self.model(*arguments)
        if self.predictions is None:
            return recognized_predictions(self.model, output, arguments[0])
        return self.predictions(output, arguments[0])

    def _check_clean(self, largest: Tensor) -> None:
        best = largest.cpu().masked_fill(~is_clean(len(largest)), 1.0)
        if bool((best < self.iou_threshold).any()):
            raise ValueError(
                f"box: expected (x1, y1, x2, y2) in pixels of the input, on which a prediction lies with an IoU of at "
                f"least {self.iou_threshold}, found a best IoU of {float(best.min()):.2f} (row {int(best.argmin())})"
            )


def _check_predictions(found: Predictions) -> None:
    rows, count = found.logits.shape[:2]
    shapes = tuple(tuple(x.shape) for x in found)
    if found.logits.dim() != 3 or shapes[0] != (rows, count, 4) or shapes[2] != (rows, count) or count == 0:
        raise ValueError(
            f"predictions: expected boxes (N, Q, 4), logits (N, Q, C) and confidence (N, Q), found shapes {shapes}"
        )


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """IoU of each row's predictions with the row's box, `(N, Q)`."""
    if box.shape not in ((4,), (1, 4), (len(boxes), 4)):
        raise ValueError(f"box: expected shape (4,) or ({len(boxes)}, 4), found {tuple(box.shape)}")
    empty = (box[..., 2:] <= box[..., :2]).any(-1)
    if bool(empty.any()):
        raise ValueError(f"box: expected (x1, y1, x2, y2) with x1 < x2 and y1 < y2, found {box[empty][0].tolist()}")
    own = box.to(boxes).expand(len(boxes), 4)
    overlap = torch.stack([box_iou(row, one[None])[:, 0] for row, one in zip(boxes, own, strict=True)])
    return overlap.nan_to_num(0)  # of boxes of infinite size
