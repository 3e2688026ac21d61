"""The picture at the top of the README: several occurrences, one of them alone, and how sure the map is.

python tutorials/pictures/parts.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from captum_sgcampp import LayerSmoothGradCamPlusPlus, SamplingStatistics, box_to_neurons
from captum_sgcampp.bundled import CLASSES, Scene, draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.visualization import compare_maps, draw_box, draw_color_bar

FILE = Path(__file__).with_name("parts.jpg")
STAR = CLASSES.index("star")
LAYER = 14  # the last ReLU, 96 feature maps of 16 x 16


def box_of(scene: Scene, number: int) -> tuple[int, ...]:
    """The box around an object, in pixels."""
    rows, columns = np.nonzero(scene.masks[number])
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def words(title: str, statistics: SamplingStatistics) -> str:
    """A title that says how sure the map is."""
    count, error = int(statistics.nt_samples), 100 * statistics.standard_error.item()
    return f"{title}\n{count} noisy samples, standard error {error:.1f} %"


def main() -> None:
    scene = draw_scene(7, classes=[STAR, STAR, 6, 5])  # two stars, a heart and a ring
    network, picture = load_shapes_vgg(), Image.fromarray(scene.image)
    inputs = preprocess(picture)
    method = LayerSmoothGradCamPlusPlus(network, network.features[LAYER])
    boxes = [box_of(scene, number) for number in (0, 1)]
    maps, places = {}, [None, *boxes]
    for title, box in zip(("both stars", "the neurons of one star", "those of the other"), places, strict=True):
        neurons = None if box is None else box_to_neurons(box, inputs.shape[2:], (16, 16))
        values, statistics = method.attribute(
            inputs,
            STAR,
            nt_samples="auto",
            neurons=neurons,
            generator=torch.Generator().manual_seed(0),
            return_statistics=True,
        )
        maps[words(title, statistics)] = values
    probability = network(inputs).sigmoid()[0, STAR].item()
    figure = compare_maps(picture, maps, f"scene\nstar: {probability:.3f}")
    panels: list[Axes] = list(figure.axes)
    for panel, box in zip(panels[1:], places, strict=True):
        if box is not None:
            draw_box(panel, box)
    draw_color_bar(figure)
    figure.savefig(FILE, dpi=150, pil_kwargs={"quality": 90})


if __name__ == "__main__":
    main()
