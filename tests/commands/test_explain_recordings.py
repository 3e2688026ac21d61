"""`explain` of clips, volumes and signals: maps of the classes, pictures, and messages."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import seeded
from PIL import Image

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.vision.model_factory import classifier_from_factory
from captum_sgcampp.vision.recordings import read_recording

FACTORY = """
import torch
from torch import nn
from captum_sgcampp.vision.classifiers import Classifier

def prepare(recording):
    values = torch.from_numpy(recording.values.copy()).float()
    if recording.kind == "clip":
        return values.movedim(-1, 0)[None] / 255
    return values[None] if recording.kind == "signal" else values[None, None]

def network(argument):
    torch.manual_seed(0)
    conv, channels = {"clip": (nn.Conv3d, 3), "volume": (nn.Conv3d, 1), "signal": (nn.Conv1d, 2)}[argument]
    pool = nn.AdaptiveAvgPool1d(4) if argument == "signal" else nn.AdaptiveAvgPool3d((2, 2, 2))
    size = 4 if argument == "signal" else 8
    layers = [conv(channels, 6, 3, 2, 1), nn.ReLU(), conv(6, 6, 3, 1, 1), nn.ReLU(), pool, nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(6 * size, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    return Classifier(argument, model, ["up", "down", "left"], prepare, lambda shown: shown, independent=False)
"""


@pytest.fixture
def run(command: Any, tmp_path: Path) -> Any:
    """`run(kind, ...)` with a small network for that kind."""
    (tmp_path / "mine.py").write_text(FACTORY)

    def called(kind: str, *arguments: object) -> tuple[int, str, str]:
        options = ["--model-factory", f"mine.py:network={kind}", "--layer", "3", "--nt-samples", 3, "--seed", 4]
        return command("explain", *arguments, *options)

    return called


def write(kind: str, folder: Path) -> Path:
    """A small file of that kind."""
    rng = np.random.default_rng(0)
    if kind == "clip":
        frames = [Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)) for _ in range(6)]
        frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=125)
        return folder / "a.gif"
    if kind == "volume":
        nibabel = pytest.importorskip("nibabel")
        image = nibabel.Nifti1Image(rng.random((10, 12, 8)).astype(np.float32), np.diag([2.0, 2, 3, 1]))
        nibabel.save(image, folder / "a.nii.gz")
        return folder / "a.nii.gz"
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((2, 2, 1000, 0, "NONE", ""))
        file.writeframes(rng.integers(-9999, 9999, 2 * 200).astype("<i2").tobytes())
    return folder / "a.wav"


@pytest.mark.parametrize("kind", ["clip", "volume", "signal"])
def test_maps_are_those_of_the_classes_bit_for_bit(kind: str, run: Any, tmp_path: Path) -> None:
    file = write(kind, tmp_path)
    options = ["--kind", kind] if kind == "clip" else []
    options += ["--target", "down", "--method", "smooth-grad-cam++", "--save-maps", "maps"]
    status, out, err = run(kind, file.name, *options)
    assert (status, err) == (0, "")
    classifier = classifier_from_factory(f"{tmp_path / 'mine.py'}:network={kind}")
    recording = read_recording(file, kind)
    inputs = classifier.prepare(recording)
    expected, _ = LayerSmoothGradCamPlusPlus(classifier.model, classifier.model[3]).attribute(
        inputs, 1, relu_attributions=True, nt_samples=3, generator=seeded(4), return_statistics=True
    )
    manifest = json.loads((tmp_path / "maps" / "manifest.json").read_text())
    (entry,) = manifest["maps"]
    values = np.load(tmp_path / "maps" / entry["file"])
    np.testing.assert_array_equal(values, expected[0, 0].numpy())
    assert entry["class"] == "down" and entry["image"] == file.name and entry["shape"] == list(expected.shape[2:])
    assert out.count("wrote explanation") == (2 if kind == "clip" else 1)
    if kind == "volume":
        import nibabel

        saved = nibabel.load(tmp_path / "maps" / entry["file"].replace(".npy", ".nii.gz"))
        np.testing.assert_array_equal(np.asarray(saved.dataobj), values)


@pytest.mark.parametrize("kind", ["clip", "volume", "signal"])
def test_pictures_show_something_for_every_method(kind: str, run: Any, tmp_path: Path) -> None:
    status, _, err = run(kind, write(kind, tmp_path).name, "--kind", kind, "--target", "up", "--cmap", "viridis")
    assert (status, err) == (0, "")
    for number in range(1, 4):
        picture = Image.open(tmp_path / f"explanation-0{number}.png")
        assert picture.width > 300 and np.asarray(picture.convert("L")).std() > 10
    if kind == "clip":
        gif = Image.open(tmp_path / "explanation-01.gif")
        assert gif.n_frames == 6 and 110 <= gif.info["duration"] <= 140 and gif.width >= 200


def test_one_bad_file_is_named_and_the_others_are_explained(run: Any, tmp_path: Path) -> None:
    write("signal", tmp_path)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    status, out, err = run("signal", "b.wav", "a.wav", "--target", "up", "--method", "grad-cam++")
    assert status == 3 and "'b.wav': expected a complete .wav file" in err and "1 of 2 files could not be read" in err
    assert "a.wav: up" in out and list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["a.npy"], 2, "--kind: expected one of clip, volume, signal for a.npy, found none"),
        (["a.wav", "b.png"], 2, "IMAGE: expected files of one kind, found image, signal"),
        (["a.wav", "--white", "9"], 2, "--white: expected it with images alone, found it with a signal"),
        (["a.wav", "--box", "0,0,4,4"], 2, "--box: expected it with images alone, found it with a signal"),
        (["a.wav", "--list-layers"], 2, "--list-layers: expected it with images alone"),
        (["a.wav", "--target", "dwn"], 2, "down"),
        (["a.wav", "--out", "a.txt"], 2, "--out: expected a file name that ends in one of"),
        (["a.wav", "--kind", "volume"], 3, "'a.wav': expected a volume in a file .npy or .nii or .nii.gz"),
        (["gone.wav"], 3, "No such file"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    arguments: list[str], status: int, message: str, run: Any, tmp_path: Path
) -> None:
    write("signal", tmp_path)
    found, _, err = run("signal", *arguments)
    assert (found, message in err) == (status, True), err
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("missing", ["--model-factory", "--layer"])
def test_what_images_do_without_is_asked_for(missing: str, command: Any, tmp_path: Path) -> None:
    write("signal", tmp_path)
    options = {"--model-factory": "mine.py:network=signal", "--layer": "3"}
    del options[missing]
    status, _, err = command("explain", "a.wav", *(text for pair in options.items() for text in pair))
    assert status == 2 and f"{missing}: expected one for a signal, found none" in err


def test_a_gif_that_is_there_is_kept(run: Any, tmp_path: Path) -> None:
    write("clip", tmp_path)
    (tmp_path / "explanation.gif").write_bytes(b"mine")
    options = ["a.gif", "--kind", "clip", "--target", "up", "--method", "grad-cam++"]
    status, _, err = run("clip", *options)
    assert status == 3 and "expected a new file, found 'explanation.gif'" in err
    assert (tmp_path / "explanation.gif").read_bytes() == b"mine"
    assert run("clip", *options, "--out", "a.png")[0] != 0  # its GIF would be the clip itself
    assert run("clip", *options, "--overwrite")[0] == 0
    assert (tmp_path / "explanation.gif").read_bytes() != b"mine"


def test_signals_may_have_maps_with_dimensions_of_size_1(command: Any, tmp_path: Path) -> None:
    """Audio networks often convolve in two dimensions, of which one is 1."""
    factory = FACTORY.replace('values[None] if recording.kind == "signal"', "values[None, ..., None] if True")
    factory = factory.replace("nn.Conv1d", "lambda *sizes: nn.Conv2d(*sizes[:2], (3, 1), (sizes[3], 1), (1, 0))")
    (tmp_path / "mine.py").write_text(factory.replace("AdaptiveAvgPool1d(4)", "AdaptiveAvgPool2d((4, 1))"))
    write("signal", tmp_path)
    options = ["--model-factory", "mine.py:network=signal", "--layer", "3", "--method", "grad-cam++"]
    status, out, err = command("explain", "a.wav", *options)
    assert (status, err) == (0, "") and "100 x 1" in out
