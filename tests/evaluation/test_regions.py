"""Masks and boxes, as the classifier sees the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.evaluation.cases import MASKS, PAIRS, ImageFolder
from captum_sgcampp.evaluation.measures import Bench, Shared, Trial, measure
from captum_sgcampp.evaluation.methods import chosen_methods
from captum_sgcampp.evaluation.regions import Boxed, box_regions, enclosing_box, read_boxes
from captum_sgcampp.evaluation.settings import suited_settings
from captum_sgcampp.vision.classifiers import load_classifier

CPU = torch.device("cpu")
SIDE = 256  # twice that of the network's input
BOXES = {"a.png": {"target": 3, "boxes": [[0, 0, 128, 64], [192, 128, 256, 256]]}, "b.png": {"boxes": [[0, 0, 8, 8]]}}


@pytest.fixture
def cases(tmp_path: Path) -> ImageFolder:
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(draw_scene(1).image).resize((SIDE, SIDE)).save(tmp_path / name)
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    return ImageFolder(load_classifier(), tmp_path, CPU, boxes_file=tmp_path / "boxes.json")


def test_boxes_are_those_of_the_models_input(cases: ImageFolder) -> None:
    items = cases.items()
    assert [item.name for item in items] == ["a.png", "b.png"] and [item.target for item in items] == [3, None]
    case = cases.load(items[0])
    expected = torch.zeros(2, 128, 128, dtype=torch.bool)
    expected[0, :32, :64] = True
    expected[1, 64:, 96:] = True
    assert case.instances is not None and torch.equal(case.instances, expected)
    assert case.boxes is not None and torch.equal(case.boxes[0], expected.any(0)) and case.regions is None
    assert {MASKS, PAIRS} <= cases.has and cases.settings()["--boxes"] == str(cases.boxes_file)


def test_a_changed_file_of_boxes_is_part_of_the_content(cases: ImageFolder) -> None:
    assert cases.files(cases.items()[0])[1:] == [cases.boxes_file]


def test_boxes_outside_the_crop_are_no_occurrences(cases: ImageFolder) -> None:
    classifier = load_classifier()
    picture = Image.new("RGB", (SIDE, SIDE))
    assert len(box_regions(classifier, picture, [(0, 0, 50, 50), (300, 0, 400, 50)])) == 1
    with pytest.raises(ValueError, match=r"^--boxes: expected a box in the classifier's crop, found none of 1 there"):
        box_regions(classifier, picture, [(300, 0, 400, 50)])


def measured(cases: ImageFolder, method: str, number: int) -> dict[str, float]:
    chosen = ("drop", "kept", "occluded", "localization", "instances")
    settings = suited_settings(cases.classifier, torch.rand(1, 3, 128, 128), "images", chosen, {"steps": 2})
    shared = Shared(Bench(cases.classifier.model, settings), cases.load(cases.items()[number]), None)
    return measure(Trial(shared, "features.14", chosen_methods([method], [2], [0.1])[0]))


def test_a_uniform_map_gets_what_area_alone_gives(cases: ImageFolder) -> None:
    found = measured(cases, "uniform", 0)
    share = (32 * 64 + 64 * 32) / 128**2
    assert found["average_drop"] == found["increase"] == 0
    assert [found[f"loc_{t}"] for t in (0, 0.25, 0.5)] == pytest.approx([share] * 3)
    assert found["energy"] == pytest.approx(share) and found["instance_recall"] == 1
    assert "iou_0" not in found and 0 <= found["kept_10"] <= 1 and found["relative_area"] > 0


def test_one_object_has_neither_balance_nor_recall(cases: ImageFolder) -> None:
    assert not {"instance_balance", "instance_recall"} & set(measured(cases, "uniform", 1))


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"a.png": {}}', '{"a.png": {"boxes": []}}', '{"a.png": {"boxes": [[1, 2, 3]]}}', '{"a": 3}']
)
def test_another_content_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(ValueError, match=r'^--boxes: expected \{"cat.jpg": .*boxes.json, found'):
        read_boxes(tmp_path / "boxes.json")


def test_images_that_are_not_there_are_named(cases: ImageFolder) -> None:
    (cases.folder / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"^--boxes: expected images of .*, found 'b.png'"):
        cases.items()


def test_read_boxes_and_enclosing_box(cases: ImageFolder) -> None:
    assert cases.boxes_file is not None and read_boxes(cases.boxes_file)["b.png"] == Boxed([(0, 0, 8, 8)])
    region = torch.zeros(6, 6, dtype=torch.bool)
    region[1, 2] = region[3, 4] = True
    assert enclosing_box(region).nonzero().aminmax(dim=0).max.tolist() == [3, 4] and enclosing_box(region).sum() == 9
