"""The pure tensor functions: moments, weights, score links, selection, statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import ConvNet, images
from torch import Tensor

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, box_to_neurons
from captum_sgcampp.functional.class_map import alpha_coefficients
from captum_sgcampp.functional.moments import MomentSums, PowerSums, unit_scaled
from captum_sgcampp.functional.sampling_statistics import jackknife_standard_error, pole_shares
from captum_sgcampp.functional.score_derivatives import (
    exp_derivatives,
    sigmoid_derivatives,
    softmax_derivatives,
    softmax_margin,
)
from captum_sgcampp.functional.selection import feature_map_mask, neuron_mask


def along_one_entry(model: ConvNet, x: Tensor, entry: tuple[int, ...], link: str, target: int) -> list[float]:
    """phi', phi'', phi''' at 0 of phi(t) = Y(A + t e) by repeated automatic differentiation, in float64."""
    activation = model.relu2(model.conv2(model.relu1(model.conv1(x)))).detach()
    direction = torch.zeros_like(activation)
    direction[entry] = 1
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    hidden = model.pool(activation + t * direction).flatten(1)
    logits = model.fc2(model.relu3(model.fc1(hidden)))[0]
    score = logits[target]
    y = {"exp": score.exp(), "sigmoid": score.sigmoid(), "softmax": logits.softmax(0)[target]}[link]
    found = []
    for _ in range(3):
        (y,) = torch.autograd.grad(y, t, create_graph=True)
        found.append(y.item())
    return found


@pytest.mark.parametrize("link", ["exp", "sigmoid", "softmax"])
def test_closed_forms_are_the_true_derivatives_behind_piecewise_linear_heads(link: str) -> None:
    model, x, target = ConvNet().double(), images(1).double(), 2
    activation = model.relu2(model.conv2(model.relu1(model.conv1(x)))).detach().requires_grad_()
    logits = model.fc2(model.relu3(model.fc1(model.pool(activation).flatten(1))))
    gradients = [torch.autograd.grad(logits[0, j], activation, retain_graph=True)[0] for j in range(5)]
    score = logits[:, target].detach()
    if link == "softmax":
        sums = PowerSums(gradients[target])
        margin = softmax_margin(logits.detach(), torch.tensor([target]))
        for share, g in zip(margin.others.unbind(1), gradients, strict=True):
            sums.add(share, g - gradients[target])
        derivatives = softmax_derivatives(margin, sums)
    else:
        derivatives = {"exp": exp_derivatives, "sigmoid": sigmoid_derivatives}[link](score, gradients[target])
    level, scale = derivatives.log_weight.exp().item(), derivatives.scale.item()
    live = [entry for entry in torch.nonzero(gradients[target]).tolist() if activation[tuple(entry)] > 0][::7]
    assert len(live) > 3
    for entry in map(tuple, live):
        expected = along_one_entry(model, x, entry, link, target)
        found = [level * scale**p * derivatives[1 + p][entry].item() for p in (1, 2, 3)]
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("logit", [-38.0, -5.0, 0.3, 12.0, 38.0])
def test_sigmoid_in_float32_is_right_where_the_textbook_form_is_zero(logit: float) -> None:
    g = torch.tensor([[[0.5, -2.0]]])
    found = sigmoid_derivatives(torch.tensor([logit]), g)
    wide = torch.tensor(logit, dtype=torch.float64)
    s, rest = torch.sigmoid(wide), torch.sigmoid(-wide)
    wanted = (1.0, -torch.tanh(wide / 2), 1 - 6 * s * rest)
    assert found.log_weight.double().exp().item() == pytest.approx((s * rest).item(), rel=3e-6)
    for p, factor in enumerate(wanted, start=1):
        value = found[1 + p].double() * found.scale.double() ** p
        assert torch.allclose(value, factor * g.double() ** p, rtol=3e-6)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_moments_of_chunks_are_the_weighted_means_of_all_copies(dtype: torch.dtype, bound: float) -> None:
    """Logits up to 400 apart and gradients of 30 orders of magnitude, against plain float64 arithmetic."""
    generator = torch.Generator().manual_seed(0)
    score = 200 * torch.randn(2, 7, generator=generator, dtype=torch.float64).to(dtype).double()
    size = 10.0 ** torch.randint(-12, 3, (2, 7, 1, 1), generator=generator)
    gradient = (size * torch.randn(2, 7, 3, 5, generator=generator, dtype=torch.float64)).to(dtype).double()
    weight = (score - score.logsumexp(1, keepdim=True) + np.log(7)).exp()
    expected = [(weight[:, :, None, None] * gradient**p).mean(1) for p in (1, 2, 3)]
    for parts in ([7], [1, 6], [3, 3, 1], [1] * 7):
        sums, start = MomentSums(groups=3), 0
        for part in parts:
            rows = slice(start, start + part)
            s, g = score[:, rows].flatten().to(dtype), gradient[:, rows].flatten(0, 1).to(dtype)
            sums.add(exp_derivatives(s, g), 2)
            start += part
        mean = sums.mean()
        for p, wanted in enumerate(expected, start=1):
            found = mean[p - 1].double() * mean.scale.double()[:, None, None] ** p
            assert (found - wanted).abs().max() <= bound * wanted.abs().max()
        size_wanted = weight.sum(1) ** 2 / weight.square().sum(1)
        assert torch.allclose(sums.effective_sample_size().double(), size_wanted, rtol=1e-4)


def test_the_first_rows_of_each_example_can_be_skipped() -> None:
    generator = torch.Generator().manual_seed(0)
    score, gradient = torch.randn(6, generator=generator), torch.randn(6, 2, 4, generator=generator)
    sums, expected = MomentSums(), MomentSums()
    sums.add(exp_derivatives(score, gradient), 2, skip=1)
    keep = torch.tensor([1, 2, 4, 5])
    expected.add(exp_derivatives(score[keep], gradient[keep]), 2)
    assert all(torch.equal(a, b) for a, b in zip(sums.mean(), expected.mean(), strict=True))


def test_a_gradient_of_zero_has_scale_zero_and_no_nan() -> None:
    unit, scale = unit_scaled(torch.zeros(2, 3))
    assert not unit.any() and not scale.any()
    sums = MomentSums()
    sums.add(exp_derivatives(torch.zeros(2), torch.zeros(2, 3, 4)), 2)
    assert all(torch.isfinite(part).all() for part in sums.mean())


def test_alpha_of_one_sample_is_one_over_two_plus_g_sum_a() -> None:
    g, a = torch.tensor([[[0.5, 0.0, -1.0]]]), torch.tensor([[[1.0, 2.0, 3.0]]])
    alpha = alpha_coefficients(g**2, g**3, a)
    assert torch.allclose(alpha, torch.tensor([[[1 / (2 + 0.5 * 6), 0.0, 1 / (2 - 6)]]]))


def test_alpha_is_zero_where_its_denominator_is_exactly_zero() -> None:
    assert alpha_coefficients(torch.ones(1, 1, 1), -torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0)).item() == 0


def test_pole_shares_count_positions_and_weight() -> None:
    alpha = torch.tensor([[[0.4, 0.6, -0.1, 0.5, 7.0]]])
    d1 = torch.tensor([[[1.0, 2.0, 3.0, -1.0, 0.0]]])
    positions, weight = pole_shares(alpha, d1)
    assert positions.item() == pytest.approx(2 / 3)
    assert weight.item() == pytest.approx((1.2 + 0.3) / (0.4 + 1.2 + 0.3))
    only_first = torch.tensor([True, False, False, False, False])
    assert [share.item() for share in pole_shares(alpha, d1, only_first)] == [0, 0]
    assert [share.item() for share in pole_shares(alpha, -d1.abs())] == [0, 0]


@pytest.mark.parametrize("copies, groups", [(6, 6), (25, 10), (7, 3)])
def test_jackknife_of_a_mean_is_its_textbook_standard_error(copies: int, groups: int) -> None:
    """For a mean far from the origin the norm divides by a constant; groups of one give sd / sqrt(n) exactly."""
    generator = torch.Generator().manual_seed(0)
    repeats = 400
    noise = torch.randn(repeats, copies, 3, generator=generator, dtype=torch.float64)
    noise[..., 0] = 0  # along the mean the norm would take the variation out
    values = torch.tensor([1e4, 0, 0], dtype=torch.float64) + noise
    whole = values.sum(1)
    without = [whole - values[:, g::groups].sum(1) for g in range(groups)]
    found = jackknife_standard_error(whole, without, copies) * 1e4
    if groups == copies:
        textbook = (values.var(1).sum(1) / copies).sqrt()
        assert torch.allclose(found, textbook, rtol=1e-3)
    assert found.square().mean().sqrt().item() == pytest.approx((2 / copies) ** 0.5, rel=0.1)


def test_standard_error_of_one_copy_is_not_a_number() -> None:
    model = ConvNet()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        images(), 1, nt_samples=1, return_statistics=True
    )
    assert statistics.standard_error.isnan().all() and statistics.effective_sample_size.tolist() == [1, 1]


def test_standard_error_tells_the_distance_between_independent_maps() -> None:
    model, x = ConvNet().double(), images(1).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu2)

    def draw(seed: int, n: int) -> tuple[Tensor, float]:
        found, statistics = method.attribute(
            x, 1, nt_samples=n, generator=torch.Generator().manual_seed(seed), return_statistics=True, bound_alpha=True
        )
        return found / found.norm(), statistics.standard_error.item()

    limit, _ = draw(1000, 4000)
    draws = [draw(seed, 16) for seed in range(40)]
    error = np.sqrt(np.mean([(found - limit).norm().item() ** 2 for found, _ in draws]))
    estimate = np.sqrt(np.mean([estimate**2 for _, estimate in draws]))
    assert 0.6 < estimate / error < 1.6


def test_statistics_are_frozen_and_per_example() -> None:
    model = ConvNet()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        images(3), 1, nt_samples=6, return_statistics=True
    )
    for value in vars(statistics).values():
        assert value.shape == (3,)
    assert statistics.nt_samples.tolist() == [6, 6, 6]
    assert ((statistics.effective_sample_size >= 1) & (statistics.effective_sample_size <= 6)).all()
    with pytest.raises(AttributeError):
        statistics.nt_samples = 3


def test_statistics_do_not_change_the_map() -> None:
    model = ConvNet().double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    options = {"nt_samples": 7, "target": 1}
    plain = method.attribute(images().double(), generator=torch.Generator().manual_seed(0), **options)
    found, _ = method.attribute(
        images().double(), generator=torch.Generator().manual_seed(0), return_statistics=True, **options
    )
    assert torch.allclose(found, plain, rtol=1e-12)


def test_bound_alpha_takes_the_poles_out() -> None:
    model, x = ConvNet().double(), images(1).double()
    method = LayerGradCamPlusPlus(model, model.conv1)
    free, bounded = (method.attribute(x, 1, score="softmax", bound_alpha=bound) for bound in (False, True))
    assert not torch.allclose(free, bounded)


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


def test_top_feature_maps_are_those_whose_weights_make_the_map() -> None:
    model, x = ConvNet().double(), images(1).double()
    method = LayerGradCamPlusPlus(model, model.relu2)
    weights, indices = method.top_feature_maps(x, 1, k=6)
    activation = model.relu2(model.conv2(model.relu1(model.conv1(x)))).detach()
    rebuilt = (weights[0, :, None, None] * activation[0, indices[0]]).sum(0)
    assert torch.allclose(rebuilt, method.attribute(x, 1)[0, 0])
    assert (weights.diff() <= 0).all()


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
