"""Two-sided weights: as the slow twin in tests/reference.py, and what holds of them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from _asserts import alike, close
from calls import METHODS, received_rows, seeded, smooth
from captum.attr import LayerGradCam
from networks import ConvNet, PooledNet, SmallNet, TwoInputs, images
from reference import reference_map, relative_error, stencil_map
from torch import Tensor, nn

from captum_sgcampp import GuidedSmoothGradCamPlusPlus, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.sampling.convergence import caution

TARGET = 3
LINKS = ("exp", "softmax", "sigmoid")
SELECTION: dict[str, Any] = {"feature_maps": [0, 3], "neurons": np.s_[2:5, 3:7]}
IN_REFERENCE: dict[str, Any] = {
    "maps": lambda k: k in (0, 3),
    "neurons": lambda place: 2 <= place[0] < 5 and 3 <= place[1] < 7,
}


def plain(model: Callable[..., Tensor], layer: nn.Module, x: Tensor, target: int = TARGET, **options: Any) -> Tensor:
    found = LayerGradCamPlusPlus(model, layer).attribute(x, target, two_sided=True, **options)
    assert isinstance(found, Tensor)
    return found


def activation_at(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output.detach().clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("layer", ["conv2", "relu1", "relu2"])
def test_plain_maps_are_the_slow_twins(layer: str, selected: bool, link: str) -> None:
    """Before a ReLU, at `conv2`, the sums of feature maps have both signs."""
    model, x = ConvNet().double(), images(2).double()
    sums = activation_at(model, model.get_submodule(layer), x).sum((2, 3))
    assert (sums > 0).any() and (sums < 0).any() == (layer == "conv2")
    options, in_reference = (SELECTION, IN_REFERENCE) if selected else ({}, {})
    found = plain(model, model.get_submodule(layer), x, score=link, **options)
    for number in range(2):
        one = (x[number : number + 1],)
        reference: dict[str, Any] = {"classes": range(5), "two_sided": True, **in_reference}
        expected = reference_map(model, model.get_submodule(layer), one, [one], TARGET, link, **reference)
        assert relative_error(found[number], expected) <= 1e-9


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("layer", ["conv2", "relu1", "relu2"])
def test_smooth_maps_are_the_slow_twins(layer: str, selected: bool, link: str) -> None:
    model, x = ConvNet().double(), images(1).double()
    options, in_reference = (SELECTION, IN_REFERENCE) if selected else ({}, {})
    options = {"nt_samples": 5, "nt_samples_batch_size": 3, "score": link, "two_sided": True, **options}
    method = LayerSmoothGradCamPlusPlus(model, model.get_submodule(layer))
    found, rows = received_rows(model, lambda: method.attribute(x, TARGET, generator=seeded(), **options))
    clean, *copies = [(row[None],) for row in rows]
    reference: dict[str, Any] = {"classes": range(5), "two_sided": True, **in_reference}
    expected = reference_map(model, model.get_submodule(layer), clean, copies, TARGET, link, **reference)
    assert expected.norm() > 0 and relative_error(found[0], expected) <= 1e-9


def test_unsummed_maps_of_the_layers_input_are_the_slow_twins() -> None:
    model, x = ConvNet().double(), images(1).double()
    found = plain(model, model.conv2, x, attr_dim_summation=False, attribute_to_layer_input=True)
    reference: dict[str, Any] = {"to_input": True, "summed": False, "two_sided": True}
    expected = reference_map(model, model.conv2, (x,), [(x,)], TARGET, **reference)
    assert found.shape[1] == 4 and relative_error(found[0], expected) <= 1e-9


@pytest.mark.parametrize("score", ["exp", "sigmoid", "softmax", F.softplus], ids=str)
@pytest.mark.parametrize("samples", [None, 2])
def test_exact_maps_are_those_of_finite_differences(score: Any, samples: int | None) -> None:
    """Entries with a negative first derivative count, too."""
    model, x = SmallNet(nn.SiLU()), images(1, size=6).double()
    options: dict[str, Any] = {"derivatives": "exact", "score": score, "two_sided": True}
    rows = x
    if samples is None:
        found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, **options)
    else:
        found, received = received_rows(
            model, lambda: smooth(model, model.layer, x, TARGET, nt_samples=samples, **options)
        )
        copies = [row for row in received.unique(dim=0) if not torch.equal(row, x[0])]
        assert len(copies) == samples
        rows = torch.cat([x, torch.stack(copies)])
    assert alike(found[0], stencil_map(model.head, model.layer, rows, TARGET, score, two_sided=True))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("pooled", [False, True])
def test_exact_maps_after_piecewise_linear_networks_are_the_closed_form(
    link: str, pooled: bool, no_shortcuts: None
) -> None:
    model: Any = PooledNet().double() if pooled else ConvNet().double()
    x, layer = images(2, channels=3 if pooled else 2).double(), model.features if pooled else model.relu2
    found = plain(model, layer, x, score=link, derivatives="exact", feature_maps=[0, 3])
    assert close(found, plain(model, layer, x, score=link, feature_maps=[0, 3]), 1e-9)


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_weights_are_the_papers_for_the_score_less_those_for_its_negative(layer: str) -> None:
    """After a ReLU, for one sample: what speaks for the class, less what speaks against it."""
    model, x = ConvNet().double(), images().double()
    module = model.get_submodule(layer)
    papers = LayerGradCamPlusPlus(model, module).attribute(x, TARGET)
    negated = LayerGradCamPlusPlus(lambda inputs: -model(inputs), module).attribute(x, TARGET)
    assert isinstance(papers, Tensor) and isinstance(negated, Tensor) and negated.any()
    assert close(plain(model, module, x), papers - negated, 1e-12)


@pytest.mark.parametrize("score", ["exp", "sigmoid"])
def test_the_map_of_the_negated_score_is_the_negated_map(score: str) -> None:
    """Also before a ReLU. `sigmoid(-S) = 1 - sigmoid(S)`, so with it the noisy samples keep their weights."""
    model, x = ConvNet().double(), images().double()
    negated = plain(lambda inputs: -model(inputs), model.conv1, x, score=score)
    assert close(negated, -plain(model, model.conv1, x, score=score), 1e-12)
    options: dict[str, Any] = {"two_sided": True, "score": "sigmoid"}
    negated = smooth(lambda inputs: -model(inputs), model.relu1, x, **options)
    assert close(negated, -smooth(model, model.relu1, x, **options), 1e-12)


class Flipped(nn.Module):
    """ConvNet, whose feature maps of `conv1` change their signs twice: the layer `flipped` shows them in between."""

    def __init__(self, net: ConvNet, signs: Tensor) -> None:
        super().__init__()
        self.net, self.signs, self.flipped = net, signs[:, None, None], nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.flipped(self.net.conv1(x) * self.signs) * self.signs
        a = self.net.pool(self.net.relu2(self.net.conv2(self.net.relu1(a))))
        return self.net.fc2(self.net.relu3(self.net.fc1(a.flatten(1))))


@pytest.mark.parametrize("link", LINKS)
def test_the_sign_of_a_feature_map_does_not_matter(link: str) -> None:
    """Two networks that compute the same: `A_k` and its gradient change their signs, the map stays."""
    net, x = ConvNet().double(), images().double()
    model = Flipped(net, torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    options: dict[str, Any] = {"score": link, "two_sided": True}
    assert close(plain(model, model.flipped, x, score=link), plain(net, net.conv1, x, score=link), 1e-12)
    assert close(smooth(model, model.flipped, x, **options), smooth(net, net.conv1, x, **options), 1e-12)


def test_before_global_average_pooling_every_feature_map_is_grad_cams_times_a_positive_factor() -> None:
    """`w_k = HW g_k / (2 + |g_k sum A_k|)`: what a feature map adds to the score, `c`, becomes `c / (1 + |c| / 2)`."""
    model, x = PooledNet().double(), images(channels=3).double()
    model.fc.weight.data *= 20  # so that the damping shows
    activation = activation_at(model, model.features, x)
    grad_cam = LayerGradCam(model, model.features).attribute(x, TARGET, attr_dim_summation=False)
    added = model.fc.weight[TARGET].detach() * activation.mean((2, 3))
    factor = activation[0, 0].numel() / (2 + added.abs())
    assert (added < 0).any() and factor.amax() > 1.5 * factor.amin()
    found = plain(model, model.features, x, attr_dim_summation=False)
    assert close(found, factor[:, :, None, None] * grad_cam, 1e-12)
    weights = LayerGradCamPlusPlus(model, model.features).top_feature_maps(x, TARGET, k=12, two_sided=True)
    assert torch.equal(weights.weights.sign(), model.fc.weight[TARGET][weights.indices].sign())


@pytest.mark.parametrize("score", ["exp", "sigmoid"])
@pytest.mark.parametrize("noise_level", [0.05, 1.0])
def test_before_global_average_pooling_noise_changes_only_the_scale(noise_level: float, score: str) -> None:
    """With `exp`. The weights of `sigmoid` differ in the second and third derivative, so there it does change alpha."""
    model, x = PooledNet().double(), images(1, channels=3).double()
    found = smooth(model, model.features, x, TARGET, noise_level=noise_level, two_sided=True, score=score)
    assert alike(found, plain(model, model.features, x, score=score), 1e-12) == (score == "exp")


@pytest.mark.parametrize("method", METHODS)
def test_the_default_is_the_papers_formula_and_bound_alpha_changes_nothing_beside_it(method: Any) -> None:
    model, x = ConvNet(), images()
    options: dict[str, Any] = {} if method is LayerGradCamPlusPlus else {"nt_samples": 3, "return_statistics": False}

    def found(**more: Any) -> Any:
        noise = {"generator": seeded()} if options else {}
        return method(model, model.conv1).attribute(x, TARGET, **options, **noise, **more)

    assert torch.equal(found(), found(two_sided=False))
    assert torch.equal(found(two_sided=True), found(two_sided=True, bound_alpha=True))
    assert not close(found(two_sided=True), found(), 0.01)


@pytest.mark.parametrize("link", LINKS)
def test_statistics_know_of_no_poles_and_give_the_error_of_the_two_sided_map(link: str) -> None:
    """Before a ReLU, where the papers' alpha has many. The standard error is that of maps computed here."""
    model, x = ConvNet().double(), images(1).double()
    options: dict[str, Any] = {"score": link, "nt_samples": 6, "return_statistics": True}
    _, papers = smooth(model, model.conv1, x, **options)
    _, statistics = smooth(model, model.conv1, x, **options, two_sided=True)
    assert papers.pole_share.item() > 0 and papers.pole_weight_share.item() > 0
    assert statistics.pole_share.item() == statistics.pole_weight_share.item() == 0
    assert statistics.standard_error.item() == pytest.approx(jackknife(model, x, link), rel=1e-9)
    assert statistics.standard_error.item() != pytest.approx(papers.standard_error.item(), rel=0.01)


def jackknife(model: ConvNet, x: Tensor, link: str) -> float:
    """By the slow twin: the map of norm 1 without each of the six samples."""
    options: dict[str, Any] = {"score": link, "nt_samples": 6, "two_sided": True}
    _, rows = received_rows(model, lambda: smooth(model, model.conv1, x, **options))
    copies = [(row[None],) for row in rows[1:]]
    without = []
    for left_out in range(6):
        kept = copies[:left_out] + copies[left_out + 1 :]
        maps = reference_map(model, model.conv1, (x,), kept, 1, link, range(5), two_sided=True)
        without.append((maps / maps.norm()).flatten())
    deviations = torch.stack(without) - torch.stack(without).mean(0)
    return float((5 / 6 * deviations.square().sum()).sqrt())


def test_sampling_until_sure_stops_by_the_error_of_the_two_sided_map() -> None:
    """Signs cancel, so that it needs more samples here than the papers' map."""
    model, x = ConvNet().double(), images(3).double()
    options: dict[str, Any] = {"tolerance": 0.2, "return_statistics": True}
    _, papers = smooth(model, model.relu2, x, nt_samples="auto", **options)
    maps, statistics = smooth(model, model.relu2, x, nt_samples="auto", two_sided=True, **options)
    taken = statistics.nt_samples.tolist()
    assert max(taken) < 64 and taken != papers.nt_samples.tolist()
    for number, count in enumerate(taken):
        found, of_count = smooth(model, model.relu2, x, nt_samples=count, two_sided=True, **options)
        assert close(maps[number], found[number], 1e-9)
        assert of_count.standard_error[number] * caution(count) <= 0.2


@pytest.mark.parametrize("factor", [1e-30, 1e-15, 1e3])
def test_gradients_of_any_size_in_float32(factor: float) -> None:
    """alpha is 1/2 for tiny gradients, so the map is half of `sum_ij g_ij A`."""
    model, x = ConvNet().double(), images(1).double()
    expected = plain(lambda inputs: factor * model(inputs), model.relu1, x)
    narrow = ConvNet()
    found = plain(lambda inputs: factor * narrow(inputs), narrow.relu1, x.float())
    assert found.dtype == torch.float32 and found.any() and close(found / factor, expected / factor, 1e-4)


def test_float16_models_keep_the_cubes_of_small_gradients() -> None:
    """alpha of g = -1e-3 and sum A = 1e4 is 1 / 12."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(2, 1, bias=False)).half()
    model[2].weight.data = torch.tensor([[-1e-3, 0]]).half()
    x = torch.tensor([[[6000.0, 4000.0]]]).half()
    g = model[2].weight[0, 0].item()
    assert torch.allclose(plain(model, model[0], x, 0), g / (2 - g * 1e4) * x.float(), rtol=1e-6)


def test_a_gradient_of_zero_gives_a_map_of_zeros() -> None:
    model, x = ConvNet(), images()
    assert not plain(lambda inputs: 0 * model(inputs), model.relu1, x).any()


@pytest.mark.parametrize("score", ["exp", "sigmoid"])
def test_maps_are_differentiable(score: str) -> None:
    """The derivative of a sum of the map with respect to a weight, against finite differences."""
    model, x = ConvNet().double(), images(1).double()
    entry = model.fc1.weight

    def total(**options: Any) -> Tensor:
        found = smooth(model, model.relu1, x, two_sided=True, score=score, **options)
        return (found * torch.linspace(-1, 2, 64, dtype=torch.float64).reshape(8, 8).cos()).sum()

    (gradient,) = torch.autograd.grad(total(grad_kwargs={"create_graph": True}), entry)
    place = int(gradient.abs().argmax())
    values = []
    with torch.no_grad():
        for step in (1e-6, -1e-6):
            entry.view(-1)[place] += step
            values.append(total().item())
            entry.view(-1)[place] -= step
    assert gradient.flatten()[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_layers_of_several_tensors_and_reshaped_ones() -> None:
    """A transform that swaps the positions gives the map with its positions swapped."""
    model = TwoInputs().double()
    inputs = tuple(part.double() for part in images(2, channels=2, size=6).unsqueeze(2).unbind(1))
    method = LayerSmoothGradCamPlusPlus(model, model.both)
    swapped = LayerSmoothGradCamPlusPlus(model, model.both, reshape_transform=lambda tensor: tensor.mT)
    options: dict[str, Any] = {"target": 1, "nt_samples": 3, "two_sided": True}
    for one, other in zip(
        method.attribute(inputs, generator=seeded(), **options),
        swapped.attribute(inputs, generator=seeded(), **options),
        strict=True,
    ):
        assert one.any() and close(other.mT, one, 1e-12)


def test_guided_classes_and_several_targets_pass_it_on() -> None:
    model, x = ConvNet(), images()
    options: dict[str, Any] = {"nt_samples": 3, "two_sided": True}
    method = LayerSmoothGradCamPlusPlus(model, model.relu2)
    one = method.attribute(x, TARGET, generator=seeded(), **options)
    assert torch.equal(method.attribute_targets(x, [1, TARGET], generator=seeded(), **options)[1], one)
    guided = GuidedSmoothGradCamPlusPlus(model, model.relu2)
    found, papers = (
        guided.attribute(x, TARGET, generator=seeded(), nt_samples=3, two_sided=two_sided)
        for two_sided in (True, False)
    )
    outside = F.interpolate(one.relu(), (8, 8)).expand_as(x) == 0
    assert outside.any() and not found[outside].any() and papers[outside].any()


@pytest.mark.parametrize(
    "name, layer, photo", [("squeezenet1_1", "features.9", 203), ("mobilenet_v2", "features.18", 295)]
)
def test_real_networks(zoo: ModuleType, name: str, layer: str, photo: int) -> None:
    model = zoo.load(name)
    x, module = zoo.image(zoo.HERE / "imagenet" / f"{photo:04d}.jpg"), model.get_submodule(layer)
    papers = LayerGradCamPlusPlus(model, module).attribute(x, photo)
    negated = LayerGradCamPlusPlus(lambda inputs: -model(inputs), module).attribute(x, photo)
    assert close(plain(model, module, x, photo), papers - negated, 1e-5)
