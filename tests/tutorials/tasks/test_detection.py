"""The detector that ships finds the shapes of fresh scenes, its boxes are followed, and their maps are the papers'."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import received_rows, seeded
from reference import reference_map, relative_error
from safetensors.torch import load_file
from tasks.detection import measure, network, train
from tasks.measuring import smooth_grad_cam_plus_plus
from tasks.training import Settings, fresh_seeds, save
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import Scene, draw_scene
from captum_sgcampp.model.threads import computing_threads
from captum_sgcampp.scores import DetectedBox

COPIES = 2


@pytest.fixture(scope="module")
def detector() -> Iterator[Any]:
    with computing_threads(1):
        yield network.load_detector()


@pytest.fixture(scope="module")
def first(detector: Any) -> measure.Boxes:
    return measure.first_boxes(detector, [draw_scene(seed) for seed in fresh_seeds(24, first=900_000)])


def blocks(*places: tuple[int, int, int, int], classes: tuple[int, ...]) -> Scene:
    """A scene of rectangles `(x1, y1, x2, y2)`."""
    masks = np.zeros((len(places), 128, 128), np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, places, strict=True):
        mask[y1:y2, x1:x2] = True
    return Scene(np.zeros((128, 128, 3), np.uint8), classes, masks)


def test_weights_are_small_and_in_half_precision(detector: Any) -> None:
    assert network.WEIGHTS.stat().st_size <= 1_000_000
    assert {tensor.dtype for tensor in load_file(network.WEIGHTS).values()} == {torch.float16}
    assert not detector.training and {p.dtype for p in detector.parameters()} == {torch.float32}


@pytest.mark.slow
def test_at_least_95_of_100_objects_of_fresh_scenes_are_found(detector: Any) -> None:
    recall, precision = train.judged(detector, fresh_seeds(200, first=500_000))
    assert recall >= 0.95 and precision >= 0.95


@pytest.mark.slow
def test_training_is_the_same_for_the_same_seed(detector: Any, tmp_path: Path) -> None:
    files = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(files))
        before = torch.get_rng_state()
        save(train.train(Settings(seed, steps=3, batch_size=2), lambda line: None), tmp_path / "weights")
        files.append((tmp_path / "weights").read_bytes())
        assert torch.equal(torch.get_rng_state(), before)
    assert files[0] == files[1] != files[2]


def test_boxes_of_objects_reach_from_edge_to_edge() -> None:
    scene = blocks((3, 5, 20, 40), (50, 60, 51, 61), classes=(0, 1))
    assert network.object_boxes(scene).tolist() == [[3, 5, 20, 40], [50, 60, 51, 61]]


def test_an_object_is_found_by_a_box_of_its_class_and_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = blocks((0, 0, 20, 20), (40, 40, 60, 60), (80, 80, 100, 100), classes=(1, 2, 2))
    boxes = [[0, 0, 20, 20], [40, 40, 60, 60], [80, 90, 100, 110], [0, 0, 20, 11]]  # right, class, place, right
    found = {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor([1, 3, 2, 1])}
    monkeypatch.setattr(train, "draw_scene", lambda seed: scene)
    assert train.judged(lambda images: [found], [0]) == (1 / 3, 2 / 4)  # type: ignore[arg-type]


def test_the_places_of_boxes_are_those_in_which_the_detector_returns_them(detector: Any, first: measure.Boxes) -> None:
    images = first.images[:4]
    with torch.no_grad():
        returned = detector(list(images))
        for place in (0, 1):
            for logit, found in zip(network.ByIndex(detector, place)(images), returned, strict=True):
                assert torch.allclose(logit.max().sigmoid(), found["scores"][place])
                assert int(logit.argmax()) == int(found["labels"][place])


def test_first_boxes_are_those_of_objects_among_others(first: measure.Boxes) -> None:
    assert 12 <= len(first.scenes) == len(first.boxes) == len(first.labels) < 24
    for scene, box, label, own in zip(first.scenes, first.boxes, first.labels, first.objects, strict=True):
        assert len(scene.classes) > 1 and scene.classes[own] == int(label)
        x, y = (box[:2] + box[2:]) / 2
        overlap = box_iou(network.object_boxes(scene), box[None])[:, 0]
        assert int(overlap.argmax()) == own and overlap[own] >= 0.5 and 0 < x < 128 and 0 < y < 128


def followed(detector: Any, box: Tensor) -> Any:
    """The scores of the box in one row, by loops over all predictions, which the heads give."""

    def scores(x: Tensor) -> Tensor:
        maps = [detector.backbone((x - 0.5) / 0.25)]
        output = detector.head(maps)
        anchors = detector.anchor_generator(ImageList(x, [(128, 128)]), maps)[0]
        boxes = detector.box_coder.decode_single(output["bbox_regression"][0].detach(), anchors).clamp(0, 128)
        best, kept = -1.0, -1
        for number, (own, logits) in enumerate(zip(boxes.tolist(), output["cls_logits"][0].tolist(), strict=True)):
            overlap = iou(own, box.tolist())
            value = overlap / (1 + np.exp(-max(logits)))
            if overlap >= 0.5 and value > best:
                best, kept = value, number
        assert kept >= 0
        return output["cls_logits"][:, kept]

    return scores


def iou(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, wide) * max(0.0, high)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.slow
@pytest.mark.parametrize("noise_level", [0.0, 0.3])
def test_maps_of_boxes_that_are_followed_are_the_papers(first: measure.Boxes, noise_level: float) -> None:
    model = network.load_detector().double()
    layer, target = model.get_submodule(network.LAYER), int(first.labels[0])
    image, box = first.images[:1].double(), first.boxes[0].double()
    by_loops = followed(model, box)
    score = DetectedBox(model)
    plain = LayerGradCamPlusPlus(score, layer).attribute(image, target, box[None])
    if not noise_level:
        assert relative_error(plain[0], reference_map(by_loops, layer, (image,), [(image,)], target)) <= 1e-9
        return
    method = LayerSmoothGradCamPlusPlus(score, layer)
    options: dict[str, Any] = {"nt_samples": COPIES, "noise_level": noise_level, "generator": seeded()}
    found, rows = received_rows(score, lambda: method.attribute(image, target, box[None], **options))
    copies = [(row[None],) for row in rows[1:]]
    assert len(copies) == COPIES and torch.equal(rows[:1], image)
    assert relative_error(found[0], reference_map(by_loops, layer, (image,), copies, target)) <= 1e-9
    assert relative_error(found[0], plain[0]) > 0.01


def test_shares_by_hand() -> None:
    scene = blocks((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), classes=(4, 4, 7))
    map_ = torch.zeros(128, 128)
    map_[:10, :10], map_[:10, 20:30], map_[:10, 40:50], map_[100:110, :10] = 3.0, 1.0, 2.0, 6.0
    found = measure.shares(scene, 0, map_)
    assert found == {"own": 3 / 6, "whole": 3 / 12, "against others": 3 / 5, "against its class": 3 / 4}
    assert measure.shares(scene, 2, map_) == {"own": 2 / 6, "whole": 2 / 12, "against others": 2 / 6}
    assert set(measure.shares(scene, 0, 0 * map_).values()) == {None}
    assert measure.distances(torch.stack([map_, map_]), torch.stack([7 * map_, 1.0 * (map_ == 0)])).tolist() == (
        pytest.approx([0, 2**0.5], abs=1e-3)
    )


def test_a_box_is_another_where_the_first_lies_elsewhere(detector: Any, first: measure.Boxes) -> None:
    image, box, label = first.images[0], first.boxes[0], int(first.labels[0])
    unmoved = measure.under_noise(detector, image.expand(4, -1, -1, -1), box, label)
    assert unmoved == {"another": 0, "found": 1, "any": 1}
    assert measure.under_noise(detector, image.expand(4, -1, -1, -1), box, (label + 1) % 8)["found"] == 0
    hidden = image.clone()
    x1, y1, x2, y2 = (box + torch.tensor([-6, -6, 6, 6])).clamp(0, 128).int().tolist()
    hidden[:, y1:y2, x1:x2] = image.mean((1, 2))[:, None, None]
    half = torch.stack([image, hidden])
    assert measure.under_noise(detector, half, box, label)["another"] == 0.5


@pytest.mark.slow
def test_two_sided_maps_of_a_box_point_to_its_object(detector: Any, first: measure.Boxes) -> None:
    maps = measure.maps_of_boxes(detector, measure.METHODS_OF_BOXES["Smooth Grad-CAM++, two-sided"], first)
    shares = [measure.shares(*parts)["own"] for parts in zip(first.scenes, first.objects, maps, strict=True)]
    whole = torch.ones(128, 128)
    areas = [measure.shares(*parts, whole)["own"] for parts in zip(first.scenes, first.objects, strict=True)]
    assert sum(found > area for found, area in zip(shares, areas, strict=True)) >= 0.9 * len(maps)  # type: ignore[operator]


@pytest.mark.slow
def test_no_map_is_empty_where_noise_hides_the_objects(detector: Any, first: measure.Boxes) -> None:
    maps = measure.maps_of_boxes(detector, partial(smooth_grad_cam_plus_plus, noise_level=0.3), first)
    assert maps.flatten(1).any(1).all()


@pytest.mark.slow
def test_the_page_has_a_row_for_each_method_and_level() -> None:
    page = measure.measure(4)
    for name in (*measure.METHODS_OF_BOXES, measure.UNIFORM, *map(str, measure.NOISE_LEVELS)):
        assert page.count(f"\n| {name} |") == 1
    assert "nan" not in page
