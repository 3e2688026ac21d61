"""Layers whose channels come last: tokens `(N, T, C)` and grids `(N, *space, C)`, brought to `(N, C, *space)`.

A `reshape_transform` only moves entries (and may drop some), so it is applied to the derivatives as to the activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from captum_sgcampp.checks import check_count

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenGrid:
    r"""
    A `reshape_transform` for vision transformers: tokens `(N, T, C)` to feature maps `(N, C, h, w)`, rows first. The
    tokens in front of the patches (class token, distillation token, registers) are dropped.

    A layer behind which only the class token is used (the output of torchvision's last encoder block) has the gradient
    0 at every patch, and an all-zero map. Explain what goes into the last attention: `encoder.layers[-1].ln_1`.

    Args:

        grid (tuple of int, optional): Number of patches along each spatial dimension, `(h, w)`.
                    Default: None, a square grid
        leading (int, optional): How many tokens stand in front of the patches: 1 in ViT, 2 in distilled DeiT, 0 where
                    there is no class token.
                    Default: 1

    Raises:
        TypeError: a grid that is no sequence of ints, or `leading` that is no int.
        ValueError: a grid or `leading` that is not possible, and when called with another number of tokens than the
            grid has.

    Examples::

        >>> TokenGrid()(torch.rand(2, 17, 8)).shape
        torch.Size([2, 8, 4, 4])
        >>> vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
        >>> layer = vit.encoder.layers[-1].ln_1
        >>> LayerGradCamPlusPlus(vit, layer, reshape_transform=TokenGrid()).attribute(images, target=3).shape
        torch.Size([2, 1, 4, 4])
    """

    grid: tuple[int, ...] | None = None
    leading: int = 1

    def __post_init__(self) -> None:
        check_count("leading", self.leading, least=0)
        if self.grid is None:
            return
        if not isinstance(self.grid, Sequence) or isinstance(self.grid, str):
            raise TypeError(f"grid: expected a tuple of ints, as (h, w), or None, found {self.grid!r}")
        if not self.grid:
            raise ValueError("grid: expected at least one spatial dimension, found none")
        for side in self.grid:
            check_count("grid", side)

    def __call__(self, activation: Tensor) -> Tensor:
        if activation.dim() != 3:
            raise ValueError(f"layer: expected tokens (N, T, C) for TokenGrid, found shape {tuple(activation.shape)}")
        patches = activation.shape[1] - self.leading
        side = math.isqrt(max(patches, 0))
        grid = (side, side) if self.grid is None else tuple(self.grid)
        if math.prod(grid) != patches or patches < 1:
            raise ValueError(
                f"grid: expected {'a square grid' if self.grid is None else grid} behind {self.leading} leading "
                f"tokens, found {activation.shape[1]} tokens; give TokenGrid(grid=(h, w), leading=...)"
            )
        maps: Tensor = activation[:, self.leading :].transpose(1, 2).unflatten(2, grid)
        return maps


def channels_last_to_first(activation: Tensor) -> Tensor:
    r"""
    A `reshape_transform` for layers `(N, *space, C)`, as those of torchvision's Swin transformers.

    Args:

        activation (Tensor): `(N, *space, C)`.

    Returns:
        *Tensor*: `(N, C, *space)`.

    Examples::

        >>> channels_last_to_first(torch.rand(2, 7, 5, 96)).shape
        torch.Size([2, 96, 7, 5])
    """
    return activation.movedim(-1, 1)


def check_rearrangement(transform: ReshapeTransform, shape: Sequence[int]) -> None:
    """Raise unless `transform` moves the entries of each example on its own and uses none twice.

    Args:
        transform: from `(N, ...)` to `(N, K, *space)`.
        shape: of the layer's tensor; the check takes two examples of it.
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
            are tokens, whoever made them; better one refusal too many than a map of `(N, 1, C)`.
    """
    if (len(shape) == 3 and from_images) or _channels_come_last(root, layer, shape):
        raise ValueError(
            f"layer: expected feature maps (N, K, *space), found {type(layer).__name__} with the "
            f"features last in shape {tuple(shape)}; give reshape_transform=TokenGrid() for tokens (N, T, C), "
            "channels_last_to_first for (N, *space, C), or lambda a: a if dimension 1 does hold the feature maps"
        )


def _channels_come_last(root: object, layer: nn.Module, shape: Sequence[int]) -> bool:
    """Judged by the layer itself; where it has no parameters that tell (an MLP, a dropout), by the smallest module
    around it that holds an attention or a layer normalisation, and no convolution."""
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
    """Whether the last dimension is one that `module` computes features in, and dimension 1 is not."""
    norms = _norms_and_attention(module)
    if not norms:
        return False
    sizes = {_features(part) for part in norms}
    sizes |= {part.out_features for part in module.modules() if isinstance(part, nn.Linear)}
    maps = _first_sizes(module) | (sizes - {shape[-1]})
    return shape[-1] in sizes and shape[1] not in maps


def _norms_and_attention(module: nn.Module) -> list[nn.Module]:
    """The modules inside that work on features in the last dimension. `LayerNorm2d` of torchvision and timm, which is
    a subclass, works on dimension 1."""
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
    """How many feature maps the convolutions and batch normalisations inside give, in dimension 1."""
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
