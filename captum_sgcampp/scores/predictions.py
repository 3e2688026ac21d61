"""What detectors predict before any of it is selected, read from the outputs of several libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_convert

from captum_sgcampp.functional.tensors import at_least_float32


class Predictions(NamedTuple):
    """All predictions of a detector, before non-maximum suppression. `Q` is their number: anchors, queries, proposals.

    Attributes:
        boxes: `(N, Q, 4)`, as (x1, y1, x2, y2) in pixels of the input.
        logits: `(N, Q, C)`, one column for each label that `target` may be.
        confidence: `(N, Q)`, in [0, 1]: how sure the detector is that something is in the box.
    """

    boxes: Tensor
    logits: Tensor
    confidence: Tensor


def yolo_predictions(output: Any, images: Tensor, classes: int | None = None) -> Predictions:
    r"""
    Reads what the YOLO networks of Ultralytics return in evaluation mode: `(N, 4 + C, anchors)`, centers and sizes in
    pixels and then probabilities, alone or first in a tuple, which may be nested. Logits are computed back from the
    probabilities. Angles of turned boxes are not read. A network that selects its detections itself needs
    `network.end2end = False` before.

    Args:

        output (Tensor or tuple): What the model returned.
        images (Tensor): Its input; not used.
        classes (int, optional): Number of classes where the output goes on (mask coefficients, key points, angles).
                    Default: None, all rows but the first four. `DetectedBox` takes the number of the network's `names`

    Returns:
        *Predictions*

    Examples::

        >>> yolo_predictions(torch.rand(2, 4 + 10, 21), torch.rand(2, 3, 32, 32)).logits.shape
        torch.Size([2, 21, 10])
    """
    found = _first(output)
    if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[1] < 5:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"model: expected an output (N, 4 + classes, anchors), found {shape}")
    found = at_least_float32(found).mT
    probabilities = found[..., 4:] if classes is None else found[..., 4 : 4 + classes]
    least, most = (float(end) for end in probabilities.detach().aminmax())
    if least < 0 or most > 1:
        raise ValueError(
            "model: expected probabilities in [0, 1] after the first four rows of (N, 4 + classes, anchors), found "
            f"{least:.3g} to {most:.3g}; give predictions=partial("
            "yolo_predictions, classes=...) where the output goes on after the classes, and set end2end = False where "
            "the network selects its detections"
        )
    logits = torch.logit(probabilities, eps=torch.finfo(found.dtype).eps)
    return Predictions(box_convert(found[..., :4], "cxcywh", "xyxy"), logits, probabilities.amax(2))


def _first(output: Any) -> Any:
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return output


def detr_predictions(output: Any, images: Tensor, *, no_object: bool) -> Predictions:
    r"""
    Reads what DETR and its successors return, in Hugging Face's form: `logits` `(N, queries, C)` and `pred_boxes`, the
    centers and sizes as shares of the image.

    Args:

        output (mapping or object): What the model returned.
        images (Tensor): Its input, `(N, 3, H, W)`.
        no_object (bool): Whether the last class means that there is no object, as in DETR, with a softmax over the
                    classes. Its successors have a sigmoid for each class.

    Returns:
        *Predictions*

    Examples::

        >>> output = {"logits": torch.rand(2, 7, 5), "pred_boxes": torch.rand(2, 7, 4)}
        >>> detr_predictions(output, torch.rand(2, 3, 32, 32), no_object=True).boxes.shape
        torch.Size([2, 7, 4])
    """
    logits, boxes = _entry(output, "logits", "pred_logits"), _entry(output, "pred_boxes")
    height, width = images.shape[-2:]
    probabilities = logits.softmax(2)[..., :-1] if no_object else logits.sigmoid()
    corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
    return Predictions(corners, logits, probabilities.amax(2))


def _entry(output: Any, *names: str) -> Tensor:
    for name in names:
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return at_least_float32(value)
    raise ValueError(f"model: expected an output with {names[0]}, found {type(output).__name__} without it")


def recognized_predictions(model: Any, output: Any, images: Tensor) -> Predictions:
    """By the form of the output. For DETR, the number of labels in the model's configuration tells whether there is a
    class for no object; for YOLO, its names tell where the classes end."""
    if isinstance(output, Mapping) and "pred_boxes" in output and "logits" in output:
        labels = getattr(getattr(model, "config", None), "num_labels", None)
        if labels is not None:
            return detr_predictions(output, images, no_object=output["logits"].shape[2] == labels + 1)
        raise ValueError(
            "predictions: expected partial(detr_predictions, no_object=...) for a model without a configuration, found "
            "None"
        )
    first = _first(output)
    if isinstance(first, Tensor) and first.dim() == 3:
        names = getattr(model, "names", None)  # of the classes, in networks of Ultralytics
        return yolo_predictions(output, images, len(names) if isinstance(names, Mapping | list) else None)
    raise ValueError(
        "predictions: expected a function that reads the model's output, or a detector of torchvision itself, or an "
        f"output of Ultralytics or Hugging Face, found None and {type(output).__name__}"
    )
