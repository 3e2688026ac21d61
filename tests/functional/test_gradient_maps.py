"""Grad-CAM, HiResCAM, LayerCAM and Grad-CAM++ without its ReLU: nested loops, and the package grad-cam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import ConvNet, images
from reference import observe
from torch import Tensor

from captum_sgcampp.functional.gradient_maps import (
    grad_cam_terms,
    hires_cam_terms,
    layer_cam_terms,
    without_relu_terms,
)

Rows = list[list[float]]


def grad_cam_loop(a: Rows, g: Rows, i: int, j: int, k: int) -> float:
    values = [x for row in g for x in row]
    return sum(values) / len(values) * a[i][j]


def without_relu_loop(a: Rows, g: Rows, i: int, j: int, k: int) -> float:
    total, w = sum(x for row in a for x in row), 0.0
    for row in g:
        for x in row:
            denominator = 2 * x**2 + x**3 * total
            w += x**2 / denominator * x if denominator != 0 else 0.0
    return w * a[i][j]


LOOPS: list[tuple[Callable[[Tensor, Tensor], Tensor], Callable[..., float]]] = [
    (grad_cam_terms, grad_cam_loop),
    (hires_cam_terms, lambda a, g, i, j, k: g[i][j] * a[i][j]),
    (layer_cam_terms, lambda a, g, i, j, k: max(g[i][j], 0.0) * a[i][j]),
    (without_relu_terms, without_relu_loop),
]


@pytest.mark.parametrize("terms, loop", LOOPS)
def test_terms_are_those_of_nested_loops(terms: Any, loop: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    g[0, 1, 2] = 0
    found = terms(a, g)
    for n in range(2):
        for k in range(3):
            rows, gradients = a[n, k].tolist(), g[n, k].tolist()
            expected = [[loop(rows, gradients, i, j, k) for j in range(5)] for i in range(4)]
            assert torch.allclose(found[n, k], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_small_gradients_do_not_vanish_without_the_relu() -> None:
    a, g = torch.rand(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    small = without_relu_terms(a * 1e20, g * 1e-20)
    assert torch.allclose(small, without_relu_terms(a, g), rtol=1e-4)


@pytest.mark.parametrize("terms, name", [(hires_cam_terms, "HiResCAM"), (layer_cam_terms, "LayerCAM")])
def test_agrees_with_the_package_grad_cam(terms: Any, name: str) -> None:
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, x = ConvNet(), images(1)
    a, g, _, _ = observe(model, model.conv2, (x,), 3)  # before the ReLU: activations of both signs
    found = terms(a[None], g[None]).sum(1).relu()[0]
    with getattr(package, name)(model, [model.conv2]) as theirs:
        expected = torch.from_numpy(theirs(x, [targets.ClassifierOutputTarget(3)])[0])
    low, high = found.aminmax()
    assert torch.allclose((found - low) / (high - low), expected, atol=1e-4)
