"""Regions of a volume and their scores are what they say, and so are the measures of their maps."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from _asserts import alike
from captum.attr import LayerGradCam
from tasks.volumes import measure
from tasks.volumes.regions import ManyRegionScores, Region, regions_of
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus


def small_network() -> nn.Sequential:
    """Of the form of MeshNet: layers 13 and 15 are ReLUs, and what follows 15 is linear."""
    layers: list[nn.Module] = []
    for channels in (1, *(4,) * 7):
        layers += [nn.Conv3d(channels, 4, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Conv3d(4, 3, 1))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.35)
    return network.double().eval()


@pytest.fixture
def volume() -> Tensor:
    return torch.rand(1, 1, 6, 6, 6, dtype=torch.float64)


@pytest.fixture
def regions() -> list[Region]:
    first, second = torch.zeros(2, 6, 6, 6, dtype=torch.bool)
    first[1:4, 2:5, 0:3] = second[3:6, :2, 2:] = True
    return [Region(1, first), Region(2, second)]


def test_regions_are_the_voxels_of_the_most_frequent_tissue_of_each_cube() -> None:
    logits = torch.zeros(1, 3, 30, 30, 30)
    logits[:, 0] = 1
    logits[0, 1, :10, :10, :10] = 2  # a cube that is white matter but for a layer of gray
    logits[0, 2, 0, :10, :10] = 3
    logits[0, 2, :10, :10, 12:20] = 2  # of the next cube along the last axis, 8 of 10 columns
    regions = regions_of(logits, side=10, first=0, step=10)
    assert [(r.tissue, int(r.voxels.sum())) for r in regions] == [(1, 900), (2, 800)]
    assert not regions[0].voxels[0].any() and regions[0].voxels[1:10, :10, :10].all()


def test_scores_are_means_or_sums_of_the_tissues_logits(volume: Tensor, regions: list[Region]) -> None:
    network = small_network()
    logits = network(volume)[0]
    for reduction, by_hand in (("mean", torch.mean), ("sum", torch.sum)):
        scores = ManyRegionScores(network, regions, reduction)(volume)
        expected = [by_hand(logits[region.tissue][region.voxels]) for region in regions]
        torch.testing.assert_close(scores, torch.stack(expected)[None])


@pytest.mark.parametrize("layer", ["13", "15"])
def test_grad_cam_without_the_first_layers_is_captums(volume: Tensor, regions: list[Region], layer: str) -> None:
    network = small_network()
    maps = measure.explained(network, layer, measure.GRAD_CAM, volume, regions)
    whole = LayerGradCam(ManyRegionScores(network, regions), network.get_submodule(layer))
    for number, map_ in enumerate(maps):
        torch.testing.assert_close(map_, whole.attribute(volume, number, relu_attributions=True).detach())


def test_before_a_linear_layer_grad_cam_is_the_logit_without_its_bias(volume: Tensor, regions: list[Region]) -> None:
    """So it segments the tissue wherever it is, whatever the region."""
    network = small_network()
    maps = measure.explained(network, "15", measure.GRAD_CAM, volume, regions)
    for region, map_ in zip(regions, maps, strict=True):
        evidence = network(volume)[0, region.tissue] - network[16].bias[region.tissue]
        assert alike(map_[0, 0], evidence.detach().relu(), 1e-9)


def test_before_a_linear_layer_noise_does_nothing(volume: Tensor, regions: list[Region]) -> None:
    network = small_network()
    scores, options = ManyRegionScores(network, regions), {"nt_samples": 3, "noise_level": 0.5}
    for layer, is_same in (("15", True), ("13", False)):
        place = network.get_submodule(layer)
        plain = LayerGradCamPlusPlus(scores, place).attribute(volume, 0)
        smooth = LayerSmoothGradCamPlusPlus(scores, place).attribute(volume, 0, **options)
        same = alike(smooth, plain, 1e-9)
        assert same == is_same


def test_shares_of_a_map_by_hand(regions: list[Region]) -> None:
    predicted = torch.zeros(6, 6, 6, dtype=torch.long)
    predicted[:, :, :3], predicted[0, :, 3:] = 1, 2
    map_ = torch.zeros(6, 6, 6)
    map_[1, 2, 0], map_[5, 5, 0], map_[0, 0, 5], map_[5, 5, 5] = 4.0, 3.0, 2.0, 1.0
    found: measure.Found = defaultdict(list)
    measure._add_shares(found, "13", "method", regions[0], map_, predicted)
    expected = {"region": 4 / 10, "tissue": 7 / 10, "brain": 9 / 10, "peak": 1.0}
    assert found == {("13", "method", what): [pytest.approx(value)] for what, value in expected.items()}
    found.clear()
    measure._add_shares(found, "13", "method", regions[0], 0 * map_, predicted)
    assert not found
