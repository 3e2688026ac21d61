"""The command `attribute`: a folder of images becomes Parquet parts, and mistakes have one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
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
    assert status == 0 and "error" not in err and "warning" not in err.lower()
    reason = "expected an image file, found data in none of the formats that are read (it starts with b'no image')"
    where = "all: captum_sgcampp.dataset.open('maps').errors()"
    assert (
        out
        == f"13 rows in maps, 1 of them errors: bad.jpg (ImageError: {str(photos / 'bad.jpg')!r}: {reason}); {where}\n"
    )
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


def test_a_run_without_any_map_fails_and_names_the_files(command: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").touch()
    status, _, err = command("attribute", "empty", "--out", "maps", "--methods", "grad-cam")
    assert status == 1 and err.count("\n") == 1
    assert "SOURCE: expected images that can be explained, found none: a.png (ImageError: " in err


def test_overlays_are_told_with_their_folder_and_to_go_on_the_option(command: Any, photos: Path) -> None:
    arguments = ("attribute", "photos", "--out", "maps", "--methods", "grad-cam")
    status, out, _ = command(*arguments, "--overlays")
    folder = re.search("^pictures of the maps in (.+)$", out, re.MULTILINE)
    assert status == 0 and folder is not None and any(Path(folder[1]).rglob("*.png"))
    status, _, err = command(*arguments)
    assert status == 2 and "found False; give --overlays to go on, or choose another --out" in err


def test_gray_of_16_bits_is_told(command: Any, photos: Path) -> None:
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(photos / "ray.png")
    status, out, _ = command("attribute", "photos", "--out", "maps", "--methods", "grad-cam")
    assert status == 0 and "which was scaled as their column note tells: 1\n" in out
    assert "4095 white" in dataset.open("maps").table(["note"])["note"].to_pylist()[0]


def test_different_scalings_are_counted(command: Any, photos: Path) -> None:
    """A picture whose values need fewer bits gets another white, and may get another class."""
    for number, largest in enumerate((4000, 924, 3500)):
        Image.fromarray(np.full((9, 9), largest, np.uint16)).save(photos / f"ray{number}.png")
    status, out, err = command("attribute", "photos", "--out", "maps", "--methods", "grad-cam")
    assert status == 0 and "column note tells: 3 (2 with white 4095, 1 with white 1023: give --white)\n" in out
    assert "white" not in err  # once is enough
    arguments = ("attribute", "photos", "--methods", "grad-cam", "--white", "4095", "--out")
    assert "column note tells: 3\n" in command(*arguments, "alike")[1]
    assert "white: expected None, as in " in command(*arguments, "maps")[2]


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
