"""The evaluation called from Python: what suits the images, and what it gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from captum_sgcampp.evaluation import evaluate
from captum_sgcampp.evaluation.cases import scene_cases
from captum_sgcampp.evaluation.methods import chosen_methods
from captum_sgcampp.evaluation.run import RESULTS, suited_settings
from captum_sgcampp.vision.classifiers import load_classifier


@pytest.fixture(scope="module")
def classifier() -> Any:
    return load_classifier()


@pytest.fixture(scope="module")
def cases(classifier: Any) -> Any:
    return scene_cases(classifier, 2, 0, torch.device("cpu"))


def test_what_is_not_said_suits_the_images(classifier: Any, cases: Any) -> None:
    settings = suited_settings(classifier, cases, ("grid",), {"steps": 5, "window": None})
    assert (settings.steps, settings.window, settings.stride, settings.batch_size) == (5, 32, 16, 4)
    assert settings.link == "sigmoid" and settings.grid_size == "half" and settings.tolerance == 0
    assert suited_settings(classifier, cases, (), {}).grid_size == "full"


@pytest.mark.slow
def test_without_choices_all_metrics_that_the_images_allow_are_measured(
    classifier: Any, cases: Any, tmp_path: Path
) -> None:
    methods = chosen_methods(["random", "edges"], [2], [0.1])
    text = evaluate(classifier, cases, methods, tmp_path, steps=2, stride=32, randomization_steps=1)
    assert text == (tmp_path / "table.md").read_text() and all((tmp_path / name).is_file() for name in RESULTS)
    assert "than random on the same images" in text and "Left out: grid" in text and "### instances" in text


def test_a_method_that_is_not_measured_is_no_reference(classifier: Any, cases: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--reference: expected one of random, found 'edges'"):
        evaluate(classifier, cases, chosen_methods(["random"], [2], [0.1]), tmp_path, reference="edges")


def test_layers_of_tokens_are_refused(tmp_path: Path) -> None:
    """`captum.attr.LayerGradCam` would take the tokens for feature maps, without a word."""
    vit = torchvision.models.VisionTransformer(128, 32, 2, 2, 16, 32, num_classes=8).eval()
    torch.nn.init.normal_(vit.heads.head.weight)
    classifier = replace(load_classifier(), model=vit)
    cases = scene_cases(classifier, 1, 0, torch.device("cpu"))
    for layers in (None, ["encoder.ln"]):
        with pytest.raises(ValueError, match=r"^--layers: expected .* found encoder\..*, whose features come last"):
            evaluate(classifier, cases, chosen_methods(["grad-cam"], [2], [0.1]), tmp_path, layers=layers)
    assert not list(tmp_path.iterdir())
