"""The layer to explain: the deepest one with maps, or an inner one with larger maps; and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd
from torchvision.ops import Permute

from captum_sgcampp.attr.reshape_transforms import TokenGrid
from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.names import nearest
from captum_sgcampp.vision.layer_families import layer_transform

_NO_FEATURES = (
    *(_MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd),
    *(_DropoutNd, nn.Identity, nn.Flatten, Permute),
)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.LeakyReLU, nn.ELU)


@dataclass(frozen=True)
class ChosenLayer:
    """A layer, and what its maps need.

    Attributes:
        name: of a module of the model.
        reshape_transform: as in `LayerGradCamPlusPlus`. None: the maps are `(N, K, h, w)`.
        reason: why it was chosen, in words; empty for a layer that was named.
    """

    name: str
    reshape_transform: ReshapeTransform | None = None
    reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class ListedLayer:
    """A layer that can be explained.

    Attributes:
        layer: its name and what its maps need.
        module: the layer.
        feature_maps: how many.
        size: height and width of each.
        both_signs: whether the example gives negative values. The papers' formulas have activations of at least 0.
        is_default: whether it is explained unless another is named.
    """

    layer: ChosenLayer
    module: nn.Module
    feature_maps: int
    size: tuple[int, int]
    both_signs: bool
    is_default: bool = False


@dataclass(frozen=True)
class _Visit:
    """What a module returned: the shape of its tensor for two examples, and whether some values are negative."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    both_signs: bool


def deepest_layer(model: nn.Module, example: Tensor) -> str:
    """The name of the `chosen_layer`.

    Args and errors as `chosen_layer`.
    """
    return chosen_layer(model, example).name


def chosen_layer(model: nn.Module, example: Tensor) -> ChosenLayer:
    r"""
    The layer to explain unless there is a reason for another: the deepest one whose maps are larger than 1 x 1.

    That is the module that finishes last. Maps after a further pooling, class maps (as many as scores), tokens that
    the scores do not depend on and modules called more than once do not count.

    Args:

        model (torch.nn.Module): The network. It runs once without gradients, and a transformer once with them.
        example (Tensor): Its input, (1, C, H, W).

    Returns:
        *ChosenLayer*: The `name` of the module, the `reshape_transform` that its maps need, and the `reason`.

    Raises:
        ValueError: No such layer.

    Examples::

        >>> chosen = chosen_layer(torchvision.models.resnet18().eval(), torch.rand(1, 3, 64, 64))
        >>> chosen.name, chosen.reason
        ('layer4', 'the deepest layer with maps larger than 1 x 1, here 512 of 2 x 2')
        >>> layer = model.get_submodule(chosen_layer(model, torch.rand(1, 3, 224, 224)).name)
        >>> attr = LayerGradCamPlusPlus(model, layer).attribute(torch.rand(1, 3, 224, 224), target=281)
    """
    deepest = _deepest(_feature_layers(model, example))
    return _because(deepest, "the deepest layer with maps larger than 1 x 1")


def listed_layers(model: nn.Module, example: Tensor) -> list[ListedLayer]:
    """Every layer whose maps are larger than 1 x 1, in the order in which they finish.

    Args and errors as `chosen_layer`.
    """
    layers = _feature_layers(model, example)
    default = _deepest(layers).layer.name
    return [ListedLayer(**{**vars(one), "is_default": one.layer.name == default}) for one in layers]


def layer_table(model: nn.Module, example: Tensor) -> str:
    """The layers that can be explained, a line each: feature maps, their size, and whether values are negative.

    Args and errors as `chosen_layer`.

    Examples::

        >>> print(layer_table(net, images[:1]))
        layer   feature maps   size       values
        conv.0             8   32 x 32    both signs
        conv.1             8   32 x 32    not negative  (default)
        conv               8   16 x 16    not negative
    """
    layers = listed_layers(model, example)
    width = max(len(one.layer.name) for one in layers)
    lines = [f"{'layer':{width}}  feature maps   size       values"]
    for one in layers:
        size, signs = f"{one.size[0]} x {one.size[1]}", "both signs" if one.both_signs else "not negative"
        default = "  (default)" if one.is_default else ""
        lines.append(f"{one.layer.name:{width}}  {one.feature_maps:12}   {size:9}  {signs}{default}")
    return "\n".join(lines)


def inner_layer(model: nn.Module, example: Tensor, layer: str) -> ChosenLayer | None:
    """The deepest layer before `layer` with larger maps and no negative values, or None.

    Args and errors as `chosen_layer`.
    """
    layers = _feature_layers(model, example)
    reached = [one for one in layers if one.layer.name == layer]
    size = min((reached[0] if reached else _deepest(layers)).size)
    inner = [one for one in layers if min(one.size) > size and not one.both_signs]
    return _because(inner[-1], f"the deepest before {layer} with larger maps and no negative values") if inner else None


def named_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of that name, as `named_modules` gives it.

    Raises:
        ValueError: the model has none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [known for known, _ in model.named_children()]
        hint = nearest(name, [known for known, _ in model.named_modules() if known])
        raise ValueError(
            f"layer: expected a module of the model ({', '.join(names)}, ...), found {name!r}{hint}"
        ) from None


def fitting_layer(model: nn.Module, name: str, example: Tensor) -> ChosenLayer:
    """The module of that name, with the `reshape_transform` that its output needs.

    Args:
        model, example: as in `chosen_layer`.
        name: as `named_modules` gives it.

    Raises:
        ValueError: the model has no such module, or its output has no maps.
    """
    module = named_layer(model, name)
    visits, _ = _observed(model, example)
    at = next((number for number, visit in enumerate(visits) if visit.name == name), None)
    if at is None:
        raise ValueError(
            f"layer: expected a module that is called and gives one tensor, found {type(module).__name__} ({name})"
        )
    transform = layer_transform(model, module, visits[at].shape, example.shape[2:], _patches(visits[:at]))
    return ChosenLayer(name, transform)


def _because(one: ListedLayer, reason: str) -> ChosenLayer:
    return replace(one.layer, reason=f"{reason}, here {one.feature_maps} of {one.size[0]} x {one.size[1]}")


def layers_with_exact_closed_form(model: nn.Module, example: Tensor, layers: Mapping[str, nn.Module]) -> list[str]:
    """The names of those after which the network is known to be piecewise linear: there Grad-CAM++ needs no exact
    derivatives.

    Args:
        model: a module, run once with gradients.
        example: one input.
        layers: modules of it, by name.
    """
    edges: dict[str, GradientEdge] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for name, module in layers.items():
            hooks.enter_context(module.register_forward_hook(_edge_keeper(edges, name)))
        scores = model(example.detach().clone().requires_grad_().clone()).sum()
    return [name for name, edge in edges.items() if scores.requires_grad and Graph(scores, edge).is_piecewise_linear()]


def _deepest(layers: Sequence[ListedLayer]) -> ListedLayer:
    compute = [one for one in layers if isinstance(one.module, (*_ACTIVATIONS, nn.Conv2d, _BatchNorm))] or layers
    if not compute:
        raise ValueError("layer: expected a model with a layer of maps larger than 1 x 1, found none; name a layer")
    size = min(compute[-1].size)
    large = [one for one in layers if min(one.size) >= size]
    # The projections of an attention, which are linear, come after the tokens that it reads.
    return next((one for one in reversed(large) if not isinstance(one.module, nn.Linear)), large[-1])


def _feature_layers(model: nn.Module, example: Tensor) -> list[ListedLayer]:
    """Modules called once that give feature maps larger than 1 x 1, in the order in which they finish."""
    visits, classes = _observed(model, example)
    names = [visit.name for visit in visits]
    found = [
        layer
        for at, visit in enumerate(visits)
        if names.count(visit.name) == 1 and not isinstance(visit.module, _NO_FEATURES)
        for layer in _with_maps(model, visit, example, _patches(visits[:at]))
        if min(layer.size) > 1 and layer.feature_maps != classes
    ]
    return _without_unused_tokens(model, example, found)


def _with_maps(
    model: nn.Module, visit: _Visit, example: Tensor, patches: tuple[int, int] | None
) -> Iterator[ListedLayer]:
    """The layer, if it has maps of every example on its own."""
    if visit.shape[:1] != (2 * len(example),):  # a position bias, or the windows of an attention
        return
    try:
        transform = layer_transform(model, visit.module, visit.shape, example.shape[2:], patches)
    except ValueError:
        return
    shape = visit.shape if transform is None else transform(torch.empty(visit.shape, device="meta")).shape
    yield ListedLayer(
        ChosenLayer(visit.name, transform), visit.module, shape[1], (shape[2], shape[3]), visit.both_signs
    )


def _patches(before: Sequence[_Visit]) -> tuple[int, int] | None:
    """Height and width of the last convolution's maps, of which later tokens are made."""
    maps = [visit.shape for visit in before if isinstance(visit.module, nn.Conv2d) and len(visit.shape) == 4]
    return (maps[-1][2], maps[-1][3]) if maps else None


def _without_unused_tokens(model: nn.Module, example: Tensor, layers: list[ListedLayer]) -> list[ListedLayer]:
    """Only those token layers at which the score of the most probable class has a gradient at some patch.

    After a transformer's last attention the scores depend on the class token alone. If no layer has such a gradient (a
    head of zeros, as torchvision initializes it), the model cannot tell, and all stay.
    """
    tokens = {one.layer.name: one for one in layers if isinstance(one.layer.reshape_transform, TokenGrid)}
    if not tokens:
        return layers
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for name, one in tokens.items():
            hooks.enter_context(one.module.register_forward_hook(_keeper(outputs, name)))
        scores = _scores(model(example.detach().clone().requires_grad_()))
    reached = {name: output for name, output in outputs.items() if output.requires_grad}
    if not reached or not scores.requires_grad:  # the model forbids gradients
        return layers
    gradients = torch.autograd.grad(scores.amax(), list(reached.values()), allow_unused=True)
    used = {
        name
        for name, gradient in zip(reached, gradients, strict=True)
        if gradient is not None and bool(tokens[name].layer.reshape_transform(gradient).any())  # type: ignore[misc]
    }
    return [one for one in layers if not used or one.layer.name not in tokens or one.layer.name in used]


def _observed(model: nn.Module, example: Tensor) -> tuple[list[_Visit], int | None]:
    """What the modules returned for the example twice, in the order in which they finish, and how many scores there
    are."""
    visits: list[_Visit] = []
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(_observer(visits, name)))
        scores = _scores(model(torch.cat([example, example])))
    return visits, scores.shape[1] if isinstance(scores, Tensor) and scores.dim() > 1 else None


def _scores(output: Any) -> Any:
    """Those of an output that holds them as `logits`, as in Hugging Face's transformers."""
    return getattr(output, "logits", output)


def _observer(visits: list[_Visit], name: str) -> Callable[[nn.Module, object, object], None]:
    def observe(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            visits.append(_Visit(name, module, tuple(output.shape), bool((output < 0).any())))

    return observe


def _keeper(outputs: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, object], None]:
    def keep(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[name] = output

    return keep


def _edge_keeper(edges: dict[str, GradientEdge], name: str) -> Callable[[nn.Module, object, object], None]:
    def keep(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            edges[name] = get_gradient_edge(output)

    return keep
