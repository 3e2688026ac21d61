"""Feature maps, neurons and boxes that the map is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import ConvNet, images

from captum_sgcampp import LayerGradCamPlusPlus, box_to_neurons
from captum_sgcampp.functional.selection import feature_map_mask, neuron_mask

ACTIVATION = torch.zeros(2, 4, 5, 6)


@pytest.mark.parametrize(
    "feature_maps, expected",
    [
        (2, [2]),
        (-1, [3]),
        (np.int64(1), [1]),
        ([0, 2], [0, 2]),
        ((0, 0, 3), [0, 3]),
        (range(1, 3), [1, 2]),
        (slice(1, None, 2), [1, 3]),
        (torch.tensor([3, 1]), [1, 3]),
        (torch.tensor(2), [2]),
        (np.array([0, 3]), [0, 3]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (np.array([True, False, True, False]), [0, 2]),
    ],
)
def test_forms_of_feature_maps(feature_maps: object, expected: list[int]) -> None:
    mask = feature_map_mask(feature_maps, ACTIVATION)  # type: ignore[arg-type]
    assert mask is not None and mask.shape == (1, 4, 1, 1)
    assert mask.flatten().nonzero().flatten().tolist() == expected


def test_indices_of_feature_maps_of_each_examples_own() -> None:
    for indices in (torch.tensor([[0, 0], [-1, 2]]), np.array([[0, 0], [3, 2]])):
        mask = feature_map_mask(indices, ACTIVATION)
        assert mask is not None and mask.shape == (2, 4, 1, 1)
        assert mask[..., 0, 0].tolist() == [[True, False, False, False], [False, False, True, True]]


def test_feature_maps_of_each_examples_own() -> None:
    chosen = torch.tensor([[True, False, False, False], [False, False, True, True]])
    mask = feature_map_mask(chosen, ACTIVATION)
    assert mask is not None and torch.equal(mask[:, :, 0, 0], chosen)


@pytest.mark.parametrize(
    "neurons, expected",
    [
        (np.s_[1:3, 4:6], [(1, 4), (1, 5), (2, 4), (2, 5)]),
        (np.s_[0, :2], [(0, 0), (0, 1)]),
        (np.s_[-1, -1], [(4, 5)]),
        (np.s_[4:2:-1, 0], [(3, 0), (4, 0)]),
        ([(2, 3), (0, -1)], [(0, 5), (2, 3)]),
        ([np.array([2, 3])], [(2, 3)]),
    ],
)
def test_forms_of_neurons(neurons: object, expected: list[tuple[int, int]]) -> None:
    mask = neuron_mask(neurons, ACTIVATION)  # type: ignore[arg-type]
    assert mask is not None
    assert [tuple(place) for place in mask.nonzero().tolist()] == expected


@pytest.mark.parametrize("shape", [(5, 6), (1, 1, 5, 6), (2, 1, 5, 6), (2, 4, 5, 6), (4, 5, 6), (1, 5, 6), (1, 6)])
def test_masks_that_broadcast_are_taken(shape: tuple[int, ...]) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[..., 0] = True
    found = neuron_mask(mask, ACTIVATION)
    assert found is not None and torch.equal(found.expand_as(ACTIVATION), mask.expand_as(ACTIVATION))


def test_selections_of_signals_and_volumes() -> None:
    signal, volume = torch.zeros(2, 3, 7), torch.zeros(2, 3, 4, 5, 6)
    for neurons in (slice(1, 3), (slice(1, 3),), [1, 2], [(1,), (2,)]):
        mask = neuron_mask(neurons, signal)
        assert mask is not None and mask.nonzero().flatten().tolist() == [1, 2]
    mask = neuron_mask(np.s_[0, 1:3, :], volume)
    assert mask is not None and mask.sum() == 12
    assert neuron_mask(torch.ones(4, 5, 6, dtype=torch.bool), volume) is not None


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_parts_of_a_selection_add_up(dims: int) -> None:
    """w_k is a sum over neurons and L a sum over feature maps, so the parts of either add up to the whole."""
    model, x = ConvNet(dims).double(), images(dims=dims).double()
    method = LayerGradCamPlusPlus(model, model.relu1)
    whole = method.attribute(x, 1)
    by_map = sum(method.attribute(x, 1, feature_maps=k) for k in range(4))
    assert torch.allclose(by_map, whole)
    rest = (slice(None),) * (dims - 1)
    left, right = (method.attribute(x, 1, neurons=(half, *rest)) for half in (slice(0, 3), slice(3, 8)))
    assert not left[:, :, 3:].any() and not right[:, :, :3].any()
    total, low, high = (
        method.top_feature_maps(x, 1, k=4, neurons=(part, *rest)).weights.sum(1)
        for part in (slice(0, 8), slice(0, 3), slice(3, 8))
    )
    assert torch.allclose(low + high, total)


@pytest.mark.parametrize(
    "box, input_size, layer_size, expected",
    [
        ((0, 0, 224, 224), (224, 224), (7, 7), np.s_[0:7, 0:7]),
        ((32, 64, 96, 128), (224, 224), (7, 7), np.s_[2:4, 1:3]),
        ((0, 0, 15, 15), (224, 224), (7, 7), np.s_[0:1, 0:1]),
        ((200, 100, 201, 101), (224, 224), (7, 7), np.s_[3:4, 6:7]),
        ((10, 30), (100,), (10,), (slice(1, 3),)),
        ((0, 0, 0, 4, 8, 8), (8, 8, 8), (4, 4, 4), np.s_[0:4, 0:4, 0:2]),
        ((0, 0, 50, 100), (100, 200), (13, 13), np.s_[0:13, 0:3]),
    ],
)
def test_box_in_pixels_to_neurons(box: object, input_size: object, layer_size: object, expected: object) -> None:
    assert box_to_neurons(box, input_size, layer_size) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "box, input_size, layer_size",
    [
        ((0, 0, 10), (20, 20), (5, 5)),
        ((0, 0, 10, 10), (20, 20), (5,)),
        ((5, 0, 5, 10), (20, 20), (5, 5)),
        ((0, 0, 10, 21), (20, 20), (5, 5)),
        ((-1, 0, 10, 10), (20, 20), (5, 5)),
        ((0, 0, float("nan"), 10), (20, 20), (5, 5)),
    ],
)
def test_boxes_that_do_not_fit_are_refused(box: object, input_size: object, layer_size: object) -> None:
    with pytest.raises(ValueError, match=r"^(box|layer_size): expected .*found"):
        box_to_neurons(box, input_size, layer_size)  # type: ignore[arg-type]
