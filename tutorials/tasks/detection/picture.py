"""Draws maps of detected boxes, followed through the noise and not. In `tutorials`:

python -m tasks.detection.picture --out tasks/detection/boxes.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from torchvision.models.detection import RetinaNet

from captum_sgcampp.bundled import CLASSES, draw_scene
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.visualization import compare_maps, draw_box
from tasks.detection.measure import (
    METHODS_OF_BOXES,
    NOISE_LEVELS,
    Boxes,
    first_boxes,
    maps_by_index,
    maps_of_boxes,
    smooth,
)
from tasks.detection.network import load_detector
from tasks.training import fresh_seeds

ROWS = 3


def picture(detector: RetinaNet, first: Boxes) -> Figure:
    """A row for each scene, its first box in every panel."""
    noise_level = NOISE_LEVELS[-1]
    names = ["Grad-CAM", "Grad-CAM++", "Grad-CAM++, two-sided"]
    maps = {name: maps_of_boxes(detector, METHODS_OF_BOXES[name], first) for name in names}
    followed = partial(smooth, noise_level=noise_level)
    maps[f"Smooth, noise {noise_level}:\nbox followed"] = maps_of_boxes(detector, followed, first)
    maps[f"Smooth, noise {noise_level}:\nfirst box by index"] = maps_by_index(detector, noise_level, first)
    images = [scene.image for scene in first.scenes]
    rows = [{name: of_method[number] for name, of_method in maps.items()} for number in range(len(images))]
    figure = compare_maps(images, rows, [CLASSES[int(label)] for label in first.labels])
    for number, panel in enumerate(figure.axes):
        draw_box(panel, first.boxes[number // (len(maps) + 1)].tolist())
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the first scenes with several objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write, PNG")
    chosen = parser.parse_args(argv)
    detector = load_detector()
    scenes = [scene for scene in map(draw_scene, fresh_seeds(20)) if len(scene.classes) > 2][:ROWS]
    with written_whole(chosen.out) as unfinished:
        picture(detector, first_boxes(detector, scenes)).savefig(unfinished, format="png", dpi=70)


if __name__ == "__main__":
    main()
