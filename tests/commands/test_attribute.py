"""The command `attribute`: a folder of images becomes Parquet parts, and mistakes have one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captum_sgcampp import dataset
from captum_sgcampp.bundled import CLASSES, draw_scene


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "star").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(draw_scene(number).image).save(tmp_path / "photos" / "star" / f"{number}.png")
    return tmp_path / "photos"


def test_a_folder_becomes_rows_and_the_same_command_goes_on(command: Any, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no image")
    options = ["photos", "--out", "maps", "--methods", "grad-cam++", "smooth-grad-cam++", "--nt-samples", "2"]
    status, out, err = command("attribute", *options, "--targets", "top:2", "--images-per-part", "2")
    assert (status, out) == (0, "13 rows in maps, 1 of them errors\n") and "error" not in err
    files = dataset.open("maps")
    assert files.finished and [row["image"] for row in files.errors().to_pylist()] == ["bad.jpg"]
    assert {files[number]["method"] for number in range(1, 13)} == {"grad-cam++", "smooth-grad-cam++"}
    next(Path("maps").glob("part-000001.*")).unlink()
    assert command("attribute", *options, "--targets", "top:2", "--images-per-part", "2")[1] == out
    status, _, err = command("attribute", *options, "--targets", "top:3", "--images-per-part", "2")
    assert status == 2 and "targets: expected ['top:2'], as in " in err


def test_the_names_of_folders_are_classes(command: Any, photos: Path) -> None:
    status, _, _ = command("attribute", "photos", "--out", "maps", "--targets", "folder", "--methods", "grad-cam")
    assert status == 0 and set(dataset.open("maps").table(["target"])["target"].to_pylist()) == {CLASSES.index("star")}


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["nowhere", "--out", "maps"], 3, "SOURCE: expected a folder or a file, found none at nowhere"),
        (["photos"], 2, "--out"),
        (["photos", "--out", "photos"], 2, "--out: expected a new or empty folder"),
        (["photos", "--out", "maps", "--methods", "gradcam++"], 2, "did you mean grad-cam++?"),
        (["photos", "--out", "maps", "--layers", "features.99"], 2, "features.99"),
        (["photos", "--out", "maps", "--targets", "stars"], 2, "did you mean star"),
        (["photos", "--out", "maps", "--targets", "column:label"], 2, "targets: expected sources with columns"),
        (["photos", "--out", "maps", "--nt-samples", "0"], 2, "--nt-samples"),
        (["photos", "--out", "maps", "--workers", "0"], 2, "--workers"),
        (["photos", "--out", "maps", "--model", "resnet5"], 2, "did you mean resnet50"),
    ],
)
def test_mistakes_have_one_line_and_their_exit_status(
    arguments: list[str], status: int, message: str, command: Any, photos: Path
) -> None:
    found, _, err = command("attribute", *arguments)
    assert found == status and message in err and err.count("\n") == 1
    assert not list(Path("maps").glob("part-*"))
