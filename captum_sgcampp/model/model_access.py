"""How the model is run: by one explanation at a time, and in the same way whatever the caller's surroundings."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

# One explanation at a time in the whole process: two of them never meet on one model. Other threads may run it freely.
_ONE_EXPLANATION = threading.RLock()


def _new_lock() -> None:
    global _ONE_EXPLANATION
    _ONE_EXPLANATION = threading.RLock()


if hasattr(os, "register_at_fork"):  # a thread of the parent may hold the lock, and does not exist in the child
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def exclusive_access() -> Iterator[None]:
    """Room for one explanation: the process's lock, no inference mode, gradients off, and attention as with gradients
    (its fast path computes something else for padded sequences)."""
    with ExitStack() as stack:
        stack.enter_context(_ONE_EXPLANATION)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        # Casts of weights that autocast keeps were made without gradients here; training must not find them.
        stack.callback(torch.clear_autocast_cache)
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(_inner_modules_of_ddp())
        yield


@contextmanager
def _inner_modules_of_ddp() -> Iterator[None]:
    """`DistributedDataParallel` calls the module inside it, and nothing else, on this thread. Its own forward pass
    prepares a training step as soon as gradients are enabled, and waits for the other processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        yield
        return
    ddp, thread = nn.parallel.DistributedDataParallel, threading.get_ident()
    forward: Callable[..., Any] = ddp.forward

    def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return forward(self, *args, **kwargs)
        return self.module(*args, **kwargs)

    ddp.forward = inner  # type: ignore[method-assign]
    try:
        yield
    finally:
        ddp.forward = forward  # type: ignore[method-assign]


@contextmanager
def eager_models() -> Iterator[None]:
    """Compiled models run eagerly in the block: hooks are called."""
    with torch.compiler.set_stance("force_eager") if compiler_is_loaded() else nullcontext():
        yield


def compiler_is_loaded() -> bool:
    """Nothing can be compiled before; loading it takes a second, so it is not done in vain."""
    return "torch._dynamo" in sys.modules


def usable_for_autograd(value: Any, keep_graph: bool = False) -> Any:
    """`value` detached, if its graph is not to be kept; a copy of it where it is a tensor made in inference mode, which
    autograd refuses."""
    if not isinstance(value, Tensor) or (keep_graph and not value.is_inference()):
        return value
    return value.clone() if value.is_inference() else value.detach()
