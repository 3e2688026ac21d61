"""Exact derivatives agree with finite differences and, where it holds, with the closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from _asserts import left_as_it_was, refused
from networks import ConvNet, TwoInputs, images
from reference import map_from_derivatives, relative_error, stencil_derivatives
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, Softmax
from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.decompositions import elementary_operations
from captum_sgcampp.model.directional_derivatives import along_entries
from captum_sgcampp.sampling import exact_derivatives

TARGET = 3
WIDE = {"dtype": torch.float64}


@pytest.fixture
def no_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are taken entry by entry even where they are known to be piecewise linear."""
    monkeypatch.setattr(Graph, "is_piecewise_linear", lambda self: False)


class SmallNet(nn.Module):
    """A convolution (the layer), then an activation, a convolution, and a fully connected head."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Conv2d(2, 3, 3)
            self.act = activation
            self.conv = nn.Conv2d(3, 4, 2)
            self.fc = nn.Linear(4 * 3 * 3, 5)
        self.double().eval()

    def head(self, a: Tensor) -> Tensor:
        return 3 * self.fc(self.act(self.conv(self.act(a))).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


def link_of(score: Any, logits: Tensor) -> Tensor:
    """Y of every row."""
    picked = logits[:, TARGET]
    if score == "identity":
        return picked
    if isinstance(score, str):
        return {"exp": picked.exp(), "sigmoid": picked.sigmoid(), "softmax": logits.softmax(1)[:, TARGET]}[score]
    if isinstance(score, Softmax):
        classes = [TARGET, *score.classes]
        return logits[:, classes].softmax(1)[:, 0]
    return score(picked)


def stencil_map(
    head: Callable[[Tensor], Tensor], layer: Callable[[Tensor], Tensor], rows: Tensor, score: Any, step: float = 0.05
) -> Tensor:
    """The map of one example by finite differences, up to a factor: its clean row and then its copies."""
    with torch.no_grad():
        clean, *copies = layer(rows)
    if not copies:
        copies = [clean]

    def mean(entry: tuple[int, ...]) -> list[float]:
        found = [stencil_derivatives(lambda a: link_of(score, head(a)), a, entry, step) for a in copies]
        return [sum(values) / len(values) for values in zip(*found, strict=True)]

    return map_from_derivatives(clean, mean)


def alike(found: Tensor, expected: Tensor, bound: float = 1e-4) -> bool:
    """Equal but for a positive factor."""
    return relative_error(found / found.norm(), expected / expected.norm()) <= bound


SCORES = ["exp", "sigmoid", "softmax", Softmax((0, 1)), "identity", F.softplus]


@pytest.mark.parametrize("score", SCORES, ids=str)
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.Tanh()], ids=str)
def test_maps_are_those_of_finite_differences(activation: nn.Module, score: Any) -> None:
    model, x = SmallNet(activation), images(2, size=6).double()
    found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, score=score, derivatives="exact")
    for number in range(2):
        assert alike(found[number], stencil_map(model.head, model.layer, x[number : number + 1], score))
    if score in ("exp", "softmax"):
        closed = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, score=score)
        assert relative_error(closed, found) > 0.01  # the closed form is not good enough here


@pytest.mark.parametrize("score", ["exp", "softmax", F.softplus], ids=str)
def test_smooth_maps_are_those_of_finite_differences(score: Any) -> None:
    model, x = SmallNet(nn.SiLU()), images(1, size=6).double()
    rows: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda module, args: rows.append(args[0].detach().clone()))
    options: Any = {"derivatives": "exact", "score": score, "nt_samples": 3, "nt_samples_batch_size": 1}
    method = LayerSmoothGradCamPlusPlus(model, model.layer)
    found = method.attribute(x, TARGET, generator=torch.Generator().manual_seed(0), **options)
    handle.remove()
    received = torch.cat(rows).unique(dim=0)
    copies = received[[not torch.equal(row, x[0]) for row in received]]
    assert len(copies) == 3
    assert alike(found[0], stencil_map(model.head, model.layer, torch.cat([x, copies]), score))
    wider = method.attribute(
        x, TARGET, generator=torch.Generator().manual_seed(0), **options | {"nt_samples_batch_size": 4}
    )
    assert relative_error(wider, found) < 1e-12


def test_float32_is_as_right() -> None:
    model, x = SmallNet(nn.GELU()), images(1, size=6).double()
    wide = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, derivatives="exact")
    narrow = LayerGradCamPlusPlus(model.float(), model.layer).attribute(x.float(), TARGET, derivatives="exact")
    assert narrow.dtype == torch.float32 and relative_error(narrow, wide) < 1e-4


@pytest.mark.parametrize("size", [1e-15, 1e12])
def test_activations_of_any_size_keep_their_third_derivative_in_float32(size: float) -> None:
    """Front times `size`, head divided by it: the map of the same model but for a factor."""

    class Sized(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.sized(self.layer(x) * size) / size)

    model = Sized(nn.SiLU()).float()
    model.sized = nn.Identity()
    x = images(1, size=6)
    found = LayerGradCamPlusPlus(model, model.sized).attribute(x, TARGET, derivatives="exact")
    model = SmallNet(nn.SiLU()).float()
    assert alike(found, LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, derivatives="exact"))


class Concatenating(nn.Module):
    """Fire modules in small: the layer's output meets, along the channels, what went past it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.layer = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.fc = nn.Linear(6 * 4 * 4, 5)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        both = torch.cat([torch.relu(self.layer(x)), x], 1)
        return self.fc(F.max_pool2d(both, 2).flatten(1))


class Adding(Concatenating):
    """A skip connection, and a reshape by the number of rows of the input."""

    def forward(self, x: Tensor) -> Tensor:
        rows, x = len(x), self.first(x)
        both = torch.cat([torch.relu(x + self.layer(x))] * 2, 1)
        return self.fc(F.max_pool2d(both, 2).reshape(rows, -1))


@pytest.mark.parametrize("score", ["exp", "sigmoid", "softmax"])
@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize(
    "make, name", [(ConvNet, "relu1"), (ConvNet, "fc1"), (Concatenating, "layer"), (Adding, "layer")]
)
def test_closed_form_is_exact_behind_piecewise_linear_heads(
    make: Any, name: str, to_input: bool, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = make().double(), images(2).double()
    method = LayerGradCamPlusPlus(model, model.get_submodule(name))
    options: Any = {"score": score, "attribute_to_layer_input": to_input}
    closed = method.attribute(x, [1, 3], **options)
    with monkeypatch.context() as patch:  # not one entry is needed
        patch.setattr(exact_derivatives, "along_entries", None)
        assert relative_error(method.attribute(x, [1, 3], derivatives="exact", **options), closed) < 1e-12
    monkeypatch.setattr(Graph, "is_piecewise_linear", lambda self: False)
    assert relative_error(method.attribute(x, [1, 3], derivatives="exact", **options), closed) < 1e-9


def test_several_layers_targets_inputs_and_arguments_entry_by_entry(no_shortcuts: None) -> None:
    model = TwoInputs().double()
    a, b = (part.double() for part in images(2, channels=2, size=6).unsqueeze(2).unbind(1))
    gain = torch.tensor([1.0, 2.5], **WIDE)
    method: Any
    for method in (LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus):
        options: Any = {} if method is LayerGradCamPlusPlus else {"nt_samples": 2, "return_statistics": True}
        both = method(model, [model.both, model.fc])
        closed, exact = (
            both.attribute_targets(
                (a, b),
                [1, [0, 2]],
                additional_forward_args=(gain, "name"),
                derivatives=derivatives,
                **options | ({"generator": torch.Generator().manual_seed(0)} if options else {}),
            )
            for derivatives in ("closed_form", "exact")
        )
        assert len(exact) == 2
        for one, other in zip(leaves(closed), leaves(exact), strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-14)


def leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree if isinstance(tree, list | tuple) else vars(tree).values()
    return [leaf for part in parts for leaf in leaves(part)]


def test_selected_entries_alone_are_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = SmallNet(nn.SiLU()), images(2, size=6).double()
    method = LayerGradCamPlusPlus(model, model.layer)
    counts: list[int] = []

    def counted(first: Tensor, layer: Any, entries: Tensor, *rest: Any) -> Any:
        counts.append(len(entries))
        return along_entries(first, layer, entries, *rest)

    monkeypatch.setattr(exact_derivatives, "along_entries", counted)
    box = (slice(0, 2), slice(1, 3))
    whole = method.attribute(x, TARGET, derivatives="exact", attr_dim_summation=False)
    assert max(counts) < 3 * 16  # those with a negative derivative are left out
    counts.clear()
    masks = torch.tensor([[True, False, False], [False, True, True]])
    part = method.attribute(x, TARGET, derivatives="exact", neurons=box, feature_maps=masks, attr_dim_summation=False)
    assert max(counts) <= 2 * 4
    rest = method.attribute(x, TARGET, derivatives="exact", feature_maps=~masks, attr_dim_summation=False)
    full = method.attribute(x, TARGET, derivatives="exact", feature_maps=masks, attr_dim_summation=False)
    assert torch.allclose(full + rest, whole) and part.any() and not part[:, :, 2:].any()


def test_what_goes_around_the_layer_or_is_kept_of_it_counts() -> None:
    """A hook of the model keeps the layer's tensor, and the head uses both."""

    class Keeping(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            a = self.layer(x)
            return self.head(a) + 2 * self.fc(self.act(self.conv(self.kept)).flatten(1))

    model, x = Keeping(nn.SiLU()), images(1, size=6).double()
    model.layer.register_forward_hook(lambda module, args, output: setattr(model, "kept", output))
    found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, derivatives="exact")

    def head(a: Tensor) -> Tensor:
        return model.head(a) + 2 * model.fc(model.act(model.conv(a)).flatten(1))

    assert alike(found[0], stencil_map(head, model.layer, x, "exp"))


@pytest.mark.parametrize("way", ["no_grad", "checkpoint", "frozen"])
def test_the_way_a_model_runs_its_parts_does_not_matter(way: str) -> None:
    class Way(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            if way == "no_grad":
                with torch.no_grad():
                    a = self.layer(x)
                return self.head(a)
            if way == "checkpoint":
                return torch.utils.checkpoint.checkpoint(lambda x: self.head(self.layer(x)), x, use_reentrant=False)
            return self.head(self.layer(x))

    model, x = Way(nn.Tanh()), images(1, size=6).double()
    model.requires_grad_(way != "frozen")
    with left_as_it_was(model):
        found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, derivatives="exact")
    assert alike(found[0], stencil_map(model.head, model.layer, x, "exp"))


class Pooled(SmallNet):
    """Behind the layer, a mean over all positions comes first."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__(nn.SiLU())
        self.pool, self.out = pool, nn.Linear(3, 5).double()

    def head(self, a: Tensor) -> Tensor:
        return 5 * self.out(self.act(self.pool(a).flatten(1)))


MEANS = [lambda a: a.mean((2, 3)), lambda a: a.mean((-1, -2), keepdim=True), nn.AdaptiveAvgPool2d(1)]
NO_MEANS = [
    lambda a: a.mean((1, 3))[:, :3],
    lambda a: a.mean(3)[:, :, 0],
    lambda a: a.mean((2, 3)) + 0.1 * a[:, :, 0, 0],
    lambda a: 0.1 * a[:, :, 0, 0] + a.mean((2, 3)),
    lambda a: a.square().mean((2, 3)),
]


@pytest.mark.parametrize("pool", MEANS + NO_MEANS, ids=range(len(MEANS + NO_MEANS)))
def test_one_entry_stands_for_a_feature_map_only_in_front_of_global_average_pooling(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = Pooled(pool), images(1, size=6).double()
    pooled: list[bool] = []
    rule = Graph.is_pooled
    monkeypatch.setattr(Graph, "is_pooled", lambda self, dims: pooled.append(rule(self, dims)) or pooled[-1])
    method = LayerGradCamPlusPlus(model, model.layer)
    found = method.attribute(x, TARGET, derivatives="exact", neurons=(slice(0, 3), slice(1, 4)))
    monkeypatch.setattr(Graph, "is_pooled", lambda self, dims: False)
    slowly = method.attribute(x, TARGET, derivatives="exact", neurons=(slice(0, 3), slice(1, 4)))
    assert pooled and set(pooled) == {pool in MEANS}
    assert relative_error(found, slowly) < 1e-9


mha = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()
lstm, gru = nn.LSTM(4, 3, batch_first=True).double(), nn.GRU(4, 3, batch_first=True).double()
normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3).double())
batch_norm = nn.BatchNorm2d(4, momentum=None).double()
batch_norm(torch.randn(9, 4, 3, 3, **WIDE))
batch_norm.eval()
running = nn.InstanceNorm2d(4, affine=True, track_running_stats=True).double().eval()


LINEAR = [
    lambda z: F.max_pool2d(F.relu(z * 2 + 1), 2),
    lambda z: torch.cat([F.hardtanh(z), z[:, :1] / 3], 1),
    lambda z: batch_norm(F.leaky_relu(z, inplace=False)),
    lambda z: F.interpolate(F.pad(z, (1, 1)), scale_factor=2, mode="bilinear") @ torch.ones(16, 3, **WIDE),
]
NOT_LINEAR = [
    lambda z: z * z,
    lambda z: z / (1 + z.abs()),
    lambda z: 1 / z,
    lambda z: z @ z,
    lambda z: F.conv2d(z, z[:, :, :2, :2]),
    lambda z: F.hardswish(z),
    lambda z: F.relu(z).square(),
    lambda z: F.batch_norm(z, None, None, training=True),
    lambda z: F.prelu(z[:, :1], z[0, 0, 0, :1]),
    lambda z: torch.addmm(z[0, 0], z[0, 0], z[0, 1])[None],
]


@pytest.mark.parametrize("head", LINEAR + NOT_LINEAR, ids=range(len(LINEAR + NOT_LINEAR)))
def test_piecewise_linear_heads_are_told_from_others(head: Callable[[Tensor], Tensor]) -> None:
    z = torch.randn(1, 4, 6, 6, **WIDE).requires_grad_()
    score = head(z).flatten(1).sum(1)
    assert Graph(score, z).is_piecewise_linear() == (head in LINEAR)
    if head in LINEAR:  # and indeed
        (first,) = torch.autograd.grad(score, z, create_graph=True)
        second, third = along_entries(first, z, torch.arange(20), torch.tensor(1.0, **WIDE))
        assert not second.any() and not third.any()


def tokens(z: Tensor) -> Tensor:
    return z.flatten(2).transpose(1, 2)


HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: F.relu(z) ** 3,
    "leaky_relu": lambda z: F.leaky_relu(z) ** 3,
    "prelu": lambda z: F.prelu(z, torch.full((4,), 0.2, **WIDE)) ** 3,
    "hardswish": F.hardswish,
    "hardsigmoid": lambda z: F.hardsigmoid(z).cos(),
    "mish": F.mish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "elu": F.elu,
    "celu": F.celu,
    "softplus": F.softplus,
    "softmax": lambda z: z.softmax(1),
    "local response norm": lambda z: F.local_response_norm(z, 3, alpha=1.0),
    "layer norm": lambda z: F.layer_norm(z.movedim(1, -1), (4,), torch.arange(4, **WIDE), torch.ones(4, **WIDE)),
    "layer norm of all": lambda z: torch.layer_norm(z, z.shape[1:]),
    "rms norm": lambda z: F.rms_norm(z, z.shape[1:]),
    "group norm": lambda z: F.group_norm(z, 2, torch.arange(4, **WIDE)),
    "instance norm": lambda z: F.instance_norm(z, weight=torch.arange(4, **WIDE)),
    "instance norm with running statistics": lambda z: running(z) ** 3,
    "batch norm": lambda z: batch_norm(z) ** 3,
    "average pooling": lambda z: F.avg_pool2d(z**3, 2),
    "adaptive average pooling": lambda z: F.adaptive_avg_pool2d(z**3, (2, 3)),
    "max pooling": lambda z: F.max_pool2d(z, 2) ** 3,
    "bilinear": lambda z: F.interpolate(z, scale_factor=2, mode="bilinear") ** 3,
    "index": lambda z: z[:, [0, 2, 2]] ** 3,
    "weight norm": lambda z: normed(z) ** 3,
    "einsum": lambda z: torch.einsum("bchw,bdhw->bcd", z, z),
    "cumsum": lambda z: z.cumsum(1) ** 3,
    "norm": lambda z: z.norm(dim=1),
    "normalize": lambda z: F.normalize(z, dim=1),
    "in place": lambda z: F.silu(z.clone().mul_(z), inplace=True),
    "lstm": lambda z: lstm(tokens(z))[0],
    "gru": lambda z: gru(tokens(z))[0],
    "attention": lambda z: F.scaled_dot_product_attention(z, z, z, is_causal=True),
    "multi-head attention": lambda z: mha(*[tokens(z)] * 3, need_weights=False)[0],
    "multi-head attention with weights": lambda z: mha(*[tokens(z)] * 3)[0],
}


@pytest.mark.parametrize("name", HEADS)
def test_derivatives_of_operations_are_those_of_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(4, 6, 6, generator=generator, **WIDE)
    a = a.clamp(-2.3, 2.3) + 0.3 * a.sign()  # away from the kinks at 0 and 3
    entries = torch.randperm(a.numel(), generator=generator)[:5]

    def s(z: Tensor) -> Tensor:
        values = HEADS[name](z).flatten(1)
        return values @ torch.linspace(-1, 2, values.shape[1], **WIDE).cos()

    rows = a.repeat(3, 1, 1, 1).requires_grad_()
    with elementary_operations():
        (first,) = torch.autograd.grad(s(rows.clone()).sum(), rows, create_graph=True)
        second, third = along_entries(first, rows, entries, torch.tensor(2.0, **WIDE))
    for entry in entries.tolist():
        place = (entry // 36, entry // 6 % 6, entry % 6)
        found = [float(first.detach()[0][place]), float(second[place]) / 4, float(third[place]) / 8]
        close = [stencil_derivatives(s, a, place, step) for step in (0.05, 0.02, 0.01)]
        size = max(map(abs, found))
        for p in range(3):
            assert min(abs(one[p] - found[p]) for one in close) <= 1e-4 * abs(found[p]) + 1e-5 * size + 1e-7


class Tokens(nn.Module):
    """A convolution, then a transformer block of torch over its positions."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Conv2d(2, 4, 3)
            self.block = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True)
            self.fc = nn.Linear(4, 5)
        self.double().eval()

    def head(self, a: Tensor) -> Tensor:
        return self.fc(self.block(tokens(a)).square().mean(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


def test_attention_and_layer_normalisation_are_right() -> None:
    model, x = Tokens(), images(1, size=5).double()
    with left_as_it_was(model):
        found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, derivatives="exact")
    assert alike(found[0], stencil_map(model.head, model.layer, x, "exp", step=0.01))


class Cube(torch.autograd.Function):
    """Its backward pass is right, but not differentiable: what it multiplies by is a constant to autograd."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.slope = 3 * z.detach() ** 2
        return z**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.slope


class Fused(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.native_layer_norm(z, z.shape[1:], None, None, 1e-5)[0]


class Once(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.ops.aten.hardsigmoid(z)


class Custom(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return Cube.apply(z)


class Mixed(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return F.silu(z.cumsum(0))


@pytest.mark.parametrize(
    "activation, names",
    [(Fused(), "derivatives"), (Custom(), "derivatives"), (Once(), "derivatives"), (Mixed(), "forward_func")],
    ids=["layer norm", "custom", "no second derivative", "rows depend on each other"],
)
def test_what_would_be_silently_wrong_is_refused_by_name(activation: nn.Module, names: str) -> None:
    model = SmallNet(activation)
    refused(
        LayerGradCamPlusPlus,
        RuntimeError,
        names,
        model=model,
        layer=model.layer,
        inputs=images(2, size=6).double(),
        derivatives="exact",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    model = SmallNet(nn.SiLU()).to(dtype)
    x = images(2, size=6).to(dtype)
    refused(
        LayerGradCamPlusPlus, TypeError, "derivatives", model=model, layer=model.layer, inputs=x, derivatives="exact"
    )


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"score": "identity"}, ValueError),
        ({"score": torch.tanh}, ValueError),
        ({"score": "identity", "derivatives": "closed_form"}, ValueError),
        ({"score": lambda s: s.sum(), "derivatives": "exact"}, ValueError),
        ({"score": lambda s: "s", "derivatives": "exact"}, ValueError),
        ({"score": Tensor, "derivatives": "exact"}, TypeError),
    ],
    ids=range(6),
)
def test_scores_for_exact_derivatives(arguments: dict[str, Any], error: Any) -> None:
    refused(LayerGradCamPlusPlus, error, "score", **arguments)


def test_data_parallel_is_refused() -> None:
    model = SmallNet(nn.SiLU())
    refused(
        LayerGradCamPlusPlus,
        RuntimeError,
        "derivatives",
        model=model,
        forward=nn.DataParallel(model),
        layer=model.layer,
        inputs=images(2, size=6).double(),
        derivatives="exact",
    )


@pytest.mark.parametrize("failures", [1, 99])
def test_where_memory_runs_out_fewer_entries_are_taken_at_a_time(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = SmallNet(nn.SiLU()), images(1, size=6).double()
    method = LayerSmoothGradCamPlusPlus(model, model.layer)
    options: Any = {"derivatives": "exact", "nt_samples": 2}
    expected = method.attribute(x, TARGET, generator=torch.Generator().manual_seed(0), **options)
    left = [failures]

    def short_of_memory(*args: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise torch.OutOfMemoryError("full")
        return along_entries(*args)

    monkeypatch.setattr(exact_derivatives, "along_entries", short_of_memory)
    with pytest.warns(UserWarning, match="derivatives: out of memory"):
        if failures == 99:
            with pytest.raises(RuntimeError, match=r"^derivatives: expected .*memory.*found"):
                method.attribute(x, TARGET, **options)
        else:
            found = method.attribute(x, TARGET, generator=torch.Generator().manual_seed(0), **options)
            assert relative_error(found, expected) < 1e-12


def test_identity_behind_a_piecewise_linear_head_has_no_second_derivative() -> None:
    model, x = ConvNet().double(), images().double()
    assert not LayerGradCamPlusPlus(model, model.relu2).attribute(x, 1, score="identity", derivatives="exact").any()


def test_auto_stops_with_exact_derivatives() -> None:
    model, x = SmallNet(nn.SiLU()), images(2, size=6).double()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.layer).attribute(
        x, TARGET, derivatives="exact", nt_samples="auto", tolerance=0.2, return_statistics=True
    )
    assert (statistics.nt_samples >= 4).all() and (statistics.nt_samples < 64).any()


def relative_score(model: SmallNet, score: Tensor, a: Tensor) -> Tensor:
    """exp(S) divided by its value at the clean example."""
    return (model.head(a)[:, TARGET] - score).exp()


def test_error_of_the_closed_form_is_that_of_all_entries() -> None:
    """Against the true derivatives by finite differences, at all entries with a positive first derivative."""
    model, x = SmallNet(nn.SiLU()), images(2, size=6).double()
    method = LayerGradCamPlusPlus(model, model.layer)
    found = method.closed_form_error(x, TARGET, entries=1000)
    for number in range(2):
        a = model.layer(x[number : number + 1]).detach()[0].requires_grad_()
        (g,) = torch.autograd.grad(model.head(a[None])[0, TARGET], a)
        score = model.head(a[None]).detach()[0, TARGET]
        places = [tuple(place) for place in (g > 0).nonzero().tolist()]
        relative = partial(relative_score, model, score)
        true = torch.tensor([stencil_derivatives(relative, a.detach(), place, 0.05) for place in places], **WIDE)
        closed = torch.stack([g[place] ** torch.arange(1, 4) for place in places]).detach()
        total = torch.stack([a[place[0]].sum() for place in places]).detach()
        terms = [d[:, 1] / (2 * d[:, 1] + d[:, 2] * total) * d[:, 0] for d in (true, closed)]
        for p, error in enumerate((found.d1, found.d2, found.d3)):
            assert error[number].item() == pytest.approx(relative_error(closed[:, p], true[:, p]), rel=1e-4, abs=1e-9)
        assert found.terms[number].item() == pytest.approx(relative_error(terms[1], terms[0]), rel=1e-4)
        assert found.entries[number] == len(places)


@pytest.mark.parametrize("score", ["exp", "softmax"])
def test_error_of_the_closed_form_is_0_behind_piecewise_linear_heads(score: str, no_shortcuts: None) -> None:
    model, x = ConvNet().double(), images(2).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    found = method.closed_form_error(x, [1, 3], entries=10, score=score, generator=torch.Generator().manual_seed(0))
    assert found.entries.tolist() == [10, 10]
    assert all((error < 1e-9).all() for error in found[:-1])


@pytest.mark.parametrize(
    "arguments, names, error",
    [
        ({"entries": 0}, "entries", ValueError),
        ({"score": "identity"}, "score", ValueError),
        ({"generator": 3}, "generator", TypeError),
    ],
)
def test_arguments_of_the_error_of_the_closed_form(arguments: dict[str, Any], names: str, error: Any) -> None:
    model = ConvNet()
    with pytest.raises(error, match=f"^{names}: expected .*found"):
        LayerGradCamPlusPlus(model, model.relu1).closed_form_error(images(), 1, **arguments)


class TokensToFeatures(nn.Module):
    """A layer of tokens `(N, T, C)` and, behind it, the same values with the features first; then a smooth head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.features_first = nn.Linear(5, 3), nn.Identity()
        self.head = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(12, 6), nn.GELU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features_first(self.tokens(x).transpose(1, 2)))


@pytest.mark.parametrize("link", ["exp", "softmax"])
def test_exact_map_of_rearranged_tokens_is_that_of_the_layer_with_the_features_first(link: str) -> None:
    torch.manual_seed(0)
    net, x = TokensToFeatures().double().eval(), torch.randn(2, 4, 5).double()
    tokens = LayerGradCamPlusPlus(net, net.tokens, reshape_transform=lambda tensor: tensor.transpose(1, 2))
    expected = LayerGradCamPlusPlus(net, net.features_first).attribute(x, 1, score=link, derivatives="exact")
    closed = LayerGradCamPlusPlus(net, net.features_first).attribute(x, 1, score=link)
    torch.testing.assert_close(tokens.attribute(x, 1, score=link, derivatives="exact"), expected)
    assert (expected - closed).norm() > 1e-2 * expected.norm() > 0


class Mixed(ConvNet):
    """Scores of each row depend on the rows before it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x)).cumsum(0)


def test_rows_that_depend_on_each_other_are_refused() -> None:
    net, mixed, x = ConvNet().double(), Mixed().double(), images(2).double()
    with pytest.raises(RuntimeError, match="forward_func: expected scores of each row that depend on that row alone"):
        LayerGradCamPlusPlus(mixed, mixed.relu1).attribute(x, 1, derivatives="exact")
    with pytest.raises(RuntimeError, match="forward_func: expected scores of each row that depend on that row alone"):
        LayerGradCamPlusPlus(net, net.relu1).attribute(
            x, 1, score=lambda scores: (scores / scores.sum()).tanh(), derivatives="exact"
        )


@pytest.mark.parametrize("score", ["identity", lambda scores: torch.log(scores - 100)], ids=["identity", "log"])
def test_scores_that_are_not_finite_are_refused(score: Any) -> None:
    net = ConvNet().double()

    def forward(x: Tensor) -> Tensor:
        return F.softplus(net(x)) / (0.0 if score == "identity" else 1.0)

    with pytest.raises(RuntimeError, match="forward_func: expected finite scores"):
        LayerGradCamPlusPlus(forward, net.relu1).attribute(images(2).double(), 1, score=score, derivatives="exact")


class NoThirdDerivative(ConvNet):
    """A head with a function of its own, which the exact pass refuses."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * gradient

    def forward(self, x: Tensor) -> Tensor:
        return self.Square.apply(super().forward(x))


def test_closed_form_error_knows_the_rearranged_tokens_and_rewinds_the_generator_after_errors() -> None:
    torch.manual_seed(0)
    net, x = TokensToFeatures().double().eval(), torch.randn(2, 4, 5).double()
    tokens = LayerGradCamPlusPlus(net, net.tokens, reshape_transform=lambda tensor: tensor.transpose(1, 2))
    first = LayerGradCamPlusPlus(net, net.features_first)
    torch.testing.assert_close(tokens.closed_form_error(x, 1, 99).terms, first.closed_form_error(x, 1, 99).terms)
    failing, generator = NoThirdDerivative().double(), torch.Generator().manual_seed(5)
    state = generator.get_state()
    with pytest.raises(RuntimeError, match="derivatives"):
        LayerGradCamPlusPlus(failing, failing.relu1).closed_form_error(images(2).double(), 1, 4, generator)
    assert torch.equal(generator.get_state(), state)
