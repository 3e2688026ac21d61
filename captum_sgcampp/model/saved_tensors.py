"""A graph without saved tensors for the network before the layer. Its nodes know every view and every use of the
layer's tensor. What they would save is dropped, because no gradient goes further than the layer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class RunAgain(Exception):
    """A gradient could not be taken, so the pass must run again in another way: see `ForwardPass.adapt_to`."""


class SavedTensorsDropped(RunAgain):
    """A gradient goes through the network before the layer."""


class ChangedInPlace(RunAgain):
    """The model changed the layer's tensor in place after an operation had saved it. It will get a clone."""


class DropSavedTensors:
    """Drops what autograd saves in its block, on this thread, until `end`."""

    def __init__(self) -> None:
        self._hooks = ExitStack()
        self._is_active = self._is_asked = False

    def __enter__(self) -> DropSavedTensors:
        self._hooks.enter_context(saved_tensors_hooks(self._drop, _refuse))
        self._is_active = True
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._is_active = False
        self._hooks.close()

    def end(self) -> bool:
        """Save as usual from here on. False where that is impossible: other hooks on saved tensors are on top (of an
        activation checkpoint, or `save_on_cpu`), and would be removed instead."""
        if not self._is_active:
            return True
        self._is_asked = False
        with torch.enable_grad():
            torch.ones((), requires_grad=True).exp()  # saves its result: is this hook called?
        if self._is_asked:
            self.__exit__()
        return self._is_asked

    @contextmanager
    def in_place_modules(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """In-place ReLU6, SiLU and the like work in place in the block, as without gradients. By itself autograd copies
        their input first, for the backward pass."""
        patched = [m for m in modules if type(m) in _COPY_THEIR_INPUT and m.inplace and "forward" not in vars(m)]
        for module in patched:
            module.__dict__["forward"] = partial(self._forward, module, threading.get_ident())
        try:
            yield
        finally:
            for module in patched:
                del module.__dict__["forward"]

    def _forward(self, module: nn.Module, thread: int, input: Tensor) -> Any:
        own = partial(type(module).forward, module)
        drops = self._is_active and threading.get_ident() == thread
        has_graph = torch.is_grad_enabled() and isinstance(input, Tensor) and input.requires_grad
        return _InPlace.apply(input, own) if drops and has_graph else own(input)

    def _drop(self, tensor: Tensor) -> None:
        self._is_asked = True


class _InPlace(torch.autograd.Function):
    """An operation that changes its input, and keeps nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:  # type: ignore[override]
        ctx.mark_dirty(x)
        return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise SavedTensorsDropped


# Modules whose in-place operation has a derivative that needs the input.
_COPY_THEIR_INPUT = (nn.Hardtanh, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Mish, nn.Hardsigmoid)


def _refuse(nothing: None) -> Any:
    raise SavedTensorsDropped


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Counts the bytes that autograd keeps for the backward pass in the block, without parameters."""
    total, seen = [0], set()

    def count(kept: Tensor) -> Tensor:
        base = kept if kept._base is None else kept._base
        if not isinstance(base, nn.Parameter) and base.data_ptr() not in seen:
            seen.add(base.data_ptr())
            total[0] += base.numel() * base.element_size()
        return kept.detach()

    with saved_tensors_hooks(count, lambda kept: kept):
        yield total
