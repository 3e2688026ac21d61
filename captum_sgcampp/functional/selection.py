"""Which feature maps `M` and which neurons `R` make the map, as one boolean tensor over the activation.

The selection restricts the sums `w_k = sum over (i, j) in R` and `L_ij = [ij in R] * sum over k in M of w_k A_kij`. The
sum over the activation in alpha stays over the whole map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor

FeatureMaps: TypeAlias = int | Sequence[int] | slice | Tensor | np.ndarray[Any, Any] | None
Neurons: TypeAlias = slice | tuple[slice | int, ...] | Sequence[Any] | Tensor | np.ndarray[Any, Any] | None


def selection_mask(feature_maps: FeatureMaps, neurons: Neurons, activation: Tensor) -> Tensor | None:
    """The selected entries of `activation`, as a bool tensor that broadcasts to it. None: all.

    Args:
        feature_maps: see `feature_map_mask`.
        neurons: see `neuron_mask`.
        activation: `(N, K, *space)`.
    """
    masks = [
        mask
        for mask in (feature_map_mask(feature_maps, activation), neuron_mask(neurons, activation))
        if mask is not None
    ]
    if not masks:
        return None
    selected = masks[0] if len(masks) == 1 else masks[0] & masks[1]
    if not selected.any():
        raise ValueError("feature_maps and neurons: expected a selection that holds at least one neuron, found none")
    return selected


def feature_map_mask(feature_maps: FeatureMaps, activation: Tensor) -> Tensor | None:
    """The selected feature maps as a bool tensor `(1 or N, K, 1, ...)`.

    Args:
        feature_maps: an int, a sequence of ints, a slice (negative indices count from the end), a bool tensor `(K,)`;
            for a choice per example a tensor of ints `(N, k)` or a bool tensor `(N, K)`. None: all.
        activation: `(N, K, *space)`.

    Raises:
        TypeError: another type.
        ValueError: an index outside the layer, a mask of another shape, or nothing selected.
    """
    if feature_maps is None:
        return None
    count = activation.shape[1]
    if isinstance(feature_maps, np.ndarray):
        feature_maps = torch.from_numpy(np.ascontiguousarray(feature_maps))
    if isinstance(feature_maps, Tensor) and feature_maps.dtype == torch.bool:
        chosen = _map_mask_from_tensor(feature_maps, activation)
    elif isinstance(feature_maps, Tensor) and feature_maps.dim() == 2:
        chosen = _map_mask_from_rows(feature_maps, activation)
    else:
        chosen = torch.zeros(1, count, dtype=torch.bool, device="cpu")
        chosen[:, _map_indices(feature_maps, count)] = True
    if not chosen.any():
        raise ValueError(f"feature_maps: expected at least one of the layer's {count} feature maps, found none")
    return chosen.to(activation.device).reshape(*chosen.shape, *(1,) * (activation.dim() - 2))


def _map_mask_from_tensor(mask: Tensor, activation: Tensor) -> Tensor:
    shapes = [tuple(activation.shape[1:2]), tuple(activation.shape[:2])]
    if tuple(mask.shape) not in shapes:
        raise ValueError(
            f"feature_maps: expected a bool tensor of shape {shapes[0]} or {shapes[1]}, found {tuple(mask.shape)}"
        )
    return mask.reshape(-1, activation.shape[1])


def _map_mask_from_rows(indices: Tensor, activation: Tensor) -> Tensor:
    """Of one row of indices per example, as `top_feature_maps` gives them."""
    examples, count = activation.shape[:2]
    if len(indices) != examples:
        raise ValueError(
            f"feature_maps: expected one row of indices per example ({examples}), found shape {tuple(indices.shape)}"
        )
    rows = [_map_indices(row, count) for row in indices]
    mask = torch.zeros(examples, count, dtype=torch.bool, device="cpu")
    for chosen, row in zip(mask, rows, strict=True):
        chosen[row] = True
    return mask


def _map_indices(feature_maps: Any, count: int) -> list[int]:
    if isinstance(feature_maps, slice):
        _check_slice("feature_maps", feature_maps, count)
        return list(range(*feature_maps.indices(count)))
    if isinstance(feature_maps, Tensor) and feature_maps.dtype == torch.uint8:
        raise TypeError("feature_maps: expected a mask of dtype torch.bool or indices, found torch.uint8")
    if isinstance(feature_maps, Tensor) and feature_maps.dim() <= 1:
        feature_maps = feature_maps.tolist()
    if not isinstance(feature_maps, Sequence) or isinstance(feature_maps, str | bytes):
        feature_maps = [feature_maps]
    for index in feature_maps:
        _check_index("feature_maps", index, count)
    return [int(index) for index in feature_maps]


def neuron_mask(neurons: Neurons, activation: Tensor) -> Tensor | None:
    """The selected neurons as a bool tensor that broadcasts to the activation.

    Args:
        neurons: a tuple of one slice or int per spatial dimension (`numpy.s_[2:5, 3:7]`; for a signal also a bare
            slice), a list of coordinates (`[(2, 3), (4, 4)]`), a bool tensor of the layer's spatial shape, or one that
            broadcasts to the activation's shape. A tensor whose first dimension could count the feature maps as well
            as the examples is refused. None: all.
        activation: `(N, K, *space)`.

    Raises:
        TypeError: another type.
        ValueError: a place outside the layer, a mask of another or an ambiguous shape, or nothing selected.
    """
    if neurons is None:
        return None
    if activation.dim() == 2:
        raise ValueError(
            f"neurons: expected None for a linear layer, whose feature maps are single neurons, found {neurons!r}"
        )
    if isinstance(neurons, np.ndarray):
        neurons = torch.from_numpy(np.ascontiguousarray(neurons))
    if isinstance(neurons, Tensor):
        mask = _neuron_mask_from_tensor(neurons, activation)
    elif isinstance(neurons, slice | tuple):
        mask = _neuron_mask_from_slices(neurons, activation.shape[2:])
    elif isinstance(neurons, Sequence) and not isinstance(neurons, str | bytes):
        mask = _neuron_mask_from_coordinates(neurons, activation.shape[2:])
    else:
        raise TypeError(
            "neurons: expected a tuple of slices, a list of coordinates or a bool tensor, "
            f"found {type(neurons).__name__}"
        )
    if not mask.any():
        raise ValueError(f"neurons: expected at least one neuron of {tuple(activation.shape[2:])}, found none")
    return mask.to(activation.device)


def _neuron_mask_from_tensor(mask: Tensor, activation: Tensor) -> Tensor:
    shape, space = tuple(activation.shape), tuple(activation.shape[2:])
    if mask.dtype != torch.bool:
        raise TypeError(f"neurons: expected a tensor of dtype torch.bool, found {mask.dtype}")
    if tuple(mask.shape) == space:
        return mask
    if mask.dim() == 1 and len(space) > 1:
        raise ValueError(
            f"neurons: expected a mask of the layer's spatial shape {space} or one that broadcasts to {shape}, found "
            f"one dimension, {tuple(mask.shape)}; pass mask[None] for columns or mask[:, None] for rows"
        )
    _check_one_reading(mask, shape, space)
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"neurons: expected a bool tensor of the layer's spatial shape {space} or one that broadcasts to {shape}, "
            f"found shape {tuple(mask.shape)}"
        )
    return mask


def _check_one_reading(mask: Tensor, shape: tuple[int, ...], space: tuple[int, ...]) -> None:
    """Refuse a mask of one dimension less than the activation whose first dimension does or may count the examples."""
    examples, maps = shape[:2]
    fits_space = all(size in (1, full) for size, full in zip(mask.shape[1:], space, strict=False))
    if mask.dim() == len(shape) - 1 and fits_space and len(mask) == examples != 1:
        found = f"found shape {tuple(mask.shape)}, whose first dimension could "
        if examples == maps:
            raise ValueError(
                f"neurons: expected a mask with one reading, {found}count the examples or the feature maps; "
                "pass mask[:, None] or mask[None]"
            )
        raise ValueError(
            f"neurons: expected a mask that broadcasts to {shape}, {found}only count the examples; pass mask[:, None]"
        )


def _neuron_mask_from_slices(neurons: slice | tuple[Any, ...], space: Sequence[int]) -> Tensor:
    places = neurons if isinstance(neurons, tuple) else (neurons,)
    if len(places) != len(space):
        raise ValueError(f"neurons: expected {len(space)} slices for the layer's {tuple(space)}, found {len(places)}")
    for place, size in zip(places, space, strict=True):
        if isinstance(place, slice):
            _check_slice("neurons", place, size)
        else:
            _check_index("neurons", place, size)
    mask = torch.zeros(tuple(space), dtype=torch.bool, device="cpu")
    # numpy, because torch refuses slices with a negative step.
    mask.numpy()[places] = True
    return mask


def _neuron_mask_from_coordinates(coordinates: Sequence[Any], space: Sequence[int]) -> Tensor:
    mask = torch.zeros(tuple(space), dtype=torch.bool, device="cpu")
    for coordinate in coordinates:
        place = coordinate if isinstance(coordinate, Sequence | np.ndarray) else (coordinate,)
        if isinstance(place, str) or len(place) != len(space):
            raise ValueError(f"neurons: expected coordinates of {len(space)} ints, found {coordinate!r}")
        for index, size in zip(place, space, strict=True):
            _check_index("neurons", index, size)
        mask[tuple(int(index) for index in place)] = True
    return mask


def _is_int(index: object) -> bool:
    return isinstance(index, int | np.integer) and not isinstance(index, bool)


def _check_index(argument: str, index: object, size: int) -> None:
    if not _is_int(index):
        raise TypeError(f"{argument}: expected ints, slices or a bool tensor, found {type(index).__name__} ({index!r})")
    if not -size <= int(index) < size:  # type: ignore[call-overload]
        raise ValueError(f"{argument}: expected an index from {-size} to {size - 1}, found {index}")


def _check_slice(argument: str, place: slice, size: int) -> None:
    for bound in (place.start, place.stop, place.step):
        if bound is not None and not _is_int(bound):
            raise TypeError(f"{argument}: expected slices of ints, found {place}")
    if place.step == 0:
        raise ValueError(f"{argument}: expected a step other than 0, found {place}")
    for bound in (place.start, place.stop):
        if bound is not None and not -size <= bound <= size:
            raise ValueError(f"{argument}: expected bounds from {-size} to {size}, found {place}")


def box_to_neurons(box: Sequence[float], input_size: Sequence[int], layer_size: Sequence[int]) -> tuple[slice, ...]:
    """The neurons of a layer that a box in input pixels covers, for the argument `neurons`.

    The layer's neurons are taken to tile the input evenly, as when the map is upsampled to the input's size. A neuron
    belongs to the box if the center of its tile does. A box without any center gives the neuron nearest to its own.

    Args:
        box: as torchvision's boxes, the low corner and then the high one (excluded), the last dimension first:
            `(x0, y0, x1, y1)` in an image, `(t0, t1)` in a signal, `(x0, y0, z0, x1, y1, z1)` in a volume, in pixels of
            the tensor that the model gets.
        input_size: spatial size of the input, `(H, W)`.
        layer_size: spatial size of the layer's activation, `(h, w)`.

    Returns:
        A slice for each spatial dimension of the layer, rows first.

    Raises:
        ValueError: sizes that do not fit together, or a box that is empty or leaves the input.

    Examples::

        >>> box_to_neurons((32, 0, 96, 224), input_size=(224, 224), layer_size=(7, 7))
        (slice(0, 7, None), slice(1, 3, None))
    """
    dims = len(input_size)
    if len(layer_size) != dims or dims == 0:
        raise ValueError(f"layer_size: expected {dims} sizes as input_size has, found {tuple(layer_size)}")
    if any(size < 1 for size in (*input_size, *layer_size)):
        raise ValueError(f"layer_size: expected sizes of at least 1, found {tuple(layer_size)} in {tuple(input_size)}")
    if len(box) != 2 * dims:
        raise ValueError(f"box: expected {2 * dims} numbers for {dims} spatial dimensions, found {tuple(box)}")
    low, high = list(box[:dims])[::-1], list(box[dims:])[::-1]
    for start, stop, size in zip(low, high, input_size, strict=True):
        if not 0 <= start < stop <= size:
            raise ValueError(f"box: expected 0 <= low < high <= size in {tuple(input_size)}, found {tuple(box)}")
    return tuple(map(_tiles_in, low, high, input_size, layer_size))


def _tiles_in(start: float, stop: float, size: int, tiles: int) -> slice:
    tile = size / tiles
    first = int(np.ceil(start / tile - 0.5))
    last = int(np.ceil(stop / tile - 0.5))  # excluded
    if first >= last:
        first = min(int((start + stop) / 2 / tile), tiles - 1)
        last = first + 1
    return slice(first, last)


def random_entries(candidates: Tensor, count: int, generator: Generator | None = None) -> Tensor:
    """At most `count` of each example's candidates, at random: a bool tensor of the same shape `(N, ...)`."""
    flat = candidates.flatten(1)
    device = "cpu" if generator is None else generator.device
    order = torch.rand(flat.shape, generator=generator, device=device).to(flat.device).masked_fill(~flat, -1)
    chosen = torch.zeros_like(flat).scatter(1, order.topk(min(count, flat.shape[1]), dim=1).indices, True)
    return (chosen & flat).reshape(candidates.shape)
