"""Maps from kept samples have the bits of the public methods, however the samples were taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captum_sgcampp.demo.kept_samples import KeptSamples
from captum_sgcampp.demo.maps import shown_map
from captum_sgcampp.demo.methods import SHOWN
from captum_sgcampp.demo.networks import Network, Networks
from captum_sgcampp.demo.recipe import Recipe
from captum_sgcampp.demo.scenes import example_scene
from captum_sgcampp.demo.settings import Settings

LAYER, TARGET = "features.14", 3


@pytest.fixture(scope="module")
def network() -> Network:
    return Networks()["shapes"]


def kept_samples(network: Network, counts: list[int], layer: str = LAYER) -> KeptSamples:
    inputs = network.classifier.prepare(example_scene(0))
    kept = KeptSamples(network, network.layer(layer), inputs, TARGET, noise_level=0.2, seed=4)
    for count in counts:
        while kept.count < count:
            kept.add_one()
        kept.noisy()
    return kept


def run_recipe(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods: tuple[str, ...], **chosen: object
) -> dict[tuple[str, int], torch.Tensor]:
    settings = Settings(noise_level=0.2, seed=4, methods=methods)
    given = {"feature_maps": (), "cells": (), "counts": (6,), "targets": (TARGET,), **chosen}
    recipe = Recipe(settings, network, network.layer(LAYER).layer, picture="", scene=0, **given)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(recipe.code(), "recipe.py", "exec"), names)
    return names["maps"]  # type: ignore[return-value]


@pytest.mark.parametrize("steps", [[6], [2, 3, 6]])
@pytest.mark.parametrize(
    ("feature_maps", "cells"), [((), ()), ((3, 40), ()), ((), ((2, 3), (2, 4))), ((1,), ((2, 3), (4, 4)))]
)
def test_the_code_makes_the_maps_of_the_page_to_the_bit(
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[int],
    feature_maps: object,
    cells: object,
) -> None:
    kept = kept_samples(network, steps)
    found = run_recipe(network, tmp_path, monkeypatch, tuple(SHOWN), feature_maps=feature_maps, cells=cells)
    for method in SHOWN:
        shown = shown_map(method, kept, feature_maps, cells)  # type: ignore[arg-type]
        assert torch.equal(shown.maps[0], found[method, TARGET]), method
        assert np.array_equal(np.load(tmp_path / f"{method}_{TARGET}.npy"), shown.maps[0].squeeze(0).numpy())


def test_raising_the_number_gives_the_bits_of_one_call(network: Network) -> None:
    steps, once = kept_samples(network, [4, 5, 12]), kept_samples(network, [12])
    for method in SHOWN:
        assert torch.equal(shown_map(method, steps).maps, shown_map(method, once).maps)


def test_no_samples_are_refused(network: Network) -> None:
    with pytest.raises(ValueError, match="n: expected at least one noisy sample"):
        shown_map("smooth-grad-cam++", kept_samples(network, []))
