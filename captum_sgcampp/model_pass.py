"""The one module that meets the model: runs it, takes the layer's activation and gradients, gives it back as it was.

The network in front of the layer runs without a graph. A hook on the layer cuts there: what follows sees a fresh leaf
and builds a graph. Where that cannot work (the layer lies in a `torch.no_grad()` block of the model, in an activation
checkpoint, or in replicas of `DataParallel`), the model runs again with gradients enabled from the start.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_sgcampp.captum_internals import _reduce_list, _sort_key_list

# One explanation at a time in the whole process: two of them never meet on one model. Other threads may run it freely.
_ONE_EXPLANATION = threading.RLock()


@contextmanager
def exclusive_pass() -> Iterator[None]:
    """Room for one explanation: the process's lock, no inference mode, gradients off, compiled models run eagerly."""
    with ExitStack() as stack:
        stack.enter_context(_ONE_EXPLANATION)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # nothing can be compiled before that is imported
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def usable_for_autograd(value: Any) -> Any:
    """`value` detached; a copy of it where it is a tensor made in inference mode, which autograd refuses."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.is_inference() else value.detach()


class LayerPass:
    """Runs `forward_func` and observes `layer`. One object serves one call of `attribute`.

    Args:
        forward_func: model or function, called with the inputs and then the additional arguments.
        layer: the module to observe.
        device_ids: order of the devices of a `DataParallel` model.
        attribute_to_layer_input: observe the layer's inputs, not its output.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        device_ids: list[int] | None = None,
        attribute_to_layer_input: bool = False,
    ) -> None:
        self._forward_func = forward_func
        self._layer = layer
        self._device_ids = device_ids or getattr(forward_func, "device_ids", None)
        self._to_input = attribute_to_layer_input
        # DataParallel gathers its replicas' outputs on this thread, where gradients must be enabled for that.
        self._graph_in_front = isinstance(forward_func, nn.DataParallel)
        self._first = True

    @contextmanager
    def run(
        self, rows: tuple[Tensor, ...], additional_args: tuple[Any, ...], *, keep_activations: bool
    ) -> Iterator[LayerRun]:
        """One pass. Gradients are enabled in the block, and the hook stays until it ends: checkpoints run the layer
        again while they are differentiated.

        Args:
            rows: the inputs, one row per noisy copy.
            additional_args: the arguments behind them.
            keep_activations: whether the layer's values are asked for as well as its gradients.
        """
        with torch.set_grad_enabled(False):
            recorder = _LayerRecorder(self._layer, self._to_input, keep_activations)
            with recorder:
                output = self._call(rows, additional_args)
                if recorder.needs_graph_in_front() and not self._graph_in_front:
                    self._graph_in_front = True
                    recorder.reset()
                    output = self._call(rows, additional_args)
                recorder.check()
                torch.set_grad_enabled(True)
                yield LayerRun(output, recorder, self._device_ids)

    def _call(self, rows: tuple[Tensor, ...], additional_args: tuple[Any, ...]) -> Any:
        torch.set_grad_enabled(self._graph_in_front)
        with _refuse_training_layers() if self._first else nullcontext():
            output = self._forward_func(*rows, *additional_args)
        self._first = False
        return output


class LayerRun:
    """One forward pass: the model's output and the layer's tensors, with the graph between them.

    Attributes:
        output: what the model returned.
    """

    def __init__(self, output: Any, recorder: _LayerRecorder, device_ids: list[int] | None) -> None:
        self.output = output
        self._recorder = recorder
        self._devices = _sort_key_list(list(recorder.leaves), device_ids)

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """The layer's tensors as they were when it was reached: `(rows, K, *space)` each, detached."""
        result: tuple[Tensor, ...] = _reduce_list([self._recorder.activations[device] for device in self._devices])
        return result

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the layer's tensors, rows of all devices together."""
        rows = sum(len(self._recorder.leaves[device][0]) for device in self._devices)
        return [(rows, *leaf.shape[1:]) for leaf in self._recorder.leaves[self._devices[0]]]

    def gradient(self, score: Tensor, *, keep_graph: bool = False, unused_is_zero: bool = False) -> tuple[Tensor, ...]:
        """`g = dS/dA` for every row: tensors of the shapes `shapes`.

        Args:
            score: `S`, `(rows,)`.
            keep_graph: whether another gradient of the same pass follows.
            unused_is_zero: whether a layer that the score does not depend on has the gradient 0, or raises.
        """
        if not score.requires_grad:
            raise RuntimeError(
                "forward_func: expected an output that depends differentiably on layer, found one without a graph "
                "(detached, made in inference mode, or not computed from the layer)"
            )
        leaves = [leaf for device in self._devices for leaf in self._recorder.leaves[device]]
        with self._recorder.differentiating():
            gradients = _grad(score, leaves, keep_graph)
        if not unused_is_zero and any(g is None for g in gradients):
            raise RuntimeError(
                "layer: expected a layer that the score depends on, found no path from it to the score (its output is "
                "unused or detached); grad_kwargs={'materialize_grads': True} takes its gradient as zero"
            )
        filled = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
        tensors = len(filled) // len(self._devices)
        by_device = [tuple(filled[start : start + tensors]) for start in range(0, len(filled), tensors)]
        result: tuple[Tensor, ...] = _reduce_list(by_device)
        return result


def _grad(score: Tensor, leaves: list[Tensor], keep_graph: bool) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(score, leaves, torch.ones_like(score), retain_graph=keep_graph, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant=True" in str(error):
            raise _reentrant_checkpoint() from error
        raise


class _LayerRecorder:
    """The hook on the layer: cuts the graph there and keeps what passes. A context manager around the model's pass."""

    def __init__(self, layer: nn.Module, to_input: bool, keep_activations: bool) -> None:
        self._layer = layer
        self._to_input = to_input
        self._keep_activations = keep_activations
        self._thread = threading.get_ident()
        self._differentiating = False
        self.reset()

    def reset(self) -> None:
        """Forget the last pass."""
        self.leaves: dict[torch.device, tuple[Tensor, ...]] = {}
        self.activations: dict[torch.device, tuple[Tensor, ...]] = {}
        self._problem: Exception | None = None
        self._in_checkpoint = False

    def __enter__(self) -> None:
        if self._to_input:
            self._handle = self._layer.register_forward_pre_hook(self._before)
        else:
            self._handle = self._layer.register_forward_hook(self._after)

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """While gradients are computed, the hook only serves checkpoints that run the layer again."""
        self._differentiating = True
        try:
            yield
        finally:
            self._differentiating = False

    def needs_graph_in_front(self) -> bool:
        """Whether the cut failed: a checkpoint will run the layer again, or a block that turned gradients off (a
        `no_grad` of the model, a replica's thread) ended behind the layer and what follows has built no graph."""
        return bool(self.leaves) and (self._in_checkpoint or not torch.is_grad_enabled())

    def check(self) -> None:
        """Raise what the hook found."""
        if self._problem is not None:
            raise self._problem
        if not self.leaves:
            raise RuntimeError(
                "layer: expected a module that forward_func calls, found one that it never reached: "
                f"{type(self._layer).__name__}"
            )

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        places = [place for place, value in enumerate(args) if isinstance(value, Tensor)]
        if not places and self._is_ours(module):
            self._problem = TypeError("layer: expected a layer called with positional tensors, found none")
        cut = self._visit(module, tuple(args[place] for place in places)) if places else None
        if cut is None:
            return None
        changed = list(args)
        for place, value in zip(places, cut, strict=True):
            changed[place] = value
        return tuple(changed)

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            cut = self._visit(module, (output,))
            return None if cut is None else cut[0]
        if isinstance(output, tuple | list) and output and all(isinstance(value, Tensor) for value in output):
            cut = self._visit(module, tuple(output))
            return None if cut is None else _rebuild(output, cut)
        if self._is_ours(module):
            self._problem = TypeError(
                "layer: expected a layer that returns a tensor or a tuple of tensors, found "
                f"{_describe(output)} from {type(module).__name__}; choose a module inside it or behind it"
            )
        return None

    def _is_ours(self, module: nn.Module) -> bool:
        # Replicas of DataParallel run in threads of their own; any other thread is somebody else's business.
        return threading.get_ident() == self._thread or getattr(module, "_is_replica", False)

    def _visit(self, module: nn.Module, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The tensors to go on with, or None for those that passed."""
        if self._differentiating:
            return _cut(tensors)[1] if "unpack_hook" in _checkpoint_frames() else None
        if not self._is_ours(module) or self._problem is not None:
            return None
        device = tensors[0].device
        self._problem = self._refusal(module, tensors, device)
        if self._problem is not None:
            return None
        torch.set_grad_enabled(True)
        leaves, passed = _cut(tensors)
        self.leaves[device] = leaves
        if self._keep_activations:
            # A copy: the model may change the tensor in place through another name.
            self.activations[device] = tuple(tensor.detach().clone() for tensor in tensors)
        return passed

    def _refusal(self, module: nn.Module, tensors: tuple[Tensor, ...], device: torch.device) -> Exception | None:
        frames = _checkpoint_frames()
        self._in_checkpoint = self._in_checkpoint or bool(frames)
        if "forward" in frames:
            return _reentrant_checkpoint()
        if device in self.leaves:
            return RuntimeError(
                f"layer: expected a module that forward_func calls once, found a second call of {type(module).__name__}"
                "; use one module object per call, or explain another layer"
            )
        if any(tensor.is_inference() for tensor in tensors):
            return RuntimeError("forward_func: expected a model without torch.inference_mode, found the layer in it")
        unfit = [tensor.dtype for tensor in tensors if not tensor.is_floating_point() or tensor.is_quantized]
        if unfit:
            return TypeError(f"layer: expected real floating-point tensors, found {unfit[0]}, which has no gradient")
        return None


def _cut(tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """New leaves for the tensors, and copies of the leaves to go on with: what follows may work in place."""
    leaves = tuple(tensor.detach().requires_grad_() for tensor in tensors)
    return leaves, tuple(leaf.clone() for leaf in leaves)


def _rebuild(output: Any, tensors: tuple[Tensor, ...]) -> Any:
    """The tensors in the container that the layer returned: tuple, named tuple, list or torch's own result types."""
    return type(output)(*tensors) if hasattr(output, "_fields") else type(output)(tensors)


def _describe(output: object) -> str:
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {', '.join(type(value).__name__ for value in output) or 'nothing'}"
    return type(output).__name__


def _checkpoint_frames() -> set[str]:
    """Names of torch's activation-checkpoint functions that the current call runs in: `checkpoint` (either kind),
    `forward` (the reentrant kind), `unpack_hook` (the layer runs again during differentiation)."""
    names = set()
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            names.add(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return names


def _reentrant_checkpoint() -> RuntimeError:
    return RuntimeError(
        "forward_func: expected activation checkpoints with use_reentrant=False, found use_reentrant=True, which "
        "gives no gradient with respect to a layer"
    )


@contextmanager
def _refuse_training_layers() -> Iterator[None]:
    """Stop at the first module that would make a row depend on other rows or on the global generator."""
    thread = threading.get_ident()

    def check(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == thread and (reason := _batch_dependence(module)):
            raise RuntimeError(
                f"forward_func: expected a model in evaluation mode, found {type(module).__name__} {reason}; "
                "call model.eval() first"
            )

    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # compiled modules warn of every global hook, whatever it does
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
        stack.enter_context(register_module_forward_pre_hook(check))
        yield


def _batch_dependence(module: nn.Module) -> str | None:
    if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
        return "with the statistics of the batch"
    if isinstance(module, _InstanceNorm) and module.training and module.track_running_stats:
        return "that updates its running statistics"
    if module.training and (_dropout_probability(module) > 0 or isinstance(module, nn.RReLU)):
        return "in training mode"
    return None


def _dropout_probability(module: nn.Module) -> float:
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout
    if isinstance(module, _DropoutNd) or type(module).__name__ in ("StochasticDepth", "DropPath"):
        return float(getattr(module, "p", 0) or getattr(module, "drop_prob", 0) or 0)
    return 0
