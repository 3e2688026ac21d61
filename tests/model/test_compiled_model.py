"""Compiled models run as compiled code, cut at the layers: same maps, compiled once; or eagerly where that fails."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import calls
import pytest
import torch
from _asserts import close
from calls import seeded
from networks import ConvNet, TwoInputs, images
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import lookup_backend
from torch.utils.checkpoint import checkpoint

from captum_sgcampp import GuidedGradCamPlusPlus, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, Softmax


class Backend:
    """torch's `aot_eager`: all of the way to compiled code but machine code. Counts what it was given and what ran."""

    def __init__(self, name: str = "aot_eager") -> None:
        self.name, self.graphs, self.runs = name, 0, 0

    def __call__(self, graph: Any, example_inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        compiled = lookup_backend(self.name)(graph, example_inputs)

        def run(*args: Any) -> Any:
            self.runs += 1
            return compiled(*args)

        return run


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


@pytest.fixture
def backend() -> Backend:
    return Backend()


smooth = partial(calls.smooth, nt_samples=5)


def compiled_outside(model: nn.Module, backend: Backend) -> nn.Module:
    return torch.compile(model, backend=backend)  # type: ignore[return-value]


def compiled_in_place(model: nn.Module, backend: Backend) -> nn.Module:
    model.compile(backend=backend)
    return model


@contextmanager
def runs_in_pieces(backend: Backend, passes: int, pieces: int = 2) -> Iterator[None]:
    """Each pass runs this many pieces of compiled code, without a warning of ours."""
    before = backend.runs
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="forward_func")
        yield
    assert backend.runs - before == passes * pieces


@contextmanager
def runs_eagerly() -> Iterator[None]:
    with pytest.warns(UserWarning, match="forward_func: expected a compiled model that can be split at layer"):
        yield


@pytest.mark.parametrize("compiled_as", [compiled_outside, compiled_in_place])
@pytest.mark.parametrize("name", ["conv1", "relu1", "pool", "fc1"])
def test_compiled_model_gives_the_map_of_the_eager_one(
    compiled_as: Callable[..., nn.Module], name: str, backend: Backend
) -> None:
    model = ConvNet(inplace=name in ("conv1", "relu1"))  # a ReLU then changes the layer's output, or its input
    expected = smooth(model, model.get_submodule(name), images())
    compiled = compiled_as(model, backend)
    with runs_in_pieces(backend, passes=3):
        found = smooth(compiled, model.get_submodule(name), images(), nt_samples_batch_size=2)
    assert close(found, expected)
    assert not model.get_submodule(name)._forward_hooks and torch.is_grad_enabled()


def test_hooks_that_come_after_the_first_explanation_are_seen(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    before = smooth(compiled, model.relu1, images())
    model.conv2.register_forward_hook(lambda module, args, output: output * 3 + 1)
    expected = smooth(model, model.relu1, images())
    assert close(smooth(compiled, model.relu1, images()), expected) and not close(before, expected)


def test_what_the_layer_computed_from_its_output_counts(backend: Backend) -> None:
    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x)
            self.kept = y.sin()
            return y

    class Model(ConvNet):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Keeps()

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(self.conv1(x))
            x = self.pool(self.relu2(self.conv2(y + self.layer.kept)))
            return self.fc2(self.relu3(self.fc1(x.flatten(1))))

    model = Model()
    expected = smooth(model, model.layer, images())
    with runs_eagerly():
        found = smooth(compiled_outside(model, backend), model.layer, images())
    assert close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eager", "aot_eager"])
def test_parts_are_compiled_once_for_all_numbers_of_rows_and_calls(name: str) -> None:
    class Viewing(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.relu1(self.conv1(x))
            x = self.pool(self.relu2(self.conv2(x)))
            return self.fc2(self.relu3(self.fc1(x.view(x.shape[0], -1))))

    model, backend = Viewing(), Backend(name)
    compiled = compiled_outside(model, backend)
    for examples, size in ((2, 2), (2, 3), (3, 2), (2, None), (2, 5)):
        expected = smooth(model, model.relu1, images(examples))
        assert close(smooth(compiled, model.relu1, images(examples), nt_samples_batch_size=size), expected)
        assert backend.graphs == 2
    with torch.no_grad():
        compiled(images())
    assert backend.graphs == 3  # the model itself has never been run before, and has no cut
    smooth(compiled, model.relu1, images())
    compiled(images())
    smooth(compiled, model.relu2, images())
    assert backend.graphs == 6  # with gradients; another layer


def test_several_layers_and_targets_and_softmax_are_explained_in_pieces(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    layers = [model.relu1, model.pool]
    expected = smooth(model, layers, images())
    with runs_in_pieces(backend, passes=1, pieces=3):
        found = smooth(compiled, layers, images())
    assert all(close(*pair) for pair in zip(found, expected, strict=True))
    for options, bound in (({}, 1e-5), ({"score": Softmax()}, 1e-3)):  # alpha of softmax has poles
        several, wanted = (
            LayerSmoothGradCamPlusPlus(which, model.relu1).attribute_targets(
                images(), [0, 3, 1], nt_samples=3, generator=seeded(), **options
            )
            for which in (compiled, model)
        )
        assert all(close(*pair, bound) for pair in zip(several, wanted, strict=True))
    assert backend.graphs == 5


def test_nothing_is_computed_for_parameters() -> None:
    differentiated: list[int] = []

    def backward(graph: Any, example_inputs: Any) -> Any:
        differentiated.append(sum(value is not None for value in graph.graph.output_node().args[0]))
        return graph.forward

    compiled = torch.compile(
        (model := ConvNet()), backend=aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=backward)
    )
    assert close(smooth(compiled, model.relu1, images()), smooth(model, model.relu1, images()))
    assert differentiated == [1]


@pytest.mark.slow
def test_many_models_and_layers_stay_compiled_and_so_does_the_model_of_the_caller(backend: Backend) -> None:
    for _ in range(10):  # torch keeps 8 versions of one code
        model = ConvNet()
        compiled = compiled_outside(model, backend)
        with runs_in_pieces(backend, passes=1):
            smooth(compiled, model.relu1, images())
    for layer in list(model.children())[:-1]:
        with runs_in_pieces(backend, passes=1):
            smooth(compiled, layer, images())
    with runs_in_pieces(backend, passes=1, pieces=1):
        compiled(images())
    graphs = backend.graphs
    smooth(compiled_outside(model, backend), model.relu1, images())  # compiled again by the caller, the same for us
    assert backend.graphs == graphs


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in front", "behind"])
def test_models_of_several_graphs_run_eagerly_and_stay_compiled_for_the_caller(where: str, backend: Backend) -> None:
    class Broken(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            if where == "in front":
                torch._dynamo.graph_break()
            x = self.pool(self.relu2(self.conv2(self.relu1(x))))
            if where == "behind":
                torch._dynamo.graph_break()
            return self.fc2(self.relu3(self.fc1(x.flatten(1))))

    model = Broken()
    compiled = compiled_outside(model, backend)
    expected = smooth(model, model.relu1, images())
    for layer in model.children():
        with runs_eagerly():
            found = smooth(compiled, layer, images())
        assert layer is not model.relu1 or close(found, expected)
    with runs_in_pieces(backend, passes=1, pieces=2):
        compiled(images())


class Straight(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@pytest.mark.parametrize("frozen", [False, True])
def test_what_behind_the_layer_looks_at_the_graph_sees_one(frozen: bool, backend: Backend) -> None:
    class Looking(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.relu1(self.conv1(x))
            x = Straight.apply(x) if x.requires_grad and not x.is_leaf else 0 * x
            with torch.no_grad():
                gain = 1 + x.amax()
            return self.fc2(self.relu3(self.fc1(gain * self.pool(self.relu2(self.conv2(x))).flatten(1))))

    model = Looking().requires_grad_(not frozen)
    expected = smooth(model, model.relu1, images())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="forward_func")
        found = smooth(compiled_outside(model, backend), model.relu1, images())
    assert backend.runs and expected.norm() > 0 and close(found, expected)


@pytest.mark.slow
def test_changed_weights_and_flags_are_seen(backend: Backend) -> None:
    class Switched(ConvNet):
        doubled = False

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + x if self.doubled else x)

    model = Switched()
    compiled = compiled_outside(model, backend)

    def check() -> None:
        assert close(smooth(compiled, model.relu1, images()), smooth(model, model.relu1, images()))

    check()
    first = smooth(compiled, model.relu1, images())
    with torch.no_grad():
        model.fc1.weight.mul_(-1)
    check()
    assert not close(smooth(compiled, model.relu1, images()), first, 0.1)
    model.fc1.weight = nn.Parameter(torch.randn_like(model.fc1.weight))
    check()
    model.load_state_dict(ConvNet(seed=5).state_dict(), assign=True)
    check()
    model.doubled = True
    check()


@pytest.mark.parametrize("layer", ["relu1", "same"])
def test_other_names_of_what_the_layer_returns_are_seen_with_a_graph(layer: str, backend: Backend) -> None:
    class Named(ConvNet):
        def __init__(self) -> None:
            super().__init__(inplace=True)
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            y = self.same(self.relu1(x))
            y = y + Straight.apply(x) * 2
            return self.fc2(self.relu3(self.fc1(self.pool(self.relu2(self.conv2(y))).flatten(1))))

    model = Named()
    expected = smooth(model, model.get_submodule(layer), images())
    with runs_eagerly():
        found = smooth(compiled_outside(model, backend), model.get_submodule(layer), images())
    assert close(found, expected)


def in_no_grad(net: ConvNet, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.conv2(net.relu1(net.conv1(x)))
    return net.fc2(net.relu3(net.fc1(net.pool(net.relu2(x)).flatten(1))))


def in_checkpoint(net: ConvNet, x: Tensor) -> Tensor:
    x = checkpoint(lambda y: net.conv2(net.relu1(net.conv1(y))), x, use_reentrant=False)
    return net.fc2(net.relu3(net.fc1(net.pool(net.relu2(x)).flatten(1))))


@pytest.mark.parametrize("way", [in_no_grad, in_checkpoint], ids=lambda way: way.__name__)
def test_layers_that_cannot_be_cut_in_compiled_code_are_explained_eagerly(
    way: Callable[[ConvNet, Tensor], Tensor], backend: Backend
) -> None:
    class Odd(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            return way(self, x)

    plain, model = ConvNet(), Odd()
    expected = smooth(plain, plain.relu1, images())
    compiled = compiled_outside(model, backend)
    with runs_eagerly():
        assert close(smooth(compiled, model.relu1, images()), expected)
    graphs = backend.graphs
    with runs_in_pieces(backend, passes=0):  # it is not tried again
        assert close(smooth(compiled, model.relu1, images()), expected)
    assert backend.graphs == graphs


def test_layers_with_several_outputs_are_explained_eagerly(backend: Backend) -> None:
    model = TwoInputs()
    x = (images(channels=1, size=6, seed=1), images(channels=1, size=6, seed=2))
    expected = smooth(model, model.both, x)
    with runs_eagerly():
        found = smooth(compiled_outside(model, backend), model.both, x)
    assert all(close(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_compiler_that_fails_leaves_an_eager_explanation(pieces: int) -> None:
    compiled: list[Any] = []

    def broken(graph: Any, example_inputs: Any) -> Any:
        if len(compiled) == pieces:
            raise RuntimeError("no compiler here")
        compiled.append(graph)
        return graph.forward

    model = ConvNet()
    with pytest.warns(UserWarning, match=r"forward_func: .*\(RuntimeError: no compiler here\); it runs eagerly"):
        found = smooth(torch.compile(model, backend=broken), model.relu1, images())
    assert close(found, smooth(model, model.relu1, images()))


def test_explanations_that_look_at_the_graph_run_eagerly_without_a_warning(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    for options in (
        {"derivatives": "exact"},
        {"attribute_to_layer_input": True},
        {"grad_kwargs": {"create_graph": True}},
    ):
        with runs_in_pieces(backend, passes=0):
            found = smooth(compiled, model.relu1, images(), **options)
        assert close(found, smooth(model, model.relu1, images(), **options))


@pytest.mark.parametrize("register", ["register_forward_hook", "register_full_backward_hook"])
def test_models_whose_own_hooks_compiled_code_may_not_call_run_eagerly(register: str, backend: Backend) -> None:
    model, seen = ConvNet(), []
    compiled = compiled_outside(model, backend)
    getattr(compiled if "forward" in register else model.fc1, register)(lambda *args: seen.append(1))
    with runs_in_pieces(backend, passes=0):
        smooth(compiled, model.relu1, images())
    assert seen


def test_functions_around_compiled_models_and_layers_outside_of_them_run_eagerly(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    expected = smooth(model, model.relu1, images())
    whole = nn.Sequential(nn.ReLU(), compiled).eval()
    with runs_in_pieces(backend, passes=0):
        assert close(smooth(lambda x: compiled(x), model.relu1, images()), expected)
        smooth(whole, whole[0], images())
        smooth(whole, model.relu1, images())
        smooth(compiled, compiled, images())


def test_a_stance_of_the_caller_holds(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    expected = smooth(model, model.relu1, images())
    with torch.compiler.set_stance("force_eager"), runs_in_pieces(backend, passes=0):
        assert close(smooth(compiled, model.relu1, images()), expected)
    assert backend.graphs == 0
    with torch.compiler.set_stance("fail_on_recompile"), runs_eagerly():
        assert close(smooth(compiled, model.relu1, images()), expected)
    with runs_in_pieces(backend, passes=1):
        smooth(compiled, model.relu1, images())


def test_errors_are_those_of_the_eager_model_and_do_not_end_the_compiled_one(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    with pytest.raises(RuntimeError, match="expected input"):
        smooth(compiled, model.relu1, images(channels=3))
    with pytest.raises(RuntimeError, match=r"forward_func: expected a model in evaluation mode, found Dropout"):
        smooth(compiled_outside(nn.Sequential(model, nn.Dropout()), backend), model.relu1, images())
    model.unused = nn.ReLU()
    with pytest.raises(RuntimeError, match=r"layer: .*never reached"):
        smooth(compiled, model.unused, images())
    assert not model.relu1._forward_hooks and torch.is_grad_enabled()
    with runs_in_pieces(backend, passes=1):
        smooth(compiled, model.relu1, images())


def test_memory_that_runs_out_halves_the_chunk() -> None:
    def small_memory(graph: Any, example_inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            if len(args[-1]) > 4:  # the rows
                raise torch.OutOfMemoryError("simulated")
            return graph.forward(*args)

        return run

    model = ConvNet()
    compiled = torch.compile(model, backend=small_memory)
    with pytest.warns(UserWarning, match="nt_samples_batch_size: out of memory"):
        found = smooth(compiled, model.relu1, images(1))
    assert close(found, smooth(model, model.relu1, images(1)))


def test_other_threads_do_not_meet_the_cut(backend: Backend) -> None:
    expected = ConvNet()(images())

    model = ConvNet()
    seen: list[Tensor] = []

    def run_elsewhere() -> None:
        with torch.no_grad():
            seen.append(model(images()))

    def interrupted(graph: Any, example_inputs: Any) -> Any:
        def run(*args: Any) -> Any:  # while the hooks are on the model
            thread = threading.Thread(target=run_elsewhere)
            thread.start()
            thread.join()
            return graph.forward(*args)

        return run

    found = smooth(torch.compile(model, backend=interrupted), model.relu1, images())
    assert close(found, smooth(model, model.relu1, images()))
    assert len(seen) == 2 and all(torch.equal(scores, expected) and not scores.requires_grad for scores in seen)


@pytest.mark.slow
def test_models_that_are_not_compiled_do_not_load_the_compiler() -> None:
    program = """
import sys, torch
from captum_sgcampp import LayerSmoothGradCamPlusPlus
net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)).eval()
LayerSmoothGradCamPlusPlus(net, net[0]).attribute(torch.rand(1, 1, 4, 4), 0, nt_samples=2)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.slow
def test_models_and_what_they_were_compiled_to_are_freed(backend: Backend) -> None:
    def explain_another(compiled_as: Callable[..., nn.Module]) -> int:
        model = ConvNet()
        object.__setattr__(model.relu1, "parent", model)
        compiled = compiled_as(model, backend)
        smooth(compiled, model.relu1, images())
        references = [weakref.ref(model), weakref.ref(compiled)]
        del model, compiled
        gc.collect()
        assert not any(reference() for reference in references)
        return sum(isinstance(thing, torch.fx.GraphModule) for thing in gc.get_objects())

    for compiled_as in (compiled_outside, compiled_in_place):
        explain_another(compiled_as)
        assert explain_another(compiled_as) == explain_another(compiled_as)


def test_guided_maps_of_compiled_models_are_those_of_eager_ones(backend: Backend) -> None:
    model = ConvNet()
    compiled = compiled_outside(model, backend)
    expected = GuidedGradCamPlusPlus(model, model.relu1).attribute(images(), 1)
    assert close(GuidedGradCamPlusPlus(compiled, model.relu1).attribute(images(), 1), expected)
    assert backend.graphs == 2  # the map's


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_machine_code_gives_the_same_map(dtype: torch.dtype) -> None:
    model = ConvNet()
    expected = smooth(model, model.relu1, images())
    with warnings.catch_warnings(), torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        warnings.filterwarnings("error", message="forward_func")
        found = smooth(torch.compile(model), model.relu1, images(), nt_samples_batch_size=3)
        once = LayerGradCamPlusPlus(torch.compile(model), model.relu1).attribute(images(), 1)
    scale = expected.norm() / found.norm()
    assert close(found * scale, expected, 1e-5 if dtype is torch.float32 else 0.05)
    assert close(once, LayerGradCamPlusPlus(model, model.relu1).attribute(images(), 1), 0.1)


def test_compiled_model_gives_the_same_map_and_stays_compiled() -> None:
    plain = ConvNet()
    expected = smooth(plain, plain.relu1, images())
    counted: list[int] = []

    def backend(graph: Any, example_inputs: Any) -> Any:
        counted.append(1)
        return graph.forward

    model = ConvNet()
    compiled = torch.compile(model, backend=backend)
    compiled(images())
    assert len(counted) == 1
    assert close(smooth(lambda x: compiled(x), compiled.relu1, images()), expected)
    assert len(counted) == 1
    assert close(smooth(compiled, model.relu1, images()), expected)
    graphs = len(counted)
    compiled(images())
    assert len(counted) == graphs
    model_in_place = ConvNet()
    model_in_place.compile(backend=backend)
    model_in_place(images())
    assert close(smooth(model_in_place, model_in_place.relu1, images()), expected)
