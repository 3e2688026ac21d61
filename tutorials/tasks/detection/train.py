"""Trains the detector from the bundled network and a seed. In `tutorials`:

python -m tasks.detection.train --seed 0 --out detection.safetensors
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.ops import box_iou

from captum_sgcampp.bundled import Scene, draw_scene
from tasks.detection.network import inputs, new_detector, object_boxes
from tasks.training import Settings, fit, run

DEFAULT = Settings(steps=150, batch_size=16, learning_rate=1e-3)
IOU = 0.5  # from which a box is that of an object

_FROZEN = 9  # modules of the backbone that stay as they are


def train(settings: Settings = DEFAULT, report: Callable[[str], None] = print) -> RetinaNet:
    """A network trained from the bundled one, in evaluation mode. PyTorch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        detector = new_detector()
        detector.backbone[:_FROZEN].requires_grad_(False)
        fit(detector, lambda seeds: _losses(detector, [draw_scene(seed) for seed in seeds]), settings, report)
    return detector.requires_grad_(True).eval()


def _losses(detector: RetinaNet, scenes: Sequence[Scene]) -> Tensor:
    """Of classes and of boxes."""
    truth = [{"boxes": object_boxes(scene), "labels": torch.tensor(scene.classes)} for scene in scenes]
    found = detector(list(inputs(scenes)), truth)
    return torch.stack([found["classification"], found["bbox_regression"]])


@torch.no_grad()
def judged(detector: RetinaNet, seeds: Sequence[int]) -> tuple[float, float]:
    """Share of the objects that a box of their class finds and of boxes that find one."""
    recalled: list[bool] = []
    precise: list[bool] = []
    for start in range(0, len(seeds), 50):
        scenes = [draw_scene(seed) for seed in seeds[start : start + 50]]
        for scene, found in zip(scenes, detector(list(inputs(scenes))), strict=True):
            same = torch.tensor(scene.classes)[:, None] == found["labels"]
            hits = (box_iou(object_boxes(scene), found["boxes"]) >= IOU) & same
            recalled += hits.any(1).tolist()
            precise += hits.any(0).tolist()
    return float(np.mean(recalled)), float(np.mean(precise))


def accuracy(detector: RetinaNet, seeds: Sequence[int]) -> float:
    """Share of the objects that are found."""
    return judged(detector, seeds)[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save and judge."""
    run(train, accuracy, DEFAULT, __doc__, argv)


if __name__ == "__main__":
    main()
