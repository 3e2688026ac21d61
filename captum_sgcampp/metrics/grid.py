"""The grid pointing game (Böhle et al., *Convolutional dynamic alignment networks*, https://arxiv.org/abs/2104.00032):
images of different classes in one mosaic, whose cells need no annotation. And whether a map covers all instances of a
class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from captum_sgcampp.functional.tensors import ratio
from captum_sgcampp.metrics.maps import check_maps, positive_energy

CELLS = 4


def mosaics(tiles: Tensor) -> Tensor:
    r"""
    Mosaics of two by two images.

    Args:

        tiles (Tensor): `(N, 4, C, H, W)`: upper left, upper right, lower left, lower right.

    Returns:
        *Tensor*: `(N, C, 2 H, 2 W)`.

    Examples::

        >>> mosaics(torch.rand(3, 4, 3, 32, 32)).shape
        torch.Size([3, 3, 64, 64])
    """
    if tiles.dim() != 5 or tiles.shape[1] != CELLS:
        raise ValueError(f"tiles: expected shape (N, {CELLS}, C, H, W), found {tuple(tiles.shape)}")
    upper, lower = torch.cat([tiles[:, 0], tiles[:, 1]], -1), torch.cat([tiles[:, 2], tiles[:, 3]], -1)
    return torch.cat([upper, lower], -2)


def cell_masks(size: Sequence[int]) -> Tensor:
    r"""
    The cells of a mosaic of two by two.

    Args:

        size (sequence of int): Height and width of the mosaic, even.

    Returns:
        *Tensor* of bool: `(4, H, W)`, in the order of :func:`mosaics`.

    Examples::

        >>> cell_masks((2, 4))[1].int()
        tensor([[0, 0, 1, 1],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    if any(side % 2 or side < 2 for side in size):
        raise ValueError(f"size: expected even numbers, found {tuple(size)}")
    numbers = torch.arange(CELLS).reshape(2, 2)
    grid = numbers.repeat_interleave(size[0] // 2, 0).repeat_interleave(size[1] // 2, 1)
    return grid == torch.arange(CELLS)[:, None, None]


def sample_mosaics(targets: Sequence[int], generator: Generator | None = None) -> list[tuple[int, int, int] | None]:
    r"""
    For every image three others of other classes, all different, to share a mosaic with. Each is drawn evenly from the
    images of the classes that are left.

    Args:

        targets (sequence of int): Class of every image.
        generator (torch.Generator, optional): Source of chance.
                    Default: None, the global CPU generator

    Returns:
        *list*: Three indices for every image; None for an image for which there are fewer than three other classes.

    Examples::

        >>> partners = sample_mosaics([7, 7, 8, 9, 10], torch.Generator().manual_seed(0))
        >>> sorted(partners[0]), partners[2] is None
        ([2, 3, 4], False)
    """
    order = sorted(range(len(targets)), key=targets.__getitem__)
    spans: dict[int, tuple[int, int]] = {}
    for place, index in enumerate(order):
        spans[targets[index]] = spans.get(targets[index], (place, 0))[0], place + 1
    of_images = [spans[target] for target in targets]
    draws = torch.rand(len(targets), CELLS - 1, generator=generator, dtype=torch.float64).tolist()
    return [_partners(own, order, of_images, of_one) for own, of_one in zip(of_images, draws, strict=True)]


def _partners(
    own: tuple[int, int], order: Sequence[int], spans: Sequence[tuple[int, int]], draws: Sequence[float]
) -> tuple[int, int, int] | None:
    """Indices of images outside the class in the span `own` and the classes of the partners before. `order` has all
    images by their class, `spans` where each image's class begins and ends in it."""
    chosen, taken = [], [own]
    for draw in draws:
        free = len(order) - sum(end - start for start, end in taken)
        if not free:
            return None
        place = min(int(draw * free), free - 1)
        for start, end in sorted(taken):
            place += end - start if place >= start else 0
        chosen.append(order[place])
        taken.append(spans[order[place]])
    first, second, third = chosen
    return first, second, third


def instance_shares(maps: Tensor, instances: Tensor) -> Tensor:
    r"""
    Share of the map's positive values in each instance, or in each cell of a mosaic, where it is the score of the grid
    pointing game (chance 0.25).

    Args:

        maps (Tensor): `(N, H, W)`.
        instances (Tensor): Pixels of every instance, bool, `(N, I, H, W)`, or `(I, H, W)` for all examples.

    Returns:
        *Tensor*: `(N, I)`, from 0 to 1; 0 for a map without positive values.

    Examples::

        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> instance_shares(maps, cell_masks((2, 2)))
        tensor([[0.7500, 0.2500, 0.0000, 0.0000]])
    """
    regions = _check_instances(maps, instances)
    whole = maps.clamp_min(0).sum((1, 2))
    return ratio(positive_energy(maps[:, None], regions), whole[:, None])


def _check_instances(maps: Tensor, instances: Tensor) -> Tensor:
    """The instances of every example, `(N, I, H, W)`, on the maps' device."""
    check_maps(maps)
    shape = tuple(instances.shape)
    fits = len(shape) in (3, 4) and shape[-2:] == maps.shape[1:] and shape[:-3] in ((), (len(maps),))
    if instances.dtype != torch.bool or not fits:
        raise ValueError(
            f"instances: expected bool of shape ({len(maps)}, I, {maps.shape[1]}, {maps.shape[2]}), or without the "
            f"first dimension, found {instances.dtype}, {shape}"
        )
    return instances.to(maps.device).expand(len(maps), *shape[-3:])


def instance_balance(maps: Tensor, instances: Tensor) -> Tensor:
    r"""
    How evenly a map treats the instances of a class: the smallest mean of its positive values over an instance,
    divided by the largest. Higher is better: 1 is even, and 0 misses an instance. A map that covers the whole image
    evenly also scores 1, so read it beside :func:`instance_shares`.

    Args:

        maps, instances (Tensor): As in :func:`instance_shares`.

    Returns:
        *Tensor*: `(N,)`, from 0 to 1; 0 for a map without positive values in any instance.

    Examples::

        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> instance_balance(maps, cell_masks((2, 2))[:2])
        tensor([0.3333])
    """
    means = instance_shares(maps, instances) / instances.to(maps.device).sum((-2, -1)).clamp_min(1)
    return ratio(means.amin(1), means.amax(1))


def instance_recall(maps: Tensor, instances: Tensor, *, threshold: float = 0.5) -> Tensor:
    r"""
    Share of the instances of a class that the map finds: those in which its maximum exceeds a part of the whole map's.
    Higher is better. A map that covers the whole image evenly also scores 1.

    Args:

        maps, instances (Tensor): As in :func:`instance_shares`.
        threshold (float, optional): The part of the whole map's maximum, from 0 to less than 1.
                    Default: 0.5

    Returns:
        *Tensor*: `(N,)`, from 0 to 1; 0 for a map without positive values.

    Examples::

        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> instance_recall(maps, cell_masks((2, 2))[:2])
        tensor([0.5000])
    """
    regions = _check_instances(maps, instances)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: expected 0 to less than 1, found {threshold}")
    positive = maps.clamp_min(0)
    highest = (positive[:, None] * regions).amax((-2, -1))
    found = highest > threshold * positive.amax((1, 2))[:, None]
    return found.to(maps.dtype).mean(1)
