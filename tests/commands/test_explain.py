"""The command `explain`: pictures, choices and messages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import CLASSES, draw_scene
from captum_sgcampp.vision.classifiers import load_classifier, read_state


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


def test_images_targets_methods_and_raw_maps(run: Any, tmp_path: Path) -> None:
    for seed, name in enumerate(["a b.png", "Ünï 图.png"]):
        Image.fromarray(draw_scene(seed, classes=[1, 2]).image).save(tmp_path / name)
    status, out, err = run(
        "a b.png", "Ünï 图.png", "--target", "1", CLASSES[2].upper(), "top:2", "--method",
        "grad-cam++", "smooth-grad-cam++", "--nt-samples", 3, "--noise-level", 0.1, "--seed", 5,
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


WRONG: list[tuple[list[str], int, str]] = [
    (["missing.png"], 3, "missing.png"),
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
    (["--method", "grad-cam+"], 2, "--method: expected one of grad-cam, grad-cam++, smooth-grad-cam++, found 'grad-c"),
    (["--feature-maps", "1000"], 2, "feature_maps: expected"),
    (["--feature-maps", "top:1000"], 2, "--feature-maps: expected"),
    (["--feature-maps", "all"], 2, "--feature-maps: expected"),
    (["--neurons", "1:2"], 2, "--neurons: expected"),
    (["--neurons", "1,2"], 2, "--neurons: expected"),
    (["--neurons", "50:60,0:5"], 2, "neurons: expected"),
    (["--neurons", "a:b,c:d"], 2, "--neurons: expected"),
    (["--box", "1,2,3"], 2, "--box: expected"),
    (["--box", "5,5,900,900"], 2, "--box: expected a box in the picture of 128 x 128"),
    (["--box", "9,0,5,5"], 2, "--box: expected 0 <= X0 < X1"),
    (["--box", "0,0,nan,5"], 2, "--box: expected 4 numbers"),
    (["--box", "0,0,9,9", "--neurons", "0:1,0:1"], 2, "--neurons: not allowed with argument --box"),
    (["--out", "no/such/folder/x.png"], 3, "--out: expected"),
    (["--out", "x.doc"], 2, "--out: expected"),
    (["ok.png", "--model", "resnet999"], 2, "model: expected"),
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
    assert "Traceback" not in err and err.count("\n") == 1
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
