"""What torchvision's detectors predict before non-maximum suppression.

In evaluation mode they return selected detections, and scores after a softmax or sigmoid. Here their parts are called
in the same order up to the logits and boxes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from captum_sgcampp.scores.predictions import Predictions

DETECTORS = (GeneralizedRCNN, RetinaNet, FCOS, SSD)


def torchvision_predictions(model: Any, images: Tensor) -> Predictions:
    """All predictions of one of DETECTORS, with the background's column 0 where the labels begin at 1.

    Args:
        model: in evaluation mode.
        images: `(N, 3, H, W)` in [0, 1]; the detector resizes and normalizes them.
    """
    if model.training:
        raise ValueError("model: expected a detector in evaluation mode, found one in training mode")
    resized, _ = model.transform(images)
    features = model.backbone(resized.tensors)
    if isinstance(features, Tensor):
        features = OrderedDict([("0", features)])
    predict = _of_proposals if isinstance(model, GeneralizedRCNN) else _of_anchors
    boxes, logits, confidence = predict(model, resized, features)
    (height, width), (now_high, now_wide) = images.shape[-2:], resized.image_sizes[0]
    scale = boxes.new_tensor([width / now_wide, height / now_high] * 2)
    return Predictions(clip_boxes_to_image(boxes, (now_high, now_wide)) * scale, logits, confidence)


def _of_anchors(model: Any, resized: Any, features: dict[str, Tensor]) -> Predictions:
    """RetinaNet, FCOS and SSD: one prediction for each anchor."""
    maps = list(features.values())
    head = model.head(maps)
    logits, codes = head["cls_logits"], head["bbox_regression"].detach()
    decode = model.box_coder.decode if isinstance(model, FCOS) else model.box_coder.decode_single
    anchors = model.anchor_generator(resized, maps)
    boxes = torch.stack([decode(code, own) for code, own in zip(codes, anchors, strict=True)])
    if isinstance(model, SSD):
        return Predictions(boxes, logits, _foreground(logits.detach()).amax(2))
    confidence = logits.detach().amax(2).sigmoid()
    if isinstance(model, FCOS):
        confidence = (confidence * head["bbox_ctrness"].detach()[..., 0].sigmoid()).sqrt()
    return Predictions(boxes, logits, confidence)


def _of_proposals(model: Any, resized: Any, features: dict[str, Tensor]) -> Predictions:
    """Faster, Mask and Keypoint R-CNN: one prediction for each proposal, in the box of its most probable class. Rows
    with fewer proposals are filled up with empty boxes."""
    proposals, _ = model.rpn(resized, features)
    heads = model.roi_heads
    pooled = heads.box_roi_pool(features, proposals, resized.image_sizes)
    logits, codes = heads.box_predictor(heads.box_head(pooled))
    probability, label = _foreground(logits.detach()).max(1)
    every_class = heads.box_coder.decode(codes.detach(), proposals)
    boxes = every_class[torch.arange(len(label), device=label.device), label + 1]
    counts = [len(own) for own in proposals]
    return Predictions(*(pad_sequence(list(x.split(counts)), batch_first=True) for x in (boxes, logits, probability)))


def _foreground(logits: Tensor) -> Tensor:
    """Probabilities without the background's, class 0."""
    return logits.softmax(-1)[..., 1:]
