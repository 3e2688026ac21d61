"""Which layer is explained by default, and whether the noise acts there."""

from __future__ import annotations

import pytest
import torch
import torchvision
from networks import ConvNet, PooledNet, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.attr.reshape_transforms import TokenGrid, channels_last_to_first
from captum_sgcampp.vision.classifiers import torchvision_names
from captum_sgcampp.vision.layer_choice import (
    ChosenLayer,
    chosen_layer,
    deepest_layer,
    fitting_layer,
    inner_layer,
    layers_with_exact_closed_form,
    listed_layers,
    named_layer,
)
from captum_sgcampp.vision.suited_layers import noise_acts

# The smallest member of each family, and the end of the name of the layer that is right for it.
FAMILIES = {
    "alexnet": "features.11",
    "convnext_tiny": "features",
    "densenet121": "features",
    "efficientnet_b0": "features",
    "efficientnet_v2_s": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "maxvit_t": "blocks.3",
    "mnasnet0_5": "layers",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "regnet_y_400mf": "trunk_output",
    "resnet18": "layer4",
    "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_1": "features",
    "swin_t": "norm",
    "swin_v2_t": "norm",
    "vgg11": "features.19",
    "vit_b_32": "encoder.layers.encoder_layer_11.ln_1",
}
LIGHT = ("convnext_tiny", "mobilenet_v3_small", "regnet_y_400mf", "squeezenet1_1", "swin_t", "swin_v2_t", "vit_b_32")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, deepest, inner",
    [
        ("resnet18", "layer4", "layer3"),
        ("resnet50", "layer4", "layer3"),
        ("vgg11", "features.19", "features.14"),
        ("squeezenet1_1", "features", "features.7"),
        ("mobilenet_v2", "features", "features.14.conv.0"),
        ("densenet121", "features", "features.transition3.relu"),
        ("convnext_tiny", "features", None),
    ],
)
def test_deepest_layer_of_torchvisions_networks_and_an_inner_one(name: str, deepest: str, inner: str | None) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.rand(1, 3, 224, 224)
    assert deepest_layer(model, example) == deepest
    found = inner_layer(model, example, deepest)
    assert found == (None if inner is None else ChosenLayer(inner))
    assert not any(module._forward_hooks for module in model.modules())


def test_noise_acts_before_a_fully_connected_head_only() -> None:
    model, pooled = ConvNet(), PooledNet()
    assert noise_acts(model, model.relu2, images(1), 1)
    assert not noise_acts(pooled, pooled.features[4], images(1, channels=3), 1)
    assert noise_acts(pooled, pooled.features[1], images(1, channels=3), 1)


def test_a_model_without_maps_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 3))
    with pytest.raises(ValueError, match=r"^layer: expected .*found"):
        deepest_layer(model, torch.rand(1, 3, 3, 3))


def random_model(name: str) -> tuple[nn.Module, Tensor]:
    """A torchvision model with random weights, and an input that is small where it takes one."""
    size = 224 if name.startswith("maxvit") else 128 if name == "inception_v3" else 64
    options: dict[str, object] = {}
    if name.startswith("vit"):
        size = 56 if name.endswith("14") else 64
        options["image_size"] = size
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    if name.startswith("vit"):
        nn.init.normal_(model.heads.head.weight)  # torchvision starts from zeros
    return model, torch.rand(1, 3, size, size)


def check_the_chosen_layer(name: str) -> ChosenLayer:
    """Its maps are larger than 1 x 1, and the gradient is not zero there."""
    model, example = random_model(name)
    chosen = chosen_layer(model, example)
    assert fitting_layer(model, chosen.name, example) == chosen
    method = LayerGradCamPlusPlus(model, named_layer(model, chosen.name), reshape_transform=chosen.reshape_transform)
    maps = method.attribute(example, 3)
    assert isinstance(maps, Tensor) and maps.any() and min(maps.shape[2:]) > 1 and maps.shape[2] == maps.shape[3]
    default = [one for one in listed_layers(model, example) if one.is_default]
    assert [(one.layer, one.size) for one in default] == [(chosen, tuple(maps.shape[2:]))]
    assert not any(module._forward_hooks for module in model.modules())
    return chosen


@pytest.mark.parametrize("name", LIGHT)
def test_the_chosen_layer_of_a_light_network_is_right(name: str) -> None:
    assert check_the_chosen_layer(name).name == FAMILIES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_names())
def test_every_network_of_torchvision_gets_a_layer_with_a_gradient(name: str) -> None:
    assert check_the_chosen_layer(name).name == FAMILIES.get(name) or name not in FAMILIES


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    nn.init.normal_(model.heads.head.weight)
    return model


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10).eval()


def test_tokens_after_the_last_attention_are_not_listed(vit: nn.Module) -> None:
    """The truth: plain autograd has a gradient of 0 at their patches."""
    example = torch.rand(1, 3, 32, 32)
    listed = {one.layer.name: one for one in listed_layers(vit, example)}
    assert "encoder.layers.encoder_layer_1.ln_1" in listed and "encoder.layers.encoder_layer_1.ln_2" not in listed
    assert all(one.layer.reshape_transform == TokenGrid((4, 4), 1) for n, one in listed.items() if n != "conv_proj")
    assert chosen_layer(vit, example).name == "encoder.layers.encoder_layer_1.ln_1"
    assert patch_gradient(vit, example, "encoder.layers.encoder_layer_1.ln_1").any()
    assert not patch_gradient(vit, example, "encoder.layers.encoder_layer_1.ln_2").any()


def patch_gradient(vit: nn.Module, example: Tensor, name: str) -> Tensor:
    kept: list[Tensor] = []
    handle = vit.get_submodule(name).register_forward_hook(lambda module, args, output: kept.append(output))
    score = vit(example).max()
    handle.remove()
    return torch.autograd.grad(score, kept)[0][:, 1:]


def test_a_head_of_zeros_does_not_hide_the_tokens() -> None:
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    assert chosen_layer(vit, torch.rand(1, 3, 32, 32)).name.startswith("encoder")


def test_a_model_without_gradients_still_has_layers(vit: nn.Module) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = vit

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    assert chosen_layer(Detached().eval(), torch.rand(1, 3, 32, 32)).name.startswith("net.encoder")


def test_named_layers_get_what_they_need(vit: nn.Module, swin: nn.Module) -> None:
    example = torch.rand(1, 3, 32, 32)
    assert fitting_layer(vit, "conv_proj", example) == ChosenLayer("conv_proj")
    assert fitting_layer(vit, "encoder.layers.encoder_layer_0", example).reshape_transform == TokenGrid((4, 4), 1)
    assert fitting_layer(swin, "features.1.0", example).reshape_transform is channels_last_to_first
    assert fitting_layer(swin, "permute", example) == ChosenLayer("permute")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.layers.encoder_layer_0.self_attention", "called and gives one tensor, found MultiheadAttention"),
        ("encoder.layers.encoder_layer_0.self_attention.out_proj", "called and gives one tensor, found"),
        ("heads.head", "two spatial dimensions, found Linear"),
        ("encoder.layers.encoder_layer_3", r"found '.*' \(did you mean encoder.layers.encoder_layer_1"),
    ],
)
def test_layers_that_cannot_be_explained_are_named(vit: nn.Module, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^layer: expected .*{message}"):
        fitting_layer(vit, name, torch.rand(1, 3, 32, 32))


def test_noise_acts_at_layers_that_need_a_transform(vit: nn.Module, swin: nn.Module) -> None:
    example = torch.rand(1, 3, 32, 32)
    for model, name, acts in (
        (vit, "encoder.layers.encoder_layer_1.ln_1", True),
        (swin, "norm", False),  # before global average pooling and a linear score
        (swin, "features.3.0", True),
    ):
        layer = fitting_layer(model, name, example)
        transform, module = layer.reshape_transform, named_layer(model, name)
        assert noise_acts(model, module, example, 1, transform) is acts
        maps = LayerSmoothGradCamPlusPlus(model, module, reshape_transform=transform).attribute(
            example, 1, nt_samples=2
        )
        assert maps.shape[1] == 1 and maps.shape[2] == maps.shape[3]


def test_an_inner_layer_of_a_transformer_has_larger_maps_too() -> None:
    """The network has ReLUs where Swin has GELUs, so that inner layers have no negative values."""
    swin = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10).eval()
    for name, module in list(swin.named_modules()):
        if isinstance(module, nn.GELU):
            swin.set_submodule(name, nn.ReLU())
    inner = inner_layer(swin, torch.rand(1, 3, 32, 32), "norm")
    assert inner == ChosenLayer("features.1.1.mlp.1", channels_last_to_first)


def test_what_does_not_depend_on_the_image_is_no_layer() -> None:
    """The position biases of Swin v2 have four dimensions, and are square."""
    model, example = random_model("swin_v2_t")
    listed = listed_layers(model, example)
    assert listed and not any("cpb_mlp" in one.layer.name for one in listed)
    assert all(one.size[0] == one.size[1] for one in listed)


def test_listed_layers_tell_shapes_and_signs() -> None:
    model = PooledNet()
    listed = {one.layer.name: one for one in listed_layers(model, images(1, channels=3))}
    for name, one in listed.items():
        kept: list[Tensor] = []
        model.get_submodule(name).register_forward_hook(lambda module, args, output, kept=kept: kept.append(output))
        model(images(1, channels=3))
        assert (one.feature_maps, *one.size) == kept[0].shape[1:] and one.both_signs == bool((kept[0] < 0).any())
    assert sum(one.is_default for one in listed.values()) == 1


@pytest.mark.parametrize("inplace", [False, True])
def test_the_closed_form_is_said_to_be_exact_where_it_is(inplace: bool) -> None:
    """Before and after GELU, measured with exact derivatives."""
    front = [nn.Conv2d(2, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 5, 3), nn.GELU(), nn.Conv2d(5, 6, 3), nn.ReLU(inplace)]
    model = nn.Sequential(*front, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    example = images(1)
    listed = listed_layers(model, example)
    exact = layers_with_exact_closed_form(model, example, {one.layer.name: one.module for one in listed})
    assert exact == ["3", "4", "5"]
    for one in listed:
        error = LayerGradCamPlusPlus(model, one.module).closed_form_error(example, 1)
        assert (float(error.terms.max()) < 1e-4) == (one.layer.name in exact), one.layer.name


def test_no_closed_form_is_exact_before_the_normalization_of_a_transformer() -> None:
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    nn.init.normal_(vit.heads.head.weight)
    example = torch.rand(1, 3, 32, 32)
    modules = {one.layer.name: one.module for one in listed_layers(vit, example)}
    assert not layers_with_exact_closed_form(vit, example, modules)
