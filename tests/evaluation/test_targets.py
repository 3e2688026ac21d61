"""The pass before mosaics: every image is classified once, and damaged ones are in no mosaic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.evaluation import targets
from captum_sgcampp.evaluation.cases import ImageFolder
from captum_sgcampp.evaluation.items import Item
from captum_sgcampp.evaluation.targets import partners, with_targets
from captum_sgcampp.vision.classifiers import load_classifier


def test_classes_are_kept_in_parts_and_a_damaged_image_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "IMAGES_PER_PART", 2)
    (tmp_path / "images").mkdir()
    for number in range(5):
        Image.fromarray(draw_scene(number, classes=[number]).image).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "3.png").write_bytes(b"")
    cases = ImageFolder(load_classifier(), tmp_path / "images", torch.device("cpu"))
    items = cases.items()
    found = with_targets(tmp_path / "targets", cases.classifier, cases, items)
    assert [item.target for item in found] == [0, 1, 2, None, 4]
    monkeypatch.setattr(targets, "_target", None)
    assert with_targets(tmp_path / "targets", cases.classifier, cases, items) == found


def test_partners_are_numbers_of_items_that_have_a_class() -> None:
    items = [Item(str(k), b"", target) for k, target in enumerate([None, 1, None, 2, 3, 4, 4])]
    found = partners(items, 0)
    assert found[0] is None and found[2] is None
    for item, three in zip(items, found, strict=True):
        if three is not None:
            assert len({item.target, *(items[other].target for other in three)}) == 4
    assert sum(three is not None for three in found) == 5
