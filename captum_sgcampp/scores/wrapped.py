"""What the wrappers share: a module around the model, shared and per-example tensors, checks of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Wrapped(nn.Module):
    """A module around the model, whose layers and parameters it shares."""

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model: expected a module or a function, found {type(model).__name__}")
        self.model = model

    def hold(self, name: str, value: Tensor | None) -> None:
        """Keep a tensor that all examples share; it moves with the module and is not part of its state."""
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor or None, found {type(value).__name__}")
        self.register_buffer(name, None if value is None else value.detach(), persistent=False)

    def split(self, name: str, held: Tensor | None, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], Tensor]:
        """The model's arguments, and the tensor that is held or comes last, per example."""
        if held is not None:
            return arguments, held
        if len(arguments) < 2 or not isinstance(arguments[-1], Tensor):
            raise ValueError(
                f"additional_forward_args: expected {name} of each example as the last tensor, found none; give one "
                f"that all examples share to the constructor of {type(self).__name__}"
            )
        return arguments[:-1], arguments[-1]


def is_int(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def checked_output(output: Any, dims: int, form: str) -> Tensor:
    """The model's output, once it is known to be a tensor of the right form: `dims` dimensions, or at least 1 or 3."""
    fits = isinstance(output, Tensor) and (output.dim() == dims or (dims != 2 and output.dim() > dims))
    if not fits:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model: expected an output of shape {form}, found {found}; see OutputEntry for others")
    return output  # type: ignore[no-any-return]
