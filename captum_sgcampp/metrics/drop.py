"""Average drop, increase in confidence and win (Grad-CAM++ paper, section 5.1): the class's confidence when the model
sees only what the map highlights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_sgcampp.metrics.maps import check_unit_maps


def explanation_inputs(
    inputs: Tensor, maps: Tensor, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Tensor:
    r"""
    The paper's explanation map `E = L * I`: the image, each pixel multiplied by the map.

    By default the normalized input is multiplied, as in torchcam, and what the map leaves out becomes the mean color.
    With `mean` and `std` the pixels are multiplied and normalized again, and it becomes black.

    Args:

        inputs (Tensor): Normalized images, `(N, C, H, W)`.
        maps (Tensor): `(N, H, W)` in [0, 1], as `unit_range(image_maps(...))` gives them.
        mean (sequence of float, optional): What the normalization subtracted from every channel.
                    Default: None
        std (sequence of float, optional): What it divided every channel by.
                    Default: None

    Returns:
        *Tensor*: `(N, C, H, W)`, for the model.

    Raises:
        TypeError: `inputs` that are no floating-point tensor.
        ValueError: maps of another size or outside [0, 1], one of `mean` and `std` without the other, or not one number
            per channel.

    Examples::

        >>> maps = unit_range(image_maps(attr, (32, 32)))
        >>> confidence = class_confidence(net, images, 3)
        >>> drop = average_drop(confidence, class_confidence(net, explanation_inputs(images, maps), 3))
    """
    check_unit_maps(maps)
    if not inputs.is_floating_point():
        raise TypeError(f"inputs: expected normalized floating-point images, found {inputs.dtype}")
    if maps.shape[1:] != inputs.shape[2:] or len(maps) != len(inputs):
        raise ValueError(f"maps: expected shape {(len(inputs), *inputs.shape[2:])}, found {tuple(maps.shape)}")
    weight = maps[:, None].to(inputs.dtype)
    if mean is None and std is None:
        return weight * inputs
    for name, given in (("mean", mean), ("std", std)):
        if given is None:
            raise ValueError(f"{name}: expected both mean and std or neither, found None")
    shift, scale = (_per_channel(name, v, inputs) for name, v in (("mean", mean), ("std", std)))
    return (weight * (inputs * scale + shift) - shift) / scale


def _per_channel(name: str, values: Sequence[float] | None, inputs: Tensor) -> Tensor:
    """One number per channel of the inputs, `(C, 1, 1)`."""
    numbers = torch.as_tensor(values, dtype=inputs.dtype, device=inputs.device)
    if numbers.shape != (inputs.shape[1],):
        raise ValueError(f"{name}: expected one number per channel ({inputs.shape[1]}), found {tuple(numbers.shape)}")
    return numbers[:, None, None]


def average_drop(confidence: Tensor, explained: Tensor) -> Tensor:
    r"""
    Drop of the confidence in percent, `100 max(0, Y - O) / Y`. Its mean over the examples is the paper's average drop.
    Lower is better.

    Args:

        confidence (Tensor): `Y`, the class's confidence on the whole image, `(N,)`.
        explained (Tensor): `O`, the same on the explanation map, `(N,)`.

    Returns:
        *Tensor*: `(N,)`, in percent.

    Raises:
        ValueError: the two differ in shape.

    Examples::

        >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.7]))
        tensor([25.0000,  0.0000])
    """
    _check_same_shape("explained", explained, confidence)
    smallest = torch.finfo(confidence.dtype).tiny  # a confidence that underflowed to 0 cannot drop
    return 100 * (confidence - explained).clamp_min(0) / confidence.clamp_min(smallest)


def increase_in_confidence(confidence: Tensor, explained: Tensor) -> Tensor:
    r"""
    100 where the explanation map raises the confidence, else 0. The mean is the paper's increase in confidence, in
    percent. Higher is better.

    Args:

        confidence, explained (Tensor): As in :func:`average_drop`.

    Returns:
        *Tensor*: `(N,)`, 0 or 100; NaN where one of the two is NaN.

    Raises:
        ValueError: the two differ in shape.

    Examples::

        >>> increase_in_confidence(torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.7]))
        tensor([  0., 100.])
    """
    _check_same_shape("explained", explained, confidence)
    rises = 100 * (confidence < explained).to(confidence.dtype)
    return rises.masked_fill((confidence - explained).isnan(), torch.nan)


def win(explained: Tensor, other: Tensor) -> Tensor:
    r"""
    100 where one method's explanation map keeps more of the confidence than another's, 0 where it keeps less, 50 for a
    tie. The mean is the paper's win percentage of the method against the other.

    Args:

        explained (Tensor): `O` of the method, `(N,)`.
        other (Tensor): `O` of the other method on the same images, `(N,)`.

    Returns:
        *Tensor*: `(N,)`, 0, 50 or 100; NaN where one of the two is NaN.

    Raises:
        ValueError: the two differ in shape.

    Examples::

        >>> win(torch.tensor([0.6, 0.7, 0.1]), torch.tensor([0.5, 0.9, 0.1]))
        tensor([100.,   0.,  50.])
    """
    _check_same_shape("other", other, explained)
    ahead = explained - other
    return (50 * (1 + torch.sign(ahead))).masked_fill(ahead.isnan(), torch.nan)


def _check_same_shape(name: str, values: Tensor, first: Tensor) -> None:
    """Raise for other shapes: `(N,)` and `(N, 1)` would broadcast."""
    if values.shape != first.shape:
        raise ValueError(
            f"{name}: expected the first argument's shape {tuple(first.shape)}, found {tuple(values.shape)}"
        )
