"""How the model is run: by one explanation at a time, and the same way in any context of the caller."""

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

# One explanation at a time in the whole process, so that two never share a model. Other threads may run the model.
_ONE_EXPLANATION = threading.RLock()


def _new_lock() -> None:
    global _ONE_EXPLANATION
    _ONE_EXPLANATION = threading.RLock()


if hasattr(os, "register_at_fork"):  # a thread that holds the lock does not exist in the child
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def exclusive_access() -> Iterator[None]:
    """Context of one explanation: the process's lock, no inference mode, gradients off, and no fast path of attention,
    which computes something else for padded sequences."""
    with ExitStack() as stack:
        stack.enter_context(_ONE_EXPLANATION)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        # Autocast caches casts of weights, made without gradients here. Training must not find them.
        stack.callback(torch.clear_autocast_cache)
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(_inner_modules_of_ddp())
        yield


@contextmanager
def _inner_modules_of_ddp() -> Iterator[None]:
    """On this thread `DistributedDataParallel` only calls the module inside it. Its own forward pass would prepare a
    training step, since gradients are enabled, and wait for the other processes."""
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
    """Compiled models run eagerly in the block, so that hooks are called."""
    with torch.compiler.set_stance("force_eager") if compiler_is_loaded() else nullcontext():
        yield


def compiler_is_loaded() -> bool:
    """Whether models can be compiled at all. Loading the compiler takes a second."""
    return "torch._dynamo" in sys.modules


def usable_for_autograd(value: Any, keep_graph: bool = False) -> Any:
    """`value` detached unless its graph is kept, or cloned if it was made in inference mode, which autograd refuses."""
    if not isinstance(value, Tensor) or (keep_graph and not value.is_inference()):
        return value
    return value.clone() if value.is_inference() else value.detach()
