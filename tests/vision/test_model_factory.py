"""The user's own model by `--model-factory`: what is taken, and what each mistake says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, squeezenet1_1

from captum_sgcampp import explain
from captum_sgcampp.vision.model_factory import chosen_classifier, classifier_from_factory

CODE = """\
from PIL import Image
from torch import nn
from captum_sgcampp.vision.classifiers import load_classifier

def load(width="4"):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(int(width), 8), nn.Dropout())
    return nn.Sequential(nn.Conv2d(3, int(width), 9, 8), nn.ReLU(), *pooled)

def whole():
    made = load_classifier()
    made.model.train()
    return made

def nothing():
    return 3

def broken():
    raise KeyError("weights")

def small():
    return nn.Linear(5, 5)

def gray():
    return nn.Sequential(nn.Conv2d(1, 2, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def timms():
    import timm
    return timm.create_model("resnet10t", pretrained=False)

def pixels():
    return nn.Conv2d(3, 2, 1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's files, from which Python imports too."""
    (tmp_path / "own_models.py").write_text(CODE)
    (tmp_path / "wrong.py").write_text("def load(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", ["own_models.py", "own_models"])
def test_a_file_or_a_module_gives_a_classifier_of_imagenets_inputs(folder: Path, where: str) -> None:
    classifier = classifier_from_factory(f"{where}:load=6")
    assert classifier.name == "6" and not classifier.independent and not classifier.model.training
    assert list(classifier.classes) == [f"class {number}" for number in range(8)]
    picture = Image.effect_noise((300, 260), 60).convert("RGB")
    assert torch.equal(classifier.prepare(picture)[0], ResNet18_Weights.IMAGENET1K_V1.transforms()(picture))
    assert classifier.show(picture).size == (224, 224)
    assert classifier.model[0].out_channels == 6


@pytest.mark.slow
def test_a_network_of_timm_gets_timms_own_preprocessing_as_in_explain(folder: Path) -> None:
    timm = pytest.importorskip("timm")
    classifier = classifier_from_factory("own_models.py:timms")
    config = timm.data.resolve_model_data_config(classifier.model)
    picture = Image.effect_noise((300, 260), 60).convert("RGB")
    found = explain(classifier.model, picture, method="grad-cam", layer="layer4")
    assert torch.equal(classifier.prepare(picture)[0], timm.data.create_transform(**config)(picture))
    assert torch.equal(classifier.prepare(picture), found.inputs) and classifier.notes == found.notes
    assert classifier.classes == found.classifier.classes and "timm's for this network" in classifier.notes[0]


def test_what_was_assumed_of_a_module_is_told(folder: Path) -> None:
    preprocessing, classes = classifier_from_factory("own_models.py:load").notes
    assert "assumed to be ImageNet's" in preprocessing and "or in a Classifier" in preprocessing
    assert classes == "classes: numbers; `classes` or a Classifier names them"
    assert classifier_from_factory("own_models.py:whole").notes == ()


def test_without_an_argument_the_functions_name_is_the_models(folder: Path) -> None:
    assert classifier_from_factory(f"{folder / 'own_models.py'}:load").name == "load"


def test_a_function_may_give_a_classifier_of_its_own(folder: Path) -> None:
    classifier = classifier_from_factory("own_models.py:whole")
    assert classifier.name == "shapes" and not classifier.model.training


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("mine", ValueError, "expected module:function"),
        ("own_models.py:", ValueError, "expected module:function"),
        ("nowhere.py:load", FileNotFoundError, "expected a Python file, found none at nowhere.py"),
        ("no_such_module:load", ValueError, "expected a module that runs, found ModuleNotFoundError"),
        ("own_models.py:absent", ValueError, "expected a function 'absent' in own_models.py, found none"),
        ("own_models.py:nothing", TypeError, "expected a torch.nn.Module or a Classifier, found int"),
        ("own_models.py:broken", ValueError, "expected a model from broken, found KeyError: 'weights'"),
        ("own_models.py:load=many", ValueError, "expected a model from load=many, found ValueError"),
        (
            "own_models.py:small",
            ValueError,
            "expected a network that takes RGB pictures, found RuntimeError.*a Classifier",
        ),
        (
            "own_models.py:gray",
            ValueError,
            "expected a network that takes RGB pictures, found .* of 1 channel,.*a Class",
        ),
        ("own_models.py:pixels", ValueError, r"expected a model that gives logits \(N, classes\), found \(1, 2, 224"),
        ("wrong.py:load", ValueError, "expected a file that runs, found SyntaxError"),
    ],
)
def test_mistakes_are_named(folder: Path, text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^--model-factory: {message}"):
        classifier_from_factory(text)


def test_one_function_finds_the_classifier_that_the_options_name(folder: Path) -> None:
    assert chosen_classifier().name == chosen_classifier("shapes").name == "shapes"
    assert chosen_classifier(factory="own_models.py:load=6").name == "6"
    save_file(squeezenet1_1(weights=None, num_classes=5).state_dict(), folder / "mine.safetensors")
    assert len(chosen_classifier("squeezenet1_1", folder / "mine.safetensors").classes) == 5
    for options in ({"model": "shapes"}, {"weights": Path("x.pt")}):
        with pytest.raises(ValueError, match=f"^--model-factory: expected no --{next(iter(options))} beside it, found"):
            chosen_classifier(factory="own_models.py:load", **options)
