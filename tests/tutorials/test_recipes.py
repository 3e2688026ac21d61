"""The recipes of the tutorials run and leave what they promise. Those with tools that are not installed are skipped."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captum_sgcampp import LayerGradCamPlusPlus

PAGE = Path(__file__).resolve().parents[2] / "tutorials" / "recipes.md"


def sections() -> dict[str, str]:
    """The code of each section by its heading; that before the first heading by an empty one."""
    parts = re.split(r"^## (.*)$", "\n".join(["## ", *PAGE.read_text("utf-8").splitlines()[1:]]), flags=re.MULTILINE)
    return {
        title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def run(title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the names of a section mean after it ran in a folder."""
    code = sections()[""] + sections()[title]
    packages = dict.fromkeys(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE))
    tools = [*packages, "tensorboard"] if "tensorboard" in code.lower() else list(packages)
    for tool in tools:
        if find_spec(tool) is None:
            pytest.skip(f"the recipe needs {tool}, which is not installed")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def logged(folder: Path) -> list[str]:
    """The names of the pictures in TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    return events.Tags()["images"]


@pytest.mark.slow
def test_tensorboard_gets_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("TensorBoard", tmp_path, monkeypatch)
    assert logged(tmp_path) == ["Grad-CAM++"]


@pytest.mark.slow
def test_maps_between_two_steps_change_nothing_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    for name in ("with_maps", "without"):
        (tmp_path / name).mkdir()
        torch.manual_seed(0)  # of the dropout
        trained.append(run("A training loop", tmp_path / name, monkeypatch)["network"])
        monkeypatch.setattr(LayerGradCamPlusPlus, "attribute", lambda *_: torch.ones(4, 1, 16, 16))
    assert logged(tmp_path / "with_maps") == ["maps"]
    assert [module.training for module in trained[0].modules()] == [True] * len(list(trained[0].modules()))
    for one, other in zip(*(network.parameters() for network in trained), strict=True):
        assert torch.equal(one, other) and torch.equal(one.grad, other.grad)


@pytest.mark.slow
def test_weights_and_biases_gets_the_figure_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("Weights & Biases", tmp_path, monkeypatch)
    assert [path.name for path in tmp_path.glob("wandb/offline-run-*/files/media/images/*.png")]


@pytest.mark.slow
def test_the_callback_of_lightning_logs_maps_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("Lightning", tmp_path, monkeypatch)
    assert logged(tmp_path) == ["maps"]


@pytest.mark.slow
def test_a_pipeline_of_hugging_face_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("A pipeline of Hugging Face", tmp_path, monkeypatch)
    _, _, height, width = names["inputs"].shape
    assert names["attributions"].shape == (1, 1, height // 8, width // 8)
    assert len(names["figure_of_pipeline"].axes) == 2


@pytest.mark.slow
def test_quantus_measures_both_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("Quantus", tmp_path, monkeypatch)["sparseness"]
    assert list(found) == ["LayerGradCam", "LayerGradCamPlusPlus"]
    assert all(len(values) == 4 and np.isfinite(values).all() for values in found.values())


@pytest.mark.slow
def test_metrics_of_captum_make_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("captum.metrics", tmp_path, monkeypatch)
    assert re.findall(r"^\| (\w+) \| \d+\.\d+ \| \d+\.\d+ \|$", capsys.readouterr().out, re.MULTILINE) == [
        "LayerGradCam",
        "LayerGradCamPlusPlus",
    ]


def test_every_section_has_a_test() -> None:
    tested = re.findall(r'run\("([^"]+)", tmp_path', Path(__file__).read_text("utf-8"))
    assert ["", *tested] == list(sections())
