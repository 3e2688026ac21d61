"""Checks of arguments without a model. Each error names the argument, what was expected and what was found."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
import torch
from torch import Generator, Tensor


def check_inputs(inputs: object) -> tuple[Tensor, ...]:
    """The inputs as a tuple of strided, finite tensors with the same number of examples."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors:
        raise ValueError("inputs: expected a tensor or a tuple of tensors, found an empty tuple")
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"inputs: expected a tensor or a tuple of tensors, found {type(x).__name__}")
        if x.layout != torch.strided or x.is_quantized or x.is_meta:
            raise TypeError(f"inputs: expected dense tensors that hold data, found {x.layout}, {x.dtype} on {x.device}")
        if x.dim() == 0:
            raise ValueError("inputs: expected the examples along dimension 0, found a tensor without dimensions")
    sizes = [len(x) for x in tensors]
    if len(set(sizes)) > 1:
        raise ValueError(f"inputs: expected tensors of equally many examples, found {sizes}")
    if sizes[0] == 0 or all(x.numel() == 0 for x in tensors):
        raise ValueError(f"inputs: expected at least one example, found shapes {[tuple(x.shape) for x in tensors]}")
    for index, x in enumerate(tensors):
        if (x.is_floating_point() or x.is_complex()) and not bool(torch.isfinite(x).all()):
            raise ValueError(f"inputs: expected finite values, found NaN or infinity in tensor {index}")
    return tensors


def check_count(argument: str, value: object, least: int = 1) -> int:
    """A whole number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument}: expected an int, found {type(value).__name__} ({value!r})")
    if value < least:
        raise ValueError(f"{argument}: expected at least {least}, found {value}")
    return int(value)


def check_several(argument: str, value: object) -> None:
    """Several values, not one text, which would be taken letter by letter."""
    if isinstance(value, str | bytes):
        raise TypeError(f"{argument}: expected a list or tuple, found the text {value!r}")


def check_positive(argument: str, value: object) -> None:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument}: expected a number, found {type(value).__name__} ({value!r})")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{argument}: expected a finite number above 0, found {value}")


def check_nonnegative(argument: str, value: object) -> None:
    """A finite number, at least 0."""
    if value != 0:
        check_positive(argument, value)


def check_per_input(argument: str, value: object, inputs: tuple[Tensor, ...]) -> tuple[float, ...]:
    """One finite number of at least 0 per input, from one number or a tuple."""
    values = value if isinstance(value, tuple) else (value,) * len(inputs)
    if len(values) != len(inputs):
        raise ValueError(f"{argument}: expected one number or one per input ({len(inputs)}), found {len(values)}")
    for number in values:
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{argument}: expected a number or a tuple of numbers, found {type(number).__name__}")
        if not math.isfinite(number) or number < 0:
            raise ValueError(f"{argument}: expected finite numbers of at least 0, found {number}")
    for number, x in zip(values, inputs, strict=True):
        if number > 0 and not x.is_floating_point():
            raise TypeError(
                f"{argument}: expected 0 for an input of dtype {x.dtype}, which takes no Gaussian noise, found {number}"
            )
    return tuple(float(number) for number in values)  # type: ignore[arg-type]


def check_generator(generator: object) -> None:
    """A `torch.Generator` or None."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, found {type(generator).__name__}")


def check_flag(argument: str, value: object) -> None:
    """A bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{argument}: expected a bool, found {type(value).__name__} ({value!r})")
