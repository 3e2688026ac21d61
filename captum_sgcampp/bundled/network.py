r"""
The bundled network: a small VGG-style classifier of the shapes in a scene.

It is plain on purpose (convolutions, ReLU, max-pooling, then fully connected layers) and ends in
fully connected layers rather than in global average pooling and one linear layer. Behind those the
gradient at the last convolution is the same at every position and under every noise sample, and
Smooth Grad-CAM++ would have nothing to smooth.
"""

from __future__ import annotations

import math
from importlib import resources
from typing import cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor, nn

from captum_sgcampp.bundled.scenes import CLASSES, SIZE

__all__ = ["MEAN", "STD", "WEIGHTS", "ShapesVGG", "load_shapes_vgg", "normalise", "preprocess", "read_network"]

MEAN = 0.5
"""Subtracted from every colour channel, which lies between 0 and 1."""

STD = 0.25
"""What every colour channel is divided by after that. The network's input lies between -2 and 2."""

WEIGHTS = "shapes_vgg.safetensors"
"""Name of the file of trained weights beside this module."""

_BLOCKS = ((16,), (32,), (64, 64), (96, 96))  # channels of the convolutions before every max-pooling
_POOLING = (2, 2, 2, 4)  # how much every max-pooling lowers the height and width
_HIDDEN = 128  # units of the hidden fully connected layer


class ShapesVGG(nn.Module):
    r"""
    VGG-style network that tells which shapes a scene holds.

    It takes normalised images of shape (N, 3, 128, 128), as :func:`preprocess` makes them, and
    gives logits of shape (N, 8), one for every class in :data:`CLASSES`. The labels are
    independent of each other: the sigmoid of a logit is the probability that at least one object
    of the class is in the scene.

    Every ReLU is a module of its own and works out of place, so any layer can be explained. The
    last convolution is ``features[13]`` and its ReLU ``features[14]``, with 96 maps of 16 x 16;
    the pooling after it leaves 4 x 4.

    Attributes:

        channels (int): Number of maps of the last convolution, 96.
        features (nn.Sequential): Convolutions, ReLUs and max-poolings.
        classifier (nn.Sequential): Fully connected layers on the flattened maps.

    Examples::

        >>> network = load_shapes_vgg()
        >>> scene = draw_scene(0)
        >>> probabilities = network(preprocess(Image.fromarray(scene.image))).sigmoid()
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for block, pooling in zip(_BLOCKS, _POOLING, strict=True):
            for after in block:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(pooling))
        positions = (SIZE // math.prod(_POOLING)) ** 2
        self.channels = before
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(self.channels * positions, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, len(CLASSES)),
        )

    def forward(self, images: Tensor) -> Tensor:
        r"""
        Args:

            images (Tensor): Normalised images of shape (N, 3, 128, 128), see :func:`preprocess`.

        Returns:
            *Tensor* of shape (N, 8): Logits of the classes.
        """
        return cast(Tensor, self.classifier(self.features(images)))


def preprocess(image: Image.Image) -> Tensor:
    r"""
    Turns a picture into the network's input.

    Args:

        image (PIL.Image.Image): Picture of any mode and size. It is converted to RGB, and resized
                    to 128 x 128 where it has another size.

    Returns:
        *Tensor* of shape (1, 3, 128, 128): The normalised picture, with values from -2 to 2.

    Examples::

        >>> batch = preprocess(Image.fromarray(draw_scene(0).image))
    """
    picture = image.convert("RGB")
    if picture.size != (SIZE, SIZE):
        picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return normalise(pixels.unsqueeze(0))


def normalise(pixels: Tensor) -> Tensor:
    r"""
    Brings pixels to the scale that the network expects.

    Args:

        pixels (Tensor of uint8): Colours from 0 to 255, of any shape.

    Returns:
        *Tensor of float32* of the same shape, with values from -2 to 2.
    """
    return (pixels.float() / 255.0 - MEAN) / STD


def load_shapes_vgg() -> ShapesVGG:
    r"""
    Loads the trained network. Nothing is downloaded: the weights are part of the package.

    Returns:
        *ShapesVGG*: The network on the CPU, in float32 and in evaluation mode.

    Examples::

        >>> network = load_shapes_vgg()
        >>> layer = network.features[14]  # ReLU of the last convolution, the usual layer to explain
    """
    return read_network(resources.files("captum_sgcampp.bundled").joinpath(WEIGHTS).read_bytes())


def read_network(data: bytes) -> ShapesVGG:
    r"""
    Makes a network of stored weights.

    Args:

        data (bytes): Contents of a file that `save` of `tutorials/bundled_network/train.py` wrote.

    Returns:
        *ShapesVGG*: The network on the CPU, in float32 and in evaluation mode.

    Examples::

        >>> network = read_network(Path("shapes_vgg.safetensors").read_bytes())
    """
    network = ShapesVGG()
    network.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
    return network.eval()
