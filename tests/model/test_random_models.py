"""Small random models with views, in-place operations, skip connections, kept tensors and layers of several outputs:
the maps are those of Captum's layer gradients (tests/truth.py)."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum._utils.gradient import compute_layer_gradients_and_eval
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from truth import TARGETS, Truth, assert_same, check_smooth, check_targets, frozen, input_with_graph, plain_map

from captum_sgcampp import LayerGradCamPlusPlus

GROUPS, PER_GROUP = 10, 30
SIDE = 6
CLASSES = 5

Pool = list[Tensor]


class Convolution(nn.Conv2d):
    """3 x 3, of the same size, with weights that keep values near 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, dtype=torch.float64)
        nn.init.normal_(self.weight, std=(9 * inputs) ** -0.5)
        nn.init.normal_(self.bias, std=0.3)


class ReadOut(nn.Module):
    """Logits of a tensor: a convolution, something not linear, and a linear layer."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.conv = Convolution(tensor.shape[1], 3)
        self.linear = nn.Linear(3 * tensor.shape[2] * tensor.shape[3], CLASSES, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.conv(x).tanh().flatten(1))
        return logits


class Layer(nn.Module):
    """The explained layer: `function(self, x)`; what it puts into `kept`, the model uses later."""

    def __init__(self, function: Callable[[Any, Tensor], Any], channels: int, outputs: int) -> None:
        super().__init__()
        self.function = function
        self.conv = Convolution(channels, outputs)
        self.second = Convolution(outputs, 3)
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def keep(part: Callable[[Any, Tensor], Tensor], of: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Any]:
    def function(self: Any, x: Tensor) -> Tensor:
        out = of(self, x)
        self.kept.append(part(self, out))
        return out

    return function


def several(*parts: Callable[[Any, Tensor], Tensor], of: Callable[[Any, Tensor], Tensor], kind: Any = tuple) -> Any:
    def function(self: Any, x: Tensor) -> Any:
        out = of(self, x)
        return kind([part(self, out) for part in parts])

    return function


def fresh(self: Any, x: Tensor) -> Tensor:
    out: Tensor = self.conv(x)
    return out


def a_slice(self: Any, x: Tensor) -> Tensor:
    out: Tensor = self.conv(x)[:, 1:]
    return out


def transposed(self: Any, x: Tensor) -> Tensor:
    out: Tensor = self.conv(x).transpose(2, 3)
    return out


def changed(self: Any, x: Tensor) -> Tensor:
    out: Tensor = self.conv(x).relu_()
    out[:, :1].add_(0.5)
    return out


def its_input(self: Any, x: Tensor) -> Tensor:
    return x


def its_input_changed(self: Any, x: Tensor) -> Tensor:
    return x.mul_(0.8).relu_()


def view_of_its_input(self: Any, x: Tensor) -> Tensor:
    return x[:, 1:]


SAME: Any = lambda self, out: out  # noqa: E731
HALF: Any = lambda self, out: out[:, : max(1, out.shape[1] // 2)]  # noqa: E731
TURNED: Any = lambda self, out: out.permute(0, 1, 3, 2)  # noqa: E731
MEAN: Any = lambda self, out: out.mean((2, 3), keepdim=True)  # noqa: E731
DOUBLE: Any = lambda self, out: 2 * out  # noqa: E731
SQUARE: Any = lambda self, out: out * out  # noqa: E731

SOURCES = [fresh, a_slice, transposed, changed, its_input, its_input_changed, view_of_its_input]
PARTS = [SAME, HALF, TURNED, MEAN, DOUBLE, SQUARE]
# Where all that depends on the layer's output comes after our hook: to be checked by finite differences.
CLOSED = [fresh, a_slice, transposed, changed]


class RandomModel(nn.Module):
    """A program over a pool of tensors (N, C, H, W): steps, the layer, steps, and the sum of some read-outs.

    It is made while it runs on an example, which gives the shapes.
    """

    def __init__(self, seed: int, kinds: list[Any] | None = None) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.parts = nn.ModuleList()
        self.steps: list[Callable[[Pool], None]] = []
        pool = [torch.zeros(1, self.rng.randint(2, 4), SIDE, SIDE, dtype=torch.float64)]
        self.channels = pool[0].shape[1]
        self._add(self._convolve(pool), pool)
        for _ in range(self.rng.randint(0, 4)):
            self._add(self._step(pool), pool)
        first = len(pool)
        self._add(self._call_layer(pool, kinds), pool)
        used = list(range(first, len(pool)))  # all that the layer gave
        for _ in range(self.rng.randint(0, 4)):
            self._add(self._step(pool), pool)
        used += self.rng.sample(range(len(pool)), min(2, len(pool)))
        self.read_outs = [(i, self._part(ReadOut(pool[i]))) for i in dict.fromkeys([*used, len(pool) - 1])]

    def forward(self, x: Tensor) -> Tensor:
        pool = [x]
        for step in self.steps:
            step(pool)
        logits: Tensor = sum(read_out(pool[i]) for i, read_out in self.read_outs)  # type: ignore[assignment]
        return 4 * logits

    def _add(self, step: Callable[[Pool], None], pool: Pool) -> None:
        step(pool)
        self.steps.append(step)

    def _part(self, module: nn.Module) -> Any:
        self.parts.append(module)
        return module

    def _convolve(self, pool: Pool, i: int = 0) -> Callable[[Pool], None]:
        conv = self._part(Convolution(pool[i].shape[1], self.rng.randint(2, 6)))
        return lambda pool: pool.append(conv(pool[i]))

    def _step(self, pool: Pool) -> Callable[[Pool], None]:
        rng = self.rng
        i = rng.choice([rng.randrange(len(pool)), len(pool) - 1])
        kind = rng.choice(["convolve", "function", "view", "view", "in place", "in place", "join", "join in place"])
        if kind == "convolve":
            return self._convolve(pool, i)
        if kind == "function":
            function = rng.choice([torch.relu, torch.tanh, torch.sin, lambda x: x.clone()])
            return lambda pool: pool.append(function(pool[i]))
        if kind == "view":
            view = rng.choice(self._views(pool[i]))
            return lambda pool: pool.append(view(pool[i]))
        if kind == "in place":
            part = rng.choice([lambda x: x, lambda x: x, *self._views(pool[i])])
            change = rng.choice([lambda x: x.relu_(), lambda x: x.mul_(0.7), lambda x: x.add_(0.3)])
            return lambda pool: void(change(part(pool[i])))
        same = [j for j, other in enumerate(pool) if other.shape == pool[i].shape and j != i]
        if not same:
            return self._convolve(pool, i)
        j = rng.choice(same)
        if kind == "join":
            join = rng.choice([torch.add, torch.mul, lambda a, b: torch.cat([a, b], 1)])
            return lambda pool: pool.append(join(pool[i], pool[j]))
        return lambda pool: void(pool[i].add_(pool[j]))

    def _views(self, tensor: Tensor) -> list[Callable[[Tensor], Tensor]]:
        _, channels, height, width = tensor.shape
        views: list[Callable[[Tensor], Tensor]] = [
            lambda x: x.transpose(2, 3),
            lambda x: x.permute(0, 2, 1, 3),
            lambda x: x.reshape(len(x), channels, width, height),
        ]
        if channels > 1:
            views += [lambda x: x[:, 1:], lambda x: x[:, : channels - 1], lambda x: x.chunk(2, 1)[0]]
        if height > 2:
            views += [lambda x: x[:, :, 1:-1], lambda x: x[:, :, ::2]]
        return views

    def _call_layer(self, pool: Pool, kinds: list[Any] | None) -> Callable[[Pool], None]:
        rng = self.rng
        i = rng.choice([rng.randrange(len(pool)), len(pool) - 1])
        channels, outputs = pool[i].shape[1], rng.randint(3, 6)
        self.closed = True
        if kinds is not None:
            function = rng.choice(kinds)
        else:
            self.closed = False
            kind, of = rng.choice(["one", "one", "keeps", "hook keeps", "several", "module"]), rng.choice(SOURCES)
            if of is view_of_its_input and channels < 3:
                of = fresh
            if kind == "keeps":
                function = keep(rng.choice(PARTS), of)
            elif kind == "several":
                function = several(
                    *rng.choice([(SAME, rng.choice(PARTS[1:])), (rng.choice(PARTS), SAME)]),
                    of=of,
                    kind=rng.choice([tuple, tuple, list]),
                )
            else:
                function = of
            width = channels if of in (its_input, its_input_changed) else channels - 1
            outputs = outputs if of in CLOSED else width
        self.layer: nn.Module = Layer(function, channels, outputs)
        kept: list[Tensor] = self.layer.kept  # type: ignore[assignment]
        if kinds is None and kind == "module":
            self.layer = rng.choice(
                [nn.ReLU(inplace=True), nn.Identity(), nn.Dropout(0.4), nn.ReLU(), nn.LeakyReLU(0.1, inplace=True)]
            )
        if kinds is None and kind == "hook keeps":
            part = rng.choice(PARTS)
            self.layer.register_forward_hook(lambda module, args, output: void(kept.append(part(module, output))))
        layer = self.layer.eval()

        def call(pool: Pool) -> None:
            kept.clear()
            output = layer(pool[i])
            pool.extend(output if isinstance(output, tuple | list) else [output])
            pool.extend(kept)
            kept.clear()

        return call


def void(value: object) -> None:
    """Nothing: for operations whose result is not used."""


def build(seed: int, kinds: list[Any] | None = None) -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RandomModel(seed, kinds).eval()
    return model, model.layer


@dataclass(frozen=True)
class Observed:
    """The truth by Captum, and whether it is one."""

    truth: Truth
    valid: bool


def observe(model: Any, layer: nn.Module, x: Tensor, target: int, to_input: bool = False) -> Observed:
    """As `truth.captum_truth`. Not valid: where Captum's clone changes the scores, and where the model later changes,
    in place, what the layer returned: Captum looks at it only at the end."""
    edges: list[tuple[Tensor, Any, Tensor]] = []
    scores: list[Tensor] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        for tensor in output if isinstance(output, tuple | list) else (output,):
            edges.append((tensor, get_gradient_edge(tensor).node, tensor.detach().clone()))

    def forward(x: Tensor) -> Tensor:
        output: Tensor = model(x)
        scores.append(output.detach()[:, target].clone())
        return output

    with torch.no_grad():
        undisturbed = model(x.clone())[:, target]
    handle = layer.register_forward_hook(look)
    try:
        gradients, activations = compute_layer_gradients_and_eval(
            forward, layer, input_with_graph(x), target, grad_kwargs={"allow_unused": True}
        )
    finally:
        handle.remove()
    valid = bool(torch.allclose(scores[0], undisturbed, rtol=1e-12, atol=1e-12)) and all(
        get_gradient_edge(tensor).node is node and torch.equal(tensor, value) for tensor, node, value in edges
    )
    valid = valid and not any(g is None for g in gradients)
    values = tuple(a.detach().clone() for a in activations)
    found = tuple(torch.zeros_like(a) if g is None else g for a, g in zip(values, gradients, strict=True))
    return Observed(Truth(values, found, scores[0]), valid)


def truth_of(*arguments: Any) -> Truth:
    return observe(*arguments).truth


def example(seed: int, channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, SIDE, SIDE, dtype=torch.float64, generator=generator)


def comparable(first: int, kinds: list[Any] | None = None) -> Iterator[tuple[int, Tensor, Truth]]:
    """Seeds of models that Captum explains without changing them, with an input and the truth there."""
    for seed in range(first, first + 1000):
        try:
            model, layer = build(seed, kinds)
            x = example(seed, model.channels)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                observed = observe(model, layer, x, TARGETS[0])
        except (RuntimeError, AssertionError):  # the program or its differentiation is not possible
            continue
        if observed.valid and all(expected.norm() > 0 for expected, _ in plain_map(observed.truth)):
            yield seed, x, observed.truth


def check(seed: int, x: Tensor, truth: Truth) -> None:
    model, layer = build(seed)
    if seed % 2:
        frozen(model)
    assert_same(LayerGradCamPlusPlus(model, layer).attribute(x, TARGETS[0]), plain_map(truth))
    check_more = {0: check_targets, 1: check_smooth}.get(seed % 4)
    if check_more is not None:
        check_more(lambda: build(seed), x, truth_of, prepare=frozen if seed % 8 < 4 else None)


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_maps_of_random_models_are_those_of_captums_layer_gradients(group: int) -> None:
    compared, differing = 0, []
    for seed, x, truth in comparable(10_000 * group):
        try:
            check(seed, x, truth)
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            differing.append((seed, f"{type(error).__name__}: {str(error)[:120]}"))
        compared += 1
        if compared == PER_GROUP:
            break
    assert compared == PER_GROUP
    assert not differing, f"{len(differing)} of {compared} models: {differing}"


def test_the_expected_gradients_of_random_models_are_slopes_of_the_score() -> None:
    """The oracle itself: the layer's output is replaced by itself plus a step, forwards and backwards."""
    compared = 0
    for seed, x, truth in comparable(500_000, CLOSED):
        model, layer = build(seed, CLOSED)
        rng = random.Random(seed)
        (gradient,) = truth.gradients
        for _ in range(4):
            place = (slice(None), *(rng.randrange(size) for size in gradient.shape[1:]))
            slopes = []
            for step in (1e-5, -1e-5):
                shift = torch.zeros_like(gradient)
                shift[place] = step
                handle = layer.register_forward_hook(lambda module, args, output, shift=shift: output + shift)
                with torch.no_grad():
                    slopes.append(model(x.clone())[:, TARGETS[0]])
                handle.remove()
            slope = (slopes[0] - slopes[1]) / 2e-5
            assert torch.allclose(slope, gradient[place], rtol=1e-5, atol=1e-8), seed
        compared += 1
        if compared == 12:
            break
    assert compared == 12


def test_the_random_models_have_what_they_are_for() -> None:
    """Counted over those that are compared: layers of several tensors, that return their input, that return views."""
    counts = dict.fromkeys(("several", "input", "view", "in place"), 0)
    for number, (seed, x, truth) in enumerate(comparable(0)):
        model, layer = build(seed)
        seen: list[tuple[Any, Any]] = []
        versions: list[int] = []
        layer.register_forward_pre_hook(lambda module, args: versions.append(args[0]._version))  # noqa: B023
        layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))  # noqa: B023
        model(input_with_graph(x))
        before, output = seen[0]
        tensors = output if isinstance(output, tuple | list) else [output]
        counts["several"] += len(truth.activations) > 1
        counts["input"] += any(tensor is before for tensor in tensors)
        counts["view"] += any(tensor._is_view() for tensor in tensors)
        counts["in place"] += before._version > versions[0]
        if number == 99:
            break
    assert min(counts.values()) >= 10, counts
