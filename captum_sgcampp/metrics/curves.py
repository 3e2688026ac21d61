"""Deletion and insertion (Petsiuk et al., *RISE*, https://arxiv.org/abs/1806.07421): the class's confidence while
pixels are taken away or put back, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Generator, Tensor
from torchvision.transforms.functional import gaussian_blur

from captum_sgcampp.checks import check_count
from captum_sgcampp.metrics.confidence import class_confidence, targets_of
from captum_sgcampp.metrics.maps import check_maps

BASELINES = ("zero", "mean", "blur")
BLUR_KERNEL, BLUR_SIGMA = 11, 5.0  # as in the authors' code


def baseline_images(inputs: Tensor, baseline: str) -> Tensor:
    r"""
    The images that replace pixels taken away.

    Args:

        inputs (Tensor): Normalized images, `(N, C, H, W)`.
        baseline (str): `"zero"` (the mean color of the training images, where inputs are normalized with it),
                    `"mean"` (each image's own mean color) or `"blur"` (Gaussian, 11 x 11 pixels, sigma 5).

    Returns:
        *Tensor*: `(N, C, H, W)`.

    Examples::

        >>> baseline_images(torch.ones(1, 3, 32, 32), "zero").any()
        tensor(False)
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline: expected one of {BASELINES}, found {baseline!r}")
    if baseline == "zero":
        return torch.zeros_like(inputs)
    if baseline == "mean":
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    if inputs.dim() != 4 or min(inputs.shape[2:]) <= BLUR_KERNEL // 2:
        raise ValueError(
            f"inputs: expected images (N, C, H, W) of at least {BLUR_KERNEL // 2 + 1} x {BLUR_KERNEL // 2 + 1} pixels "
            f"to blur, found shape {tuple(inputs.shape)}"
        )
    blurred: Tensor = gaussian_blur(inputs, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])
    return blurred


def pixel_order(maps: Tensor, seed: int = 0) -> Tensor:
    r"""
    The pixels from the largest value to the smallest. Equal values, such as the zeros after a ReLU, come in a random
    order by the seed, since the order of rows would favor the upper edge.

    Args:

        maps (Tensor): `(N, H, W)`.
        seed (int, optional): Seed of the order of equal values.
                    Default: 0

    Returns:
        *Tensor* of int64: `(N, H * W)`, indices of pixels.

    Examples::

        >>> pixel_order(torch.tensor([[[0.1, 0.4], [0.3, 0.2]]]))
        tensor([[1, 2, 3, 0]])
    """
    check_maps(maps)
    values = maps.flatten(1)
    shuffled = torch.randperm(values.shape[1], generator=Generator().manual_seed(seed)).to(maps.device)
    return shuffled[values[:, shuffled].argsort(dim=1, descending=True, stable=True)]


def deletion_curve(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: int | Tensor,
    *,
    steps: int = 16,
    baseline: str = "zero",
    link: str = "softmax",
    batch_size: int = 32,
) -> Tensor:
    r"""
    Confidence of the class while pixels are replaced by the baseline, those with the largest values first. The area
    under it is small for a faithful map.

    Args:

        model (Callable): From inputs to logits `(N, classes)`.
        inputs (Tensor): Normalized images, `(N, C, H, W)`.
        maps (Tensor): `(N, H, W)`.
        target (int or Tensor): Class index, one for all examples or `(N,)`.
        steps (int, optional): Equal steps from the image to the baseline.
                    Default: 16
        baseline (str, optional): See :func:`baseline_images`.
                    Default: `"zero"`
        link (str, optional): See :func:`class_confidence`.
                    Default: `"softmax"`
        batch_size (int, optional): Rows of one forward pass.
                    Default: 32

    Returns:
        *Tensor*: `(N, steps + 1)`, after 0 to all pixels.

    Examples::

        >>> curve = deletion_curve(net, images, image_maps(attr, (32, 32)), 3, steps=4)
        >>> curve.shape, area_under_curve(curve).shape
        (torch.Size([2, 5]), torch.Size([2]))
    """
    return _curve(model, inputs, baseline_images(inputs, baseline), maps, target, steps, link, batch_size)


def insertion_curve(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: int | Tensor,
    *,
    steps: int = 16,
    baseline: str = "blur",
    link: str = "softmax",
    batch_size: int = 32,
) -> Tensor:
    r"""
    Confidence of the class while pixels are put back onto the baseline, those with the largest values first. The area
    under it is large for a faithful map.

    Args:

        model, inputs, maps, target, steps, baseline, link, batch_size: As in :func:`deletion_curve`, with the baseline
                    `"blur"` by default.

    Returns:
        *Tensor*: `(N, steps + 1)`, with 0 to all pixels put back.
    """
    return _curve(model, baseline_images(inputs, baseline), inputs, maps, target, steps, link, batch_size)


def _curve(
    model: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    maps: Tensor,
    target: int | Tensor,
    steps: int,
    link: str,
    batch_size: int,
) -> Tensor:
    """Confidence on the way from `start` to `end`, pixel by pixel in the order of the maps."""
    check_count("steps", steps)
    if maps.shape != (len(start), *start.shape[2:]):
        raise ValueError(f"maps: expected shape {(len(start), *start.shape[2:])}, found {tuple(maps.shape)}")
    n, pixels = len(start), start[0, 0].numel()
    rank = pixel_order(maps).argsort(1).reshape(n, 1, *start.shape[2:])  # 0: the largest value
    counts = torch.linspace(0, pixels, steps + 1, dtype=torch.float64).round().long().tolist()
    rows = (torch.where(rank < count, end, start) for count in counts)
    targets = targets_of(start, target)
    found = [
        class_confidence(model, part, targets.repeat(len(part) // n), link=link, batch_size=batch_size)
        for part in _joined(rows, max(1, batch_size // n))
    ]
    return torch.cat(found).reshape(steps + 1, n).T


def _joined(rows: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """`count` blocks of rows in one tensor at a time, so that memory is bounded by one batch."""
    source = iter(rows)
    while block := list(islice(source, count)):
        yield torch.cat(block)


def area_under_curve(curve: Tensor) -> Tensor:
    r"""
    Area under a curve over the share of pixels, by trapezoids.

    Args:

        curve (Tensor): `(N, steps + 1)`, at equal steps from 0 to 1.

    Returns:
        *Tensor*: `(N,)`, from 0 to 1.

    Raises:
        ValueError: a curve of another form, or of less than two points.

    Examples::

        >>> area_under_curve(torch.tensor([[1.0, 0.5, 0.0]]))
        tensor([0.5000])
    """
    if curve.dim() != 2 or curve.shape[1] < 2:
        raise ValueError(f"curve: expected shape (N, steps + 1) with at least 2 points, found {tuple(curve.shape)}")
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)
