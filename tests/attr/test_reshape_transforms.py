"""Layers with the features in the last dimension: explained after a rearrangement, refused without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from _asserts import left_as_it_was
from calls import METHODS, received_rows
from networks import ConvNet, images
from reference import paper_map, relative_error
from torch import Tensor, nn

from captum_sgcampp import (
    GuidedGradCamPlusPlus,
    LayerGradCamPlusPlus,
    LayerSmoothGradCamPlusPlus,
    TokenGrid,
    channels_last_to_first,
)


def vision_transformer() -> nn.Module:
    """17 tokens: a class token and a grid of 4 x 4; 16 features."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # zero in a new model
    return model.eval()


def swin_transformer(window: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([2, 2], 8, [1, 1], [1, 2], [window, window], num_classes=5).eval()


def observed(model: nn.Module, layer: nn.Module, row: Tensor, target: int) -> tuple[Tensor, Tensor, float]:
    """The layer's tensor, its gradient and the logit of one example."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = layer.register_forward_hook(keep)
    score = model(row.clone().requires_grad_())[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return kept[0].detach()[0], gradient[0], score.item()


def to_maps(tokens: Tensor) -> Tensor:
    """Tokens (17, C), one by one, into feature maps (C, 4, 4)."""
    maps = torch.zeros(tokens.shape[1], 4, 4, dtype=tokens.dtype)
    for row in range(4):
        for column in range(4):
            for feature in range(tokens.shape[1]):
                maps[feature, row, column] = tokens[1 + 4 * row + column, feature]
    return maps


def last_to_first(grid: Tensor) -> Tensor:
    """(h, w, C) to (C, h, w)."""
    return torch.stack([grid[..., feature] for feature in range(grid.shape[-1])])


PART = np.s_[0:2, 1:4]


def in_part(place: tuple[int, ...]) -> bool:
    return place[0] < 2 and 1 <= place[1] < 4


CASES: list[tuple[Any, str, Any, Any]] = [
    (vision_transformer, "encoder.layers.encoder_layer_1.ln_1", TokenGrid(), to_maps),
    (vision_transformer, "encoder.layers.encoder_layer_0", TokenGrid((4, 4)), to_maps),
    (swin_transformer, "features.1", channels_last_to_first, last_to_first),
]


@pytest.mark.parametrize("make, name, transform, by_hand", CASES, ids=["ViT norm", "ViT block", "Swin"])
@pytest.mark.parametrize("copies", [0, 3])
def test_the_map_is_the_papers_on_rearranged_tensors(
    make: Any, name: str, transform: Any, by_hand: Any, copies: int
) -> None:
    model, x, target = make().double(), images(1, 3, size=32).double(), 3
    layer = model.get_submodule(name)
    if copies:
        method = LayerSmoothGradCamPlusPlus(model, layer, reshape_transform=transform)
        found, rows = received_rows(
            model, lambda: method.attribute(x, target, neurons=PART, nt_samples=copies, nt_samples_batch_size=2)
        )
    else:
        found, rows = (
            LayerGradCamPlusPlus(model, layer, reshape_transform=transform).attribute(x, target, neurons=PART),
            x,
        )
    activation = by_hand(observed(model, layer, rows[:1], target)[0])
    seen = [observed(model, layer, row[None], target) for row in (rows[1:] if copies else rows)]
    gradients = [{target: by_hand(gradient)} for _, gradient, _ in seen]
    expected = paper_map(
        activation, [score for *_, score in seen], [[]] * len(seen), gradients, target, neurons=in_part
    )
    assert expected.norm() > 0 and found.shape[1:] == expected.shape
    assert relative_error(found[0], expected) <= 1e-9


def test_selection_statistics_and_guided_product_see_the_rearranged_layer() -> None:
    model, x = vision_transformer(), images(2, 3, size=32)
    layer = model.encoder.layers[1].ln_1
    neurons = torch.zeros(4, 4, dtype=torch.bool)
    neurons[1:3, 2] = True
    method = LayerSmoothGradCamPlusPlus(model, layer, reshape_transform=TokenGrid())
    found, statistics = method.attribute(
        x, 3, feature_maps=[15], neurons=neurons, nt_samples=3, attr_dim_summation=False, return_statistics=True
    )
    assert found.shape == (2, 16, 4, 4) and statistics.nt_samples.tolist() == [3, 3]
    assert found[:, 15, neurons].all() and not found[:, :15].any() and not found[:, :, ~neurons].any()
    assert method.top_feature_maps(x, 3, k=2, nt_samples=2).indices.shape == (2, 2)
    guided = GuidedGradCamPlusPlus(model, layer, reshape_transform=TokenGrid())
    assert guided.attribute(x, 3).shape == x.shape


def test_dropped_tokens_have_no_part_in_the_sum_of_the_activation() -> None:
    model, x = vision_transformer().double(), images(1, 3, size=32).double()
    layer = model.encoder.layers[1].ln_1
    found = LayerGradCamPlusPlus(model, layer, reshape_transform=TokenGrid()).attribute(x, 3)
    activation, gradient, _ = observed(model, layer, x, 3)
    a, g = activation[1:].T, gradient[1:].T
    weights = ((g.square() / (2 * g.square() + g**3 * a.sum(1, keepdim=True))) * g.relu()).sum(1)
    assert torch.allclose(found.flatten(), weights @ a)


@pytest.mark.parametrize("tokens, grid", [(1 + 6, (2, 3)), (1 + 6, (3, 2)), (1 + 8, (2, 2, 2))])
def test_a_grid_that_is_not_square_is_filled_rows_first(tokens: int, grid: tuple[int, ...]) -> None:
    x = torch.arange(float(tokens)).reshape(1, tokens, 1)
    found = TokenGrid(grid)(x)
    assert found.shape == (1, 1, *grid)
    assert found.flatten().tolist() == list(range(1, tokens))
    assert TokenGrid(grid, leading=0)(x[:, 1:]).flatten().tolist() == list(range(1, tokens))


@pytest.mark.parametrize(
    "transform, shape, names",
    [
        (TokenGrid(), (2, 7, 4), "grid: expected a square grid"),
        (TokenGrid(), (2, 1, 4), "grid: expected a square grid"),
        (TokenGrid((2, 4)), (2, 7, 4), r"grid: expected \(2, 4\)"),
        (TokenGrid(leading=3), (2, 17, 4), "grid: expected a square grid"),
        (TokenGrid(), (2, 7, 4, 4), "layer: expected tokens"),
    ],
)
def test_tokens_that_do_not_fill_the_grid_are_refused(transform: TokenGrid, shape: Any, names: str) -> None:
    with pytest.raises(ValueError, match=rf"^{names}.*found"):
        transform(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"grid": 4}, {"grid": "44"}, {"grid": ()}, {"grid": (4, 0)}, {"grid": (4, 4.0)},
                                     {"leading": -1}, {"leading": None}], ids=str)  # fmt: skip
def test_a_grid_that_is_none_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(options))}: expected .*found"):
        TokenGrid(**options)


TRANSFORMS: list[tuple[Any, str]] = [
    (lambda a: 2 * a, "changes them"),
    (lambda a: a.mean(1, keepdim=True), "changes them"),
    (lambda a: a.flip(0), "mixes examples"),
    (lambda a: torch.cat([a, a], 1), "repeats them"),
    (lambda a: a.reshape(-1), "found"),
    (lambda a: a[:1], "found"),
    (lambda a: a.shape, "found"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transform, says", TRANSFORMS)
def test_a_transform_that_does_more_than_move_entries_is_refused(method: Any, transform: Any, says: str) -> None:
    model = vision_transformer()
    explain = method(model, model.encoder.layers[0], reshape_transform=transform).attribute
    with (
        left_as_it_was(model),
        pytest.raises(ValueError, match=rf"^reshape_transform: expected .*found.*{says}|{says}"),
    ):
        explain(images(2, 3, size=32), 1)
    with pytest.raises(TypeError, match=r"^reshape_transform: expected .*found int"):
        method(model, model.encoder.layers[0], reshape_transform=3)


TOKEN_LAYERS = [
    "encoder",
    "encoder.dropout",
    "encoder.layers",
    "encoder.layers.encoder_layer_0",
    "encoder.layers.encoder_layer_0.ln_1",
    "encoder.layers.encoder_layer_0.dropout",
    "encoder.layers.encoder_layer_1.mlp",
    "encoder.layers.encoder_layer_1.mlp.0",
    "encoder.layers.encoder_layer_1.mlp.1",
    "encoder.ln",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TOKEN_LAYERS)
def test_token_layers_are_refused_with_the_remedy(method: Any, name: str) -> None:
    model = vision_transformer()
    with left_as_it_was(model), pytest.raises(ValueError, match=r"^layer: expected .*found .*reshape_transform=TokenG"):
        method(model, model.get_submodule(name)).attribute(images(1, 3, size=32), 1)


@pytest.mark.parametrize(
    "name", ["features.0", "features.1", "features.1.0", "features.1.0.norm1", "features.1.0.mlp", "features.2"]
)
def test_layers_of_grids_with_features_last_are_refused_with_the_remedy(name: str) -> None:
    model = swin_transformer()
    with pytest.raises(ValueError, match=r"^layer: expected .*found .*channels_last_to_first"):
        LayerGradCamPlusPlus(model, model.get_submodule(name)).attribute(images(1, 3, size=32), 1)


def test_torchs_own_encoder_is_recognised_where_tokens_and_features_are_equally_many() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(64, 3)).eval()
    for layer in (encoder, encoder.layers[0], encoder.layers[0].norm1):
        with pytest.raises(ValueError, match=r"^layer: expected .*found .*reshape_transform"):
            LayerGradCamPlusPlus(model, layer).attribute(torch.randn(2, 8, 8), 1)
    kept = LayerGradCamPlusPlus(model, encoder, reshape_transform=lambda a: a).attribute(torch.randn(2, 8, 8), 1)
    assert kept.shape == (2, 1, 8)


class Signals(nn.Module):
    """Signals (N, 4, 6) in front of a transformer that works on 6 steps of 4 features, or of `features` of them."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.block = nn.Sequential(nn.Conv1d(channels, 6, 1), nn.LayerNorm(6), nn.ReLU())
        self.encoder = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.block(self.relu(self.conv(x))).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("channels", [4, 6])
@pytest.mark.parametrize("name", ["conv", "relu", "block", "block.0", "block.2"])
def test_layers_of_signals_are_explained_also_in_front_of_a_transformer(name: str, channels: int) -> None:
    model = Signals(channels).eval()
    assert LayerGradCamPlusPlus(model, model.get_submodule(name)).attribute(torch.randn(2, 2, 6), 1).shape == (2, 1, 6)


@pytest.mark.parametrize("name", ["conv1", "relu1", "conv2", "relu2", "pool"])
def test_layers_of_convolutional_networks_are_explained(name: str) -> None:
    for dims in (1, 2, 3):
        model = ConvNet(dims)
        assert (
            LayerGradCamPlusPlus(model, model.get_submodule(name)).attribute(images(1, dims=dims), 1).dim() == dims + 2
        )


@pytest.mark.parametrize("name", ["features", "features.0", "features.1", "features.1.0", "features.2.0"])
def test_layers_of_convnext_with_as_many_columns_as_features_are_explained(name: str) -> None:
    settings = [
        torchvision.models.convnext.CNBlockConfig(8, 16, 1),
        torchvision.models.convnext.CNBlockConfig(16, None, 1),
    ]
    model = torchvision.models.ConvNeXt(settings, num_classes=5).eval()
    assert LayerGradCamPlusPlus(model, model.get_submodule(name)).attribute(images(1, 3, size=32), 1).dim() == 4
