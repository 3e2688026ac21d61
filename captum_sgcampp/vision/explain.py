"""The one call: a network and an image, without Captum."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.checks import check_count, check_nonnegative
from captum_sgcampp.names import nearest
from captum_sgcampp.vision.any_classifier import Described, described, device_of, for_inputs, with_classes
from captum_sgcampp.vision.any_image import OneImage, one_image
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, usable_device
from captum_sgcampp.vision.explained_picture import Request, explained_picture
from captum_sgcampp.vision.explanation import Explanation
from captum_sgcampp.vision.layer_choice import ChosenLayer
from captum_sgcampp.vision.methods import DEFAULT_METHODS, METHODS, Noise
from captum_sgcampp.wide_gray import check_white

# The bundled scene: two stars, a heart and a ring. The stars are explained.
SCENE_SEED, SCENE_CLASSES, SCENE_TARGET = 7, (3, 3, 6, 5), "star"


def explain(
    model: nn.Module | Classifier | str | None = None,
    image: Any = None,
    target: Any = None,
    *,
    layer: Any = None,
    method: str | Sequence[str] = DEFAULT_METHODS,
    weights: Any = None,
    transform: Callable[[Any], Any] | None = None,
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    nt_samples: Any = 25,
    noise_level: float = 0.15,
    seed: int = 0,
    feature_maps: Any = None,
    neurons: tuple[slice, ...] | None = None,
    box: Sequence[float] | None = None,
    white: float | None = None,
) -> Explanation:
    r"""
    Shows what an image classifier looked at: one call for a network and an image.

    The maps are those of `LayerGradCamPlusPlus`, `LayerSmoothGradCamPlusPlus` and, for Grad-CAM, of
    `captum.attr.LayerGradCam`, after the papers' ReLU: for one class and layer the same bits as those of `attribute`,
    for several as those of `attribute_targets`. The model must be in evaluation mode (`model.eval()`), and is left as
    it was. For many images see `captum_sgcampp.dataset.attribute_dataset`; for clips, volumes and signals the command
    `captum-sgcampp explain`.

    Args:

        model (torch.nn.Module, str or Classifier, optional): Network of torchvision, timm or Hugging Face, or one of
                    your own, from images (N, C, H, W) to scores (N, classes); or the name of a network of torchvision,
                    as `"resnet50"`. What a network does not tell is assumed, and the explanation says what.
                    Default: None, the network that comes with the package and knows eight shapes
        image (path, PIL.Image, numpy.ndarray or Tensor, optional): Arrays are (H, W, 3) or (H, W), tensors (3, H, W),
                    with integers from 0 to 255 or floats from 0 to 1. Gray of 16 bits is scaled to 8, and a note tells
                    how, as in `read_image`. A float tensor (1, C, H, W), or one that leaves [0, 1], is taken as the
                    model's input as it is.
                    Default: None, a scene of shapes for the network that comes with the package
        target (str, int or sequence of them, optional): The classes to explain: names, indices, `"top"`, or `"top:2"`
                    for the two most probable ones.
                    Default: None, the most probable class
        layer (str, torch.nn.Module or sequence of them, optional): As `"layer4"`.
                    Default: None, the deepest layer with maps, and an inner one where noise changes nothing there
        method (str or sequence of str, optional): Among `"grad-cam"`, `"grad-cam++"`, `"smooth-grad-cam++"`,
                    `"two-sided-grad-cam++"`, `"two-sided-smooth-grad-cam++"`, `"hires-cam"`, `"layer-cam"`.
                    Default: the first three
        weights (torchvision.models.WeightsEnum or path, optional): The weights that a module of torchvision was built
                    with, which tell preprocessing and classes, as `ResNet50_Weights.DEFAULT`; or, for a network that
                    is named, these or a file.
                    Default: None
        transform (Callable, optional): Preprocessing from a PIL image to a tensor (C, H, W), or an image processor of
                    Hugging Face.
                    Default: None, that of the weights or of timm, or else ImageNet's
        classes (sequence of str, optional): Names of the classes.
                    Default: None, those of the weights or of the network's configuration, or else numbers
        device (str or torch.device, optional): Where the model is moved to.
                    Default: None, where it is
        nt_samples (int or "auto", optional): As in `LayerSmoothGradCamPlusPlus`; `"auto"` stops by itself.
                    Default: 25
        noise_level (float, optional): As there. Default: 0.15
        seed (int, optional): Of the noise. Default: 0
        feature_maps (int, str or sequence of them, optional): The only feature maps that count; `"top:3"` are the
                    three with the largest weights.
                    Default: None, all
        neurons (tuple of slice, optional): The only rows and columns of the layer that count, as `np.s_[2:5, 3:7]`.
                    Default: None, all
        box (sequence of float, optional): The same as `(x0, y0, x1, y1)` in pixels of the image.
                    Default: None, all
        white (float, optional): The value that becomes 255 in gray pictures of 16 and 32 bits, as 4095 for X-rays of 12
                    bits, while 0 becomes 0.
                    Default: None, one that holds all values of the picture, as in `read_image`

    Returns:
        *Explanation*: `maps`, `top`, `layers`, `notes`, `show()`, `save(folder)`. `print` tells it in words.

    Raises:
        TypeError, ValueError: An argument makes no sense. The message names it.
        OSError: A file cannot be read, or weights cannot be downloaded.

    Examples::

        >>> explanation = explain(net, Image.new("RGB", (32, 32)), transform=torchvision.transforms.ToTensor())
        >>> explanation.map("smooth-grad-cam++").values.shape
        torch.Size([1, 1, 32, 32])
        >>> print(explain(method="grad-cam++"))
        Explanation of bundled scene by shapes
        most probable: star 1.000, ring 1.000, heart 1.000, ...
        layer: features.14 (the deepest layer with maps larger than 1 x 1, here 96 of 16 x 16; ...
        bundled scene: star: 1.000
          Grad-CAM++, features.14: 16 x 16
    """
    found = described(model, weights=weights, transform=transform, classes=classes)
    usual = SCENE_TARGET if image is None else "top"
    request = Request(
        targets=_targets(usual if target is None else target),
        methods=_methods(method),
        noise=_noise(nt_samples, noise_level, seed),
        layers=_layers(found.classifier.model, layer),
        feature_maps=_feature_maps(feature_maps),
        neurons=_neurons(neurons),
        box=_box(box),
    )
    given = _image(image, found.classifier, white)
    if device is not None:
        found.classifier.model.to(usable_device(str(device)))
    classifier, notes = _complete(found, given)
    if model is None and image is not None:
        notes = (*notes, about_bundled(classifier))
    explanation = explained_picture(classifier, given.name, given.content, request, device_of(classifier.model))
    return replace(explanation, notes=(*notes, *explanation.notes))


def about_bundled(classifier: Classifier, option: str = "`model`") -> str:
    """Photographs in the classes of the bundled network make no sense, so nobody should get them unasked."""
    return (
        f"explained with the bundled network, which knows {len(classifier.classes)} shapes "
        f"({', '.join(classifier.classes)}); {option} names another one, as resnet50"
    )


def bundled_scene(seed: int = 0) -> OneImage:
    """The picture that is explained where none is given."""
    scene = draw_scene(SCENE_SEED + seed, classes=SCENE_CLASSES)
    return OneImage("bundled scene", Image.fromarray(scene.image))


def _image(image: object, classifier: Classifier, white: float | None) -> OneImage:
    check_white(white)
    if image is not None:
        return one_image(image, white)
    if classifier.name != BUNDLED:
        raise ValueError(f"image: expected one for {classifier.name}, found none")
    return bundled_scene()


def _complete(found: Described, given: OneImage) -> Described:
    """The classifier for this image, with a name for every class, and all that was assumed."""
    classifier, notes = found
    if isinstance(given.content, Tensor):
        classifier, notes = for_inputs(classifier, given.content), ()
    inputs = classifier.prepare(given.content).to(device_of(classifier.model))
    named = with_classes(classifier, inputs)
    return Described(named.classifier, (*([given.note] if given.note else []), *notes, *named.notes))


def _several(argument: str, value: Any) -> list[Any]:
    """One or several, as a list."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    values = list(value) if isinstance(value, list | tuple | range | set) else [value]
    if not values:
        raise ValueError(f"{argument}: expected at least one, found none")
    return values


def _targets(target: object) -> list[str | int]:
    return [one if isinstance(one, str) else _whole("target", one) for one in _several("target", target)]


def _feature_maps(feature_maps: object) -> list[str | int]:
    chosen: list[str | int] = []
    for one in [] if feature_maps is None else _several("feature_maps", feature_maps):
        is_top = isinstance(one, str) and one.startswith("top:")
        chosen.append(one if is_top else _whole("feature_maps", one, ' or "top:3"'))
    return chosen


def _whole(argument: str, value: Any, or_else: str = " or a text") -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{argument}: expected a whole number{or_else}, found {type(value).__name__} ({value!r})")


def _methods(method: object) -> list[str]:
    names = _several("method", method)
    for name in names:
        if name not in METHODS:
            hint = nearest(str(name), METHODS, most=1)
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {name!r}{hint}")
    return list(dict.fromkeys(names))


def _layers(model: nn.Module, layer: object) -> list[str | ChosenLayer]:
    found: list[str | ChosenLayer] = []
    for one in [] if layer is None else _several("layer", layer):
        if isinstance(one, nn.Module):
            names = [name for name, module in model.named_modules() if module is one]
            if not any(names):
                raise ValueError(f"layer: expected a module of the model, found another {type(one).__name__}")
            found.append(names[0])
        elif isinstance(one, str | ChosenLayer):
            found.append(one)
        else:
            raise TypeError(f"layer: expected the name of a module, as 'layer4', found {type(one).__name__}")
    return found


def _noise(nt_samples: Any, noise_level: float, seed: int) -> Noise:
    check_nonnegative("noise_level", noise_level)
    count = nt_samples if nt_samples == "auto" else check_count("nt_samples", nt_samples)
    return Noise(count, float(noise_level), check_count("seed", seed, 0))


def _neurons(neurons: Any) -> tuple[slice, ...] | None:
    if neurons is not None and not (
        isinstance(neurons, tuple) and len(neurons) == 2 and all(isinstance(side, slice) for side in neurons)
    ):
        raise TypeError(f"neurons: expected slices of rows and columns, as np.s_[2:5, 3:7], found {neurons!r}")
    return cast("tuple[slice, ...] | None", neurons)


def _box(box: Any) -> tuple[float, ...] | None:
    if box is None:
        return None
    sides = tuple(float(side) for side in _several("box", box))
    if len(sides) != 4 or not (0 <= sides[0] < sides[2] < math.inf and 0 <= sides[1] < sides[3] < math.inf):
        raise ValueError(f"box: expected (x0, y0, x1, y1) with 0 <= x0 < x1 and 0 <= y0 < y1, found {box!r}")
    return sides
