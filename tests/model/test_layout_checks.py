"""Tensors that are not (N, K, *space) are refused, not misread: tokens without a `reshape_transform`, flat masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from networks import ConvNet, images
from torch import Tensor, nn
from truth import Truth, assert_same, captum_truth, plain_map

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, TokenGrid

SIDE, PATCH, FEATURES = 32, 8, 12  # 4 x 4 patches
TARGET = 3


def photos(side: int = SIDE) -> Tensor:
    return images(2, 3, size=side).double()


def ready(model: nn.Module) -> nn.Module:
    """In float64, and with weights that begin at 0 drawn at random."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ready(make())


class Embeddings(nn.Module):
    """As Hugging Face's `ViTEmbeddings`: patches, a class token, positions, and a dropout that has no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, FEATURES))
        self.position_embeddings = nn.Parameter(torch.randn(1, 1 + (SIDE // PATCH) ** 2, FEATURES))
        self.patch_embeddings = nn.Conv2d(3, FEATURES, PATCH, PATCH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embeddings(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1)
        embedded: Tensor = self.dropout(tokens + self.position_embeddings)
        return embedded


class Attention(nn.Module):
    """As Hugging Face's self-attentions: three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(FEATURES, FEATURES) for _ in range(3))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        weights = (self.query(tokens) @ self.key(context).transpose(1, 2) / FEATURES**0.5).softmax(-1)
        return weights @ self.value(context)


class Transformer(nn.Module):
    """As Hugging Face's ViT for classification, with one block."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.norm_before, self.norm = norm(FEATURES), norm(FEATURES)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(FEATURES, 20), nn.GELU(), nn.Linear(20, FEATURES))
        self.classifier = nn.Linear(FEATURES, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embeddings(x)
        normed = self.norm_before(tokens)
        tokens = tokens + self.attention(normed, normed)
        logits: Tensor = self.classifier(self.norm(tokens + self.mlp(tokens)).mean(1))
        return logits


class Segformer(nn.Module):
    """As Hugging Face's Segformer: the attention's keys and values come from a smaller image, and a convolution
    follows: around its query stand convolutions as well as layer normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, FEATURES, PATCH, PATCH)
        self.norm = nn.LayerNorm(FEATURES)
        self.sr = nn.Conv2d(FEATURES, FEATURES, 2, 2)
        self.attention = Attention()
        self.head = nn.Conv2d(FEATURES, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        image = self.patches(x)
        tokens = self.norm(image.flatten(2).transpose(1, 2))
        smaller = self.sr(image).flatten(2).transpose(1, 2)
        seen = tokens + self.attention(tokens, smaller)
        logits: Tensor = self.head(seen.transpose(1, 2).reshape(image.shape)).sin().mean((2, 3))
        return logits


def vit_tiny() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64, depth=2, num_classes=5)


def mixer() -> nn.Module:
    models = pytest.importorskip("timm.models.mlp_mixer")
    return models.MlpMixer(num_classes=5, img_size=SIDE, patch_size=PATCH, num_blocks=2, embed_dim=FEATURES)


def rms_transformer() -> nn.Module:
    return Transformer(nn.RMSNorm)


TOKENS: list[tuple[Any, int, str, int]] = [
    *((vit_tiny, 64, name, 1) for name in ("blocks.0", "blocks.1.norm1", "blocks.0.mlp", "blocks.0.attn", "norm")),
    (vit_tiny, 64, "patch_embed", 0),
    *((mixer, SIDE, name, 0) for name in ("blocks.0", "blocks.1.norm2", "blocks.0.mlp_channels", "norm")),
    *((Transformer, SIDE, name, 1) for name in ("embeddings", "embeddings.dropout", "attention", "attention.query")),
    *((rms_transformer, SIDE, name, 1) for name in ("norm_before", "norm", "mlp", "embeddings")),
    *((Segformer, SIDE, name, 0) for name in ("attention.query", "attention", "norm")),
]
IDS = [f"{make.__name__} {name}" for make, _, name, _ in TOKENS]


def explanations(model: nn.Module, layer: nn.Module, x: Tensor, **options: Any) -> list[Callable[[], Any]]:
    """Every way to ask for a map."""
    plain = LayerGradCamPlusPlus(model, layer, **options)
    smooth = LayerSmoothGradCamPlusPlus(model, layer, **options)
    return [
        lambda: plain.attribute(x, TARGET),
        lambda: plain.attribute_targets(x, [TARGET, 1]),
        lambda: plain.attribute(x, TARGET, grad_kwargs={"create_graph": True}),
        lambda: smooth.attribute(x, TARGET, nt_samples=2),
    ]


@pytest.mark.parametrize("make, side, name, leading", TOKENS, ids=IDS)
def test_token_layers_are_refused_without_a_reshape_transform(make: Any, side: int, name: str, leading: int) -> None:
    model = seeded(make)
    for explain in explanations(model, model.get_submodule(name), photos(side)):
        with pytest.raises(ValueError, match=r"^layer: expected .*found(.|\n)*reshape_transform"):
            explain()


@pytest.mark.parametrize("make, side, name, leading", TOKENS, ids=IDS)
def test_token_layers_are_explained_with_a_reshape_transform(make: Any, side: int, name: str, leading: int) -> None:
    model, x, transform = seeded(make), photos(side), TokenGrid(leading=leading)
    layer = model.get_submodule(name)
    (tokens,), (gradient,), scores = vars(captum_truth(model, layer, x, TARGET)).values()
    expected = plain_map(Truth((transform(tokens),), (transform(gradient),), scores))
    if expected[0][0].norm() == 0:
        assert (make, name) == (vit_tiny, "norm")  # only the class token goes on: see below
        return
    found = LayerGradCamPlusPlus(model, layer, reshape_transform=transform).attribute(x, TARGET)
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["norm_before", "attention.query", "mlp"])
def test_token_inputs_of_a_layer_are_refused_too(name: str) -> None:
    model, x = seeded(Transformer), photos()
    layer = model.get_submodule(name)
    with pytest.raises(ValueError, match=r"^layer: (.|\n)*reshape_transform"):
        LayerGradCamPlusPlus(model, layer).attribute(x, TARGET, attribute_to_layer_input=True)
    method = LayerGradCamPlusPlus(model, layer, reshape_transform=TokenGrid())
    assert method.attribute(x, TARGET, attribute_to_layer_input=True).shape == (2, 1, 4, 4)


def test_any_layer_of_three_dimensions_of_a_model_of_images_is_refused_until_it_is_named() -> None:
    """Better one refusal too many than a misread map: flattened feature maps (N, K, H W) are asked about as well."""
    model = flat_model()
    for layer in (model[1], model[2], model[3]):
        with pytest.raises(ValueError, match=r"^layer: (.|\n)*reshape_transform"):
            LayerGradCamPlusPlus(model, layer).attribute(photos(), TARGET)
        method = LayerGradCamPlusPlus(model, layer, reshape_transform=lambda a: a)
        assert_same(method.attribute(photos(), TARGET), plain_map(captum_truth(model, layer, photos(), TARGET)))


def flat_model() -> Any:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(2), nn.Conv1d(4, 6, 3), nn.Tanh(), nn.Flatten(1),
            nn.Linear(6 * 62, 5),
        )
    )  # fmt: skip


def test_signals_maps_and_features_are_accepted() -> None:
    signals, model = images(2, dims=1).double(), ConvNet(1).double()
    assert signals.dim() == 3
    for layer in (model.conv1, model.relu1, model.relu2):
        found = LayerGradCamPlusPlus(model, layer).attribute(signals, TARGET)
        assert_same(found, plain_map(captum_truth(model, layer, signals, TARGET)))
    for dims in (2, 3):
        model, x = ConvNet(dims).double(), images(2, dims=dims).double()
        for layer in (model.relu1, model.fc1):
            found = LayerGradCamPlusPlus(model, layer).attribute(x, TARGET)
            assert_same(found, plain_map(captum_truth(model, layer, x, TARGET)))


def vision_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)


def test_a_map_that_is_zero_because_the_score_ignores_the_patches_warns_with_the_cause() -> None:
    """After the last block of a vision transformer the class token alone counts: no patch has a gradient."""
    model, x = seeded(vision_transformer), photos()
    plain, targets, _, smooth = explanations(model, model.encoder.layers[-1], x, reshape_transform=TokenGrid())
    for explain in (plain, targets, smooth):
        with pytest.warns(UserWarning, match=r"^layer: (.|\n)*(depend|gradient)"):
            found = explain()
        for attributions in found if isinstance(found, list) else [found]:
            assert attributions.shape == (2, 1, 4, 4) and not attributions.any()


def test_a_map_that_is_not_zero_does_not_warn() -> None:
    model, x = seeded(vision_transformer), photos()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for explain in explanations(model, model.encoder.layers[-1].ln_1, x, reshape_transform=TokenGrid()):
            found = explain()
            assert all(attributions.any() for attributions in (found if isinstance(found, list) else [found]))


@pytest.mark.parametrize("method", [LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_flat_mask_of_a_layer_with_several_spatial_dimensions_is_refused(dims: int, method: Any) -> None:
    model, x = ConvNet(dims), images(2, dims=dims)
    size = x.shape[-1]
    for mask in (torch.ones(size, dtype=torch.bool), torch.arange(size) < 3):
        with pytest.raises(ValueError, match=r"^neurons: expected .*found"):
            method(model, model.relu1).attribute(x, 1, neurons=mask)


def test_a_flat_mask_of_a_signal_is_its_mask() -> None:
    model, x = ConvNet(1), images(2, dims=1)
    length = LayerGradCamPlusPlus(model, model.relu1).attribute(x, 1).shape[-1]
    mask = torch.arange(length) < 3
    found = LayerGradCamPlusPlus(model, model.relu1).attribute(x, 1, neurons=mask)
    assert found[..., :3].any() and not found[..., 3:].any()
