"""Seeds of images and scenes; what is explained in a folder and in scenes."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.evaluation.cases import FIRST_EVALUATION_SEED, ImageFolder, Scenes, evaluation_seeds, image_seed
from captum_sgcampp.evaluation.items import read_items, write_items
from captum_sgcampp.vision.classifiers import load_classifier
from captum_sgcampp.vision.images import ImageError

CPU = torch.device("cpu")


def test_the_seed_of_an_image_comes_from_its_name_the_purpose_and_the_runs_seed() -> None:
    seeds = [
        image_seed(*parts) for parts in ((0, "a", "noise"), (0, "b", "noise"), (0, "a", "grid"), (1, "a", "noise"))
    ]
    assert len(set(seeds)) == 4 and image_seed(0, "a", "noise") == seeds[0] and max(seeds) < 2**63


@pytest.mark.parametrize("seed, count", [(-1, 5), (0, 0), (0, 1_000_001)])
def test_refuses_seeds_that_it_does_not_have(seed: int, count: int) -> None:
    with pytest.raises(ValueError, match="seed, scenes: expected at least 0"):
        evaluation_seeds(seed, count)


def test_scenes_have_the_masks_and_boxes_of_the_class_that_is_explained() -> None:
    cases = Scenes(load_classifier(), 3, 0, CPU)
    items = cases.items()
    assert [item.name for item in items] == [f"scene {FIRST_EVALUATION_SEED + k}" for k in range(3)]
    case = cases.load(items[1])
    classes = draw_scene(FIRST_EVALUATION_SEED + 1).classes
    assert classes.count(case.target) == max(map(classes.count, classes)) and case.inputs.shape == (1, 3, 128, 128)
    assert case.regions is not None and case.boxes is not None and case.instances is not None
    assert torch.equal(case.instances.any(0), case.regions[0])
    assert (case.boxes | ~case.regions).all() and case.boxes.sum() > case.regions.sum()
    assert torch.equal(cases.inputs(items[1]), case.inputs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.fromarray(draw_scene(1).image).save(tmp_path / name)
    (tmp_path / "._a.jpg").write_bytes(b"resource fork")
    (tmp_path / "c.png").mkdir()
    (tmp_path / "d.jpg").symlink_to("nowhere")
    return tmp_path


def test_hidden_files_folders_and_broken_links_are_no_images(folder: Path) -> None:
    items = ImageFolder(load_classifier(), folder, CPU).items()
    assert [item.name for item in items] == ["a.JPG", "b.png"]


def test_the_list_is_made_without_a_look_into_the_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ImageFolder(load_classifier(), folder, CPU)
    monkeypatch.setattr(cases.classifier.model, "forward", None)
    monkeypatch.setattr("captum_sgcampp.evaluation.cases.read_image", None)
    assert [item.target for item in cases.items()] == [None, None]


def test_an_image_without_a_target_is_classified_when_it_is_read(folder: Path) -> None:
    cases = ImageFolder(load_classifier(), folder, CPU)
    item = cases.items()[1]
    assert cases.load(item).target == cases.classifier.model(cases.inputs(item)).argmax()
    assert cases.load(item._replace(target=5)).target == 5


def test_an_input_that_is_not_finite_is_refused(folder: Path) -> None:
    classifier = load_classifier()
    broken = replace(classifier, prepare=lambda picture: classifier.prepare(picture) * math.nan)
    cases = ImageFolder(broken, folder, CPU)
    with pytest.raises(ImageError, match=r"b\.png': expected finite values"):
        cases.load(cases.items()[1])


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_that_are_no_text_are_read_from_the_list(folder: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    (folder / "b.png").rename(folder / name)
    cases = ImageFolder(load_classifier(), folder, CPU)
    write_items(folder / "items.parquet", cases.items())
    item = read_items(folder / "items.parquet")[1]
    assert item.name == "\\udcff.png" and cases.load(item).inputs.shape == (1, 3, 128, 128)
