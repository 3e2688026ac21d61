"""The maps come from the total derivative with respect to what the layer returned, as Captum and plain autograd have
it, whoever else holds that tensor (expected values: tests/truth.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from truth import (
    CHECKS,
    TARGETS,
    assert_same,
    captum_truth,
    check_plain,
    frozen,
    plain_map,
)

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

KINDS = list(CHECKS)
PREPARED: dict[str, Any] = {"trainable": None, "frozen": frozen}


def batch(size: int = 6) -> Tensor:
    return torch.randn(2, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


class Net(nn.Module):
    """A small network whose forward pass is a function of it: `stem` 2 -> 6 maps, and heads for 6 (or other) maps."""

    def __init__(self, steps: Callable[[Any, Tensor], Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.short = nn.Conv2d(2, 6, 1)
        self.wide = nn.Conv2d(6, 8, 1)
        self.layer = nn.Conv2d(6, 8, 3, padding=1) if layer is None else layer
        self.heads = nn.ModuleDict({str(k): nn.Conv2d(k, 5, 3, padding=1) for k in (1, 2, 3, 4, 6, 8)})
        self.classes = nn.Linear(5, 5)
        self.flat = nn.Linear(6, 5)

    def head(self, x: Tensor) -> Tensor:
        """Logits of feature maps, not linear in them."""
        return self.classes(self.heads[str(x.shape[1])](x).tanh().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.steps(self, x)


def net(steps: Callable[[Any, Tensor], Tensor], layer: Callable[[], nn.Module] | None = None) -> Any:
    """Builds the same network and its layer at every call."""

    def build() -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = Net(steps, layer() if layer else None).double().eval()
        return model, model.layer

    return build


class Does(nn.Module):
    """A layer that is a function of itself and its input, with convolutions 6 -> 6 and 6 -> 8."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.wide = nn.Conv2d(6, 8, 3, padding=1)
        self.kept: Any = None

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def does(function: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Does(function)


def relu_in_place() -> nn.Module:
    return nn.ReLU(inplace=True)


# --- the layer's output is a view that somebody else holds ---------------------------------------------------------


def skips(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    y = self.layer(x.transpose(2, 3))
    return self.head(y) + self.head(x)


def skips_a_slice(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    y = self.layer(x[:, 1:5])
    return self.head(y) + self.head(x)


def uses_the_view_again(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x).transpose(2, 3)
    y = self.layer(x)
    return self.head(y) + self.head(x)


def uses_the_view_before(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)[:, 1:5]
    branch = self.head(x.sigmoid())
    return branch + self.head(self.layer(x))


def adds_the_view(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x).transpose(2, 3)
    return self.head(self.layer(x) + x.sin())


def keeps_a_view(self: Any, x: Tensor) -> Tensor:
    out = self.conv(x)
    self.kept = out[:, :4]
    return out


def keeps_its_view(self: Any, x: Tensor) -> Tensor:
    self.kept = self.wide(x)[:, :6]
    return self.kept


def keeps_a_view_of_its_view(self: Any, x: Tensor) -> Tensor:
    out = self.wide(x)[:, :6]
    self.kept = out[:, 2:4]
    return out


def keeps_the_base(self: Any, x: Tensor) -> Tensor:
    self.kept = self.wide(x)
    return self.kept[:, :6]


def uses_kept(self: Any, x: Tensor) -> Tensor:
    y = self.layer(self.stem(x))
    kept = self.layer.kept
    self.layer.kept = None
    return self.head(y.relu()) + 2 * self.head(kept)


def hooked(keep: Callable[[Tensor], Tensor], function: Callable[[Any, Tensor], Any] = lambda self, x: self.conv(x)):  # type: ignore[no-untyped-def]
    """A layer with a forward hook of its own, older than ours, that keeps `keep(output)`."""

    def layer() -> nn.Module:
        module = Does(function)

        def hook(module: Any, args: Any, output: Tensor) -> None:
            module.kept = keep(output)

        module.register_forward_hook(hook)
        return module

    return layer


HELD_VIEWS = {
    "in-place ReLU of a transposed tensor": net(skips, relu_in_place),
    "in-place ReLU of a slice": net(skips_a_slice, relu_in_place),
    "Dropout of a transposed tensor": net(skips, nn.Dropout),
    "Dropout of a slice": net(skips_a_slice, nn.Dropout),
    "Identity of a transposed tensor": net(skips, nn.Identity),
    "in-place ReLU, the view used again": net(uses_the_view_again, relu_in_place),
    "Dropout, the view used again": net(uses_the_view_again, nn.Dropout),
    "Identity, the view used again": net(uses_the_view_again, nn.Identity),
    "in-place ReLU, the view added": net(adds_the_view, relu_in_place),
    "Dropout, the view added": net(adds_the_view, nn.Dropout),
    "Dropout, the view used before": net(uses_the_view_before, nn.Dropout),
    "module keeps a view": net(uses_kept, does(keeps_a_view)),
    "module keeps the view it returns": net(uses_kept, does(keeps_its_view)),
    "module keeps a view of its view": net(uses_kept, does(keeps_a_view_of_its_view)),
    "module keeps the base": net(uses_kept, does(keeps_the_base)),
    "hook keeps a view": net(uses_kept, hooked(lambda out: out[:, :4])),
    "hook keeps the output": net(uses_kept, hooked(lambda out: out)),
    "hook keeps a view of a view": net(uses_kept, hooked(lambda out: out[:, :4], lambda self, x: self.wide(x)[:, 2:])),
    "hook keeps the output, a view": net(uses_kept, hooked(lambda out: out, lambda self, x: self.wide(x)[:, 2:])),
    "hook keeps something computed": net(uses_kept, hooked(lambda out: out[:, :4].tanh())),
}


# --- layers that return several tensors, one computed from another -------------------------------------------------


def uses_both(self: Any, x: Tensor) -> Tensor:
    first, second = self.layer(self.stem(x))
    if second.dim() == 3:
        second = second[:, None]
    return self.head(first.relu()) + 2 * self.head(second)


def pyramid(self: Any, x: Tensor) -> Any:
    first = self.conv(x).relu()
    return first, self.wide(first)


def auxiliary(self: Any, x: Tensor) -> Tensor:
    out = self.conv(x)
    self.kept = out.mean((2, 3))
    return out


def uses_auxiliary(self: Any, x: Tensor) -> Tensor:
    y = self.layer(self.stem(x))
    kept, self.layer.kept = self.layer.kept, None
    return self.head(y.relu()) + 5 * self.flat(kept)


def in_place_then_both(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    half = y[:, :3]
    y.relu_()
    return y, half


def list_of_two(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    return [y, y * y]


SEVERAL = {
    "(x, 2 x)": net(uses_both, does(lambda self, x: (self.conv(x), 2 * self.conv(x)))),
    "(y, 2 y)": net(uses_both, does(lambda self, x: (lambda y: (y, 2 * y))(self.conv(x)))),
    "(input, 2 input)": net(uses_both, does(lambda self, x: (x, 2 * x))),
    "(y, y[:, :4])": net(uses_both, does(lambda self, x: (lambda y: (y, y[:, :4]))(self.conv(x)))),
    "(input, input[:, :4])": net(uses_both, does(lambda self, x: (x, x[:, :4]))),
    "(y[:, :4], y)": net(uses_both, does(lambda self, x: (lambda y: (y[:, :4], y))(self.conv(x)))),
    "chunks": net(uses_both, does(lambda self, x: self.wide(x).chunk(2, 1))),
    "a pyramid": net(uses_both, does(pyramid)),
    "a list": net(uses_both, does(list_of_two)),
    "in place, and a slice of it": net(uses_both, does(in_place_then_both)),
    "an auxiliary tensor": net(uses_auxiliary, does(auxiliary)),
}


# --- layers that return their input --------------------------------------------------------------------------------


def before(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    branch = self.head(x.relu())
    y = self.layer(x)
    return branch + self.head(y)


def after(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    y = self.layer(x)
    branch = self.head(x.relu())
    return branch + self.head(y)


def before_and_after(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    branch = self.head(x.relu())
    y = self.layer(x)
    return branch + self.head(y) + self.head(x[:, :4].sigmoid())


def drop_path() -> nn.Module:
    return pytest.importorskip("timm.layers").DropPath(0.3)


RETURNS_INPUT = {
    f"{name} {where.__name__}": net(where, layer)
    for name, layer in {"Identity": nn.Identity, "Dropout": nn.Dropout, "DropPath": drop_path}.items()
    for where in (before, after, before_and_after)
}


# --- "A view was created in no_grad mode and is being modified inplace" --------------------------------------------


def adds_to_the_view(self: Any, x: Tensor) -> Tensor:
    y = self.layer(self.stem(x))
    y += self.short(x)
    return self.head(y)


def view_before_an_in_place_layer(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    half = x[:, :4]
    y = self.layer(x)
    return self.head(y) + self.head(half)


def adds_the_layer_to_a_view(self: Any, x: Tensor) -> Tensor:
    """As ghostnet: the layer stands on the shortcut."""
    x = self.stem(x)
    y = self.wide(x)[:, :6]
    y += self.layer(x)
    return self.head(y)


def adds_the_layer_to_a_view_of_a_view(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    wide = self.wide(x).transpose(2, 3)
    wide[:, 1:7] += self.layer(x)
    wide[:, :4].mul_(2)
    return self.head(wide)


def changes_a_chunk(self: Any, x: Tensor) -> Tensor:
    y = self.layer(self.stem(x))
    half = y[:, :3]
    half.mul_(2)
    return self.head(y)


CRASHES = {
    "y = conv(x)[:, :6]; y += short(x)": net(adds_to_the_view, does(lambda self, x: self.wide(x)[:, :6])),
    "the returned view is changed by slices": net(changes_a_chunk, does(lambda self, x: self.wide(x)[:, :6])),
    "a view taken before an in-place layer": net(view_before_an_in_place_layer, relu_in_place),
    "y = conv(x)[:, :6]; y += layer(x)": net(adds_the_layer_to_a_view, lambda: nn.Conv2d(6, 6, 1)),
    "slices += layer(x)": net(adds_the_layer_to_a_view_of_a_view, lambda: nn.Conv2d(6, 6, 1)),
    "(y, y[:, 0])": net(uses_both, does(lambda self, x: (lambda y: (y, y[:, 0]))(self.conv(x)))),
    "(input, input[:, 0])": net(uses_both, does(lambda self, x: (x, x[:, 0]))),
}


# --- what models see -----------------------------------------------------------------------------------------------


def strided(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    n, _, h, w = x.shape
    x = x.as_strided((n, 4, h, w), (6 * h * w, h * w, w, 1), 0)
    return self.head(self.layer(torch.cat([x, x[:, :2]], 1)))


def pools_three(self: Any, x: Tensor) -> Tensor:
    x = self.pool(self.stem(x))  # (N, 6, 6, 6) read as (6, 6, 6) of N: pairs of maps
    return self.head(self.layer(torch.cat([x, x.sin()], 1)))


def asserts_contiguous(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    y = self.layer(x)
    if not (x.is_contiguous() and y.is_contiguous()):  # not `assert`: pytest would add to its text
        raise AssertionError("the kernel reads (N, C, H, W)")
    return self.head(y)


def views(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    return self.head(self.layer(x.view(len(x), 2, 3, 36).flip(1).view(len(x), 6, 6, 6)))


def pooled() -> tuple[nn.Module, nn.Module]:
    model, layer = net(pools_three)()
    model.pool = nn.MaxPool3d((2, 1, 1))
    return model, layer


MEMORY = {
    "as_strided": net(strided),
    "MaxPool3d of (N, C, H, W)": pooled,
    "assert is_contiguous": net(asserts_contiguous),
    "view": net(views),
}


# --- in front of the layer, a model may do what needs no graph (worked before) -------------------------------------


def numpy_detached(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    largest = torch.from_numpy(x.detach().numpy().max((1, 2, 3), keepdims=True))
    return self.head(self.layer(x * largest))


def numpy_plain(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    return self.head(self.layer(torch.from_numpy(x.numpy().copy()) / 2))


def numpy_changed(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    x.numpy()[:, 2] *= 3
    return self.head(self.layer(x))


def out_argument(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    return self.head(self.layer(torch.mul(x, 2, out=torch.empty_like(x))))


def chunks_in_place(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    for chunk in x.chunk(2, 1):
        chunk.mul_(2)
    return self.head(self.layer(x))


def slices_in_place(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    x[:, 1:3].relu_()
    x[:, 4] = 0.5
    return self.head(self.layer(x))


def one_hot(number: int) -> Tensor:
    return torch.eye(6, dtype=torch.float64)[number, :, None, None]


IN_FRONT = {
    "numpy of the detached tensor": net(numpy_detached),
    "in place on slices": net(slices_in_place),
}
# Models that run without a graph only, and what stands for it: neither Captum nor plain autograd can explain them.
UNDER_NO_GRAD = {
    "numpy of the tensor": (numpy_plain, lambda self, x: x / 2),
    "numpy of the tensor, changed": (numpy_changed, lambda self, x: x * (1 + 2 * one_hot(2))),
    "out=": (out_argument, lambda self, x: 2 * x),
    "in place on chunks": (chunks_in_place, lambda self, x: 2 * x),
}

GROUPS = {
    "held view": HELD_VIEWS,
    "several": SEVERAL,
    "returns its input": RETURNS_INPUT,
    "crash": CRASHES,
    "memory": MEMORY,
    "in front": IN_FRONT,
}
CASES = {f"{group}: {name}": build for group, cases in GROUPS.items() for name, build in cases.items()}


# Where the tensor that goes in is the one that the module changes or that the model uses again.
TO_INPUT = [
    "held view: Dropout of a transposed tensor",
    "held view: Dropout, the view used again",
    "held view: Dropout, the view used before",
    "held view: Identity, the view used again",
    "held view: module keeps a view",
    "several: (input, 2 input)",
    "several: (input, input[:, :4])",
    "several: a pyramid",
    "returns its input: Identity before_and_after",
    "returns its input: Dropout before",
    "crash: y = conv(x)[:, :6]; y += short(x)",
    "crash: y = conv(x)[:, :6]; y += layer(x)",
    "crash: (input, input[:, 0])",
    "memory: as_strided",
    "memory: MaxPool3d of (N, C, H, W)",
    "memory: assert is_contiguous",
    "in front: in place on slices",
]


def captum_changes_nothing(build: Any, x: Tensor, to_input: bool = False) -> bool:
    """Whether the model computes the same with Captum's hook, which passes a clone on."""
    model, _ = build()
    with torch.no_grad():
        undisturbed = model(x)[:, TARGETS[0]]
    return torch.allclose(captum_truth(*build(), x, TARGETS[0], to_input).scores, undisturbed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parameters", PREPARED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_maps_are_those_of_captums_layer_gradients(case: str, kind: str, parameters: str) -> None:
    build, x = CASES[case], batch()
    assert captum_changes_nothing(build, x)
    CHECKS[kind](build, x, prepare=PREPARED[parameters])


@pytest.mark.parametrize("parameters", PREPARED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", TO_INPUT)
def test_maps_of_layer_inputs_are_those_of_captums_layer_gradients(case: str, kind: str, parameters: str) -> None:
    build, x = CASES[case], batch()
    assert captum_changes_nothing(build, x, to_input=True)
    CHECKS[kind](build, x, to_input=True, prepare=PREPARED[parameters])


@pytest.mark.parametrize("parameters", PREPARED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", UNDER_NO_GRAD)
def test_what_needs_no_graph_in_front_of_the_layer_still_works(case: str, kind: str, parameters: str) -> None:
    steps, equivalent = UNDER_NO_GRAD[case]
    built = net(steps)
    twin = net(lambda self, x: self.head(self.layer(equivalent(self, self.stem(x)))))

    def reference(model: Any, layer: Any, *arguments: Any) -> Any:
        return captum_truth(*twin(), *arguments)

    CHECKS[kind](built, batch(), reference, prepare=PREPARED[parameters])


@pytest.mark.parametrize("layer", [nn.Identity, nn.Dropout, drop_path])
def test_swapping_two_lines_of_a_model_changes_no_map(layer: Callable[[], nn.Module]) -> None:
    x = batch()
    first, second = (LayerGradCamPlusPlus(*net(where, layer)()).attribute(x, 1) for where in (before, after))
    expected = [(first, 1.0)]
    assert_same(second, expected)
    assert_same(first, plain_map(captum_truth(*net(before, layer)(), x, 1)))


@pytest.mark.parametrize("case", ["several: a pyramid", "held view: module keeps the view it returns"])
def test_the_expected_derivative_is_the_slope_of_the_score(case: str) -> None:
    """The oracle itself, by central differences: a number added inside the layer, where its output is computed."""
    build, x = CASES[case], batch()
    truth = captum_truth(*build(), x, TARGETS[0])
    model, layer = build()
    inner = layer.conv if "pyramid" in case else layer.wide  # its output, but for a ReLU or a slice, is the layer's
    shift = torch.zeros(2, inner.out_channels, 6, 6, dtype=torch.float64)
    inner.register_forward_hook(lambda module, args, output: output + shift)
    for place in [(1, 2, 3), (4, 0, 5), (5, 3, 3)]:
        slopes = []
        for step in (1e-5, -1e-5):
            shift[(slice(None), *place)] = step
            with torch.no_grad():
                slopes.append(model(x)[:, TARGETS[0]])
            shift.zero_()
        gradient = truth.gradients[0][(slice(None), *place)]
        if "pyramid" in case:
            gradient = gradient * (truth.activations[0][(slice(None), *place)] > 0)
        assert torch.allclose((slopes[0] - slopes[1]) / 2e-5, gradient, rtol=1e-6, atol=1e-9)


# --- timm ------------------------------------------------------------------------------------------------------------


def timm_model(name: str) -> nn.Module:
    """A model of timm in float64, its weights drawn from a fixed seed, biases and scales that begin at 0 included."""
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = timm.create_model(name, pretrained=False, num_classes=10)
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def photo(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["stages.1.blocks.0.shortcut", "stages.2.blocks.1.drop_path"])
def test_convnextv2_shortcut(name: str, kind: str) -> None:
    model = timm_model("convnextv2_atto")
    CHECKS[kind](lambda: (model, model.get_submodule(name)), photo())


@pytest.mark.slow
def test_ghostnet_shortcuts() -> None:
    model, x = timm_model("ghostnet_100"), photo()
    names = [
        name for name, _ in model.named_modules() if "shortcut" in name
    ]  # 16, of them 12 empty: they return their input
    assert len(names) == 36
    for number, name in enumerate(names):
        layer = model.get_submodule(name)
        check_plain(lambda layer=layer: (model, layer), x)  # type: ignore[misc]
        if number % 9 == 2:
            for kind in KINDS[1:]:
                CHECKS[kind](lambda layer=layer: (model, layer), x)  # type: ignore[misc]
        model.requires_grad_(number % 2 == 0)


# --- tensor hooks of the model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "smooth"])
@pytest.mark.parametrize("where", ["behind the layer", "what the layer returned"])
def test_tensor_hooks_of_the_model_are_called_once_per_target_with_plain_gradients(where: str, kind: str) -> None:
    kept: list[Tensor] = []
    values: list[Tensor] = []

    def steps(self: Any, x: Tensor) -> Tensor:
        y = self.layer(self.stem(x))
        a = y if where == "what the layer returned" else y.tanh()
        if a.requires_grad:
            a.register_hook(kept.append)
            values.append(a)
        return self.head(a.sin())

    model, layer = net(steps)()
    x = batch()
    with torch.enable_grad():
        scores = model(x)
        expected = [torch.autograd.grad(scores[:, t].sum(), values[0], retain_graph=True)[0] for t in TARGETS]
    kept.clear()
    values.clear()
    if kind == "plain":
        found = LayerGradCamPlusPlus(model, layer).attribute_targets(x, TARGETS)
    else:
        found = LayerSmoothGradCamPlusPlus(model, layer).attribute_targets(
            x, TARGETS, nt_samples=3, nt_samples_batch_size=2
        )
    passes = 1 if kind == "plain" else 2
    assert len(found) == 2 and len(kept) == passes * len(TARGETS)
    assert all(gradient.shape == (2 if kind == "plain" else 4, 8, 6, 6) for gradient in kept)
    assert all(len(gradient.flatten().tolist()) == gradient.numel() for gradient in kept)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in kept)
    if kind == "plain":  # in whatever order
        for gradient in expected:
            assert sum(torch.allclose(gradient, other, rtol=1e-12, atol=1e-14) for other in kept) == 1


# --- DistributedDataParallel -----------------------------------------------------------------------------------------


@pytest.fixture
def process_group(tmp_path: Any) -> Any:
    distributed = pytest.importorskip("torch.distributed")
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("gloo is not available")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Calls(nn.Module):
    """A module around another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


FORWARDS: dict[str, Callable[[nn.Module], Any]] = {
    "the model itself": lambda ddp: ddp,
    "a function": lambda ddp: lambda x: ddp(x),
    "a module around it": Calls,
}


def in_the_middle(self: Any, x: Tensor) -> Tensor:
    return self.head(self.layer(self.stem(x)))


def train(ddp: nn.Module, explain: Callable[[], Any], after_step: int) -> tuple[list[Tensor], Any]:
    """The parameters after three steps, and what `explain()` gave after one of them."""
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01, momentum=0.9)
    explained = None
    for step in range(1, 4):
        optimizer.zero_grad()
        x = torch.randn(4, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(ddp(x), torch.arange(4)).backward()
        optimizer.step()
        if step == after_step:
            explained = explain()
    return [parameter.detach().clone() for parameter in ddp.parameters()], explained


def trained_model() -> nn.Module:
    """All its parameters are used."""
    model, _ = net(in_the_middle)()
    model.heads = nn.ModuleDict({"8": model.heads["8"]})
    del model.short, model.wide, model.flat
    return model


@pytest.mark.parametrize("method", [LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus])
@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"find_unused_parameters": True}], ids=str)
@pytest.mark.parametrize("form", FORWARDS)
def test_explaining_between_two_steps_of_distributed_training_disturbs_nothing(
    form: str, options: dict[str, bool], method: Any, process_group: Any
) -> None:
    parallel = nn.parallel.DistributedDataParallel
    undisturbed, _ = train(parallel(trained_model(), **options), lambda: None, 1)
    for after_step in (1, 2):
        model = trained_model()
        ddp = parallel(model, **options)
        x, maps = batch(), []

        def explain() -> None:
            explainer = method(FORWARDS[form](ddp), model.layer)  # noqa: B023
            arguments = {} if method is LayerGradCamPlusPlus else {"nt_samples": 3, "nt_samples_batch_size": 2}
            maps.extend(explainer.attribute_targets(x, TARGETS, **arguments))  # noqa: B023
            if method is LayerGradCamPlusPlus:
                expected = [plain_map(captum_truth(model, model.layer, x, target)) for target in TARGETS]  # noqa: B023
                for found, truth in zip(maps, expected, strict=True):  # noqa: B023
                    assert_same(found, truth)

        parameters, _ = train(ddp, explain, after_step)
        assert len(maps) == 2
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, undisturbed, strict=True))
