"""Explanations of pictures: layers, methods, and the files that show them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from captum.attr import LayerGradCam
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.functional.selection import selection_mask
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.layer_choice import deepest_layer, inner_layer, named_layer, noise_acts
from captum_sgcampp.vision.places import Place
from captum_sgcampp.visualization import compare_maps, draw_box, draw_color_bar, draw_outline

METHODS = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "smooth-grad-cam++": "Smooth Grad-CAM++",
}
TITLE_LENGTH, NAME_LENGTH = 40, 60  # characters of names in pictures and in the names of files
# Maps (1, 1, h, w) by the method's title and the layer's name.
Maps: TypeAlias = dict[tuple[str, str], Tensor]


@dataclass(frozen=True)
class Subject:
    """One picture and one class to explain.

    Attributes:
        name: of the picture.
        shown: the part of it that the model sees.
        inputs: `(1, C, H, W)`.
        target: class index.
        label: the class and its probability, in words.
    """

    name: str
    shown: Image.Image
    inputs: Tensor
    target: int
    label: str


@dataclass(frozen=True)
class Noise:
    """Of Smooth Grad-CAM++: see `LayerSmoothGradCamPlusPlus.attribute`."""

    nt_samples: int
    noise_level: float
    seed: int
    show_progress: bool = False


def classified(classifier: Classifier, picture: Image.Image, device: torch.device) -> tuple[Tensor, Tensor]:
    """The model's input, `(1, C, H, W)`, and the probability of every class, `(classes,)`."""
    inputs = classifier.prepare(picture).to(device)
    with torch.no_grad():
        return inputs, classifier.probabilities(classifier.model(inputs))[0]


def suited_layers(model: nn.Module, subject: Subject, smooth: bool) -> tuple[list[str], list[str]]:
    """The deepest layer, and an inner one where the noise changes only the scale there. And the reasons, in words.

    Args:
        model: of images.
        subject: what is explained.
        smooth: whether Smooth Grad-CAM++ is among the methods.
    """
    deepest = deepest_layer(model, subject.inputs)
    reasons = [f"{deepest} (the deepest with maps larger than 1 x 1; --layer chooses another)"]
    if not smooth or noise_acts(model, named_layer(model, deepest), subject.inputs, subject.target):
        return [deepest], reasons
    inner = inner_layer(model, subject.inputs, deepest)
    beside = "" if inner is None else f"; {inner} is shown beside it"
    reasons.append(
        f"at {deepest} noise changes only the scale of the map, so Smooth Grad-CAM++ equals Grad-CAM++ "
        f"there (as before global average pooling and a linear score){beside}"
    )
    return [deepest] if inner is None else [deepest, inner], reasons


def explained(
    model: nn.Module, layer: nn.Module, method: str, subject: Subject, noise: Noise, selection: Mapping[str, Any]
) -> tuple[Tensor, str]:
    """The map of one method, `(1, 1, h, w)`, and a note on it.

    Args:
        model: of images.
        layer: a module of it.
        method: one of `METHODS`.
        subject: what is explained.
        noise: of Smooth Grad-CAM++.
        selection: the keywords `feature_maps` and `neurons` of `attribute`, where something is selected.
    """
    if method == "smooth-grad-cam++":
        return _smooth_grad_cam_plus_plus(model, layer, subject, noise, selection)
    plain = _grad_cam if method == "grad-cam" else _grad_cam_plus_plus
    maps = plain(model, layer, subject, selection)
    return maps, _size(maps)


def _grad_cam(model: nn.Module, layer: nn.Module, subject: Subject, selection: Mapping[str, Any]) -> Tensor:
    # Captum's class has no selection, so select from its unsummed maps.
    maps = LayerGradCam(model, layer).attribute(subject.inputs, subject.target, attr_dim_summation=False).detach()
    mask = selection_mask(selection.get("feature_maps"), selection.get("neurons"), maps)
    selected: Tensor = maps if mask is None else maps * mask
    return selected.sum(1, keepdim=True).relu()


def _grad_cam_plus_plus(model: nn.Module, layer: nn.Module, subject: Subject, selection: Mapping[str, Any]) -> Tensor:
    method = LayerGradCamPlusPlus(model, layer)
    maps: Tensor = method.attribute(subject.inputs, subject.target, relu_attributions=True, **selection)
    return maps


def _smooth_grad_cam_plus_plus(
    model: nn.Module, layer: nn.Module, subject: Subject, noise: Noise, selection: Mapping[str, Any]
) -> tuple[Tensor, str]:
    maps, statistics = LayerSmoothGradCamPlusPlus(model, layer).attribute(
        subject.inputs,
        subject.target,
        relu_attributions=True,
        nt_samples=noise.nt_samples,
        noise_level=noise.noise_level,
        generator=torch.Generator().manual_seed(noise.seed),
        show_progress=noise.show_progress,
        return_statistics=True,
        **selection,
    )
    note = (
        f"{_size(maps)}, {noise.nt_samples} samples, standard error "
        f"{100 * statistics.standard_error.item():.1f} % of the map, "
        f"{100 * statistics.pole_weight_share.item():.1f} % of the weight from poles of alpha"
    )
    return maps, note


def _size(maps: Tensor) -> str:
    height, width = maps.shape[2:]
    return f"{height} x {width}{'' if maps.any() else ', all zero'}"


def save_picture(
    path: Path,
    subjects: Sequence[Subject],
    rows: Sequence[Maps],
    places: Sequence[Place | None] = (),
    *,
    cmap: str = "jet",
    note: str = "",
) -> None:
    """One row per subject: the picture and its maps.

    Args:
        path: the file. One that is there is replaced.
        subjects: of the rows.
        rows: their maps.
        places: what the maps are restricted to. It is outlined.
        cmap: color map of matplotlib.
        note: a line in the title of every map.
    """
    titled = [{"\n".join([*key, *([note] if note else [])]): maps for key, maps in row.items()} for row in rows]
    titles = [f"{_shortened(s.name)}\n{_shortened(s.label)}" for s in subjects]
    figure = compare_maps([s.shown for s in subjects], titled, titles, cmap=cmap)
    panels = len(figure.axes) // len(rows)
    for number, (place, row) in enumerate(zip(places, rows, strict=False)):
        if place is not None:
            _outline(figure.axes[number * panels :], place, row, subjects[number].shown)
    draw_color_bar(figure, cmap)
    with warnings.catch_warnings():  # letters that matplotlib's font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        with written_whole(Path(os.path.realpath(path))) as unfinished:
            figure.savefig(unfinished, dpi=150, bbox_inches="tight")


def _outline(axes: Sequence[Axes], place: Place, row: Maps, shown: Image.Image) -> None:
    """The box on the picture, and on each map the neurons that it is restricted to."""
    size = shown.height, shown.width
    masks = [place.mask(maps.shape[2:], size) for maps in row.values()]
    if place.box is None:
        draw_outline(axes[0], masks[0], size)
    else:
        draw_box(axes[0], place.box)
    for axis, mask in zip(axes[1:], masks, strict=False):
        draw_outline(axis, mask, size)


def _shortened(text: str) -> str:
    """At most as long as a panel is wide."""
    return text if len(text) <= TITLE_LENGTH else f"{text[: TITLE_LENGTH // 2]}...{text[-TITLE_LENGTH // 2 + 3 :]}"


def save_maps(folder: Path, number: int, subject: Subject, row: Maps) -> None:
    """Every map of a subject as a `.npy` file, named by the row's number, the picture, class, method and layer."""
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(subject.name).stem[:NAME_LENGTH]
    for (method, layer), values in row.items():
        stem = "".join(
            c if c.isprintable() and c not in " /\\" else "-"
            for c in f"{number:02d}_{name}_{subject.target}_{method}_{layer}"
        )
        with written_whole(folder / f"{stem}.npy") as unfinished:
            np.save(unfinished, values[0, 0].cpu().numpy())
