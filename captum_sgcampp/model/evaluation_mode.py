"""Refuses modules whose output for one row depends on the other rows or on the global random generator."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_sgcampp.model.model_access import compiler_is_loaded


@contextmanager
def training_layers_refused(called: list[nn.Module]) -> Iterator[None]:
    """Stop at the first module that would make a row depend on other rows or on the global generator.

    Args:
        called: gets every module that is called in the block, on this thread.
    """
    thread = threading.get_ident()

    def check(module: nn.Module, args: Any) -> None:
        if threading.get_ident() != thread:
            return
        called.append(module)
        if reason := batch_dependence(module):
            raise RuntimeError(
                f"forward_func: expected a model in evaluation mode, found {type(module).__name__} {reason}"
            )

    with ExitStack() as stack:
        if compiler_is_loaded():  # compiled modules warn of every global hook
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
        stack.enter_context(register_module_forward_pre_hook(check))
        yield


def batch_dependence(module: nn.Module) -> str | None:
    """Why the rows of this module's output depend on each other or on chance. None where they do not."""
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return "without running statistics (track_running_stats=False), whose rows depend on each other in any mode"
    if not module.training:
        return None
    if isinstance(module, _BatchNorm) or (isinstance(module, _InstanceNorm) and module.track_running_stats):
        return "with the statistics of the batch; call model.eval() first"
    if _dropout_probability(module) > 0 or isinstance(module, nn.RReLU):
        return "in training mode; call model.eval() first"
    return None


def _dropout_probability(module: nn.Module) -> float:
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout
    if isinstance(module, _DropoutNd) or type(module).__name__ in ("StochasticDepth", "DropPath"):
        return float(getattr(module, "p", 0) or getattr(module, "drop_prob", 0) or 0)
    return 0
