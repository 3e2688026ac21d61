"""What a preprocessing does is told in words, as far as it can be asked."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torchvision
from torchvision import transforms

from captum_sgcampp.vision.preprocessing import in_words

IMAGENET = "normalized with ImageNet's mean and standard deviation"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def composed(*steps: Any) -> transforms.Compose:
    return transforms.Compose([*steps, transforms.ToTensor()])


@pytest.mark.parametrize(
    "transform, expected",
    [
        (
            torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms(),
            f"resized to 232, cropped to 224 x 224, {IMAGENET}",
        ),
        (composed(transforms.Resize(256), transforms.CenterCrop(224)), "resized to 256, cropped to 224 x 224"),
        (composed(transforms.Resize((64, 48))), "resized to 64 x 48"),
        (composed(transforms.Normalize(MEAN, STD)), IMAGENET),
        (
            composed(transforms.Normalize([0.5], [0.25])),
            "normalized with mean [0.5] and standard deviation [0.25]",
        ),
        (partial(print, composed(transforms.Resize(8))), "resized to 8"),
        (transforms.ToTensor(), ""),
        (lambda picture: picture, ""),
    ],
)
def test_steps_of_torchvision_are_named_in_their_order(transform: Any, expected: str) -> None:
    assert in_words(transform) == expected


@pytest.mark.slow
def test_timms_steps_are_named() -> None:
    data = pytest.importorskip("timm.data")
    config = {"input_size": (3, 224, 224), "crop_pct": 0.875, "mean": MEAN, "std": STD, "interpolation": "bicubic"}
    assert in_words(data.create_transform(**config)) == f"resized to 256, cropped to 224 x 224, {IMAGENET}"


@pytest.mark.slow
def test_steps_of_an_image_processor_are_named() -> None:
    transformers = pytest.importorskip("transformers")
    whole = transformers.ViTImageProcessor(size={"height": 32, "width": 48})
    half = "normalized with mean [0.5, 0.5, 0.5] and standard deviation [0.5, 0.5, 0.5]"
    assert in_words(whole) == f"resized to 32 x 48, {half}"
    cut = transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875)
    assert in_words(cut).startswith("resized to 224, ")
    clip = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 24, "width": 24})
    assert in_words(clip).startswith("resized to 32, cropped to 24 x 24, normalized with mean [0.4815, ")
