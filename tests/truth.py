"""Expected maps that know nothing of the package: Captum's layer gradients (or plain autograd) put into the formula."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum._utils.gradient import compute_layer_gradients_and_eval
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

Build = Callable[[], tuple[nn.Module, nn.Module]]
TARGETS = (1, 3)
BOUND = 1e-9
COPIES, CHUNK = 3, 2


@dataclass(frozen=True)
class Truth:
    """What a pass through the model gives: for each tensor of the layer its value and gradient, and the scores (N,)."""

    activations: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    scores: Tensor


def input_with_graph(x: Tensor) -> Tensor:
    """A copy that depends on a leaf: the graph then begins at the input, also in frozen models, and the model may
    change its input in place."""
    return x.detach().clone().requires_grad_().clone()


def captum_truth(model: Any, layer: nn.Module, x: Tensor, target: int, to_input: bool = False) -> Truth:
    """By `captum._utils.gradient.compute_layer_gradients_and_eval`, with a graph from the input on: without one
    Captum makes the layer's output a leaf in its hook, and what was computed from it inside the layer is lost."""
    scores: list[Tensor] = []

    def forward(x: Tensor) -> Tensor:
        output = model(x)
        scores.append(output.detach()[:, target])
        return output

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            gradients, activations = compute_layer_gradients_and_eval(
                forward,
                layer,
                input_with_graph(x),
                target,
                attribute_to_layer_input=to_input,
                grad_kwargs={"allow_unused": True},
            )
        except AssertionError as error:
            if "not a torch.Tensor" not in str(error):
                raise
            pytest.skip("captum 0.8 takes no layers that return lists")
    return _truth(activations, gradients, scores[0])


def plain_truth(model: Any, layer: nn.Module, x: Tensor, target: int, to_input: bool = False) -> Truth:
    """By `torch.autograd.grad` with respect to what the layer returned; the hook that keeps it changes nothing.

    For models that compute something else when Captum's hook passes a clone on.
    """
    kept: list[tuple[Tensor, Any]] = []

    def keep(module: nn.Module, args: Any, output: Any = None) -> None:
        tensors = args if to_input else output
        for tensor in tensors if isinstance(tensors, tuple | list) else (tensors,):
            kept.append((tensor.detach().clone(), get_gradient_edge(tensor)))

    handle = layer.register_forward_pre_hook(keep) if to_input else layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            scores = model(input_with_graph(x))[:, target]
            gradients = torch.autograd.grad(scores.sum(), [edge for _, edge in kept], allow_unused=True)
    finally:
        handle.remove()
    return _truth([value for value, _ in kept], gradients, scores)


def _truth(activations: Sequence[Tensor], gradients: Sequence[Tensor | None], scores: Tensor) -> Truth:
    values = tuple(a.detach().double().clone() for a in activations)
    return Truth(
        values,
        tuple(torch.zeros_like(a) if g is None else g.double() for a, g in zip(values, gradients, strict=True)),
        scores.detach().double(),
    )


def class_map(activation: Tensor, d1: Tensor, d2: Tensor, d3: Tensor) -> tuple[Tensor, float]:
    """L, (N, 1, *space), and the distance of the nearest pole of alpha where D_1 > 0."""
    space = tuple(range(2, activation.dim()))
    first, second = 2 * d2, d3 * (activation.sum(space, keepdim=True) if space else activation)
    denominator = first + second
    alpha = torch.where(denominator == 0, 0.0, d2 / torch.where(denominator == 0, 1.0, denominator))
    terms = alpha * d1.relu()
    weights = terms.sum(space, keepdim=True) if space else terms
    counted = (d1 > 0) & (denominator != 0)
    near = (denominator.abs() / (first.abs() + second.abs()))[counted]
    return (weights * activation).sum(1, keepdim=True), float(near.min()) if len(near) else 1.0


def plain_map(truth: Truth) -> list[tuple[Tensor, float]]:
    """Grad-CAM++ for each tensor of the layer: alpha = 1 / (2 + g sum A) where g != 0."""
    return [class_map(a, g, g**2, g**3) for a, g in zip(truth.activations, truth.gradients, strict=True)]


def smooth_map(clean: Truth, copies: Sequence[Truth]) -> list[tuple[Tensor, float]]:
    """Smooth Grad-CAM++ for each tensor of the layer: D_p = mean_m e_m g_m^p, A of the clean input."""
    scores = torch.stack([copy.scores for copy in copies])
    weights = (scores - scores.logsumexp(0)).exp() * len(copies)
    results = []
    for number, activation in enumerate(clean.activations):
        g = torch.stack([copy.gradients[number] for copy in copies])
        e = weights.reshape(*weights.shape, *(1,) * (g.dim() - 2))
        results.append(class_map(activation, *((e * g**p).mean(0) for p in (1, 2, 3))))
    return results


def assert_same(found: Any, expected: Sequence[tuple[Tensor, float]]) -> None:
    """Equal to 1e-9 of the norm; rounding errors of the model, 1e-14, grow by the inverse distance to a pole."""
    maps = list(found) if isinstance(found, tuple | list) else [found]
    assert len(maps) == len(expected)
    for number, (ours, (truth, pole)) in enumerate(zip(maps, expected, strict=True)):
        assert ours.shape == truth.shape
        error = float((ours.double() - truth).norm() / truth.norm()) if truth.norm() > 0 else float(ours.norm())
        bound = max(BOUND, 1e-14 / pole if pole > 0 else float("inf"))
        assert error <= bound, f"tensor {number}: relative error {error:.3g}, allowed {bound:.1g}"


class Rows:
    """The rows that a model is given, pass by pass, sorted by example: `clean` and `copies`, each a batch."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._model, self.clean = model, x
        self.copies: list[Tensor] = []
        self._passes: list[Tensor] = []

    def __enter__(self) -> Rows:
        self._handle = self._model.register_forward_pre_hook(
            lambda module, args: self._passes.append(args[0].detach().clone())
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()
        seen = [self.clean]
        for rows in self._passes:  # a pass that was made again is the same copies again
            for batch in rows.unflatten(0, (len(self.clean), -1)).unbind(1):
                if not any(torch.equal(batch, other) for other in seen):
                    seen.append(batch)
        self.copies = seen[1:]


Reference = Callable[..., Truth]


def check_plain(
    build: Build, x: Tensor, reference: Reference = captum_truth, to_input: bool = False, prepare: Any = None
) -> list[Tensor]:
    """`LayerGradCamPlusPlus.attribute` is the map from the reference's gradients; returns the expected maps."""
    expected = plain_map(reference(*build(), x, TARGETS[0], to_input))
    assert all(truth.norm() > 0 for truth, _ in expected)
    model, layer = _prepared(build, prepare)
    found = LayerGradCamPlusPlus(model, layer).attribute(x, TARGETS[0], attribute_to_layer_input=to_input)
    assert_same(found, expected)
    return [truth for truth, _ in expected]


def check_targets(
    build: Build, x: Tensor, reference: Reference = captum_truth, to_input: bool = False, prepare: Any = None
) -> None:
    """`attribute_targets` of two targets."""
    model, layer = _prepared(build, prepare)
    found = LayerGradCamPlusPlus(model, layer).attribute_targets(x, TARGETS, attribute_to_layer_input=to_input)
    for ours, target in zip(found, TARGETS, strict=True):
        assert_same(ours, plain_map(reference(*build(), x, target, to_input)))


def check_smooth(
    build: Build, x: Tensor, reference: Reference = captum_truth, to_input: bool = False, prepare: Any = None
) -> None:
    """`LayerSmoothGradCamPlusPlus`: three noisy copies in two chunks."""
    model, layer = _prepared(build, prepare)
    with Rows(model, x) as rows:
        found = LayerSmoothGradCamPlusPlus(model, layer).attribute(
            x,
            TARGETS[0],
            attribute_to_layer_input=to_input,
            nt_samples=COPIES,
            nt_samples_batch_size=CHUNK,
            generator=torch.Generator().manual_seed(3),
        )
    assert len(rows.copies) == COPIES
    twin = build()
    copies = [reference(*twin, copy, TARGETS[0], to_input) for copy in rows.copies]
    assert_same(found, smooth_map(reference(*twin, x, TARGETS[0], to_input), copies))


CHECKS = {"attribute": check_plain, "attribute_targets": check_targets, "smooth": check_smooth}


def _prepared(build: Build, prepare: Any) -> tuple[nn.Module, nn.Module]:
    model, layer = build()
    if prepare is not None:
        prepare(model)
    return model, layer


def frozen(model: nn.Module) -> None:
    """No parameter requires a gradient."""
    model.requires_grad_(False)
