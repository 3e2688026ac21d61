"""Which layer to explain: the deepest one with maps, and an inner one where the noise acts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus

_NO_FEATURES = (_MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _DropoutNd, nn.Identity, nn.Flatten)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.LeakyReLU, nn.ELU)


@dataclass(frozen=True)
class _Visit:
    name: str
    module: nn.Module
    shape: tuple[int, ...]
    positive: bool


def deepest_layer(model: nn.Module, example: Tensor) -> str:
    """The deepest feature layer whose maps are larger than 1 x 1: the name of the module that finishes last.

    Maps after a further pooling, and class maps (as many as there are scores), are not taken, nor modules that are
    called more than once.

    Args:
        model: a module, run once without gradients.
        example: its input, `(1, C, H, W)`.

    Raises:
        ValueError: no such layer.

    Examples::

        >>> deepest_layer(torchvision.models.resnet18().eval(), torch.rand(1, 3, 64, 64))
        'layer4'
    """
    return _candidates(model, example)[-1].name


def inner_layer(model: nn.Module, example: Tensor, layer: str) -> str | None:
    """The deepest layer before `layer` with larger maps and no negative values; None where there is none.

    Args and errors as `deepest_layer`.
    """
    visits = _feature_visits(model, example)
    reached = [visit for visit in visits if visit.name == layer]
    size = min(reached[0].shape[2:]) if reached else min(_candidates(model, example)[-1].shape[2:])
    inner = [visit for visit in visits if min(visit.shape[2:]) > size and visit.positive]
    return inner[-1].name if inner else None


def named_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of that name, as the option `--layer` gives it.

    Raises:
        ValueError: the model has none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [known for known, _ in model.named_children()]
        raise ValueError(f"--layer: expected a module of the model ({', '.join(names)}, ...), found {name!r}") from None


def noise_acts(model: nn.Module, layer: nn.Module, example: Tensor, target: int) -> bool:
    """Whether the smoothing can change more than the scale of the map at this layer: measured with much noise.

    Where the layer is followed by global average pooling and a linear score only, it does not.

    Args:
        model: a module.
        layer: a module of it.
        example: one input.
        target: class index.
    """
    plain = LayerGradCamPlusPlus(model, layer).attribute(example, target)
    smooth = LayerSmoothGradCamPlusPlus(model, layer).attribute(
        example, target, nt_samples=6, noise_level=0.5, generator=torch.Generator().manual_seed(0)
    )
    assert isinstance(plain, Tensor)
    change = plain / plain.norm().clamp_min(1e-30) - smooth / smooth.norm().clamp_min(1e-30)
    return bool(change.norm() > 1e-4)


def _candidates(model: nn.Module, example: Tensor) -> list[_Visit]:
    visits = _feature_visits(model, example)
    compute = [v for v in visits if isinstance(v.module, (*_ACTIVATIONS, nn.Conv2d, _BatchNorm))] or visits
    if not compute:
        raise ValueError("layer: expected a model with a layer of maps larger than 1 x 1, found none; name a layer")
    size = min(compute[-1].shape[2:])
    return [visit for visit in visits if min(visit.shape[2:]) >= size]


def _feature_visits(model: nn.Module, example: Tensor) -> list[_Visit]:
    """Modules called once that give feature maps larger than 1 x 1, in the order in which they finish."""
    visits: list[_Visit] = []
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(_observer(visits, name)))
        scores = model(example)
    classes = scores.shape[1] if isinstance(scores, Tensor) and scores.dim() > 1 else None
    names = [visit.name for visit in visits]
    return [
        visit
        for visit in visits
        if names.count(visit.name) == 1
        and len(visit.shape) == 4
        and min(visit.shape[2:]) > 1
        and visit.shape[1] != classes
        and not isinstance(visit.module, _NO_FEATURES)
    ]


def _observer(visits: list[_Visit], name: str) -> Callable[[nn.Module, object, object], None]:
    def observe(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            visits.append(_Visit(name, module, tuple(output.shape), bool((output >= 0).all())))

    return observe
