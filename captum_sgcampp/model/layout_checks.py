"""Checks that a layer's tensors have the feature maps in dimension 1, `(N, K, *space)`, given or rearranged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]


@contextmanager
def missing_batch_named(root: object, inputs: Sequence[Tensor]) -> Iterator[None]:
    """An error in the block is put down to a missing batch dimension where the input looks like a single image.

    Args:
        root: the model.
        inputs: of the model.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if not _is_single_image(root, inputs):
            raise
        found = tuple(inputs[0].shape)
        raise ValueError(
            f"inputs: expected a batch of images (N, C, H, W), found {found}; inputs[None] is a batch of one"
        ) from error


def _is_single_image(root: object, inputs: Sequence[Tensor]) -> bool:
    """Whether there is one input `(C, H, W)` with the channels of the model's first convolution of images."""
    if not isinstance(root, nn.Module) or len(inputs) != 1 or inputs[0].dim() != 3:
        return False
    first = next((module for module in root.modules() if isinstance(module, _ConvNd)), None)
    return isinstance(first, nn.Conv2d) and first.in_channels == len(inputs[0])


def check_layouts(
    root: object,
    layers: Sequence[nn.Module],
    shapes: Sequence[Sequence[Sequence[int]]],
    input_dims: int,
    transform: ReshapeTransform | None,
) -> None:
    """Check every tensor of every layer.

    Args:
        root: the model.
        layers: modules of it.
        shapes: of the tensors of each layer.
        input_dims: the largest number of dimensions of an input.
        transform: the `reshape_transform`, if there is one.
    """
    for layer, own in zip(layers, shapes, strict=True):
        from_images = input_dims > 3 and all(len(shape) < 4 for shape in own)
        for shape in own:
            if transform is None:
                check_channels_first(root, layer, shape, from_images)
            else:
                check_rearrangement(transform, shape)


def check_rearrangement(transform: ReshapeTransform, shape: Sequence[int]) -> None:
    """Raise unless `transform` moves the entries of each example on its own and uses none twice.

    Args:
        transform: from `(N, ...)` to `(N, K, *space)`.
        shape: of the layer's tensor. The check runs on two examples of it.
    """
    marked = torch.rand(2, *shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0), device="cpu")
    found = transform(marked)
    if not isinstance(found, Tensor) or found.dim() < 2 or len(found) != 2:
        result = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"reshape_transform: expected a tensor (N, K, *space) from shape {tuple(marked.shape)}, found {result}"
        )
    for before, after in zip(marked.flatten(1), found.flatten(1), strict=True):
        if not bool(torch.isin(after, before).all()) or len(after.unique()) < len(after):
            raise ValueError(
                "reshape_transform: expected a function that moves the entries of each example, none twice, found one "
                f"that changes them, repeats them or mixes examples at shape {tuple(shape)}"
            )


def check_channels_first(root: object, layer: nn.Module, shape: Sequence[int], from_images: bool) -> None:
    """Raise where the layer's tensors have, or may have, the feature maps in the last dimension and not in dimension 1.

    Args:
        root: the model, where it is a module.
        layer: a module of it.
        shape: of its tensor.
        from_images: whether the inputs are images or volumes and the layer has no such tensor. Then three dimensions
            count as tokens: one refusal too many is better than a map of `(N, 1, C)`.
    """
    if (len(shape) == 3 and from_images) or channels_come_last(root, layer, shape):
        raise ValueError(
            f"layer: expected feature maps (N, K, *space), found {type(layer).__name__} with the "
            f"features last in shape {tuple(shape)}; give reshape_transform=TokenGrid() for tokens (N, T, C), "
            "channels_last_to_first for (N, *space, C), or lambda a: a if dimension 1 does hold the feature maps"
        )


def channels_come_last(root: object, layer: nn.Module, shape: Sequence[int]) -> bool:
    """Judged by the layer itself. If its parameters do not tell (an MLP, a dropout), by the smallest module around it
    that holds an attention or a layer normalization, and no convolution."""
    if len(shape) < 3:
        return False
    if _norms_and_attention(layer) or _first_sizes(layer):
        return _last_is_features(layer, shape)
    for around in _ancestors(root, layer):
        if _first_sizes(around):
            return False
        if _norms_and_attention(around):
            return _last_is_features(around, shape)
    return False


def _last_is_features(module: nn.Module, shape: Sequence[int]) -> bool:
    """Whether `module` computes features in the last dimension and not in dimension 1."""
    norms = _norms_and_attention(module)
    if not norms:
        return False
    sizes = {_features(part) for part in norms}
    sizes |= {part.out_features for part in module.modules() if isinstance(part, nn.Linear)}
    maps = _first_sizes(module) | (sizes - {shape[-1]})
    return shape[-1] in sizes and shape[1] not in maps


def _norms_and_attention(module: nn.Module) -> list[nn.Module]:
    """The modules inside that work on features in the last dimension. The subclass `LayerNorm2d` of torchvision and
    timm works on dimension 1."""
    return [
        part
        for part in module.modules()
        if isinstance(part, nn.MultiheadAttention)
        or (isinstance(part, nn.LayerNorm | nn.RMSNorm) and len(part.normalized_shape) == 1 and not _is_2d(part))
    ]


def _is_2d(part: nn.Module) -> bool:
    return type(part).__name__.endswith(("1d", "2d", "3d"))


def _features(part: Any) -> int:
    size: int = part.embed_dim if isinstance(part, nn.MultiheadAttention) else part.normalized_shape[0]
    return size


def _first_sizes(module: nn.Module) -> set[int]:
    """How many feature maps the convolutions and batch normalizations inside give, in dimension 1."""
    parts = list(module.modules())
    convolutions = {part.out_channels for part in parts if isinstance(part, _ConvNd)}
    return convolutions | {part.num_features for part in parts if isinstance(part, _NormBase)}


def _ancestors(root: object, layer: nn.Module) -> list[nn.Module]:
    """The modules around the layer, the smallest first."""
    if not isinstance(root, nn.Module):
        return []
    name = next((name for name, module in root.named_modules() if module is layer), "")
    parents = name.split(".")[:-1] if name else []
    return [root.get_submodule(".".join(parents[:depth])) for depth in range(len(parents), -1, -1)] if name else []
