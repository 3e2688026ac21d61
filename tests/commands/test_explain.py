"""The command `explain`: pictures, choices and messages."""

from __future__ import annotations

import errno
import json
import weakref
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import CLASSES, draw_scene
from captum_sgcampp.commands import explain
from captum_sgcampp.vision.classifiers import load_classifier
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.weights_files import read_state


@pytest.fixture
def run(command: Any) -> Any:
    """`run(...)`: exit status, standard output, standard error of `explain`."""
    return partial(command, "explain")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's ResNet-18 of 10 classes, as a `.pt` file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mine.pt"
    torch.save(torchvision.models.resnet18(weights=None, num_classes=10).state_dict(), path)
    return path


def test_without_arguments_it_explains_a_bundled_scene(run: Any, tmp_path: Path) -> None:
    status, out, err = run()
    assert (status, err) == (0, "")
    picture = Image.open(tmp_path / "explanation.png")
    assert picture.width > 1000 and np.asarray(picture.convert("L")).std() > 20
    assert "layer: features" in out and "wrote explanation.png" in out


def test_a_white_for_gray_of_16_bits(run: Any, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 924, np.uint16)).save(tmp_path / "ray.png")
    status, out, _ = run("ray.png", "--model", "shapes", "--method", "grad-cam", "--white", "4095")
    assert status == 0 and "ray.png: gray of more than 8 bits: 0 became black and 4095 white (as asked for)" in out


def test_images_targets_methods_and_raw_maps(run: Any, tmp_path: Path) -> None:
    for seed, name in enumerate(["a b.png", "Ünï 图.png"]):
        Image.fromarray(draw_scene(seed, classes=[1, 2]).image).save(tmp_path / name)
    status, out, err = run(
        "a b.png", "Ünï 图.png", "--target", "1", CLASSES[2].upper(), "top:2", "--method",
        "grad-cam++", "smooth-grad-cam++", "--nt-samples", 3, "--noise-level", 0.1, "--seed", 5, "--model", "shapes",
        "--out", "x.jpg", "--save-maps", "maps",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert Image.open(tmp_path / "x.jpg").height > 1000
    saved = sorted((tmp_path / "maps").glob("*.npy"))
    assert len(saved) == 2 * len(out.split("Smooth Grad-CAM++,")[1:])
    classifier = load_classifier()
    layer = next(line.split()[1] for line in out.splitlines() if line.startswith("layer:"))
    inputs = classifier.prepare(Image.open(tmp_path / "a b.png"))
    expected = LayerSmoothGradCamPlusPlus(classifier.model, classifier.model.get_submodule(layer)).attribute(
        inputs, 1, relu_attributions=True, nt_samples=3, noise_level=0.1, generator=torch.Generator().manual_seed(5)
    )
    found = [np.load(path) for path in saved if path.name.startswith("00_a-b_1_Smooth") and layer in path.name]
    assert len(found) == 1
    np.testing.assert_allclose(found[0], expected[0, 0].numpy(), rtol=1e-5, atol=1e-6)


def test_selection_of_feature_maps_and_of_a_box(run: Any, tmp_path: Path) -> None:
    status, out, _ = run(
        "--feature-maps", "top:2", "5", "--box", "0,0,64,128", "--nt-samples", 2, "--save-maps", "maps"
    )
    assert status == 0 and "feature maps with the largest" in out
    for path in (tmp_path / "maps").glob("*.npy"):
        values = np.load(path)
        assert not values[:, values.shape[1] // 2 :].any()
    assert run("--neurons", "0:2,:", "--method", "grad-cam++", "--overwrite")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine.pt", "mine.safetensors"])
def test_a_users_resnet_of_its_own_classes(run: Any, resnet: Path, tmp_path: Path, name: str) -> None:
    if name.endswith("safetensors"):
        save_file(torch.load(resnet, weights_only=True), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(resnet.read_bytes())
    Image.fromarray(draw_scene(0).image).save(tmp_path / "image.png")
    status, out, err = run(
        "image.png", "--model", "resnet18", "--weights", name, "--nt-samples", 1, "--target", "class 7"
    )
    assert (status, err) == (0, "")
    assert "layer: layer4" in out and "layer3 is shown beside it" in out and "class 7" in out


def test_a_real_network_and_photograph(run: Any, zoo: ModuleType, tmp_path: Path) -> None:
    status, out, err = run(
        zoo.HERE / "imagenet" / "0292.jpg", "--model", "squeezenet1_1", "--weights",
        zoo.HERE / "models" / "squeezenet1_1.safetensors", "--nt-samples", 2, "--layer", "features.9",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "tiger: 0.9" in out


HOSTILE = [
    r"$\frac{1}$.png",
    "cost $5 and $6.png",
    "\x1b[31mred.png",
    "two\nlines.png",
    "gnp.\u202etac.png",
    "\udcff.png",
]


def test_file_names_are_shown_and_never_obeyed(run: Any, tmp_path: Path) -> None:
    for name in HOSTILE:
        Image.fromarray(draw_scene(1).image).save(tmp_path / "image.png")
        (tmp_path / "image.png").rename(tmp_path / name)
    status, out, err = run(*HOSTILE, "--model", "shapes", "--method", "grad-cam", "--save-maps", "maps")
    assert (status, err) == (0, "")
    lines = [line.partition(": ")[0] for line in out.splitlines() if "%" not in line and not line.startswith(" ")]
    shown = [r"$\frac{1}$.png", "cost $5 and $6.png", r"\x1b[31mred.png", r"two\nlines.png", r"gnp.\u202etac.png"]
    assert [line for line in lines if line.endswith("g")] == [*shown, r"\udcff.png", "wrote explanation.png"]
    assert all(path.name.isprintable() for path in (tmp_path / "maps").iterdir())
    assert len(list((tmp_path / "maps").glob("*.npy"))) == len(HOSTILE)


def test_many_rows_go_into_several_pictures_and_unreadable_images_are_named(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "ROWS", 2)
    for number in range(4):
        Image.fromarray(draw_scene(number).image).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:999])
    images = [f"{number}.png" for number in range(4)]
    status, _, err = run(*images, "absent.png", "--model", "shapes", "--method", "grad-cam", "--out", "e.png")
    assert status == 3
    complaints = err.splitlines()
    assert "1.png" in complaints[0] and "absent.png" in complaints[1] and len(complaints) == 3
    assert complaints[2] == "captum-sgcampp: error: 2 of 5 images could not be read"
    assert sorted(path.name for path in tmp_path.glob("e*")) == ["e-01.png", "e-02.png"]
    assert Image.open(tmp_path / "e-01.png").height > 1.5 * Image.open(tmp_path / "e-02.png").height
    assert run(*images, "--out", "e.png")[0] == 3


def test_pictures_are_let_go_once_their_crop_is_kept(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    most = 0

    def read(path: Path, **options: Any) -> Image.Image:
        nonlocal most
        picture = read_image(path, **options)
        alive.append(weakref.ref(picture))
        most = max(most, sum(reference() is not None for reference in alive))
        return picture

    monkeypatch.setattr(explain, "read_image", read)
    for number in range(4):
        Image.fromarray(draw_scene(number).image).resize((256, 256)).save(tmp_path / f"{number}.png")
    assert run(*(f"{number}.png" for number in range(4)), "--method", "grad-cam")[0] == 0
    assert len(alive) == 4 and most == 1


def test_files_that_are_there_are_kept(run: Any, tmp_path: Path) -> None:
    Image.fromarray(draw_scene(0).image).save(tmp_path / "image.png")
    before = (tmp_path / "image.png").read_bytes()
    quick = ("image.png", "--method", "grad-cam")
    status, _, err = run(*quick, "--out", "image.png", "--overwrite")
    assert status == 2 and "--out: expected another file than those that are read" in err
    assert (tmp_path / "image.png").read_bytes() == before
    assert run(*quick)[0] == 0
    status, _, err = run(*quick)
    assert status == 3 and "--out: expected a new file" in err and "--overwrite" in err
    assert run(*quick, "--overwrite")[0] == 0


def test_a_full_disk_gives_one_line_and_leaves_no_part(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(self: Figure, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill)
    status, _, err = run("--method", "grad-cam")
    assert status == 3 and "No space left on device" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_picture_tells_what_was_selected(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: figures.append(self) or Path(path).touch())
    quick = ("--method", "grad-cam++", "--cmap", "viridis", "--feature-maps", "top:2", "5", "--overwrite")
    assert run(*quick, "--box", "0,0,64,128")[0] == 0
    picture, attribution, bar = figures[-1].axes
    assert attribution.get_title() == "Grad-CAM++\nfeatures.14\nfeature maps top:2, 5"
    assert picture.patches[0].get_bbox().bounds == pytest.approx((-0.5, -0.5, 64, 128), abs=0.1)
    assert attribution.collections and bar.collections[0].get_cmap().name == "viridis"
    assert run(*quick, "--neurons", "0:2,0:3")[0] == 0
    picture, attribution, _ = figures[-1].axes
    assert len(picture.collections[0].get_segments()) == len(attribution.collections[0].get_segments()) == 10


WRONG: list[tuple[list[str], int, str]] = [
    (["missing.png"], 3, "missing.png"),
    (["test.png"], 3, "(did you mean text.png"),
    (["text.png"], 3, "text.png"),
    (["--target", "unicorn"], 2, "target: expected"),
    (["--target", "99"], 2, "target: expected"),
    (["--target", "top:0"], 2, "--target: expected"),
    (["--target", "top:many"], 2, "--target: expected"),
    (["--layer", "nowhere"], 2, "--layer: expected"),
    (["--nt-samples", "0"], 2, "--nt-samples: expected auto or"),
    (["--nt-samples", "three"], 2, "--nt-samples: expected auto or"),
    (["--noise-level", "-1"], 2, "--noise-level: expected"),
    (["--noise-level", "nan"], 2, "--noise-level: expected"),
    (["--seed", "-1"], 2, "--seed: expected"),
    (["--seed", "1e3"], 2, "--seed: expected"),
    (["--cmap", "virids"], 2, "--cmap: expected a color map of matplotlib as viridis, found 'virids' (did you mean v"),
    (["--out", "x" * 300 + ".png"], 3, "--out: expected a path that can be written"),
    (["--out", "text.png/x.png"], 3, "--out: expected an existing folder"),
    (["--out", "folder.png"], 3, "--out: expected a regular file"),
    (["--out", "/dev/full"], 2, "--out: expected a file name"),
    (["--save-maps", "text.png"], 3, "--save-maps: expected a folder"),
    (["--save-maps", "text.png/maps"], 3, "--save-maps: expected a folder"),
    (["--save-maps", "y" * 300], 3, "--save-maps: expected a path"),
    (["--targ", "star"], 2, "unrecognized arguments: --targ"),
    (["--method", "grad-cam+"], 2, "layer-cam, found 'grad-cam+' (did you mean grad-cam++?)"),
    (["--feature-maps", "1000"], 2, "--feature-maps: expected"),
    (["--feature-maps", "top:1000"], 2, "--feature-maps: expected"),
    (["--feature-maps", "all"], 2, "--feature-maps: expected"),
    (["--neurons", "1:2"], 2, "--neurons: expected"),
    (["--neurons", "1,2"], 2, "--neurons: expected"),
    (["--neurons", "50:60,0:5"], 2, "neurons: expected"),
    (["--neurons", "a:b,c:d"], 2, "--neurons: expected"),
    (["--box", "1,2,3"], 2, "--box: expected"),
    (["--white", "0"], 2, "--white: expected a finite number above 0, found '0'"),
    (["--box", "5,5,900,900"], 2, "--box: expected a box in the picture of 128 x 128"),
    (["--box", "9,0,5,5"], 2, "--box: expected 0 <= X0 < X1"),
    (["--box", "0,0,nan,5"], 2, "--box: expected 4 numbers"),
    (["--box", "0,0,9,9", "--neurons", "0:1,0:1"], 2, "--neurons: not allowed with argument --box"),
    (["--out", "no/such/folder/x.png"], 3, "--out: expected"),
    (["--out", "x.doc"], 2, "--out: expected"),
    (["ok.png", "--model", "resnet999"], 2, "model: expected"),
    (["ok.png", "--model", "resnet999"], 2, "(did you mean resnet"),
    (["--layer", "feature.14"], 2, "(did you mean features.14"),
    (
        ["--layer", "classifier.2"],
        2,
        "a layer with feature maps of two spatial dimensions, found Linear",
    ),
    (["--model-factory", "own.py:load"], 2, "IMAGE: expected at least one image file for own.py:load"),
    (["ok.png", "--model-factory", "own.py:load"], 3, "--model-factory: expected a Python file"),
    (["ok.png", "--model-factory", "own.py:load", "--model", "vgg11"], 2, "expected no --model beside it, found vgg11"),
    (["ok.png", "--model-factory", "own.py:load", "--weights", "x.pt"], 2, "expected no --weights beside it"),
    (["--model", "resnet18"], 2, "IMAGE: expected"),
    (["ok.png", "--model", "resnet18", "--weights", "none.pt"], 3, "weights: expected"),
    (["ok.png", "--model", "resnet18", "--weights", "text.png"], 2, "weights: expected"),
    (["ok.png", "--weights", "text.png"], 2, "weights: expected"),
    (["--device", "quantum"], 2, "--device: expected"),
]


@pytest.mark.parametrize("arguments, status, message", WRONG, ids=[" ".join(case[0])[:40] for case in WRONG])
def test_mistakes_give_one_line_and_their_exit_status(
    run: Any, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (50, 50)).save(tmp_path / "ok.png")
    (tmp_path / "folder.png").mkdir()
    found, _, err = run(*arguments)
    assert found == status and message in err
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1 and lines[0].startswith("captum-sgcampp: error: ")
    assert not (tmp_path / "explanation.png").exists()


def test_weights_of_another_model_are_refused(run: Any, resnet: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "ok.png")
    status, _, err = run("ok.png", "--model", "vgg11", "--weights", resnet)
    assert status == 2 and "weights: expected weights of vgg11" in err
    status, _, err = run("ok.png", "--model", "resnet50", "--weights", resnet)
    assert status == 2 and "weights: expected weights of resnet50" in err


def test_pickles_with_code_in_them_are_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"^weights: expected"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "written").exists()


def test_photographs_are_not_explained_with_shapes_unasked(run: Any, tmp_path: Path) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "tiger.png")
    status, _, err = run("tiger.png", "--method", "grad-cam")
    assert status == 0 and err.count("\n") == 1
    assert all(name in err for name in CLASSES) and "bundled network, which knows 8 shapes" in err and "--model" in err
    assert run("tiger.png", "--method", "grad-cam", "--model", "shapes", "--overwrite")[2] == ""


FACTORY = """
import torchvision
from torch import nn

def vit():
    model = torchvision.models.VisionTransformer(224, 56, 2, 2, 16, 32, num_classes=7)
    nn.init.normal_(model.heads.head.weight)
    return model
"""
LAST = "encoder.layers.encoder_layer_1.ln_1"


def test_a_users_transformer_is_explained_at_its_tokens(run: Any, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FACTORY)
    Image.effect_noise((300, 260), 60).convert("RGB").save(tmp_path / "x.png")
    own = ["--model-factory", "own.py:vit"]
    options = ["x.png", *own, "--target", "class 3", "--nt-samples", 2]
    status, out, err = run(*options, "--save-maps", "maps")
    assert (status, err) == (0, "") and f"layer: {LAST} (" in out and out.count(f", {LAST}: 4 x 4") == 3
    entries = json.loads((tmp_path / "maps" / "manifest.json").read_text())["maps"]
    assert [(entry["shape"], entry["class"]) for entry in entries] == [([4, 4], "class 3")] * 3
    named = ["--layer", "encoder.layers.encoder_layer_0", "--neurons", "0:2,:", "--feature-maps", 1]
    status, out, _ = run(*options, *named, "--overwrite")
    assert status == 0 and out.count("encoder_layer_0: 4 x 4") == 3
    status, out, _ = run("--list-layers", *own)
    lines = out.splitlines()
    assert status == 0 and [line.split()[0] for line in lines if "(default)" in line] == [LAST]
    assert ["conv_proj", "16", "4", "x", "4", "both", "signs"] in [line.split() for line in lines]


def test_samples_until_sure(run: Any) -> None:
    status, out, err = run("--nt-samples", "auto", "--method", "smooth-grad-cam++")
    assert (status, err) == (0, "") and " samples, standard error " in out


def test_listing_layers_writes_nothing(run: Any, tmp_path: Path) -> None:
    status, out, err = run("--list-layers")
    assert (status, err) == (0, "") and "features.14 " in out and "(default)" in out
    assert not list(tmp_path.iterdir())


def test_weights_of_nan_give_no_picture(run: Any, tmp_path: Path) -> None:
    state = torchvision.models.squeezenet1_1(weights=None, num_classes=5).state_dict()
    torch.save({**state, "features.0.bias": torch.full((64,), torch.nan)}, tmp_path / "nan.pt")
    Image.new("RGB", (50, 50)).save(tmp_path / "ok.png")
    status, _, err = run("ok.png", "--model", "squeezenet1_1", "--weights", "nan.pt", "--method", "grad-cam")
    assert status == 2 and err.endswith("found NaN or infinity in features.0.bias\n") and err.count("\n") == 1
    assert not (tmp_path / "explanation.png").exists()
