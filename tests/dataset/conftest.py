"""A small network from a factory file, and generated images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FACTORY = """
import torch
from torch import nn
from torchvision.transforms import functional

from captum_sgcampp.vision.classifiers import Classifier


def shown(picture):
    return picture.convert("RGB").resize((32, 32))


def prepare(picture):
    return functional.normalize(functional.to_tensor(shown(picture)), [0.5] * 3, [0.25] * 3)[None]


def small():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 5),
    )
    return Classifier("small", model.eval(), list("abcde"), prepare, shown, independent=False)
"""


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("factory") / "models.py"
    path.write_text(FACTORY)
    return f"{path}:small"


def random_picture(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((40, 32), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    return [random_picture(seed) for seed in range(12)]


@pytest.fixture
def folder(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    """Twelve images in the folders of three classes."""
    for number, picture in enumerate(pictures):
        path = tmp_path / "images" / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return tmp_path / "images"
