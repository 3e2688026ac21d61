"""The evaluation called from Python: what suits the images, what it gives, and what a run refuses."""

from __future__ import annotations

import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.evaluation import evaluate
from captum_sgcampp.evaluation.cases import Case, ImageFolder, Scenes
from captum_sgcampp.evaluation.items import Item
from captum_sgcampp.evaluation.methods import PLAIN, chosen_methods
from captum_sgcampp.evaluation.run import RESULTS, Evaluation, open_evaluation
from captum_sgcampp.evaluation.settings import suited_settings
from captum_sgcampp.vision.classifiers import load_classifier
from captum_sgcampp.vision.images import read_image

CPU = torch.device("cpu")
SCENES = 10


@pytest.fixture(scope="module")
def classifier() -> Any:
    return load_classifier()


@pytest.fixture(scope="module")
def cases(classifier: Any) -> Scenes:
    return Scenes(classifier, 2, 0, CPU)


@pytest.fixture
def photos(classifier: Any, tmp_path: Path) -> ImageFolder:
    """Six images of six classes."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(draw_scene(number, classes=[number]).image).save(tmp_path / "photos" / f"{number}.png")
    return ImageFolder(classifier, tmp_path / "photos", CPU)


def opened(cases: Any, out: Path, *metrics: str) -> Evaluation:
    """Random maps of these images, which are quick to measure."""
    methods = chosen_methods(["random"], [2], [0.1])
    return open_evaluation(cases.classifier, cases, methods, out, metrics=metrics or ("sparseness",), threads=1)


def finished(cases: Any, out: Path, *metrics: str) -> str:
    evaluation = opened(cases, out, *metrics)
    evaluation.measure()
    return evaluation.report("random")


def test_what_is_not_said_suits_the_images(classifier: Any) -> None:
    example = torch.rand(1, 3, 128, 128)
    settings = suited_settings(classifier, example, "scenes", ("grid",), {"steps": 5, "window": None})
    assert (settings.steps, settings.window, settings.stride, settings.batch_size) == (5, 32, 16, 4)
    assert settings.link == "sigmoid" and settings.grid_size == "half" and settings.tolerance == 0
    assert suited_settings(classifier, example, "scenes", (), {}).grid_size == "full"


@pytest.mark.slow
def test_without_choices_all_metrics_that_the_images_allow_are_measured(
    classifier: Any, cases: Scenes, tmp_path: Path
) -> None:
    methods = chosen_methods(["random", "edges"], [2], [0.1])
    text = evaluate(classifier, cases, methods, tmp_path, steps=2, stride=32, randomization_steps=1)
    assert text == (tmp_path / "table.md").read_text() and all((tmp_path / name).is_file() for name in RESULTS)
    assert "than random on the same images" in text and "Left out: grid" in text and "### instances" in text


def test_the_report_tells_how_gray_of_16_bits_was_scaled(photos: ImageFolder, tmp_path: Path) -> None:
    assert "gray" not in finished(photos, tmp_path / "usual")
    for number, largest in enumerate((4000, 924, 3500)):
        Image.fromarray(np.full((9, 9), largest, np.uint16)).save(photos.folder / f"ray{number}.png")
    text = finished(photos, tmp_path / "out")
    assert (
        "\nImages of gray of more than 8 bits, scaled to 8: 2 with white 4095, 1 with white 1023; give --white" in text
    )
    alike = replace(photos, white=4095)
    assert "scaled to 8: 3 with white 4095; the column" in finished(alike, tmp_path / "alike")
    with pytest.raises(ValueError, match=r"^--white: expected None, as in .*, found 4095"):
        opened(alike, tmp_path / "out")


def test_a_method_that_is_not_measured_is_no_reference(classifier: Any, cases: Scenes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--reference: expected one of random, found 'edges'"):
        evaluate(classifier, cases, chosen_methods(["random"], [2], [0.1]), tmp_path, reference="edges")


def test_layers_of_tokens_are_refused(tmp_path: Path) -> None:
    """`captum.attr.LayerGradCam` would take the tokens for feature maps, without a word."""
    vit = torchvision.models.VisionTransformer(128, 32, 2, 2, 16, 32, num_classes=8).eval()
    torch.nn.init.normal_(vit.heads.head.weight)
    classifier = replace(load_classifier(), model=vit)
    cases = Scenes(classifier, 1, 0, CPU)
    for layers in (None, ["encoder.ln"]):
        with pytest.raises(ValueError, match=r"^--layers: expected .* found encoder\..*, whose features come last"):
            evaluate(classifier, cases, chosen_methods(["grad-cam"], [2], [0.1]), tmp_path, layers=layers)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_reads_classifies_and_pairs_nothing(photos: ImageFolder, tmp_path: Path) -> None:
    text = finished(photos, tmp_path / "out", "grid")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("evaluation.cases.read_image", "evaluation.contents.content", "evaluation.targets.sample_mosaics"):
            patched.setattr(f"captum_sgcampp.{name}", None)
        patched.setattr(ImageFolder, "items", None)
        assert finished(photos, tmp_path / "out", "grid") == text


def test_mosaics_are_paired_for_their_group_alone(photos: ImageFolder, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("captum_sgcampp.evaluation.targets.sample_mosaics", None)
        finished(photos, tmp_path / "out", "sparseness")


def test_each_image_is_read_once_without_mosaics(
    photos: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path, **options: Any) -> Image.Image:
        read.append(path.name)
        return read_image(path, **options)

    monkeypatch.setattr("captum_sgcampp.evaluation.cases.read_image", counted)
    finished(photos, tmp_path / "out")
    assert read == [f"{k}.png" for k in range(6)]


def a_flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["part-000001.*", ".run/settings.json", ".run/*.parquet", ".run/targets/part-*"])
def test_a_flipped_bit_in_any_file_is_noticed_and_the_file_named(
    pattern: str, photos: ImageFolder, tmp_path: Path
) -> None:
    finished(photos, tmp_path / "out", "grid")
    path = next((tmp_path / "out").glob(pattern))
    a_flipped_bit(path)
    if "targets" in pattern:  # read only while parts are missing
        next((tmp_path / "out").glob("part-000001.*")).unlink()
    with pytest.raises(ValueError, match=rf"{path.name}: expected"):
        finished(photos, tmp_path / "out", "grid")


@pytest.mark.parametrize("content", [b"", b"garbage", None])
@pytest.mark.parametrize("number", [0, 3])
def test_a_damaged_image_is_left_out_and_listed(
    content: bytes | None, number: int, photos: ImageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = photos.folder / f"{number}.png"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    text = finished(photos, tmp_path / "out", "sparseness", "grid")
    assert f"Not measured: {number}.png (ImageError: " in text and "Left out" not in text
    assert " on 5 of 6 images; " in text
    assert f"Not measured: {number}.png (ImageError: " in capsys.readouterr().err
    images = (tmp_path / "out" / "images.csv").read_text()
    assert f"{number}.png" not in images and images.count(",sparseness,") == 5
    assert finished(photos, tmp_path / "out", "sparseness", "grid") == text


def test_strict_stops_at_a_damaged_image_and_keeps_what_is_measured(photos: ImageFolder, tmp_path: Path) -> None:
    (photos.folder / "5.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"5\.png': expected an image file"):
        opened(photos, tmp_path / "out").measure(strict=True)
    assert opened(photos, tmp_path / "out").run.parts.missing() == [1]
    finished(photos, tmp_path / "out")
    with pytest.raises(ValueError, match=r"--strict: expected images .* found Not measured: 5\.png"):
        opened(photos, tmp_path / "out").report("random", strict=True)


def test_a_folder_without_a_sound_image_is_an_error(photos: ImageFolder, tmp_path: Path) -> None:
    for path in photos.folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^FOLDER: expected images that can be measured, found none: 0\.png \(Im"):
        finished(photos, tmp_path / "out")


def test_a_setting_that_fails_stops_at_the_first_image(photos: ImageFolder, tmp_path: Path) -> None:
    methods = chosen_methods(["random"], [2], [0.1])
    with pytest.raises(ValueError, match=r"0\.png, features\.14, random: .*window"):
        evaluate(photos.classifier, photos, methods, tmp_path / "out", metrics=["occlusion"], window=1000)


def test_an_image_that_fails_later_is_left_out(
    photos: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain = chosen_methods(["random"], [2], [0.1])[0].explain

    def fails(model: Any, layer: Any, inputs: Any, target: int, seed: int) -> torch.Tensor:
        if target == 4:
            raise RuntimeError("no map")
        return explain(model, layer, inputs, target, seed)

    monkeypatch.setitem(PLAIN, "random", fails)
    assert "Not measured: 4.png (RuntimeError: no map)." in finished(photos, tmp_path / "out")


def test_a_folder_that_is_gone_is_no_damaged_image(photos: ImageFolder, tmp_path: Path) -> None:
    evaluation = opened(photos, tmp_path / "out")
    photos.folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="FOLDER: expected a folder"):
        evaluation.measure()
    assert len(evaluation.run.parts.missing()) == 2


def test_files_that_changed_are_noticed_and_touched_ones_are_not(photos: ImageFolder, tmp_path: Path) -> None:
    text = finished(photos, tmp_path / "out")
    for path in photos.folder.iterdir():
        path.touch()
    assert finished(photos, tmp_path / "out") == text
    shutil.copy(photos.folder / "1.png", photos.folder / "2.png")
    with pytest.raises(ValueError, match=r"2\.png: expected the image .* that was measured"):
        finished(photos, tmp_path / "out")


def test_a_repaired_image_is_measured_when_its_part_is_deleted(photos: ImageFolder, tmp_path: Path) -> None:
    sound = (photos.folder / "5.png").read_bytes()
    (photos.folder / "5.png").write_bytes(b"")
    finished(photos, tmp_path / "out")
    (photos.folder / "5.png").write_bytes(sound)
    part = next((tmp_path / "out").glob("part-000001.*"))
    with pytest.raises(ValueError, match=rf"5\.png: .* delete .*{part.name} to measure it again"):
        finished(photos, tmp_path / "out")
    part.unlink()
    assert "Not measured" not in finished(photos, tmp_path / "out")


def test_images_that_are_added_later_are_not_part_of_the_run(photos: ImageFolder, tmp_path: Path) -> None:
    text = finished(photos, tmp_path / "out")
    shutil.copy(photos.folder / "1.png", photos.folder / "00.png")
    assert finished(photos, tmp_path / "out") == text


def test_another_model_is_refused_by_what_differs(photos: ImageFolder, tmp_path: Path) -> None:
    finished(photos, tmp_path / "out")
    other = load_classifier()
    other.model.get_parameter("features.0.weight").data[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match=r"^weights: expected .*choose another --out"):
        finished(ImageFolder(other, photos.folder, CPU), tmp_path / "out")
    with pytest.raises(ValueError, match=r"^--channels-last: expected False"):
        open_evaluation(
            photos.classifier, photos, chosen_methods(["random"], [2], [0.1]), tmp_path / "out", metrics=["sparseness"],
            channels_last=True,
        )  # fmt: skip


def test_the_memory_format_is_the_one_of_the_settings(photos: ImageFolder, tmp_path: Path) -> None:
    methods, weight = chosen_methods(["random"], [2], [0.1]), photos.classifier.model.get_parameter("features.0.weight")
    for channels_last in (True, False):
        out = tmp_path / f"{channels_last}"
        open_evaluation(photos.classifier, photos, methods, out, metrics=["sparseness"], channels_last=channels_last)
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_results_of_an_earlier_format_are_refused(cases: Scenes, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"--out: expected results of this version, found .*format has changed"):
        opened(cases, tmp_path)


def test_a_full_disk_leaves_the_results_that_were_there(
    cases: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(cases, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in RESULTS}
    write_text = Path.write_text

    def full(self: Path, text: str, **keywords: Any) -> int:
        write_text(self, text[:10], **keywords)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        opened(cases, tmp_path).report("random")
    assert {name: (tmp_path / name).read_bytes() for name in RESULTS} == before


def a_runner(out: Path, log: Path, start: Any) -> None:
    """Measures scenes in a process, and notes each one."""
    load = Scenes.load

    def noted(self: Scenes, item: Item) -> Case:
        with log.open("a") as file:
            file.write(f"{item.name}\n")
        return load(self, item)

    Scenes.load = noted  # type: ignore[method-assign]
    cases = Scenes(load_classifier(), SCENES, 0, CPU)
    start.wait()
    finished(cases, out)


@pytest.mark.slow
def test_two_processes_begin_at_once_share_the_images_and_agree_with_one(classifier: Any, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    start = spawn.Barrier(2)
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    processes = [spawn.Process(target=a_runner, args=(tmp_path / "out", log, start)) for log in logs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    read = [log.read_text().splitlines() if log.exists() else [] for log in logs]
    assert len(set(read[0] + read[1])) == len(read[0] + read[1]) == SCENES
    finished(Scenes(classifier, SCENES, 0, CPU), tmp_path / "alone")
    for name in RESULTS:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    one, other = ({path.name for path in (tmp_path / name).glob("part-*")} for name in ("out", "alone"))
    assert one == other
