"""What the tables of the proposal to Captum stand on."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Generator, nn

pytest.importorskip("timm", reason="the ResNet and the ViT are timm's")
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")

FOLDER = Path(__file__).resolve().parents[2] / "tutorials"


@pytest.fixture(scope="module")
def script() -> Any:
    return importlib.import_module("captum_proposal")


@pytest.fixture(scope="module")
def mosaics(script: ModuleType) -> Any:
    return script.Mosaics()


def test_no_digit_that_is_explained_was_trained_on(script: ModuleType, mosaics: Any) -> None:
    trained, held = mosaics.pixels[: script.TRAINED_ON], mosaics.pixels[script.TRAINED_ON :]
    for pool, other, flag in ((trained, held, True), (held, trained, False)):
        pictures, _ = mosaics.draw(5, Generator().manual_seed(0), trained=flag)
        cells = pictures.unfold(2, 32, 32).unfold(3, 32, 32).reshape(-1, 1, 32, 32)
        assert all(bool((pool == cell).flatten(1).all(1).any()) for cell in cells)
        assert not any(bool((other == cell).flatten(1).all(1).any()) for cell in cells)


def test_the_cell_of_the_explained_digit_holds_it(script: ModuleType, mosaics: Any) -> None:
    pictures, targets, cells = script.explained(mosaics, 8)
    for picture, target, cell in zip(pictures, targets, cells, strict=True):
        digit = picture[0][cell].view(1, 32, 32)
        known = mosaics.labels[(mosaics.pixels == digit).flatten(1).all(1)]
        assert known.tolist() == [target] and int(cell.sum()) == 32 * 32
    places = [divmod(int(cell.flatten().float().argmax()), 64) for cell in cells[:4]]
    assert places == [(0, 0), (0, 32), (32, 0), (32, 32)]


def test_feature_maps_of_the_vit_change_nothing_and_lie_where_the_patches_are(script: ModuleType) -> None:
    torch.manual_seed(0)
    model, x = script.vit().eval(), torch.rand(2, 1, 64, 64)
    seen: list[torch.Tensor] = []
    model.blocks[3].maps.register_forward_hook(lambda module, args, output: seen.append(output))
    expected = model(x)
    tokens = model.patch_embed(torch.eye(64)[None, None])  # bright patches on the diagonal only
    grid = script.AsMaps(8)
    grid.maps.register_forward_hook(lambda module, args, output: seen.append(output))
    grid(torch.cat([torch.zeros(1, 1, 64), tokens], 1))
    model.blocks[3] = nn.Identity()
    assert torch.equal(model(x), expected)
    assert seen[0].shape == (2, 64, 8, 8)
    off = (seen[1] - seen[1][:, :, :1, -1:]).abs().sum(1)[0] > 1e-6
    assert torch.equal(off, torch.eye(8) > 0)


def test_last_maps_of_the_resnet_are_pooled_and_eight_by_eight(script: ModuleType) -> None:
    model, x = script.resnet().eval(), torch.rand(1, 1, 64, 64)
    assert LayerGradCam(model, model.layer4).attribute(x, 3).shape == (1, 1, 8, 8)


def test_closed_form_is_exact_for_the_resnet_and_far_off_for_the_vit(script: ModuleType, mosaics: Any) -> None:
    torch.manual_seed(0)
    resnet, vit = script.resnet().eval(), script.vit().eval()
    pictures, targets, _ = script.explained(mosaics, 2)
    tasks = [
        script.Task("", m, m.get_submodule(n), pictures, targets)
        for m, n in ((resnet, "layer2"), (vit, "blocks.3.maps"))
    ]
    exact, far = (script.closed_form_error(task) for task in tasks)
    assert exact < 1e-4 and far > 0.3


def test_squares_are_taken_away_and_nothing_else(script: ModuleType) -> None:
    x = torch.rand(3, 2, 16, 12) + 1
    taken, left = script.squares(x)
    assert torch.equal(taken + left, x)
    assert ((taken != 0).sum((1, 2, 3)) == 2 * 4 * 3).all() and ((taken == 0) | (left == 0)).all()


def test_uniform_map_has_no_sensitivity_and_the_share_of_the_area(script: ModuleType, mosaics: Any) -> None:
    torch.manual_seed(0)
    model = script.resnet().eval()
    pictures, targets, cells = script.explained(mosaics, 2)
    task = script.Task("resnet", model, model.layer4, pictures, targets, cells)
    found = script.methods(task)
    uniform = script.measured(task, found["a uniform map"])
    assert uniform["sensitivity"] == [0, 0] and uniform["share on the class"] == [0.25, 0.25]
    assert script.measured(task, found["a random map"])["sensitivity"][0] > 0.1
    assert script.measured(task, found["LayerGradCam"]) == script.measured(task, found["LayerGradCam"])


def test_page_has_its_tables_and_pictures() -> None:
    text = (FOLDER / "captum_proposal.md").read_text("utf-8")
    tables = text.split("<!-- tables: begin -->")[1].split("<!-- tables: end -->")[0]
    methods = re.findall(r"^\| (\w+) \|", tables, re.MULTILINE)
    assert methods.count("LayerGradCam") == methods.count("LayerSmoothGradCamPlusPlus") >= 1
    assert {"resnet", "vit"} <= {*re.findall(r"^\*\*(\w+) `", tables, re.MULTILINE)}
    pictures = re.findall(r"^!\[Maps of a (\w+)[^\]]*\]\((\S+)\)$", text, re.MULTILINE)
    assert [network for network, _ in pictures] == ["ResNet", "ResNet", "ViT", "VGG"]
    assert len({picture for _, picture in pictures}) == 4
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("http") or (FOLDER / link).exists(), link
