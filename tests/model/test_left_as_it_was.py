"""What the model, its parameters and what it keeps are like after a pass whose network before the layer has a graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import ConvNet, images, tail
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus

SCORE = 1


class Around(nn.Module):
    """A layer between the first convolution of ConvNet and the rest, called by a function of the model."""

    def __init__(self, layer: nn.Module, run: Callable[[Around, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.layer, self.run = ConvNet().double(), layer.double(), run
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def stem(model: Around, x: Tensor) -> Tensor:
    return model.net.relu1(model.net.conv1(x))


def explained(model: nn.Module | Callable[..., Any], layer: nn.Module, x: Tensor, **options: Any) -> Tensor:
    return LayerGradCamPlusPlus(model, layer).attribute(x, SCORE, **options)


class Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 4, 8, 8))

    def forward(self) -> Tensor:
        return self.weight


def test_a_parameter_that_the_layer_returns_stays_trainable() -> None:
    model = Around(Position(), lambda m, x: tail(m.net, stem(m, x) + m.layer()))
    explained(model, model.layer, images(1).double())
    with pytest.raises(ValueError, match="one row per input row"):
        explained(model, model.layer, images(2).double())
    assert model.layer.weight.requires_grad


def test_a_graph_of_the_caller_that_the_layer_returns_stays() -> None:
    made = torch.ones(1, 4, 8, 8, dtype=torch.float64, requires_grad=True) * 2
    model = Around(nn.Identity(), lambda m, x: tail(m.net, stem(m, x) + m.layer(made)))
    explained(model, model.layer, images(1).double())
    assert made.requires_grad and made.grad_fn is not None


def keep(model: Around, x: Tensor) -> Tensor:
    model.kept = model.net.conv1(x)
    model.view = model.kept[:, :2]
    return tail(model.net, model.layer(model.net.relu1(model.kept)))


@pytest.mark.parametrize("as_function", [False, True])
def test_what_the_model_keeps_of_a_pass_can_be_copied(as_function: bool) -> None:
    model = Around(nn.Identity(), keep)
    explained((lambda x: model(x)) if as_function else model, model.layer, images(1).double())
    assert not model.kept.requires_grad and not model.view.requires_grad
    copy.deepcopy(model)


@pytest.mark.parametrize("fails", [False, True])
def test_shared_buffers_stay_the_same_tensor_without_a_graph(fails: bool) -> None:
    def run(m: Around, x: Tensor) -> Tensor:
        y = stem(m, x)
        m.running.mul_(0.9).add_(y.mean())
        if fails:
            raise KeyError("of the model")
        return tail(m.net, m.layer(y))

    model = Around(nn.Identity(), run)
    model.register_buffer("running", torch.zeros((), dtype=torch.float64))
    model.net.register_buffer("same", model.running)
    if fails:
        with pytest.raises(KeyError):
            explained(model, model.layer, images(1).double())
    else:
        explained(model, model.layer, images(1).double())
    assert model.running is model.net.same and not model.running.requires_grad and model.running != 0


def wanted(run: Callable[[Around, Tensor], Tensor], layer: nn.Module, x: Tensor) -> Tensor:
    """The map of the same model with trainable parameters, from autograd with respect to what the layer returned."""
    model, kept = Around(copy.deepcopy(layer), run), []
    model.layer.register_forward_hook(
        lambda module, args, out: kept.append(out[0] if isinstance(out, tuple) else out) and None
    )
    (g,) = torch.autograd.grad(model(x)[:, SCORE].sum(), kept[:1])
    a = kept[0].detach()
    alpha = torch.where(g != 0, 1 / (2 + g * a.sum((2, 3), keepdim=True)), 0)
    return ((alpha * g.relu()).sum((2, 3), keepdim=True) * a).sum(1, keepdim=True)


class Both(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.sin()


def embedded(m: Around, x: Tensor) -> Tensor:
    """Tokens: the inputs have no gradients."""
    y, z = m.layer(m.net.relu1(m.table(x.round().long().clamp(0, 4)).squeeze(1).movedim(-1, 1)))
    return tail(m.net, y + z)


def test_frozen_models_of_tokens_have_the_map_of_trainable_ones() -> None:
    def build(frozen: bool) -> Around:
        model = Around(Both(), embedded)
        torch.manual_seed(0)
        model.table = nn.Embedding(5, 4).double()
        return model.requires_grad_(not frozen)

    tokens = torch.randint(0, 5, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    maps = [explained(model, model.layer, tokens)[0] for model in map(build, (False, True))]
    assert torch.allclose(*maps, rtol=1e-9, atol=0) and maps[0].norm() > 0
    assert not any(parameter.requires_grad for parameter in build(True).parameters())


@pytest.mark.parametrize("layer_first", [False, True])
def test_torch_func_beside_the_layer_gives_the_map(layer_first: bool) -> None:
    def run(m: Around, x: Tensor) -> Tensor:
        y = stem(m, x)
        if layer_first:
            z = m.layer(y)
            return tail(m.net, z + torch.func.grad(lambda z: z.sin().sum())(y))
        return tail(m.net, m.layer(y + torch.func.grad(lambda z: z.sin().sum())(y)))

    model = Around(nn.Identity(), run)
    found = explained(model, model.layer, images(2).double())
    assert torch.allclose(found, wanted(run, nn.Identity(), images(2).double()), rtol=1e-9)


def test_a_function_that_reads_numpy_knows_the_uses_of_a_layer_without_parameters() -> None:
    def run(m: Around, x: Tensor) -> Tensor:
        y = stem(m, x)
        before = y.sin()
        return tail(m.net, before + m.layer(y))

    model = Around(nn.Dropout(), run)
    found = explained(lambda x: model(torch.from_numpy(x.numpy().copy())), model.layer, images(2).double())
    assert torch.allclose(found, wanted(run, nn.Dropout().eval(), images(2).double()), rtol=1e-9)


@pytest.mark.parametrize("read", [copy.deepcopy, lambda x: x.requires_grad_(False)], ids=["deepcopy", "requires_grad_"])
def test_frozen_models_may_copy_their_inputs(read: Callable[[Tensor], Tensor]) -> None:
    def run(m: Around, x: Tensor) -> Tensor:
        return tail(m.net, m.layer(stem(m, read(x))))

    model = Around(nn.Identity(), run).requires_grad_(False)
    found = explained(model, model.layer, images(2).double())
    assert torch.allclose(found, wanted(run, nn.Identity(), images(2).double()), rtol=1e-9)


def test_exact_derivatives_of_a_model_that_changes_another_name_of_the_layers_tensor() -> None:
    """The gate sees the change, though no gradient goes through it: the single row may not be widened at the layer."""

    def in_place(m: Around, x: Tensor) -> Tensor:
        a = stem(m, x)
        y = m.layer(a)
        y.mul_(2)  # `a` is `y`
        return tail(m.net, y.tanh()) * a.detach().mean((1, 2, 3))[:, None]

    def out_of_place(m: Around, x: Tensor) -> Tensor:
        a = stem(m, x)
        return tail(m.net, (2 * m.layer(a)).tanh()) * (2 * a).detach().mean((1, 2, 3))[:, None]

    maps = []
    for way in (in_place, out_of_place):
        model = Around(nn.Dropout(), way)
        maps.append(explained(model, model.layer, images(1).double(), derivatives="exact"))
    assert torch.allclose(*maps, rtol=1e-9) and maps[0].any()


IN_PLACE = [nn.ReLU6(True), nn.Hardtanh(-0.1, 0.2, True), nn.SiLU(True), nn.Hardswish(True), nn.Mish(True)]


@pytest.mark.parametrize("of_view", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("module", IN_PLACE, ids=lambda module: type(module).__name__)
def test_in_place_modules_before_and_through_the_layer_have_their_gradients(
    module: nn.Module, frozen: bool, of_view: bool
) -> None:
    """Before the layer they keep nothing; where a gradient goes through them, the pass runs again and they do."""

    def run(m: Around, x: Tensor) -> Tensor:
        y = m.net.conv1(x)
        y = m.act(y.transpose(2, 3)) if of_view else m.act(y)
        y = m.layer(y)  # returns its input: what was computed from that before counts
        return tail(m.net, y + m.second(y * 2))

    def before(m: Around, x: Tensor) -> Tensor:
        y = m.net.conv1(x)
        y = m.act(y.transpose(2, 3)) if of_view else m.act(y)
        z = m.second(y * 2)
        return tail(m.net, m.layer(y) + z)

    maps = []
    for way in (run, before):
        model = Around(nn.Identity(), way)
        model.act, model.second = copy.deepcopy(module), copy.deepcopy(module)
        model.requires_grad_(not frozen)
        maps.append(explained(model, model.layer, images(2).double()))
        assert "forward" not in vars(model.act) and "forward" not in vars(model.second)
    assert torch.equal(*maps)
    plain = Around(nn.Identity(), run)
    plain.act, plain.second = copy.deepcopy(module), copy.deepcopy(module)
    plain.act.inplace = plain.second.inplace = False
    assert torch.allclose(maps[0], explained(plain, plain.layer, images(2).double()), rtol=1e-9)


def test_in_place_modules_before_the_layer_copy_nothing() -> None:
    model = Around(nn.ReLU(), lambda m, x: tail(m.net, m.layer(m.act(m.net.conv1(x)))))
    model.act = nn.SiLU(True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        explained(model, model.layer, images(2).double())
    (silu,) = (event for event in profile.events() if event.name == "aten::silu_")
    assert "aten::clone" not in [child.name for child in silu.cpu_children]


def test_an_in_place_module_with_a_forward_of_its_own_keeps_it() -> None:
    model = Around(nn.ReLU(), lambda m, x: tail(m.net, m.layer(m.act(input=m.net.conv1(x)))))
    model.act = nn.SiLU(True)
    wanted = explained(model, model.layer, images(2).double())
    own = model.act.forward = lambda input: 2 * input
    doubled = explained(model, model.layer, images(2).double())
    assert model.act.forward is own and not torch.allclose(doubled, wanted)


def test_vmap_over_an_in_place_module_before_the_layer_gives_the_map() -> None:
    def run(m: Around, x: Tensor) -> Tensor:
        return tail(m.net, m.layer(torch.func.vmap(m.act)(m.net.conv1(x))))

    maps = []
    for inplace in (False, True):
        model = Around(nn.ReLU(), run)
        model.act = nn.SiLU(inplace)
        maps.append(explained(model, model.layer, images(2).double()))
    assert torch.allclose(*maps, rtol=1e-9)
