"""The page shows what `captum_sgcampp.explain` gives for the same settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_sgcampp import explain
from captum_sgcampp.demo.explaining import complete, explanation, sampled
from captum_sgcampp.demo.methods import SHOWN, takes_noise
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Visitor
from captum_sgcampp.vision.methods import METHODS

ALIKE = tuple(method for method in SHOWN if method in METHODS)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks()


@pytest.mark.parametrize("layer", ["features.14", "features.12"])
@pytest.mark.parametrize("restricted", [False, True])
def test_maps_classes_and_statistics_are_those_of_explain(networks: Networks, layer: str, restricted: bool) -> None:
    visitor = Visitor()
    visitor.show_scene(0)
    chosen = {"feature_maps": "3 40", "neurons": "2:12,3:14"} if restricted else {}
    given = Settings("", layer, 3, 0, ALIKE, nt_samples=6, noise_level=0.2, seed=4, **chosen)  # type: ignore[arg-type]
    settings = complete(visitor, networks, given)
    list(sampled(visitor, networks, settings))
    found = explanation(visitor, networks, settings)

    asked = explain(
        found.network.classifier,
        visitor.picture,
        [3, 0],
        layer=layer,
        method=ALIKE,
        nt_samples=6,
        noise_level=0.2,
        seed=4,
        feature_maps=[3, 40] if restricted else None,
        neurons=np.s_[2:12, 3:14] if restricted else None,
    )
    assert asked.layers == (found.layer.layer,)
    for one in asked.top:
        assert found.label(one.target) == f"{one.name}: {one.probability:.3f}"
        assert found.seen.probabilities[one.target] == one.probability
    assert [one.target for one in asked.top] == found.seen.order()[: len(asked.top)]
    for target, row in zip(found.targets, found.rows, strict=True):
        for shown in row:
            theirs = asked.map(shown.method, layer, target)
            # Rows of a larger batch are rounded otherwise than one row. Poles, which are rare here, would raise that.
            if takes_noise(shown.method):
                assert (theirs.values - shown.maps).norm() <= 1e-6 * shown.maps.norm(), shown.method
                assert theirs.nt_samples == 6
            else:
                assert torch.equal(theirs.values, shown.maps), shown.method


def test_the_first_layer_of_the_list_is_the_one_that_explain_chooses(networks: Networks) -> None:
    network = networks["shapes"]
    asked = explain(network.classifier, np.zeros((64, 64, 3), np.uint8), method="grad-cam")
    assert asked.layers[0] == network.layers[0].layer
