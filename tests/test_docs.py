"""The examples in docstrings and README run, and give what they say; links lead somewhere; style checks pass."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import IntegratedGradients, LayerAttribution
from PIL import Image
from torch import Tensor, nn

import captum_sgcampp
from captum_sgcampp import bundled, metrics

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


class ImageClassifier(nn.Module):
    """What the docstrings call `net`: images (N, 3, 32, 32) to logits (N, 10); `conv` gives (N, 8, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16 * 16, 20), nn.ReLU(), nn.Linear(20, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x))


def namespace() -> dict[str, Any]:
    """The names that the examples take for granted."""
    net = ImageClassifier().eval()
    images = torch.rand(2, 3, 32, 32)
    method = captum_sgcampp.LayerGradCamPlusPlus(net, net.conv)
    attr = method.attribute(images, 3)
    return {
        **{name: getattr(captum_sgcampp, name) for name in captum_sgcampp.__all__},
        **{name: getattr(metrics, name) for name in metrics.__all__},
        **{name: getattr(bundled, name) for name in bundled.__all__},
        "bundled": bundled,
        "network": bundled.load_shapes_vgg(),
        "model": torchvision.models.squeezenet1_1(weights=None).eval(),
        "torch": torch,
        "torchvision": torchvision,
        "np": np,
        "Image": Image,
        "Path": Path,
        "LayerAttribution": LayerAttribution,
        "IntegratedGradients": IntegratedGradients,
        "net": net,
        "images": images,
        "method": method,
        "attr": attr,
        "smooth": attr,
        "photo": images[0],
    }


def modules() -> list[str]:
    found = pkgutil.walk_packages(captum_sgcampp.__path__, "captum_sgcampp.")
    return [info.name for info in found if not info.name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("captum_sgcampp.demo.") or name.endswith("commands.demo"):
        pytest.importorskip("gradio", reason="the page needs the extra 'demo'")
    module: ModuleType = importlib.import_module(name)
    weights = Path(inspect.getfile(captum_sgcampp)).parent / "bundled" / "shapes_vgg.safetensors"
    if weights.is_file():
        shutil.copy(weights, tmp_path)
    Image.new("RGB", (3024, 4032)).save(tmp_path / "holiday photo.jpg")
    Image.new("RGB", (300, 280)).save(tmp_path / "dog.png")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        test.globs = {**namespace(), **vars(module)}
        runner.run(test)
    assert runner.failures == 0


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(python_blocks())))
def test_examples_in_the_readme_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # one writes a picture
    model = torchvision.models.vgg11(weights=None).eval()
    images = torch.rand(1, 3, 224, 224)
    Image.effect_noise((320, 240), 60).save("cat.jpg")
    exec(python_blocks()[number], {"model": model, "images": images, "target": 281})


def test_links_in_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)# ]+)", README) + re.findall(r'src="([^"]+)"', README)
    local = [link for link in links if not link.startswith("http")]
    assert local
    for link in local:
        assert (ROOT / link).exists(), link


def test_every_public_name_says_what_it_takes_and_gives() -> None:
    for name in captum_sgcampp.__all__:
        thing = getattr(captum_sgcampp, name)
        if not isinstance(thing, str):
            assert thing.__doc__ and len(thing.__doc__) > 100, name


def test_typed_marker_and_data_are_installed() -> None:
    package = Path(inspect.getfile(captum_sgcampp)).parent
    assert (package / "py.typed").is_file()
    assert (package / "bundled" / "shapes_vgg.safetensors").is_file()


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], pytest.param(["mypy"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_style_and_types_are_clean(command: list[str]) -> None:
    pytest.importorskip(command[0], reason="a development tool")
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
