"""A run gives every image once, the same bytes however often it was killed, and loses nothing."""

from __future__ import annotations

import errno
import random
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_sgcampp import dataset
from captum_sgcampp.dataset import Attributor, attribute_dataset

OPTIONS: dict[str, Any] = {"nt_samples": 3, "batch_size": 4, "images_per_part": 5, "threads": 1}

COMMAND = """
import sys
from captum_sgcampp.dataset import attribute_dataset
if __name__ == "__main__":
    attribute_dataset([sys.argv[1]], sys.argv[2], model_factory=sys.argv[3], workers=int(sys.argv[4]),
                      nt_samples=3, batch_size=4, images_per_part=5, threads=1)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """The parts. Their names hold their digests."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def test_rows_are_those_of_the_attributor(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    files = dataset.open(tmp_path / "out")
    paths = sorted(folder.rglob("*.png"))
    expected = Attributor(model_factory=factory, nt_samples=3, batch_size=4)({"image": [str(path) for path in paths]})
    assert files.finished and len(files) == 12
    for number, path in enumerate(paths):
        row = files[number]
        assert row["image"] == path.relative_to(folder).as_posix() and row["path"] == str(path)
        assert row["target"] == expected["target"][number] and row["device"] == "cpu"
        np.testing.assert_array_equal(row["map"].flatten(), expected["map"][number])


def test_images_are_prepared_by_single_threads_and_the_model_has_all(
    folder: Path, tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"prepare": set(), "explain": set()}
    for name, threads in seen.items():
        original = getattr(Attributor, name)

        def noted(*args: Any, original: Any = original, threads: set[int] = threads, **options: Any) -> Any:
            threads.add(torch.get_num_threads())
            return original(*args, **options)

        monkeypatch.setattr(Attributor, name, noted)
    before = torch.get_num_threads()
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **(OPTIONS | {"threads": 2}))
    assert seen == {"prepare": {1}, "explain": {2}} and torch.get_num_threads() == before


def test_a_finished_run_reads_no_image_again(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    before = contents(tmp_path / "out")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"gone")
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert contents(tmp_path / "out") == before and len(before) == 3


def test_a_missing_part_is_made_again_with_the_same_bytes(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / sorted(before)[1]).unlink()
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "change",
    [
        {"nt_samples": 4},
        {"seed": 1},
        {"layers": ("1",)},
        {"white": 4095},
        {"targets": ("a",)},
        {"methods": ("grad-cam++",)},
    ],
)
def test_other_settings_are_refused_by_name(change: dict[str, Any], folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    with pytest.raises(ValueError, match=next(iter(change))):
        attribute_dataset([folder], tmp_path / "out", model_factory=factory, **(OPTIONS | change))


def test_other_weights_are_refused(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    other = tmp_path / "models.py"
    other.write_text(Path(factory.rpartition(":")[0]).read_text().replace("manual_seed(0)", "manual_seed(1)"))
    with pytest.raises(ValueError, match="weights"):
        attribute_dataset([folder], tmp_path / "out", model_factory=f"{other}:small", **OPTIONS)


def test_bad_images_are_rows_with_errors(folder: Path, tmp_path: Path, factory: str) -> None:
    (folder / "a" / "00.png").write_bytes((folder / "a" / "00.png").read_bytes()[:100])
    (folder / "b" / "empty.jpg").touch()
    with pytest.warns(UserWarning, match=r"^SOURCE: expected images that can be explained, found 2 of 13 rows") as said:
        attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    told = str(said[0].message)
    assert "a/00.png (ImageError: " in told and "; b/empty.jpg (ImageError: " in told and said[0].filename == __file__
    assert f"all: captum_sgcampp.dataset.open({str(tmp_path / 'out')!r}).errors()" in told
    files = dataset.open(tmp_path / "out")
    errors = files.errors().to_pylist()
    assert [row["image"] for row in errors] == ["a/00.png", "b/empty.jpg"] and len(files) == 13
    assert files.error_count() == 2 and files.note_count() == 0
    assert files.maps().shape == (11, 1, 16, 16) and files[0]["map"] is None
    with pytest.raises(ValueError, match=r"row 0 with the error .ImageError"):
        files.maps([0])


def test_different_whites_are_a_warning(folder: Path, tmp_path: Path, factory: str) -> None:
    for number, largest in enumerate((4000, 924, 3500)):
        Image.fromarray(np.full((40, 40), largest, np.uint16)).save(folder / f"{number}.png")
    with pytest.warns(UserWarning, match=r"2 with white 4095, 1 with white 1023") as said:
        attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert len(said) == 1 and said[0].filename == __file__


def test_one_white_is_no_warning(folder: Path, tmp_path: Path, factory: str) -> None:
    for number, largest in enumerate((4000, 3500)):
        Image.fromarray(np.full((40, 40), largest, np.uint16)).save(folder / f"{number}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert dataset.open(tmp_path / "out").note_count() == 2


def test_of_many_bad_images_the_first_three_are_named(folder: Path, tmp_path: Path, factory: str) -> None:
    for number in range(5):
        (folder / f"{number}.png").touch()
    with pytest.warns(UserWarning, match=r"0\.png \(.*; 1\.png \(.*; 2\.png \(.*\) and 2 more; all: ") as said:
        attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert "3.png" not in str(said[0].message)


def test_parts_with_errors_are_made_again_on_request(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "whole", model_factory=factory, **OPTIONS)
    image = folder / "b" / "01.png"
    image.rename(tmp_path / "away.png")
    (folder / "b" / "01.png").symlink_to(tmp_path / "away.png")
    run = attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    run.parts.finished()[0].unlink()
    (tmp_path / "away.png").rename(tmp_path / "lost.png")
    run.parts.finished()[1].unlink()
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert dataset.open(tmp_path / "out").error_count() == 1
    (tmp_path / "lost.png").rename(tmp_path / "away.png")
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert dataset.open(tmp_path / "out").error_count() == 1
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, retry_errors=True, **OPTIONS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_pyarrow_pandas_and_hugging_face_read_the_folder(folder: Path, tmp_path: Path, factory: str) -> None:
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    import pyarrow.dataset

    (folder / "a" / "00.png").write_bytes(b"damaged")
    out = tmp_path / "out"
    attribute_dataset([folder], out, model_factory=factory, overlays=True, **OPTIONS)
    files = dataset.open(out)
    expected = files.maps().numpy()
    arrow = pyarrow.dataset.dataset(out, format="parquet").to_table()
    frame = pandas.read_parquet(out)
    rows = datasets.load_dataset("parquet", data_dir=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert arrow.num_rows == len(frame) == len(rows) == len(files) == 12
    for number in range(1, 12):
        for found in (arrow["map"][number].as_py(), frame["map"][number], rows[number]["map"]):
            np.testing.assert_array_equal(np.array(found, np.float32), expected[number - 1].flatten())
    assert frame["map"][0] is None and rows[0]["map"] is None and "ImageError" in frame["error"][0]


def test_maps_are_upsampled_on_request(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    files = dataset.open(tmp_path / "out")
    assert files.maps(size="input").shape == (12, 1, 32, 32) and files.maps([3, -1], size=(5, 7)).shape == (2, 1, 5, 7)
    assert files.table(["image", "score"]).to_pandas().shape == (12, 2)
    with pytest.raises(IndexError, match="row"):
        files[12]
    assert repr(files) == f"MapFiles({str(tmp_path / 'out')!r}: 12 rows, 0 of them errors)"


def test_a_row_by_the_name_of_its_image_is_refused_with_a_call_that_finds_it(
    folder: Path, tmp_path: Path, factory: str
) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    files = dataset.open(tmp_path / "out")
    name = files[5]["image"]
    with pytest.raises(TypeError, match=r"^row: expected a number, found '") as caught:
        files[name]  # type: ignore[index]
    assert files[eval(str(caught.value).rpartition(" is ")[2])]["image"] == name


def test_layers_of_different_sizes_stand_in_one_table(folder: Path, tmp_path: Path, factory: str) -> None:
    pandas = pytest.importorskip("pandas")
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, layers=("1", "4"), **OPTIONS)
    frame = pandas.read_parquet(tmp_path / "out")
    assert [len(values) for values in frame["map"]] == [256, 64] * 12
    files = dataset.open(tmp_path / "out")
    assert files[1]["map"].shape == (1, 8, 8) and files.maps(size=(16, 16)).shape == (24, 1, 16, 16)
    with pytest.raises(ValueError, match="one size"):
        files.maps()


def test_overlays_show_every_map(folder: Path, tmp_path: Path, factory: str) -> None:
    Image.new("RGB", (9, 9)).save(folder / "a" / "%2F$x.png")
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, overlays=True, **OPTIONS)
    pictures = sorted((tmp_path / "out" / "__overlays__").rglob("*.png"))
    assert len(pictures) == 13 and all(Image.open(path).width > 600 for path in pictures)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_is_noticed_by_name(seed: int, tmp_path_factory: pytest.TempPathFactory, finished: Path) -> None:
    chance = random.Random(seed)
    path = chance.choice(sorted(finished.glob("part-*.parquet")))
    content = path.read_bytes()
    damaged, place = bytearray(content), chance.randrange(8 * len(content))
    damaged[place // 8] ^= 1 << place % 8
    path.write_bytes(damaged)
    try:
        with pytest.raises((ValueError, OSError), match=path.name):
            dataset.open(finished).table()
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, factory: str, pictures: list[Image.Image]) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    attribute_dataset([folder], folder / "out", model_factory=factory, **OPTIONS)
    return folder / "out"


@pytest.mark.parametrize("limit", [0, 100, 1000, 3000, 5000, 8000])
def test_a_full_disk_is_told_and_loses_nothing(limit: int, folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "whole", model_factory=factory, **OPTIONS)
    whole, usual = contents(tmp_path / "whole"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(OSError) as found:
            attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert found.value.errno in (errno.EFBIG, None) or "File too large" in str(found.value)
    assert contents(tmp_path / "out").items() <= whole.items()
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    assert contents(tmp_path / "out") == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(workers: int, folder: Path, tmp_path: Path, factory: str) -> None:
    for number in range(48):
        Image.effect_noise((40, 32), 60).convert("RGB").save(folder / f"{number:03d}.png")
    attribute_dataset([folder], tmp_path / "whole", model_factory=factory, **OPTIONS)
    whole, chance = contents(tmp_path / "whole"), random.Random(workers)
    (tmp_path / "command.py").write_text(COMMAND)
    command = [sys.executable, tmp_path / "command.py", folder, tmp_path / "out", factory, str(workers)]
    for _ in range(3):
        process = subprocess.Popen(command, start_new_session=True)
        target = len(contents(tmp_path / "out")) + chance.randrange(1, 4)
        while process.poll() is None and len(contents(tmp_path / "out")) < target:
            time.sleep(0.01)
        time.sleep(0.1 * chance.random())
        process.kill()
        process.wait()
        assert contents(tmp_path / "out").items() <= whole.items()
    assert subprocess.run(command, timeout=300).returncode == 0
    assert contents(tmp_path / "out") == whole
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".run"]


@pytest.mark.slow
def test_two_runners_share_a_folder(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "whole", model_factory=factory, **OPTIONS)
    (tmp_path / "command.py").write_text(COMMAND)
    command = [sys.executable, tmp_path / "command.py", folder, tmp_path / "out", factory, "1"]
    runners = [subprocess.Popen(command) for _ in range(2)]
    assert [runner.wait(300) for runner in runners] == [0, 0]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_run_does_not_go_on_without_its_source(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    folder.rename(tmp_path / "elsewhere")
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)  # nothing is missing
    next((tmp_path / "out").glob("part-*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"SOURCE: .*images.*at the start"):
        attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    (tmp_path / "elsewhere").rename(folder)
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)


def test_one_source_is_not_taken_letter_by_letter(tmp_path: Path, factory: str) -> None:
    with pytest.raises(TypeError, match="sources: expected a list or tuple, found the text"):
        attribute_dataset("./images", tmp_path / "out", model_factory=factory)


def test_another_word_for_a_size_is_refused(folder: Path, tmp_path: Path, factory: str) -> None:
    attribute_dataset([folder], tmp_path / "out", model_factory=factory, **OPTIONS)
    with pytest.raises(ValueError, match=r"size: expected .* found 'inputs'"):
        dataset.open(tmp_path / "out").maps(size="inputs")
