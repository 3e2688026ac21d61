"""Assertions of several test files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from networks import ConvNet, images
from reference import relative_error
from torch import Tensor, nn
from torch.nn.modules import module as torch_module


@contextmanager
def left_as_it_was(model: nn.Module, *generators: torch.Generator) -> Iterator[None]:
    """Fails if the block changes the model, the grad mode, a generator or a hook."""

    def state() -> dict[str, Any]:
        return {
            "hooks": [
                (name, list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
                for name, m in model.named_modules()
            ],
            "global hooks": (
                list(torch_module._global_forward_hooks),
                list(torch_module._global_forward_pre_hooks),
            ),
            "training": [m.training for m in model.modules()],
            "requires_grad": [p.requires_grad for p in model.parameters()],
            "grad": [p.grad is None for p in model.parameters()],
            "versions": [t._version for t in (*model.parameters(), *model.buffers())],
            "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            "tensors": [t.detach().clone() for t in (*model.parameters(), *model.buffers())],
            "generators": [torch.get_rng_state(), *(g.get_state() for g in generators)],
            "numpy": np.random.get_state()[1].tolist(),
        }

    before = state()
    try:
        yield
    finally:
        after = state()
        for key in ("tensors", "generators"):
            assert all(torch.equal(a, b) for a, b in zip(before.pop(key), after.pop(key), strict=True)), key
        assert before == after


def refused(
    method: Any,
    error: type[BaseException] | tuple[type[BaseException], ...],
    names: str,
    *,
    model: nn.Module | None = None,
    forward: Callable[..., Any] | None = None,
    layer: nn.Module | None = None,
    inputs: Any = None,
    **arguments: Any,
) -> None:
    """The call raises `error` with a message "names: expected ... found ...", and changes nothing."""
    model = ConvNet() if model is None else model
    layer = model.get_submodule("relu1") if layer is None else layer
    arguments = {"inputs": images() if inputs is None else inputs, "target": 1, **arguments}
    with left_as_it_was(model), pytest.raises(error, match=rf"^{names}: expected .*found"):
        method(forward or model, layer).attribute(**arguments)
    # and the model still can be explained
    if isinstance(model, ConvNet) and layer is model.relu1 and forward is None:
        assert method(model, layer).attribute(images(), 1).shape == (2, 1, 8, 8)


def close(found: Tensor, expected: Tensor, bound: float = 1e-5) -> bool:
    """Equal within a relative error."""
    return relative_error(found.detach(), expected.detach()) <= bound


def alike(found: Tensor, expected: Tensor, bound: float = 1e-4) -> bool:
    """Equal but for a positive factor."""
    return close(found / found.norm(), expected / expected.norm(), bound)


# A call that is refused, and the argument that the error names.
Mistake = tuple[Callable[[], Any], str]


def is_named(mistake: Mistake) -> None:
    """The call raises an error "name: expected ..., found ..."."""
    call, name = mistake
    with pytest.raises((TypeError, ValueError), match=rf"^({name}): expected .*found"):
        call()
