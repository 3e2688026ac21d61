"""Measures maps of a detected box against its object, and boxes that are followed against boxes by index.

In `tutorials`:

python -m tasks.detection.measure --out tasks/detection/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.ops import box_iou

from captum_sgcampp.bundled import Scene, draw_scene
from captum_sgcampp.scores import DetectedBox
from captum_sgcampp.scores.torchvision_detectors import torchvision_predictions
from tasks.detection.network import LAYER, ByIndex, in_order, inputs, load_detector, object_boxes
from tasks.detection.train import IOU, judged
from tasks.measuring import (
    METHODS,
    NOISE_LEVEL,
    NT_SAMPLES,
    grad_cam_plus_plus,
    markdown,
    run,
    share,
    smooth_grad_cam_plus_plus,
    upsampled,
    with_interval,
)
from tasks.training import fresh_seeds

UNIFORM = "a uniform map"
BATCH = 10  # scenes in one call
NOISE_LEVELS = (NOISE_LEVEL, 2 * NOISE_LEVEL)

Found = dict[tuple[str, str], list[float]]  # one number per scene, by the method and what is measured


@dataclass(frozen=True)
class Boxes:
    """The first box that the detector returns in each of some scenes, if it is an object's and the scene has others.

    Attributes:
        scenes: of at least two objects each.
        images: the network's input, `(N, 3, H, W)`.
        boxes: `(N, 4)`.
        labels: `(N,)`.
        objects: number of the object in each box.
    """

    scenes: list[Scene]
    images: Tensor
    boxes: Tensor
    labels: Tensor
    objects: list[int]


def measure(count: int) -> str:
    """The page."""
    detector, seeds = load_detector(), fresh_seeds(count)
    found: Found = defaultdict(list)
    for start in range(0, count, BATCH):
        add(found, detector, seeds[start : start + BATCH])
    return page(found, count, *judged(detector, seeds))


def add(found: Found, detector: RetinaNet, seeds: Sequence[int]) -> None:
    """Measure some scenes."""
    first = first_boxes(detector, [draw_scene(seed) for seed in seeds])
    maps = {name: maps_of_boxes(detector, explain, first) for name, explain in METHODS_OF_BOXES.items()}
    maps[UNIFORM] = torch.ones_like(first.images[:, 0])
    for name, of_method in maps.items():
        _add_shares(found, name, first, of_method)
    for noise_level in NOISE_LEVELS:
        _add_noisy(found, noise_level, detector, first)


def page(found: Found, count: int, recall: float, precision: float) -> str:
    """What was measured, in Markdown."""
    title = (
        f"Boxes: {count} fresh scenes, {100 * recall:.1f} % of the objects found, {100 * precision:.1f} % of the boxes"
    )
    measured = f"the {len(found[UNIFORM, 'own'])} scenes that have several objects and whose first box is right"
    return f"# {title} right\n\nMeasured: the first box of each of {measured}.\n\n{_tables(found)}\n"


def first_boxes(detector: RetinaNet, scenes: Sequence[Scene]) -> Boxes:
    """Scenes whose first box has an object's class and place are kept, if they have other objects."""
    images = inputs(scenes)
    with torch.no_grad():
        detections = detector(list(images))
    kept = []
    for number, (scene, found) in enumerate(zip(scenes, detections, strict=True)):
        owner = _owner(scene, found)
        if owner is not None and len(scene.classes) > 1:
            kept.append((number, owner))
    chosen = [number for number, _ in kept]
    return Boxes(
        [scenes[number] for number in chosen],
        images[chosen],
        torch.stack([detections[number]["boxes"][0] for number in chosen]),
        torch.stack([detections[number]["labels"][0] for number in chosen]),
        [owner for _, owner in kept],
    )


def _owner(scene: Scene, found: Mapping[str, Tensor]) -> int | None:
    """The object that the first box finds."""
    if not len(found["boxes"]):
        return None
    overlap = box_iou(object_boxes(scene), found["boxes"][:1])[:, 0]
    best = int(overlap.argmax())
    return best if overlap[best] >= IOU and scene.classes[best] == int(found["labels"][0]) else None


METHODS_OF_BOXES: Mapping[str, Callable[..., list[Tensor]]] = {
    **METHODS,
    "Grad-CAM++, two-sided": partial(grad_cam_plus_plus, two_sided=True),
    "Smooth Grad-CAM++, two-sided": partial(smooth_grad_cam_plus_plus, two_sided=True),
}


def maps_of_boxes(detector: RetinaNet, explain: Callable[..., list[Tensor]], first: Boxes) -> Tensor:
    """Maps of the class scores of boxes that are followed, `(N, H, W)`."""
    maps = explain(DetectedBox(detector), detector.get_submodule(LAYER), first.images, [first.labels], first.boxes)
    return upsampled(maps[0], first.images.shape[2:])


def maps_by_index(detector: RetinaNet, noise_level: float, first: Boxes) -> Tensor:
    """Smooth maps of the class scores of whatever box is the first, `(N, H, W)`."""
    layer = detector.get_submodule(LAYER)
    by_index = ByIndex(detector, 0)
    maps = smooth_grad_cam_plus_plus(by_index, layer, first.images, [first.labels], None, noise_level=noise_level)
    return upsampled(maps[0], first.images.shape[2:])


def _add_shares(found: Found, method: str, first: Boxes, maps: Tensor) -> None:
    for scene, own, map_ in zip(first.scenes, first.objects, maps, strict=True):
        for what, value in shares(scene, own, map_).items():
            if value is not None:
                found[method, what].append(value)
        if method != UNIFORM:
            found[method, "peak"].append(float(scene.masks[own].flat[int(map_.argmax())]))


def shares(scene: Scene, own: int, map_: Tensor) -> dict[str, float | None]:
    """Where the map `(H, W)` of an object's box lies: on that object, of what is on it and others, and of the whole."""
    masks = torch.from_numpy(scene.masks)
    same = torch.tensor(scene.classes) == scene.classes[own]
    other, twins = masks[~same].any(0), masks[same].any(0)
    values = {
        "own": share(map_, masks[own], masks.any(0)),
        "whole": share(map_, masks[own], torch.ones_like(masks[own])),
    }
    if not bool(same.all()):
        values["against others"] = share(map_, masks[own], masks[own] | other)
    if int(same.sum()) > 1:
        values["against its class"] = share(map_, masks[own], twins)
    return values


def _add_noisy(found: Found, noise_level: float, detector: RetinaNet, first: Boxes) -> None:
    """Followed boxes against boxes by index, at one level of noise."""
    name = str(noise_level)
    followed = maps_of_boxes(detector, partial(smooth_grad_cam_plus_plus, noise_level=noise_level), first)
    by_index = maps_by_index(detector, noise_level, first)
    found[name, "distance"] += distances(followed, by_index).tolist()
    _add_shares(found, f"{name} followed", first, followed)
    _add_shares(found, f"{name} by index", first, by_index)
    generator = torch.Generator().manual_seed(0)
    for image, box, label in zip(first.images, first.boxes, first.labels, strict=True):
        sigma = noise_level * (image.max() - image.min())
        rows = image + sigma * torch.randn(NT_SAMPLES, *image.shape, generator=generator)
        for what, value in under_noise(detector, rows, box, int(label)).items():
            found[name, what].append(value)


@torch.no_grad()
def under_noise(detector: RetinaNet, rows: Tensor, box: Tensor, label: int) -> dict[str, float]:
    """Of noisy samples `(n, 3, H, W)` of one image: in how many the first box is another, the object is still found,
    and any prediction, however unsure, has the place of the box."""
    found = torchvision_predictions(detector, rows)
    first = found.boxes[torch.arange(len(rows)), in_order(detector, found, 0)]
    is_there = torch.stack([box_iou(own, box[None])[:, 0] for own in found.boxes]) >= IOU
    is_sure = found.logits[..., label].sigmoid() >= detector.score_thresh
    return {
        "another": float((box_iou(first, box[None])[:, 0] < IOU).float().mean()),
        "found": float((is_there & is_sure).any(1).float().mean()),
        "any": float(is_there.any(1).float().mean()),
    }


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Between maps `(N, H, W)` of norm 1: 0 for the same, sqrt(2) for maps that share no pixel."""
    one, other = (maps.flatten(1) / maps.flatten(1).norm(dim=1, keepdim=True).clamp_min(1e-30) for maps in (a, b))
    return (one - other).norm(dim=1)


def _tables(found: Found) -> str:
    columns = ["own", "against others", "against its class", "whole", "peak"]
    rows = [[name, *(with_interval(found[name, what]) for what in columns)] for name in [*METHODS_OF_BOXES, UNIFORM]]
    heads = ["method", "of all objects", "of it and other classes", "of its class", "of the whole map", "maximum on it"]
    return (
        f"Share of the map on the object of the box:\n\n{markdown(heads, rows)}\n\nSmooth Grad-CAM++ of boxes that are "
        "followed and of the first box by index. Shares of noisy samples, and the distance of maps of norm 1, at most "
        f"sqrt(2):\n\n{_noise_table(found)}"
    )


def _noise_table(found: Found) -> str:
    rows = []
    for name in map(str, NOISE_LEVELS):
        measured = [found[name, what] for what in ("another", "found", "any", "distance")]
        both = [found[f"{name} {how}", "own"] for how in ("followed", "by index")]
        rows.append([name, *(with_interval(values) for values in [*measured, *both])])
    samples = ["first box is another", "object is found", "any prediction in its place"]
    maps = ["distance of the maps", "on its object, of all objects: followed", "by index"]
    return markdown(["noise level", *samples, *maps], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 200, __doc__, argv)


if __name__ == "__main__":
    main()
