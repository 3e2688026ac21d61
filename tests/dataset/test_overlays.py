"""Pictures of a run's maps are those of `explain`: one rule for colors, and the class by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_sgcampp import explain
from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.dataset import Attributor
from captum_sgcampp.dataset.overlays import overlay


def row(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    names = {"image": "x.png", "target_name": "star", "probability": 0.75, "layer": "3", "method": "grad-cam++"}
    return {**names, "map": values.flatten(), "height": values.shape[0], "width": values.shape[1]}


def drawn(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What is drawn of a map: shares of its colors."""
    return overlay(Image.new("RGB", (8, 8)), row(values)).axes[1].images[-1].get_array()


def test_colors_begin_at_0_not_at_the_smallest_value() -> None:
    values = np.linspace(50, 100, 64, dtype=np.float32).reshape(8, 8)
    shares = drawn(values)
    assert shares.min() == pytest.approx(0.5, abs=0.02) and shares.max() == pytest.approx(1)
    np.testing.assert_allclose(shares, drawn(10 * values), atol=1e-6)


def test_the_picture_has_the_class_its_probability_the_method_the_layer_and_a_color_bar() -> None:
    figure = overlay(Image.new("RGB", (8, 8)), row(np.eye(8, dtype=np.float32)))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["x.png\nstar: 0.750", "Grad-CAM++\n3"]
    assert figure.axes[2].get_xlabel() == "value of the map"


def test_the_panels_are_those_of_explain() -> None:
    scene = draw_scene(7).image
    found = explain(None, scene, method="grad-cam++", layer="features.14")
    rows = Attributor(layers=("features.14",), methods=("grad-cam++",))({"image": [scene], "id": ["image"]})
    figure = overlay(found.image, {name: values[0] for name, values in rows.items()})
    for own, explains in zip(figure.axes, found.figure().axes, strict=True):
        assert own.get_title() == explains.get_title()
        for one, other in zip(own.images, explains.images, strict=True):
            np.testing.assert_allclose(one.get_array(), other.get_array(), atol=1e-5)
