"""What happens at the layer: the gradient edges of its tensors, and their values at the clean rows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple
from weakref import ref

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle


class LayerTensor(NamedTuple):
    """One tensor of the layer.

    Attributes:
        edge: its gradient edge, with respect to which gradients are taken.
        passed: what the model goes on with.
    """

    edge: GradientEdge
    passed: Tensor

    def zeros(self) -> Tensor:
        """The gradient of a score that does not depend on it."""
        return torch.zeros_like(self.passed, requires_grad=False)


class LayerHook:
    """Watches one layer during one pass of the model.

    Args:
        layer: the module.
        to_input: watch the layer's input, not its output.
        clean_every: keep the tensors' values at rows 0, clean_every, 2 clean_every, ... 0: keep none.
        replicas: whether replicas of the layer run in other threads (`DataParallel`).
        rows_at_layer: repeat the single row that the layer returned so many times. 0: do not.
        keep_graph: whether the values kept are part of the graph.
        copy: whether the model goes on with a clone in any case.
        reached: called when the layer is reached. Returns whether autograd saves tensors as usual from there on.
    """

    def __init__(
        self,
        layer: nn.Module,
        to_input: bool = False,
        clean_every: int = 0,
        replicas: bool = False,
        rows_at_layer: int = 0,
        keep_graph: bool = False,
        copy: bool = False,
        reached: Callable[[], bool] = lambda: True,
    ) -> None:
        self._layer, self._to_input, self._replicas = layer, to_input, replicas
        self._clean_every, self._rows_at_layer, self._keep_graph = clean_every, rows_at_layer, keep_graph
        self.copy, self._reached = copy, reached
        self._thread = threading.get_ident()
        self._differentiating = False
        self._seen: list[ref[Tensor]] = []
        self.reset()

    def reset(self) -> None:
        """Forget the last pass."""
        self._detach_seen()
        self.tensors: dict[torch.device, tuple[LayerTensor, ...]] = {}
        self.activations: dict[torch.device, tuple[Tensor, ...]] = {}
        self.not_widened: list[GradientEdge] = []  # the single row's edge, besides the widened rows'
        self.saves_as_usual = True
        self._start = next_node_number()
        self.lacks_graph = False  # whether a tensor came without a graph, though the model did not turn gradients off
        self._problem: Exception | None = None

    @contextmanager
    def registered(self) -> Iterator[None]:
        """The hook on the layer. Afterwards the layer's tensors are detached: the model may keep them."""
        try:
            with self._register():
                yield
        finally:
            self._detach_seen()

    def _detach_seen(self) -> None:
        for tensor in (reference() for reference in self._seen):
            if tensor is not None and not self._keep_graph:
                tensor.requires_grad_(False) if tensor.is_leaf else tensor.detach_()
        self._seen = []

    def _register(self) -> RemovableHandle:
        if self._to_input:
            return self._layer.register_forward_pre_hook(self._before)
        return self._layer.register_forward_hook(self._after)

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """While gradients are taken, the hook only serves checkpoints that run the layer again."""
        self._differentiating = True
        try:
            yield
        finally:
            self._differentiating = False

    def is_reached(self) -> bool:
        """Whether the layer was reached, without a problem."""
        return bool(self.tensors) and self._problem is None

    def check(self) -> None:
        """Raise the problem that the hook found."""
        problem, self._problem = self._problem, None
        try:
            if problem is not None:
                raise problem
        finally:
            del problem  # the exception's traceback leads here: no cycle
        if not self.tensors:
            raise RuntimeError(
                "layer: expected a module that forward_func calls, found one that it never reached: "
                f"{type(self._layer).__name__}"
            )

    def visit(self, tensor: Tensor) -> Tensor:
        """What the hook does with the layer's output, for compiled models."""
        passed = self._visit(self._layer, (tensor,))
        return tensor if passed is None else passed[0]

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        places = [place for place, value in enumerate(args) if isinstance(value, Tensor)]
        if not places and self._is_ours(module):
            self._problem = TypeError("layer: expected a layer called with positional tensors, found none")
        passed = self._visit(module, tuple(args[place] for place in places)) if places else None
        if passed is None:
            return None
        changed = list(args)
        for place, value in zip(places, passed, strict=True):
            changed[place] = value
        return tuple(changed)

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            passed = self._visit(module, (output,))
            return None if passed is None else passed[0]
        if isinstance(output, tuple | list) and output and all(isinstance(value, Tensor) for value in output):
            passed = self._visit(module, tuple(output))
            return None if passed is None else _rebuild(output, passed)
        if self._is_ours(module):
            self._problem = TypeError(
                "layer: expected a layer that returns a tensor or a tuple of tensors, found "
                f"{_describe(output)} from {type(module).__name__}; choose a module inside it or after it"
            )
        return None

    def _is_ours(self, module: nn.Module) -> bool:
        # DataParallel runs replicas in its own threads. Calls on other threads are not part of this explanation.
        return threading.get_ident() == self._thread or (self._replicas and getattr(module, "_is_replica", False))

    def _visit(self, module: nn.Module, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The tensors to go on with. None: those that came."""
        if self._differentiating:
            again = "unpack_hook" in _checkpoint_frames()[0]
            return tuple(_enter(tensor, self.copy).passed for tensor in tensors) if again else None
        if not self._is_ours(module) or self._problem is not None:
            return None
        device = tensors[0].device
        self._problem = _refusal(module, tensors, is_second_call=device in self.tensors)
        if self._problem is not None:
            return None
        if self._clean_every:
            # Cloned: the model may change the tensor in place.
            seen = tensors if self._keep_graph else [tensor.detach() for tensor in tensors]
            self.activations[device] = tuple(tensor[:: self._clean_every].clone() for tensor in seen)
        self.saves_as_usual = self._reached()
        self.lacks_graph = torch.is_grad_enabled() and not all(tensor.requires_grad for tensor in tensors)
        self._seen += [ref(tensor) for tensor in tensors if is_of_pass(tensor, self._start) and not tensor._is_view()]
        torch.set_grad_enabled(True)  # for the rest of a `torch.no_grad()` block of the model
        self.tensors[device] = tuple(_enter(tensor, self.copy) for tensor in tensors)
        if self._rows_at_layer and len(tensors) == 1:
            self.not_widened = [self.tensors[device][0].edge]
            self.tensors[device] = (_widened(tensors[0], self._rows_at_layer),)
        return tuple(tensor.passed for tensor in self.tensors[device])


def _refusal(module: nn.Module, tensors: tuple[Tensor, ...], is_second_call: bool) -> Exception | None:
    if _checkpoint_frames()[1]:
        return reentrant_checkpoint()
    if is_second_call:
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


def _enter(tensor: Tensor, copy: bool) -> LayerTensor:
    """As in Captum, gradients are taken with respect to `tensor` itself. The model goes on with a clone of a leaf,
    which it could not change in place, and of a view, which would lose its edge by that."""
    copy = copy or tensor._is_view() or not tensor.requires_grad
    if not tensor.requires_grad:
        tensor.requires_grad_()
    edge = get_gradient_edge(tensor)
    return LayerTensor(edge, tensor.clone() if copy else tensor)


def _widened(tensor: Tensor, rows: int) -> LayerTensor:
    """`rows` identical rows instead of one. Each can be varied on its own."""
    leaf = tensor.detach().repeat(rows, *(1,) * (tensor.dim() - 1)).requires_grad_()
    return LayerTensor(get_gradient_edge(leaf), leaf.clone())


def next_node_number() -> int:
    """A number that nodes of the graph made from now on, on this thread, do not fall below."""
    with torch.enable_grad():
        node = torch.ones((), requires_grad=True).exp().grad_fn
    assert node is not None
    return int(node._sequence_nr())


def is_of_pass(tensor: Tensor, start: int) -> bool:
    """Whether a tensor got its graph, if it has one, after `start` (see `next_node_number`), and is no parameter."""
    if tensor.is_leaf:
        return not tensor.requires_grad
    assert tensor.grad_fn is not None
    return int(tensor.grad_fn._sequence_nr()) >= start


def _rebuild(output: Any, tensors: tuple[Tensor, ...]) -> Any:
    """The tensors in the container that the layer returned: tuple, named tuple, list or torch's own result types."""
    return type(output)(*tensors) if hasattr(output, "_fields") else type(output)(tensors)


def _describe(output: object) -> str:
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {', '.join(type(value).__name__ for value in output) or 'nothing'}"
    return type(output).__name__


def _checkpoint_frames() -> tuple[set[str], bool]:
    """Names of torch's checkpoint functions on the stack (`unpack_hook`: the layer runs again during differentiation),
    and whether a reentrant checkpoint is among them."""
    names, reentrant = set(), False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            names.add(frame.f_code.co_name)
            reentrant = reentrant or frame.f_code is torch.utils.checkpoint.CheckpointFunction.forward.__code__
        frame = frame.f_back
    return names, reentrant


def reentrant_checkpoint() -> RuntimeError:
    """The refusal of a reentrant checkpoint, which hides the layer from autograd."""
    return RuntimeError(
        "forward_func: expected activation checkpoints with use_reentrant=False, found use_reentrant=True, which "
        "gives no gradient with respect to a layer"
    )
