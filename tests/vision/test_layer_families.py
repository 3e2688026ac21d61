"""Where feature maps lie: what each shape of a layer needs."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from captum_sgcampp.attr.reshape_transforms import TokenGrid, channels_last_to_first
from captum_sgcampp.vision.layer_families import layer_transform

BLOCK = nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 32))
MODEL = nn.ModuleDict({"norm": nn.LayerNorm(8), "conv": nn.Conv2d(3, 8, 3), "block": BLOCK})


@pytest.mark.parametrize(
    ("layer", "shape", "patches", "expected"),
    [
        ("conv", (1, 8, 14, 14), None, None),
        ("norm", (1, 14, 14, 8), None, channels_last_to_first),
        ("block.1", (1, 8, 8, 32), None, channels_last_to_first),  # 8 could count feature maps, (8, 32) is no image
        ("norm", (1, 197, 8), (14, 14), TokenGrid((14, 14), 1)),
        ("norm", (1, 198, 8), (14, 14), TokenGrid((14, 14), 2)),  # a distillation token
        ("norm", (1, 201, 8), None, TokenGrid((14, 14), 5)),  # registers
        ("norm", (1, 15, 8), (2, 7), TokenGrid((2, 7), 1)),
        ("norm", (1, 49, 8), None, TokenGrid((7, 7), 0)),
    ],
)
def test_the_transform_follows_from_the_shape(
    layer: str, shape: tuple[int, ...], patches: tuple[int, int] | None, expected: Any
) -> None:
    assert layer_transform(MODEL, MODEL.get_submodule(layer), shape, (224, 224), patches) == expected


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 49, 8), "feature maps of the image, found LayerNorm of shape .* windows"),
        ((1, 63, 8), "tokens that make up a grid, found LayerNorm"),
        ((1, 8), "two spatial dimensions, found LayerNorm"),
        ((1, 8, 3, 3, 3), "two spatial dimensions, found LayerNorm"),
    ],
)
def test_layers_without_maps_of_the_image_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^layer: expected .*{message}"):
        layer_transform(MODEL, MODEL["norm"], shape, (224, 224))
