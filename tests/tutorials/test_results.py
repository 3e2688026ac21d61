"""The script that makes all tables: its commands are valid, and it does not take longer than planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import run_all
import table_pictures as pictures
import torch
import trained_networks
from networks import PooledNet
from PIL import Image
from table_list import TABLES, Table

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.commands.evaluate import _methods
from captum_sgcampp.commands.main import _parser
from captum_sgcampp.evaluation.run import chosen_reference
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import classifier_input, shown_crop


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_command_is_one_that_evaluate_takes(table: Table) -> None:
    folder = [] if table.pictures == "scenes" else ["folder"]
    command = table.command(folder)
    assert command[0] == "captum_sgcampp"
    arguments = _parser().parse_args(command[1:])
    assert arguments.layers == [table.layer] and arguments.metrics == list(table.metrics)
    assert chosen_reference(run_all.SECOND_REFERENCE, _methods(arguments)) == "grad-cam++"
    assert "center-gaussian" in table.methods  # what knows neither network nor class


def test_names_are_unique_and_all_takes_at_most_three_hours_in_two_processes() -> None:
    assert len({table.name for table in TABLES}) == len(TABLES)
    assert sum(table.minutes for table in TABLES) / 2 <= 180
    assert "together" in run_all.plan(TABLES, 2)


def test_only_the_chosen_tables_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    run_all.main(["--list", "--only", "gtsrb-inner"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:-1]] == ["gtsrb-inner"]
    with pytest.raises(SystemExit, match="--only: expected the beginning of one of mobilenet_v2-last-photos"):
        run_all.main(["--list", "--only", "resnet"])


def test_results_are_copied_from_a_run_with_each_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def evaluate(command: list[str], **options: Any) -> None:
        commands.append(command)
        out = Path(command[command.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        for name in run_all.RESULTS:
            (out / name).write_text(command[command.index("--reference") + 1])

    monkeypatch.setattr("subprocess.run", evaluate)
    run_all.main(["--only", "scenes-last", "--limit", "2", "--work", f"{tmp_path}/w", "--out", f"{tmp_path}/o"])
    out = tmp_path / "o" / "scenes-last"
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "table.md": "grad-cam",
        "summary.csv": "grad-cam",
        "table-against-grad-cam++.md": "grad-cam++",
        "summary-against-grad-cam++.csv": "grad-cam++",
    }
    assert [command[1:4] for command in commands] == [["-m", "captum_sgcampp", "evaluate"]] * 2
    assert _parser().parse_args(commands[0][3:]).scenes == 2
    assert capsys.readouterr().out.count("captum_sgcampp evaluate --") == 2


def test_photographs_of_one_class_that_the_network_recognizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"a.jpg": ["apple"], "b.jpg": ["banana", "banana"], "c.jpg": ["banana", "apple"]}
    for name in entries:
        Image.fromarray(draw_scene(1).image).save(tmp_path / name)
    boxes = {name: {"boxes": [[label, 1, 2, 30, 40] for label in labels]} for name, labels in entries.items()}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    bananas = torch.nn.functional.one_hot(torch.tensor([954]), 1000) * 20.0
    classifier = Classifier("fruit", lambda x: bananas, (), classifier_input, shown_crop, False)  # type: ignore[arg-type]
    monkeypatch.setattr(trained_networks, "load", lambda name: classifier)
    out = pictures.boxes_file(tmp_path, "fruit", tmp_path / "work")
    assert json.loads(out.read_text()) == {"b.jpg": {"target": 954, "boxes": [[1, 2, 30, 40], [1, 2, 30, 40]]}}
    shutil.rmtree(tmp_path / "work")


def test_pictures_of_subfolders_are_gathered_under_their_class(tmp_path: Path) -> None:
    (tmp_path / "in" / "glioma").mkdir(parents=True)
    (tmp_path / "in" / "glioma" / "1.jpg").write_bytes(b"x")
    assert [path.name for path in pictures.gathered(tmp_path / "in", tmp_path / "out").iterdir()] == ["glioma-1.jpg"]


def test_networks_are_built_by_the_code_beside_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks.py").write_text("from networks import PooledNet\ndef load(name): return PooledNet()\n")
    monkeypatch.setenv("SGCAMPP_ASSETS", str(tmp_path))
    made = trained_networks.load("gtsrb")
    assert len(made.classes) == PooledNet().fc.out_features and not made.independent
    picture = Image.new("RGB", (60, 50), (255, 0, 51))
    assert made.prepare(picture).shape == (1, 3, 30, 30) and made.show(picture).size == (30, 30)
    assert made.prepare(picture)[0, :, 3, 3].tolist() == [255, 0, 51]
    assert trained_networks.load("vgg16_brain_mri").prepare(picture).amax() == 1
    monkeypatch.setenv("SGCAMPP_ASSETS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"^SGCAMPP_ASSETS: expected a folder"):
        trained_networks.assets()
    with pytest.raises(ValueError, match=r"^name: expected one of mobilenet_v2"):
        trained_networks.load("resnet18")
