"""Exact derivatives agree with finite differences and, where it holds, with the closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from _asserts import alike, left_as_it_was, refused
from calls import received_rows, seeded
from networks import ConvNet, SmallNet, TokensToFeatures, TwoInputs, images
from reference import relative_error, stencil_map
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, Softmax
from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.directional_derivatives import along_entries
from captum_sgcampp.sampling import exact_derivatives

TARGET = 3
WIDE = {"dtype": torch.float64}

SCORES = ["exp", "sigmoid", "softmax", Softmax((0, 1)), "identity", F.softplus]


@pytest.mark.parametrize("score", SCORES, ids=str)
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.Tanh()], ids=str)
def test_maps_are_those_of_finite_differences(activation: nn.Module, score: Any) -> None:
    model, x = SmallNet(activation), images(2, size=6).double()
    found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, score=score, derivatives="exact")
    for number in range(2):
        assert alike(found[number], stencil_map(model.head, model.layer, x[number : number + 1], TARGET, score))
    if score in ("exp", "softmax"):
        closed = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, score=score)
        assert relative_error(closed, found) > 0.01  # the closed form is not good enough here


@pytest.mark.parametrize("score", ["exp", "softmax", F.softplus], ids=str)
def test_smooth_maps_are_those_of_finite_differences(score: Any) -> None:
    model, x = SmallNet(nn.SiLU()), images(1, size=6).double()
    options: Any = {"derivatives": "exact", "score": score, "nt_samples": 3, "nt_samples_batch_size": 1}
    method = LayerSmoothGradCamPlusPlus(model, model.layer)
    found, rows = received_rows(model, lambda: method.attribute(x, TARGET, generator=seeded(), **options))
    received = rows.unique(dim=0)
    copies = received[[not torch.equal(row, x[0]) for row in received]]
    assert len(copies) == 3
    assert alike(found[0], stencil_map(model.head, model.layer, torch.cat([x, copies]), TARGET, score))
    wider = method.attribute(x, TARGET, generator=seeded(), **options | {"nt_samples_batch_size": 4})
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
                **options | ({"generator": seeded()} if options else {}),
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

    assert alike(found[0], stencil_map(head, model.layer, x, TARGET, "exp"))


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
    assert alike(found[0], stencil_map(model.head, model.layer, x, TARGET, "exp"))


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
    expected = method.attribute(x, TARGET, generator=seeded(), **options)
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
            found = method.attribute(x, TARGET, generator=seeded(), **options)
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
