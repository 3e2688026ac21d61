"""Maps as files: safe names, and a manifest that says what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import ConvNet, images
from PIL import Image

from captum_sgcampp import __version__
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.explained_classes import Explained, Subject
from captum_sgcampp.vision.identity import weights_digest
from captum_sgcampp.vision.methods import Noise
from captum_sgcampp.vision.saved_maps import MapFolder, file_name

NOISE = Noise("auto", 0.15, seed=4)


def classifier(seed: int = 0) -> Classifier:
    names = ["cat", "dog", "owl", "fox", "ant"]
    return Classifier("mine", ConvNet(seed=seed), names, lambda p: images(1), lambda p: p, independent=False)


def subject(name: str, target: int = 2) -> Subject:
    return Subject(name, Image.new("RGB", (8, 8)), images(1), target, "")


def row(*keys: tuple[str, str], nt_samples: int | None = None) -> dict[tuple[str, str], Explained]:
    return {key: Explained(torch.rand(1, 1, 2, 3), "", nt_samples) for key in keys}


def save_maps(folder: Path, subjects: list[Subject], rows: list[dict[tuple[str, str], Explained]]) -> None:
    maps = MapFolder(folder, classifier(), NOISE)
    for one, results in zip(subjects, rows, strict=True):
        maps.add(one, results)
    assert maps.finish() == sum(map(len, rows))


def test_the_manifest_tells_what_every_file_is(tmp_path: Path) -> None:
    rows = [row(("Grad-CAM", "relu1")), row(("Smooth Grad-CAM++", "relu2"), nt_samples=12)]
    save_maps(tmp_path / "new" / "maps", [subject("a.png"), subject("b.png", 4)], rows)
    manifest = json.loads((tmp_path / "new" / "maps" / "manifest.json").read_text())
    assert manifest["model"] == "mine"
    assert (manifest["nt_samples"], manifest["noise_level"], manifest["seed"]) == ("auto", 0.15, 4)
    assert manifest["versions"]["captum_sgcampp"] == __version__ and manifest["versions"]["torch"] == torch.__version__
    assert "captum" in manifest["versions"]
    for entry, maps, image, target in zip(manifest["maps"], rows, ("a.png", "b.png"), (2, 4), strict=True):
        ((key, one),) = maps.items()
        saved = np.load(tmp_path / "new" / "maps" / entry.pop("file"))
        np.testing.assert_array_equal(saved, one.maps[0, 0].numpy())
        assert entry == {
            "image": image,
            "target": target,
            "class": classifier().classes[target],
            "method": key[0],
            "layer": key[1],
            "nt_samples": one.nt_samples,
            "shape": [2, 3],
            "device": "cpu",
        }


def test_the_digest_tells_weights_apart() -> None:
    digests = [weights_digest(classifier(seed).model) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 16


def test_a_digest_takes_whatever_a_state_dict_holds() -> None:
    class Extra(torch.nn.Linear):
        def get_extra_state(self) -> object:
            return {"scale": 3}

    assert len(weights_digest(Extra(2, 2))) == 16


def test_pictures_of_one_stem_keep_their_own_files(tmp_path: Path) -> None:
    subjects = [subject("one/x.png"), subject("two/x.jpg"), subject("three/x.png")]
    save_maps(tmp_path, subjects, [row(("Grad-CAM", "relu1"))] * 3)
    assert len(list(tmp_path.glob("*.npy"))) == 3


NAMES = [
    "../../etc/passwd",
    "a\x00b\nc\td.png",
    "\udcff\udcfe.png",
    'a:b*c?"<>|\\d.png',
    "猫" * 90,
    "x" * 300,
    "..",
    "",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_any_picture_give_safe_files(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "maps"
    save_maps(folder, [subject(name)], [row(("Smooth Grad-CAM++", "relu1"), ("Grad-CAM", "relu1"))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps"]
    saved = list(folder.iterdir())
    assert len(saved) == 3
    for path in saved:
        assert len(path.name.encode()) <= 100 and path.name.isprintable() and not set(path.name) & set('/\\:*?"<>|')
    entries = json.loads((folder / "manifest.json").read_text())["maps"]
    assert [entry["image"] for entry in entries] == [name] * 2
    assert {entry["file"] for entry in entries} == {path.name for path in saved} - {"manifest.json"}


def test_shortened_names_stay_different() -> None:
    stem = "x" * 200
    names = {file_name(f"{stem}{end}", ".npy") for end in ("a", "b")}
    assert len(names) == 2 and all(len(name) == 100 and name.endswith(".npy") for name in names)
    assert file_name("a b", ".npy") == "a-b.npy"


def test_a_full_disk_leaves_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = row(("Grad-CAM", "relu1"))
    save_maps(tmp_path, [subject("a.png")], [first])

    def fail(path: Path, values: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        save_maps(tmp_path, [subject("a.png")], [row(("Grad-CAM", "relu1"))])
    (saved,) = tmp_path.glob("*.npy")
    np.testing.assert_array_equal(np.load(saved), first["Grad-CAM", "relu1"].maps[0, 0].numpy())
    assert len(list(tmp_path.iterdir())) == 2
