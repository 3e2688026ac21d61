"""Exact derivatives along single entries of a layer: `phi', phi'', phi'''` at 0 of `phi(t) = s(A + t e)`.

For a batch of directions, one per row, the first derivative `g = ds/dA` is taken with its graph. Along a direction `e`,
`h = d(g . e)/dA` gives `phi'' = h . e`, and `d(h . e)/dA . e` is `phi'''`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

Edge = Tensor | GradientEdge


def along_entries(
    first: Tensor,
    layer: Edge,
    entries: Tensor,
    unit: Tensor,
    rearrange: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    done: Callable[[int], object] = lambda count: None,
) -> tuple[Tensor, Tensor]:
    """`phi''` and `phi'''` along some entries, one batch of directions at a time.

    Args:
        first: `ds/dA` with its graph, `(B, K, *space)`, the same in every row.
        layer: where the layer's tensor enters the graph of `first`.
        entries: numbers of the entries in the flattened `(K, *space)`.
        unit: length of the directions, `()`.
        rearrange: from the layer's tensor to `(B, K, *space)`.
        done: called with the number of entries finished.

    Returns:
        Two tensors `(K, *space)`, 0 at the other entries.
    """
    second, third = first.new_zeros(first.shape[1:]), first.new_zeros(first.shape[1:])
    for chunk in entries.split(len(first)):
        direction = torch.zeros_like(first, memory_format=torch.contiguous_format)
        direction.flatten(1)[torch.arange(len(chunk)), chunk] = unit
        along = along_directions(first, layer, direction, rearrange)
        for values, found in zip((second, third), along, strict=True):
            values.view(-1)[chunk] = found[: len(chunk)]
        done(len(chunk))
    return second, third


def along_directions(
    first: Tensor, layer: Edge, direction: Tensor, rearrange: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> tuple[Tensor, Tensor]:
    """`phi''` and `phi'''` of every row along its own direction `(B, K, *space)`: `(B,)` each."""
    slope = _derivative(first, layer, direction, rearrange, create_graph=True)
    curvature = _derivative(slope, layer, direction, rearrange)
    return _dot(slope, direction), _dot(curvature, direction)


def _derivative(
    of: Tensor | None,
    layer: Edge,
    direction: Tensor,
    rearrange: Callable[[Tensor], Tensor],
    create_graph: bool = False,
) -> Tensor | None:
    """The gradient of `of . direction`. None where that does not depend on the layer, as for linear functions."""
    if of is None or not of.requires_grad:
        return None
    with _named_refusal():
        found = torch.autograd.grad(
            of, layer, direction, retain_graph=True, create_graph=create_graph, allow_unused=True
        )[0]
    return None if found is None else rearrange(found)


def _dot(values: Tensor | None, direction: Tensor) -> Tensor:
    if values is None:
        return direction.new_zeros(len(direction))
    return (values.detach() * direction).flatten(1).sum(1)


@contextmanager
def _named_refusal() -> Iterator[None]:
    """Name the argument where an operation has no second or third derivative."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise RuntimeError(
            "derivatives: expected operations after the layer that PyTorch differentiates three times for 'exact', "
            f"found one that it does not ({error}); write it from elementary operations or use 'closed_form'"
        ) from error
