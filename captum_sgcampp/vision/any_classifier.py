"""A classifier of any network that people have: a name, a module of torchvision, timm, Hugging Face or their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp.bundled.network import ShapesVGG
from captum_sgcampp.checks import check_several
from captum_sgcampp.vision.any_image import drawn_input
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier, torchvision_names
from captum_sgcampp.vision.images import IMAGENET_MEAN, IMAGENET_STD, classifier_input
from captum_sgcampp.vision.preprocessing import (
    Normalization,
    in_words,
    normalization_of,
    normalized,
    resized_and_cropped,
)

IMAGENET_CLASSES = 1000
SIZE = 224  # of images, unless the network tells another


class Described(NamedTuple):
    """A classifier, and what was assumed of it, in words. Its classes may be empty: see `with_classes`."""

    classifier: Classifier
    notes: tuple[str, ...] = ()


class LogitsOf(nn.Module):
    """The logits of a network of Hugging Face. Its modules have the same names as in the network itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._network = (model,)  # a tuple hides it from torch, which would put another name before all others
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """`(N, classes)` of images `(N, C, H, W)`."""
        return cast(Tensor, self._network[0](images).logits)


def described(
    model: object,
    *,
    weights: object = None,
    transform: Callable[[Any], Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Described:
    """The classifier that the user means, and what was assumed.

    Args:
        model: None or a name, as `load_classifier`; a `Classifier`; or a module.
        weights: torchvision's, as `ResNet50_Weights.DEFAULT`; or a file for a network that is named.
        transform: the preprocessing, in place of the one that the network or its weights tell.
        classes: names of the classes, in place of those.

    Raises:
        TypeError, ValueError, OSError: a network, weights or names that make no sense.
    """
    if classes is not None:
        check_several("classes", classes)
    if isinstance(model, Classifier):
        found = Described(replace(model, model=_checked(model.model)), model.notes)
    elif model is None or isinstance(model, str):
        found = _named(model, weights)
    elif isinstance(model, nn.Module):
        found = _of_module(_checked(model), weights, given=transform is not None)
    else:
        hint = "; load a state dict into its network with load_state_dict" if isinstance(model, Mapping) else ""
        raise TypeError(
            f"model: expected a torch.nn.Module, a name or a Classifier, found {type(model).__name__}{hint}"
        )
    classifier, notes = found
    if transform is not None:
        if not callable(transform):
            raise TypeError(f"transform: expected a function of a picture, found {type(transform).__name__}")
        classifier = _with_transform(classifier, transform)
        notes = (f"preprocessing: {_with_steps('yours (`transform`)', transform)}",)
    return Described(classifier if classes is None else replace(classifier, classes=tuple(classes)), notes)


def _checked(model: nn.Module) -> nn.Module:
    if model.training:
        raise ValueError("model: expected one in evaluation mode, found one in training mode; call model.eval() first")
    return model


def _named(name: str | None, weights: object) -> Described:
    if isinstance(weights, torchvision.models.WeightsEnum) and name in torchvision_names():
        return _of_module(torchvision.models.get_model(name, weights=weights).eval(), weights, given=False)
    if not isinstance(weights, str | os.PathLike | None):
        raise TypeError(f"weights: expected a file for the network {name!r}, found {type(weights).__name__}")
    classifier = load_classifier(BUNDLED if name is None else name, None if weights is None else Path(weights))
    return Described(classifier, classifier.notes)


def _of_module(model: nn.Module, weights: Any, given: bool) -> Described:
    """The classifier of a module, and what was assumed.

    Args:
        model: in evaluation mode.
        weights: torchvision's, or None.
        given: whether the user gives the preprocessing.
    """
    if weights is not None and not isinstance(weights, torchvision.models.WeightsEnum):
        raise TypeError(
            "weights: expected those of torchvision beside a module, as ResNet50_Weights.DEFAULT, found "
            f"{type(weights).__name__}; load a file with model.load_state_dict"
        )
    if isinstance(model, ShapesVGG):
        return Described(replace(load_classifier(), model=model))
    config = getattr(model, "config", None)
    labels = getattr(config, "id2label", None) or {}
    network = LogitsOf(model) if labels else model
    independent = getattr(config, "problem_type", None) == "multi_label_classification"
    names = weights.meta["categories"] if weights is not None else [str(labels[number]) for number in sorted(labels)]
    prepare, show, note = _assumed(model)
    classifier = Classifier(_name(model), network, names, prepare, show, independent)
    transform, told = (None, "") if given else _told_transform(model, weights)
    if transform is not None:
        classifier, note = _with_transform(classifier, transform), _with_steps(told, transform)
    return Described(classifier, () if given else (f"preprocessing: {note}",))


def _with_steps(whose: str, transform: object) -> str:
    """Whose preprocessing it is, and what it does, as far as it can be asked for it."""
    steps = in_words(transform)
    return f"{whose}: {steps}" if steps else whose


def _name(model: nn.Module) -> str:
    timms = getattr(model, "pretrained_cfg", None) or {}
    return str(timms.get("architecture") or "") or type(model).__name__


def _told_transform(model: nn.Module, weights: Any) -> tuple[Callable[[Any], Any] | None, str]:
    """The preprocessing that torchvision's weights or timm tell, and in words whose it is."""
    if weights is not None:
        return weights.transforms(), f"that of {weights}"
    if getattr(model, "pretrained_cfg", None) and type(model).__module__.startswith("timm."):
        data: Any = import_module("timm.data")  # there where its networks are
        return data.create_transform(**data.resolve_model_data_config(model)), "timm's for this network"
    return None, ""


def _assumed(model: nn.Module) -> tuple[Callable[[Any], Tensor], Callable[[Any], Image.Image], str]:
    """How pictures are prepared and shown where nobody tells it, and that in words."""
    told = getattr(model, "image_size", getattr(getattr(model, "config", None), "image_size", SIZE))
    crop = told if isinstance(told, int) else SIZE
    resize = crop * 8 // 7
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    prepare = partial(_imagenet_input, model, 3 if first is None else first.in_channels, resize, crop)
    normalization = Normalization(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
    steps = ", ".join([*resized_and_cropped(resize, crop), normalized(normalization)])
    assumed = f"assumed to be ImageNet's, as this network does not tell: {steps}"
    note = f"{assumed}; give yours as `transform`, or in a Classifier"
    return prepare, partial(_shown, prepare, normalization), note


def _imagenet_input(model: nn.Module, channels: int, resize: int, crop: int, picture: Image.Image) -> Tensor:
    if channels != 3:
        raise ValueError(
            f"transform: expected one for a network of {channels} channel{'s' * (channels != 1)}, found none; give its "
            "preprocessing, from a picture to a tensor (C, H, W), as transform=torchvision.transforms.Compose([...])"
        )
    return classifier_input(picture, resize=resize, crop=crop).to(_dtype(model))


def _with_transform(classifier: Classifier, transform: Callable[[Any], Any]) -> Classifier:
    prepare = partial(_transformed, classifier.model, transform)
    return replace(classifier, prepare=prepare, show=partial(_shown, prepare, normalization_of(transform)))


def _transformed(model: nn.Module, transform: Callable[..., Any], picture: Image.Image) -> Tensor:
    """The picture as `(1, C, H, W)`, by a function or by an image processor of Hugging Face."""
    if hasattr(transform, "image_mean"):
        made = transform(images=picture, return_tensors="pt")["pixel_values"]
    else:
        made = transform(picture)
    if not isinstance(made, Tensor) or made.dim() not in (3, 4) or (made.dim() == 4 and len(made) != 1):
        found = f"a tensor of shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise TypeError(f"transform: expected one that gives a tensor (C, H, W), found {found}")
    return (made if made.dim() == 4 else made[None]).to(_dtype(model))


def _shown(prepare: Callable[[Any], Tensor], normalization: Normalization | None, picture: Image.Image) -> Image.Image:
    return drawn_input(prepare(picture), normalization)


def _dtype(model: nn.Module) -> torch.dtype:
    """Of the first weights."""
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def device_of(model: nn.Module) -> torch.device:
    """Where the first weights are."""
    return next((one.device for one in model.parameters()), torch.device("cpu"))


def for_inputs(classifier: Classifier, inputs: Tensor) -> Classifier:
    """The classifier for an image that is its input already."""
    ready = inputs.to(device_of(classifier.model), _dtype(classifier.model))
    shown = drawn_input(inputs, normalization_of(classifier.prepare) or normalization_of(classifier.show))
    return replace(classifier, prepare=lambda _: ready, show=lambda _: shown)


def with_classes(classifier: Classifier, inputs: Tensor) -> Described:
    """With a name for each score: those that are known, ImageNet's, or numbers.

    Args:
        classifier: whose classes may be empty.
        inputs: `(1, C, H, W)`, on the model's device.

    Raises:
        ValueError: a model that does not take the inputs or gives no scores, or not as many as names.
    """
    count = _count(classifier.model, inputs)
    known = len(classifier.classes)
    if known not in (0, count):
        raise ValueError(f"classes: expected {count} names, one for each score of the model, found {known}")
    if known:
        return Described(classifier)
    if count == IMAGENET_CLASSES and type(classifier.model).__module__.startswith(("torchvision.", "timm.")):
        names = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
        return Described(replace(classifier, classes=names), ("classes: assumed to be those of ImageNet",))
    numbers = [f"class {number}" for number in range(count)]
    return Described(replace(classifier, classes=numbers), ("classes: numbers; `classes` or a Classifier names them",))


def _count(model: nn.Module, inputs: Tensor) -> int:
    try:
        with torch.no_grad():
            scores = model(inputs)
    except Exception as error:  # whatever the network raises
        raise ValueError(
            f"image: expected an input that the model takes, found one of shape {tuple(inputs.shape)} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}); give its preprocessing as `transform`"
        ) from error
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        found = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"model: expected scores (N, classes), found {found}; captum_sgcampp.scores wraps others")
    return scores.shape[1]
