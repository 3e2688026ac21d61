"""The parameter randomisation test: what is drawn anew, and that it tells an edge detector from a faithful map."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import LayerGradCam
from networks import ConvNet
from torch import Tensor, nn

from captum_sgcampp.bundled import draw_scenes, load_shapes_vgg
from captum_sgcampp.bundled.network import normalise
from captum_sgcampp.metrics import parameter_randomization, randomized_models


def changed(model: nn.Module, other: nn.Module) -> set[str]:
    """Modules whose parameters differ."""
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    return {name.rpartition(".")[0] for (name, p), q in pairs if not torch.equal(p, q)}


def test_cascading_goes_from_the_top_down_and_independent_takes_one_at_a_time() -> None:
    model = ConvNet()
    names = ["fc2", "fc1", "conv2", "conv1"]
    cascading = dict(randomized_models(model))
    assert list(cascading) == names
    for count, name in enumerate(names, 1):
        assert changed(model, cascading[name]) == set(names[:count])
    for name, other in randomized_models(model, order="independent"):
        assert changed(model, other) == {name}


def test_steps_are_spread_and_end_with_the_lowest_layer() -> None:
    model = ConvNet()
    found = dict(randomized_models(model, steps=2))
    assert list(found) == ["fc1", "conv1"]
    assert changed(model, found["fc1"]) == {"fc2", "fc1"}
    assert len(dict(randomized_models(model, steps=99))) == 4


def test_the_model_and_the_random_state_stay_as_they_are_and_the_seed_decides() -> None:
    model = ConvNet()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first, again, other = (dict(randomized_models(model, seed=seed))["conv1"].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


class OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(5 + 0.1 * torch.randn(400))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def test_parameters_without_an_initialisation_of_their_own_keep_mean_and_spread() -> None:
    model = OwnParameter()
    drawn = next(other for _, other in randomized_models(model)).get_parameter("gain")
    assert abs(drawn.mean().item() - 5) < 0.03 and abs(drawn.std().item() - 0.1) < 0.02
    assert not torch.equal(drawn, model.gain)


def edges(inputs: Tensor) -> Tensor:
    down, right = inputs.diff(dim=2)[..., :-1], inputs.diff(dim=3)[:, :, :-1]
    return (down.abs() + right.abs()).sum(1, keepdim=True)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_an_edge_detector_fails_and_grad_cam_passes(order: str) -> None:
    model = load_shapes_vgg()
    scenes = list(draw_scenes(range(6)))
    inputs = normalise(torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes]))
    target = torch.tensor([scene.classes[0] for scene in scenes])

    def grad_cam(network: nn.Module) -> Tensor:
        return LayerGradCam(network, network.get_submodule("features.14")).attribute(inputs, target)

    of_edges = parameter_randomization(lambda network: edges(inputs), model, order=order, steps=3)
    assert all((similarity > 0.999).all() for similarity in of_edges.values())
    faithful = parameter_randomization(grad_cam, model, order=order, steps=3)
    assert all(similarity.mean() < 0.75 for similarity in faithful.values())
    if order == "cascading":
        assert abs(list(faithful.values())[-1].mean()) < 0.35


def test_agrees_with_quantus_on_what_is_drawn_anew() -> None:
    quantus = pytest.importorskip("quantus")
    model = ConvNet()
    wrapped = quantus.helpers.model.pytorch_model.PyTorchModel(model)
    for order, theirs in (("cascading", "top_down"), ("independent", "independent")):
        # Quantus yields one copy that it goes on changing, and takes single layers from the bottom up.
        expected = {name: changed(model, other) for name, other in wrapped.get_random_layer_generator(theirs)}
        assert {name: changed(model, other) for name, other in randomized_models(model, order=order)} == expected


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^order: expected"):
        randomized_models(ConvNet(), order="random")
    with pytest.raises(ValueError, match=r"^model: expected a model with parameters"):
        randomized_models(nn.ReLU())
    with pytest.raises(ValueError, match=r"^steps: expected"):
        randomized_models(ConvNet(), steps=0)
