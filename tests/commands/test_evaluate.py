"""The command `evaluate`: what it writes, that it goes on after being stopped, and what it refuses."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.evaluation.measuring import Measurer

QUICK = ("--steps", "3", "--nt-samples", "2", "--randomization-steps", "1", "--stride", "32")
RESULTS = ("table.md", "summary.csv", "images.csv")


@pytest.fixture
def run(command: Any) -> Any:
    """`run(...)`: exit status, standard output, standard error of `evaluate`."""
    return partial(command, "evaluate", *QUICK)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five scenes of one object each, named by their class, and their masks."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    for number in (0, 2, 3, 5, 6):
        scene = draw_scene(number, classes=[number])
        Image.fromarray(scene.image).save(tmp_path / "photos" / f"{number:04d}.png")
        Image.fromarray(scene.masks[0].astype(np.uint8) * 255).save(tmp_path / "masks" / f"{number:04d}.png")
    return tmp_path / "photos"


@pytest.fixture
def factory(tmp_path: Path) -> str:
    """A user's file with a function that makes a small model that takes images of any size."""
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def load(width='4'):\n"
        "    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, int(width), 9, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(int(width), 8))\n"
        "def nothing():\n    return 3\n"
        "def broken():\n    raise KeyError('weights')\n"
        "def small():\n    return nn.Linear(5, 5)\n"
        "def pixels():\n    return nn.Conv2d(3, 2, 1)\n"
    )
    (tmp_path / "wrong.py").write_text("def load(:\n")
    return f"{tmp_path / 'mine.py'}:load"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_scenes_give_a_table_csv_and_a_figure(run: Any, tmp_path: Path) -> None:
    status, out, err = run(
        "--scenes", 3, "--methods", "grad-cam", "smooth-grad-cam++", "random", "--out", "out"
    )  # fmt: skip
    assert status == 0, err
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in out and "Left out: grid (needs images of at least four classes" in table
    rows = read_csv(tmp_path / "out" / "summary.csv")
    assert {row["method"] for row in rows} == {"grad-cam", "smooth-grad-cam++ n=2 s=0.15", "random"}
    assert {"average_drop", "win", "deletion", "occlusion", "randomization_1", "energy", "loc_0.25"} <= {
        row["metric"] for row in rows
    }
    images = read_csv(tmp_path / "out" / "images.csv")
    for row in rows:
        key = (row["method"], row["metric"])
        values = [float(i["value"]) for i in images if (i["method"], i["metric"]) == key and i["value"]]
        if row["metric"] != "win":
            assert len(values) == int(row["n"]) and np.mean(values) == pytest.approx(float(row["mean"]), abs=1e-4)
    energy = {row["method"]: float(row["mean"]) for row in rows if row["metric"] == "energy"}
    assert energy["grad-cam"] > 2 * energy["random"]
    assert Image.open(tmp_path / "out" / "figure.png").width > 800


STOPPED = ("--scenes", 9, "--methods", "grad-cam", "smooth-grad-cam++", "--metrics", "drop", "curves", "instances")


def files(folder: Path) -> dict[str, bytes]:
    """The content of all files by name, without the claims."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*STOPPED, "--out", "whole")[0] == 0
    records, measured = Measurer.records, []

    def counted(self: Measurer, index: int) -> Any:
        measured.append(index)
        if len(measured) == 7:
            raise KeyboardInterrupt
        return records(self, index)

    monkeypatch.setattr(Measurer, "records", counted)
    assert run(*STOPPED, "--out", "stopped")[0] == 130
    assert len(list((tmp_path / "stopped").glob("part-*"))) == 1
    assert run(*STOPPED, "--out", "stopped")[0] == 0
    assert measured == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8]
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_goes_on_at_once_and_gives_the_same_bytes(run: Any, tmp_path: Path) -> None:
    arguments = [*QUICK, *map(str, STOPPED), "--threads", "1"]
    assert run(*arguments, "--out", "whole")[0] == 0
    process = subprocess.Popen([sys.executable, "-m", "captum_sgcampp", "evaluate", *arguments, "--out", "killed"])
    while not list((tmp_path / "killed").glob("part-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "table.md").exists()
    assert run(*arguments, "--out", "killed")[0] == 0
    found = {
        name: content for name, content in files(tmp_path / "killed").items() if not Path(name).name.startswith(".")
    }
    assert found == files(tmp_path / "whole")


@pytest.mark.slow
def test_several_workers_give_the_same_bytes(run: Any, tmp_path: Path) -> None:
    arguments = ("--scenes", 9, "--methods", "grad-cam", "--metrics", "sparseness", "--threads", 1)
    assert run(*arguments, "--out", "one")[0] == 0
    status, _, err = run(*arguments, "--workers", 2, "--out", "two")
    assert status == 0, err
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.slow
def test_workers_that_stop_say_so(run: Any, photos: Path) -> None:
    (photos / "0005.png").write_bytes(b"")
    status, _, err = run(photos, "--methods", "random", "--metrics", "sparseness", "--strict", "--workers", 2)
    assert status == 1 and "--workers: expected processes that finish the run, found exit codes 1, 1" in err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--steps", 4), "--steps: expected 3"),
        (("--seed", 1), "--seed: expected 0"),
        (("--scenes", 3), "--scenes: expected 2"),
        (("--metrics", "drop"), "--metrics: expected"),
        (("--methods", "random", "edges"), "--methods: expected ['random']"),
        (("--layers", "features.11"), "--layers: expected ['features.14']"),
        (("--no-channels-last",), "--channels-last: expected True"),
        (("--threads", 3), "--threads: expected"),
        (("--stride", 16), "--stride: expected 32"),
    ],
)
def test_a_changed_setting_in_the_same_folder_is_refused_by_name(
    run: Any, changed: tuple[Any, ...], message: str
) -> None:
    arguments = ("--scenes", 2, "--methods", "random", "--metrics", "sparseness", "--out", "out")
    assert run(*arguments)[0] == 0
    status, _, err = run(*arguments, *changed)
    assert status == 2 and message in err and "choose another --out" in err


def replace_an_image(folder: Path) -> None:
    (folder / "photos" / "0000.png").write_bytes((folder / "photos" / "0005.png").read_bytes())


def replace_a_mask(folder: Path) -> None:
    (folder / "masks" / "0000.png").write_bytes((folder / "masks" / "0002.png").read_bytes())


def other_masks(folder: Path) -> None:
    (folder / "masks").rename(folder / "old")
    shutil.copytree(folder / "old", folder / "masks")
    for path in (folder / "masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_an_image, "0000.png: expected the image (and mask) that was measured"),
        (replace_a_mask, "0000.png: expected the image (and mask) that was measured"),
        (other_masks, "0000.png: expected the image (and mask) that was measured"),
    ],
)
def test_results_of_other_files_of_the_same_names_are_not_taken_up(
    run: Any, photos: Path, factory: str, change: Callable[[Path], None], message: str
) -> None:
    arguments = (photos, "--model-factory", factory, "--layers", "1", "--target-from-name", "--limit", 2, "--masks",
                 "masks", "--methods", "random", "--metrics", "localization", "--out", "out")  # fmt: skip
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 0
    change(photos.parent)
    status, _, err = run(*arguments)
    assert status == 2 and message in err and "choose another --out" in err


def test_a_missing_mask_is_named(run: Any, photos: Path) -> None:
    (photos.parent / "masks" / "0002.png").unlink()
    status, _, err = run(photos, "--masks", "masks")
    assert status == 3 and "--masks: expected a mask of 0002.png" in err


def test_the_reference_can_be_changed_in_the_same_folder(run: Any, tmp_path: Path) -> None:
    arguments = ("--scenes", 2, "--metrics", "sparseness", "--methods", "random", "edges", "--out", "out")
    for reference in ("random", "edges"):
        assert run(*arguments, "--reference", reference)[0] == 0
        assert f"than {reference} on the same images" in (tmp_path / "out" / "table.md").read_text()


def test_damaged_images_are_left_out_or_stop_a_strict_run(run: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "0003.png").write_bytes(b"")
    (photos / "._0003.png").write_bytes(b"resource fork")
    (photos / "folder.jpg").mkdir()
    arguments = (photos, "--methods", "random", "--metrics", "sparseness", "--out", "out")
    status, _, err = run(*arguments, "--strict")
    assert status == 3 and "0003.png': expected an image file, found an empty file" in err
    status, out, err = run(*arguments)
    assert status == 0 and "Not measured: 0003.png (ImageError: " in out and "Not measured: 0003.png" in err
    images = read_csv(tmp_path / "out" / "images.csv")
    assert [row["image"] for row in images] == ["0000.png", "0002.png", "0005.png", "0006.png"]


@pytest.mark.slow
def test_an_images_values_do_not_depend_on_the_other_images(run: Any, tmp_path: Path) -> None:
    methods = ("noise-tunnel-grad-cam", "noise-tunnel-grad-cam++", "smooth-grad-cam++", "random")
    arguments = ("--methods", *methods, "--metrics", "sparseness", "localization")
    torch.manual_seed(5)
    assert run(*arguments, "--scenes", 1, "--out", "one")[0] == 0
    torch.manual_seed(6)
    assert run(*arguments, "--scenes", 2, "--out", "two")[0] == 0
    one, two = (read_csv(tmp_path / name / "images.csv") for name in ("one", "two"))
    assert one == [row for row in two if row["image"] == one[0]["image"]] and len(two) == 2 * len(one)
    random = [row["value"] for row in two if row["method"] == "random" and row["metric"] == "sparseness"]
    assert random[0] != random[1]


def test_a_folder_with_masks_and_a_model_of_ones_own(run: Any, photos: Path, factory: str, tmp_path: Path) -> None:
    arguments = (photos, "--model-factory", f"{factory}=6", "--target-from-name", "--layers", "1", "--methods",
                 "grad-cam", "center-gaussian", "--metrics", "grid", "localization", "instances")  # fmt: skip
    status, _, err = run(*arguments, "--masks", tmp_path / "masks", "--out", "masked")
    assert status == 0, err
    rows = {(r["method"], r["metric"]): r for r in read_csv(tmp_path / "masked" / "summary.csv")}
    assert ("grad-cam", "energy") in rows
    assert float(rows["center-gaussian", "grid"]["mean"]) == pytest.approx(0.25, abs=1e-5)
    assert float(rows["center-gaussian", "grid_two"]["mean"]) == pytest.approx(0.5, abs=1e-5)
    assert float(rows["center-gaussian", "grid_balance"]["mean"]) == pytest.approx(1, abs=1e-5)
    assert "Left out: instances" in (tmp_path / "masked" / "table.md").read_text()
    images = read_csv(tmp_path / "masked" / "images.csv")
    assert {(row["image"], row["target"]) for row in images} == {(f"000{k}.png", str(k)) for k in (0, 2, 3, 5, 6)}
    status, _, _ = run(*arguments, "--out", "bare", "--limit", 4)
    assert status == 0 and "Left out: localization (needs masks" in (tmp_path / "bare" / "table.md").read_text()


def test_mosaics_of_a_network_of_fixed_size_have_the_size_of_one_image(run: Any, photos: Path, tmp_path: Path) -> None:
    status, _, err = run(photos, "--methods", "grad-cam", "--metrics", "grid", "--out", "out")
    assert status == 0, err
    assert "mosaics of half size" in (tmp_path / "out" / "table.md").read_text()


def test_all_methods_run(run: Any, tmp_path: Path) -> None:
    names = [
        "grad-cam++",
        "top-feature-map",
        "edges",
        "noise-tunnel-grad-cam",
        "noise-tunnel-grad-cam++",
        "smooth-grad-cam++",
    ]
    status, _, err = run("--scenes", 1, "--methods", *names, "--noise-level", 0.1, 0.2, "--nt-samples", 2, 3,
                         "--reference", "smooth-grad-cam++", "--metrics", "localization", "--out", "out")  # fmt: skip
    assert status == 0, err
    methods = {row["method"] for row in read_csv(tmp_path / "out" / "summary.csv")}
    assert len(methods) == 3 + 3 * 4
    assert "than smooth-grad-cam++ n=2 s=0.1 " in (tmp_path / "out" / "table.md").read_text()


WRONG: list[tuple[tuple[object, ...], int, str]] = [
    (("nowhere",), 3, "FOLDER: expected a folder"),
    ((".",), 3, "FOLDER: expected images"),
    (("--model", "resnet18", "--weights", "absent.pt"), 3, "weights"),
    (("--scenes", 0), 2, "--scenes: expected a whole number of at least 1"),
    (("--workers", 0), 2, "--workers: expected a whole number of at least 1"),
    (("--threads", 0), 2, "--threads: expected a whole number of at least 1"),
    (("--metrics", "grid"), 2, "--metrics: expected one that these images allow, found grid (needs images of at least"),
    (("--steps", 0), 2, "--steps: expected a whole number of at least 1"),
    (("--nt-samples", 0), 2, "--nt-samples: expected a whole number of at least 1"),
    (("--noise-level", 0), 2, "--noise-level: expected"),
    (("--seed", -1), 2, "--seed: expected"),
    (("--layers", "nowhere"), 2, "--layer: expected a module"),
    (("--reference", "edges"), 2, "--reference: expected one of"),
    (("--methods", "lime"), 2, "--methods: expected one of"),
    (("--metrics", "drops"), 2, "found 'drops' (did you mean drop?)"),
    (("--tolerance", "inf"), 2, "--tolerance: expected"),
    (("--device", "nowhere"), 2, "--device: expected"),
    (("--model-factory", "mine"), 2, "--model-factory: expected module:function"),
    (("--model-factory", "nowhere.py:load"), 3, "--model-factory: expected a Python file"),
    (("--model-factory", "no_such_module:load"), 2, "--model-factory: expected a module"),
    (("--model-factory", "mine.py:absent"), 2, "--model-factory: expected a function"),
    (("--model-factory", "mine.py:nothing"), 2, "--model-factory: expected a torch.nn.Module"),
    (("--model-factory", "mine.py:broken"), 2, "--model-factory: expected a model from broken, found KeyError: 'weig"),
    (("--model-factory", "mine.py:small"), 2, "--model-factory: expected a network that takes RGB pictures, found"),
    (("--model-factory", "mine.py:pixels"), 2, "--model-factory: expected a model that gives logits"),
    (("--model-factory", "wrong.py:load"), 2, "--model-factory: expected a file that runs, found SyntaxError"),
    (("--out", "mine.py"), 3, "--out: expected a folder, found a file at mine.py"),
    (("--out", "mine.py/below"), 3, "--out: expected a folder, found a file at mine.py"),
    (("--model-factory", "mine.py:load"), 2, "FOLDER: expected a folder of images for load"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_arguments_are_named(
    run: Callable[..., tuple[int, str, str]], factory: str, arguments: tuple[object, ...], status: int, message: str
) -> None:
    found, _, err = run(*arguments)
    assert found == status and message in err and "Traceback" not in err


def test_files_of_others_are_not_replaced(run: Any, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "table.md").write_text("mine")
    status, _, err = run("--scenes", 1, "--out", "own")
    assert status == 2 and "--out: expected a new or empty folder, or one of this command, found 'table.md'" in err
    status, _, err = run(photos, "--out", photos)
    assert status == 2 and "--out: expected another folder than those that are read" in err
    assert len(list(photos.iterdir())) == 5


def test_file_names_of_any_bytes_are_measured(run: Any, photos: Path, tmp_path: Path) -> None:
    for old, new in (("0000", "\udcff"), ("0002", "\x1b[31m"), ("0003", "two\nlines, quoted")):
        (photos / f"{old}.png").rename(photos / f"{new}.png")
    arguments = (photos, "--methods", "random", "--metrics", "sparseness", "--out", "out")
    for _ in range(2):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "") and "\x1b" not in out
    names = {row["image"] for row in read_csv(tmp_path / "out" / "images.csv")}
    assert names == {r"\udcff.png", r"\x1b[31m.png", r"two\nlines, quoted.png", "0005.png", "0006.png"}


def test_file_names_that_are_no_classes_are_refused(run: Any, photos: Path) -> None:
    (photos / "cat.png").write_bytes((photos / "0000.png").read_bytes())
    status, _, err = run(photos, "--target-from-name")
    assert status == 2 and "--target-from-name: expected a class number" in err


def test_real_photographs(run: Any, assets: Path, tmp_path: Path) -> None:
    status, _, err = run(
        assets / "imagenet", "--limit", 4, "--model-factory", f"{assets / 'zoo.py'}:load=squeezenet1_1",
        "--target-from-name", "--layers", "features.12", "--methods", "grad-cam", "--metrics", "drop", "grid",
        "--out", "out",
    )  # fmt: skip
    assert status == 0, err
    rows = {row["metric"]: float(row["mean"]) for row in read_csv(tmp_path / "out" / "summary.csv")}
    assert rows["grid"] > 0.4 and rows["average_drop"] < 80


def test_a_white_for_gray_of_16_bits(run: Any, photos: Path) -> None:
    Image.fromarray(np.full((9, 9), 924, np.uint16)).save(photos / "ray.png")
    options = ("--methods", "random", "--metrics", "sparseness", "--white", "4095")
    assert "scaled to 8: 1 with white 4095; the column `note`" in run(photos, *options)[1]
