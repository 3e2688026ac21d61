"""The files of an explanation: the picture, every map as `.npy`, a manifest, and the code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from captum_sgcampp.demo.drawing import overlay
from captum_sgcampp.demo.explaining import Explanation
from captum_sgcampp.demo.maps import ShownMap
from captum_sgcampp.demo.methods import SHOWN
from captum_sgcampp.demo.visitor import Visitor
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.explained_classes import Explained, Subject
from captum_sgcampp.vision.methods import Noise
from captum_sgcampp.vision.saved_maps import MapFolder
from captum_sgcampp.visualization.colors import draw_color_bar
from captum_sgcampp.visualization.panels import draw_title, grid

PICTURE, CODE = "picture.png", "explain.py"


def write_files(folder: Path, visitor: Visitor, found: Explanation) -> list[Path]:
    """Write all files, the picture first.

    Args:
        folder: an empty one.
        visitor: whose picture is explained.
        found: what the page shows.
    """
    save_picture(folder / PICTURE, found)
    with written_whole(folder / CODE) as unfinished:
        unfinished.write_text(found.recipe(visitor).code(), encoding="utf-8")
    settings = found.settings
    noise = Noise("auto" if settings.auto else settings.nt_samples, settings.noise_level, settings.seed)
    selection = {"feature_maps": list(found.feature_maps) or "all", "neurons": list(found.cells) or "all"}
    maps = MapFolder(folder, found.network.classifier, noise, selection)
    name = visitor.name or f"scene-{visitor.scene}"
    for target, row in zip(found.targets, found.rows, strict=True):
        subject = Subject(name, found.seen.shown, found.seen.inputs, target, found.label(target))
        maps.add(subject, {(one.method, settings.layer): _explained(one) for one in row})
    maps.finish()
    return [folder / PICTURE, folder / CODE, *sorted(folder.glob("*.json")), *sorted(folder.glob("*.npy"))]


def _explained(one: ShownMap) -> Explained:
    count = None if one.statistics is None else int(one.statistics.nt_samples)
    return Explained(one.maps, one.reason_of_zeros, count)


def save_picture(path: Path, found: Explanation) -> None:
    """What the network sees, and the maps of each class, with a color bar."""
    settings = found.settings
    figure, panels = grid(len(found.rows), 1 + max(map(len, found.rows)))
    for axes, target, row in zip(panels, found.targets, found.rows, strict=True):
        drawn: list[tuple[str, Image.Image]] = [(found.label(target), found.seen.shown)]
        for one in row:
            zeros = "\nzero everywhere" if one.reason_of_zeros else ""
            picture = overlay(found.seen.shown, one, settings.cmap, settings.opacity)
            drawn.append((f"{SHOWN[one.method]}\n{settings.layer}{zeros}", picture))
        for axis, (title, picture) in zip(axes, drawn, strict=False):
            axis.imshow(np.asarray(picture))
            draw_title(axis, title)
    draw_color_bar(figure, settings.cmap)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=150, bbox_inches="tight", format="png")
