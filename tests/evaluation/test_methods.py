"""The methods: what the seed decides, and that NoiseTunnel is called as it should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from networks import ConvNet, images
from reference import observe

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.evaluation.methods import LOG_ODDS, METHODS, NOISY, chosen_methods
from captum_sgcampp.functional.gradient_maps import without_relu_terms
from captum_sgcampp.metrics import unit_range
from captum_sgcampp.scores.classes import LogOdds


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides_and_the_global_random_state_stays(name: str) -> None:
    model, x = ConvNet(), images(1)
    method = chosen_methods([name], [2], [0.3])[0]
    state = torch.get_rng_state()
    first, again, other = (method.explain(model, model.relu1, x, 1, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and first.shape[:2] == (1, 1) and (first >= 0).all()
    assert torch.equal(first, other) != (name in NOISY or name == "random")


def test_noise_tunnel_averages_the_maps_of_copies_with_noise_of_the_given_level() -> None:
    model, x = ConvNet(), images(1)
    found = chosen_methods(["noise-tunnel-grad-cam"], [3], [0.2])[0].explain(model, model.relu2, x, 1, 7)
    torch.manual_seed(7)
    sigma = 0.2 * float(x.max() - x.min())
    copies = x.repeat(3, 1, 1, 1) + torch.normal(0, torch.full((3, 2, 8, 8), sigma))
    expected = LayerGradCam(model, model.relu2).attribute(copies, 1, relu_attributions=True).mean(0, keepdim=True)
    assert torch.allclose(found, expected, atol=1e-5)


def test_two_sided_methods_are_those_of_the_classes() -> None:
    model, x = ConvNet(), images(1)
    plain, smooth = chosen_methods(["two-sided-grad-cam++", "two-sided-smooth-grad-cam++"], [3], [0.2])
    options: Any = {"relu_attributions": True, "two_sided": True}
    expected = LayerGradCamPlusPlus(model, model.relu1).attribute(x, 1, **options)
    assert torch.equal(plain.explain(model, model.relu1, x, 1, 7), expected)
    options |= {"nt_samples": 3, "noise_level": 0.2, "generator": torch.Generator().manual_seed(7)}
    expected = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(x, 1, **options)
    assert torch.equal(smooth.explain(model, model.relu1, x, 1, 7), expected)


@pytest.mark.parametrize("name", ["hires-cam", "layer-cam"])
def test_hires_cam_and_layer_cam_are_those_of_the_package_grad_cam(name: str) -> None:
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, x = ConvNet(), images(1)
    found = chosen_methods([name], [2], [0.1])[0].explain(model, model.relu1, x, 1, 7)
    with {"hires-cam": package.HiResCAM, "layer-cam": package.LayerCAM}[name](model, [model.relu1]) as theirs:
        expected = torch.from_numpy(theirs(x, [targets.ClassifierOutputTarget(1)]))
    assert torch.allclose(unit_range(found[0]), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith(LOG_ODDS)])
def test_log_odds_are_the_same_method_with_another_score(name: str) -> None:
    model, x = ConvNet(), images(1)
    odds, plain = (chosen_methods([name], [3], [0.2])[0] for name in (name, name.removeprefix(LOG_ODDS)))
    found = odds.explain(model, model.relu2, x, 1, 7)
    assert torch.equal(found, plain.explain(LogOdds(model).eval(), model.relu2, x, 1, 7))
    assert not torch.allclose(found, plain.explain(model, model.relu2, x, 1, 7))


def test_without_the_relu_is_the_papers_formula_with_negative_gradients() -> None:
    model, x = ConvNet(), images(1)
    found = chosen_methods(["grad-cam++-without-relu"], [2], [0.1])[0].explain(model, model.relu2, x, 1, 7)
    a, g, _, _ = observe(model, model.relu2, (x,), 1)
    assert torch.allclose(found, without_relu_terms(a[None], g[None]).sum(1, keepdim=True).relu(), rtol=1e-4)


def test_a_uniform_map_is_one_value_of_the_images_size() -> None:
    model, x = ConvNet(), images(1)
    assert torch.equal(
        chosen_methods(["uniform"], [2], [0.1])[0].explain(model, model.relu2, x, 1, 7), torch.ones(1, 1, 8, 8)
    )


def test_every_number_of_copies_meets_every_noise_level_once() -> None:
    names = [m.name for m in chosen_methods(["grad-cam", "smooth-grad-cam++", "grad-cam"], [4, 8, 4], [0.1, 0.25])]
    assert names == ["grad-cam", *(f"smooth-grad-cam++ n={n} s={s}" for n in (4, 8) for s in (0.1, 0.25))]
