"""The one module that meets the model: runs it, takes the layer's activation and gradients, gives it back as it was.

The network in front of the layer runs without a graph. A hook on the layer cuts there: its output becomes the child of
a fresh leaf, in place, so that everybody who holds it sees the graph that what follows builds. Where that cannot work
(the layer lies in a `torch.no_grad()` block of the model, in an activation checkpoint or in replicas of `DataParallel`;
or its inputs are explained, which others may have used before), the model runs with gradients enabled from the start.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from captum_sgcampp.captum_internals import _reduce_list, _sort_key_list
from captum_sgcampp.graph import Graph
from captum_sgcampp.tokens import ReshapeTransform, check_channels_first, check_rearrangement

if TYPE_CHECKING:  # it loads the compiler
    from captum_sgcampp.compiled import SplitModel

# Gradients of several scores are taken together up to this size; the head needs some times as much beside them.
LARGEST_GRADIENTS_BYTES = 32 * 2**20

# One explanation at a time in the whole process: two of them never meet on one model. Other threads may run it freely.
_ONE_EXPLANATION = threading.RLock()


def _new_lock() -> None:
    global _ONE_EXPLANATION
    _ONE_EXPLANATION = threading.RLock()


if hasattr(os, "register_at_fork"):  # a thread of the parent may hold the lock, and does not exist in the child
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def exclusive_pass() -> Iterator[None]:
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
        yield


@contextmanager
def eager_models() -> Iterator[None]:
    """Compiled models run eagerly in the block: hooks are called."""
    with torch.compiler.set_stance("force_eager") if _compiler_is_loaded() else nullcontext():
        yield


def _compiler_is_loaded() -> bool:
    """Nothing can be compiled before; loading it takes a second, so it is not done in vain."""
    return "torch._dynamo" in sys.modules


def usable_for_autograd(value: Any, keep_graph: bool = False) -> Any:
    """`value` detached, if its graph is not to be kept; a copy of it where it is a tensor made in inference mode, which
    autograd refuses."""
    if not isinstance(value, Tensor) or (keep_graph and not value.is_inference()):
        return value
    return value.clone() if value.is_inference() else value.detach()


class LayerPass:
    """Runs `forward_func` and observes `layers`. One object serves one call of `attribute`.

    Args:
        forward_func: model or function, called with the inputs and then the additional arguments.
        layers: the modules to observe.
        device_ids: order of the devices of a `DataParallel` model.
        attribute_to_layer_input: observe the layer's inputs, not its output.
        reshape_transform: from the layer's tensors to `(rows, K, *space)`; None where they have that form.
        keep_graph: keep the whole graph of the model, for maps that are to be differentiated.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layers: Sequence[nn.Module],
        device_ids: list[int] | None = None,
        attribute_to_layer_input: bool = False,
        reshape_transform: ReshapeTransform | None = None,
        keep_graph: bool = False,
    ) -> None:
        self._forward_func = forward_func
        self._layers = layers
        self._device_ids = device_ids or getattr(forward_func, "device_ids", None)
        self._to_input = attribute_to_layer_input
        self._replicas = isinstance(forward_func, nn.DataParallel) or device_ids is not None
        # The layer's inputs may have other uses in front of the hook. DataParallel gathers its replicas' outputs on
        # this thread, where gradients must be enabled for that. Backward hooks want gradients of the layer's inputs.
        self._keep_graph = keep_graph
        self._graph_in_front = (
            keep_graph or attribute_to_layer_input or self._replicas or any(layer._backward_hooks for layer in layers)
        )
        # Other uses of the layer's inputs would go around a copy in another memory format.
        self._own_layout = self._replicas or attribute_to_layer_input or keep_graph
        self._convolution: nn.Module | None = None  # the first one of a pass
        self._first = True
        self._reshape = reshape_transform

    def of_each_layer(self) -> list[LayerPass]:
        """A pass for each of the layers alone."""
        return [
            LayerPass(self._forward_func, [layer], self._device_ids, self._to_input, self._reshape)
            for layer in self._layers
        ]

    @property
    def has_replicas(self) -> bool:
        """Whether the model runs on several devices (`DataParallel`)."""
        return self._replicas

    @property
    def can_widen(self) -> bool:
        """Whether one row in front of the layer can be widened to several identical ones at the layer."""
        return not self._graph_in_front

    @contextmanager
    def run(
        self,
        make_rows: Callable[[], tuple[Tensor, ...]],
        additional_args: tuple[Any, ...],
        clean_every: int,
        rows_at_layer: int = 0,
        eager: bool = True,
    ) -> Iterator[LayerRun]:
        """One pass. Gradients are enabled in the block, and the hook stays until it ends: checkpoints run the layer
        again while they are differentiated.

        Args:
            make_rows: makes the inputs, one row per noisy copy, in memory that the model may change.
            additional_args: the arguments behind them.
            clean_every: keep the layer's values at rows 0, clean_every, 2 clean_every, ...; 0: keep none.
            rows_at_layer: the model gets one row, and goes on behind the layer with this many identical ones; 0: no.
            eager: run compiled models eagerly: the graph is looked at, or differentiated more than once.
        """
        first = self._first
        recorders = [
            _LayerRecorder(layer, self._to_input, clean_every, self._replicas, rows_at_layer, self._keep_graph)
            for layer in self._layers
        ]
        with torch.set_grad_enabled(False), ExitStack() as stack:
            for recorder in recorders:
                stack.enter_context(recorder)
            output = self._output(recorders, make_rows, additional_args, eager, stack)
            for recorder in recorders:
                recorder.check()
            if first:
                self._check_layout(recorders)
            torch.set_grad_enabled(True)
            in_pieces = not eager and self._split is not None
            yield LayerRun(output, recorders, self._device_ids, self._reshape, self._has_backward_hooks, in_pieces)

    def _has_backward_hooks(self) -> bool:
        model = self._forward_func
        modules = model.modules() if isinstance(model, nn.Module) else self._layers
        return any(module._backward_hooks or module._backward_pre_hooks for module in modules)

    def _check_layout(self, recorders: Sequence[_LayerRecorder]) -> None:
        for layer, recorder in zip(self._layers, recorders, strict=True):
            for cut in next(iter(recorder.leaves.values())):
                if self._reshape is None:
                    check_channels_first(self._forward_func, layer, cut.like.shape)
                else:
                    check_rearrangement(self._reshape, cut.like.shape)

    def _output(
        self,
        recorders: Sequence[_LayerRecorder],
        make_rows: Callable[[], tuple[Tensor, ...]],
        additional_args: tuple[Any, ...],
        eager: bool,
        stack: ExitStack,
    ) -> Any:
        """The model's output. Hooks, where they are needed, stay until the stack is closed."""
        split, reason = None if eager else self._split, ""
        if split is not None:
            try:
                output = split(make_rows(), additional_args, [recorder.visit for recorder in recorders])
                has_graph = getattr(output, "requires_grad", True)
                if has_graph and all(r.is_reached() and not r.needs_graph_in_front() for r in recorders):
                    self._first = False
                    return output
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of the model, which will raise it again, or of the compiler
                reason = _reason(error)
            self._split = None
            for recorder in recorders:
                recorder.reset()
        stack.enter_context(eager_models())
        for recorder in recorders:
            stack.enter_context(recorder.hooked())
        output = self._until_it_runs(recorders, make_rows, additional_args)
        if split is not None and all(recorder.is_reached() for recorder in recorders):
            split.is_hopeless = "stance" not in reason  # one that forbids to compile may not last
            warnings.warn(
                f"forward_func: expected a compiled model that can be cut at layer, found one that cannot{reason}; it "
                "runs eagerly",
                stacklevel=9,
            )
        return output

    @cached_property
    def _split(self) -> SplitModel | None:
        """The compiled model in pieces, where that can do what hooks do."""
        model = self._forward_func
        if self._graph_in_front or not isinstance(model, nn.Module) or not _compiler_is_loaded():
            return None
        from captum_sgcampp.compiled import split_model

        split = split_model(model, self._layers)
        if split is None:
            return None
        # What depends on the batch is refused where it is called.
        unfit = (m._backward_hooks or m._backward_pre_hooks or _batch_dependence(m) for m in model.modules())
        return None if any(unfit) else split

    def _until_it_runs(
        self,
        recorders: Sequence[_LayerRecorder],
        make_rows: Callable[[], tuple[Tensor, ...]],
        additional_args: tuple[Any, ...],
    ) -> Any:
        """The model's output: from a pass in the fast way, or from one that makes less assumptions of the model."""
        while True:
            try:
                output = self._call(make_rows, additional_args)
            except (RuntimeError, ValueError, AssertionError) as error:
                if not self._give_way(error):
                    raise
            else:
                if self._graph_in_front or not any(recorder.needs_graph_in_front() for recorder in recorders):
                    return output
                self._graph_in_front = True
            for recorder in recorders:
                recorder.reset()

    def _give_way(self, error: Exception) -> bool:
        """Drop an assumption of the pass that may have caused the error; False where none is left."""
        if not self._graph_in_front and "does not require grad" in str(error):
            self._graph_in_front = True  # a model that differentiates in front of the layer
        elif not self._own_layout and _is_about_memory_format(error):
            self._own_layout = True
        else:
            return False
        return True

    def _call(self, make_rows: Callable[[], tuple[Tensor, ...]], additional_args: tuple[Any, ...]) -> Any:
        torch.set_grad_enabled(self._keep_graph)
        rows = make_rows()
        torch.set_grad_enabled(self._graph_in_front)
        if self._graph_in_front and self._to_input:
            # Frozen models too need a graph; a clone, because a model may not change a leaf in place.
            rows = tuple(x.requires_grad_().clone() if x.is_floating_point() else x for x in rows)
        with _refuse_training_layers() if self._first else nullcontext(), self._channels_last():
            output = self._forward_func(*rows, *additional_args)
        self._first = False
        return output

    @contextmanager
    def _channels_last(self) -> Iterator[None]:
        """Give the first convolution of images on a CPU its input with the channels last, a memory format in which it
        and everything behind it is faster. Layers behind it mind no more than those behind any channels_last model."""
        if self._own_layout or (self._convolution is None and not self._first):  # the first pass had none
            yield
            return
        thread, done = threading.get_ident(), False

        def convert(module: nn.Module, args: tuple[Any, ...]) -> Any:
            nonlocal done
            if done or not isinstance(module, nn.Conv2d) or threading.get_ident() != thread or not args:
                return None
            done, self._convolution = True, module
            x = args[0]
            if not isinstance(x, Tensor) or x.dim() != 4 or x.device.type != "cpu" or not x.is_floating_point():
                return None
            return (x.contiguous(memory_format=torch.channels_last), *args[1:])

        known = self._convolution
        with known.register_forward_pre_hook(convert) if known else register_module_forward_pre_hook(convert):
            yield


def _reason(error: Exception) -> str:
    """In brackets: what went wrong with the compiler or in it."""
    inner = getattr(error, "inner_exception", error)
    return f" ({type(inner).__name__}: {(str(inner).splitlines() or [''])[0]})"


def _is_about_memory_format(error: Exception) -> bool:
    """Whether the error may come from a model that wants contiguous memory (`view`, bare assertions)."""
    text = str(error)
    return "contiguous" in text or "stride" in text or (isinstance(error, AssertionError) and not text)


class LayerRun:
    """One forward pass: the model's output and the layers' tensors, with the graph between them.

    Attributes:
        output: what the model returned.
        tensors: how many tensors each layer has.
        rearrange: from a layer's tensor to `(rows, K, *space)`.
        is_rearranged: whether that is a `reshape_transform` of the caller.
    """

    def __init__(
        self,
        output: Any,
        recorders: Sequence[_LayerRecorder],
        device_ids: list[int] | None,
        reshape_transform: ReshapeTransform | None = None,
        has_backward_hooks: Callable[[], bool] = lambda: False,
        is_compiled: bool = False,
    ) -> None:
        self.output = output
        self._is_compiled = is_compiled
        self._has_backward_hooks = has_backward_hooks
        self.is_rearranged = reshape_transform is not None
        self.rearrange = reshape_transform or (lambda tensor: tensor)
        self._recorders = recorders
        self._devices = _sort_key_list(list(recorders[0].leaves), device_ids)
        self.tensors = [len(recorder.leaves[self._devices[0]]) for recorder in recorders]

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """The layers' tensors as they were when they were reached: `(rows, K, *space)` each, detached but where the
        graph is kept."""
        gathered = self._gather(
            [[recorder.activations[device] for recorder in self._recorders] for device in self._devices]
        )
        return tuple(self.rearrange(tensor) for tensor in gathered)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the layers' tensors, rows of all devices together."""
        parts = [[self.rearrange(cut.like).shape for cut in self._cuts(device)] for device in self._devices]
        return [(sum(part[0] for part in shapes), *shapes[0][1:]) for shapes in zip(*parts, strict=True) if shapes[0]]

    @property
    def edges(self) -> list[Any]:
        """Where each tensor of the layers enters the graph (on one device)."""
        return [cut.edge for cut in self._cuts(self._devices[0])]

    @property
    def values(self) -> list[Tensor]:
        """The layers' tensors (on one device), detached and not rearranged."""
        return [cut.like.detach() for cut in self._cuts(self._devices[0])]

    def graphs(self, score: Tensor) -> list[Graph]:
        """For every tensor of the layers, the graph through which the score depends on it."""
        return [Graph(score, cut.edge) for device in self._devices for cut in self._cuts(device)]

    def goes_around(self) -> bool:
        """Whether the output depends on a layer's tensor in another way than through the widened rows."""
        others = [other for recorder in self._recorders for other in recorder.not_widened]
        return any(Graph(self.output, other).inputs for other in others)

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """To be held while gradients are taken."""
        with ExitStack() as stack:
            if self._is_compiled:
                from captum_sgcampp.compiled import several_gradients

                stack.enter_context(several_gradients())
            for recorder in self._recorders:
                stack.enter_context(recorder.differentiating())
            yield

    def gradient(
        self, score: Tensor, *, keep_graph: bool = False, unused_is_zero: bool = False, with_graph: bool = False
    ) -> tuple[Tensor, ...]:
        """`g = dS/dA` for every row: tensors of the shapes `shapes`.

        Args:
            score: `S`, `(rows,)`.
            keep_graph: whether another gradient of the same pass follows.
            with_graph: whether the gradient is to be differentiated again.
            unused_is_zero: whether a layer that the score does not depend on has the gradient 0, or raises.
        """
        cuts = [cut for device in self._devices for cut in self._cuts(device)]
        if not score.requires_grad and not unused_is_zero:
            raise RuntimeError(
                "forward_func: expected an output that depends differentiably on layer, found one without a graph "
                "(detached, made in inference mode, or not computed from the layer)"
            )
        gradients: tuple[Tensor | None, ...] = (None,) * len(cuts)
        if score.requires_grad:
            with self.differentiating():
                gradients = _grad(score, [cut.edge for cut in cuts], keep_graph, with_graph)
        if not unused_is_zero and any(g is None for g in gradients):
            raise RuntimeError(
                "layer: expected a layer that the score depends on, found no path from it to the score (its output is "
                "unused or detached); grad_kwargs={'materialize_grads': True} takes its gradient as zero"
            )
        filled = [torch.zeros_like(cut.like) if g is None else g for g, cut in zip(gradients, cuts, strict=True)]
        count = len(filled) // len(self._devices)
        by_device = [tuple(filled[start : start + count]) for start in range(0, len(filled), count)]
        return tuple(self.rearrange(g) for g in _reduce_list(by_device))

    def gradients(
        self, scores: Sequence[Tensor], *, unused_is_zero: bool = False, with_graph: bool = False
    ) -> list[tuple[Tensor, ...]]:
        """`g` of several scores of this pass: together in one backward pass, which reads the weights of the head once,
        or one after the other where they are large or the head has operations that cannot be batched.

        Args and errors as `gradient`.
        """
        # Backward hooks of the model, and compiled code, are made for gradients of one score.
        batched = len(scores) > 1 and not (with_graph or self._is_compiled or self._has_backward_hooks())
        together = self._batched_gradients(torch.stack(tuple(scores))) if batched else None
        if together is not None:
            return [tuple(self.rearrange(g[number]) for g in together) for number in range(len(scores))]
        last = len(scores) - 1
        return [
            self.gradient(score, keep_graph=number < last, unused_is_zero=unused_is_zero, with_graph=with_graph)
            for number, score in enumerate(scores)
        ]

    def _batched_gradients(self, scores: Tensor) -> tuple[Tensor, ...] | None:
        """From `(targets, rows)` scores, `(targets, rows, K, *space)` tensors; None: they are to be taken singly."""
        cuts = [cut for device in self._devices for cut in self._cuts(device)]
        size = len(scores) * sum(cut.like.numel() * cut.like.element_size() for cut in cuts)
        if len(self._devices) > 1 or size > LARGEST_GRADIENTS_BYTES or not scores.requires_grad:
            return None
        each = torch.eye(len(scores), dtype=scores.dtype, device=scores.device)[:, :, None].expand(-1, *scores.shape)
        try:
            with self.differentiating(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of operations that are batched by a loop
                gradients = torch.autograd.grad(
                    scores,
                    [cut.edge for cut in cuts],
                    each,
                    retain_graph=True,
                    allow_unused=True,
                    is_grads_batched=True,
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None
        return None if any(g is None for g in gradients) else gradients

    def _cuts(self, device: torch.device) -> list[_Cut]:
        return [cut for recorder in self._recorders for cut in recorder.leaves[device]]

    def _gather(self, parts: list[list[tuple[Tensor, ...]]]) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = _reduce_list([tuple(t for layer in device for t in layer) for device in parts])
        return result


def _grad(score: Tensor, leaves: list[Any], keep_graph: bool, with_graph: bool) -> tuple[Tensor | None, ...]:
    ones = torch.ones_like(score)
    keep_graph = keep_graph or with_graph
    try:
        return torch.autograd.grad(
            score, leaves, ones, retain_graph=keep_graph, create_graph=with_graph, allow_unused=True
        )
    except RuntimeError as error:
        if "use_reentrant=True" in str(error):
            raise _reentrant_checkpoint() from error
        raise


class _LayerRecorder:
    """What happens at the layer: cuts the graph there and keeps what passes. A context manager around the pass."""

    def __init__(
        self,
        layer: nn.Module,
        to_input: bool,
        clean_every: int,
        replicas: bool,
        rows_at_layer: int = 0,
        keep_graph: bool = False,
    ) -> None:
        self._layer = layer
        self._to_input = to_input
        self._clean_every = clean_every
        self._replicas = replicas
        self._rows_at_layer = rows_at_layer
        self._keep_graph = keep_graph
        self._in_place: list[Tensor] = []
        self._thread = threading.get_ident()
        self._differentiating = False
        self.reset()

    def reset(self) -> None:
        """Forget the last pass."""
        self._detach_again()
        self.leaves: dict[torch.device, tuple[_Cut, ...]] = {}
        self.activations: dict[torch.device, tuple[Tensor, ...]] = {}
        self.not_widened: list[Any] = []  # where the model's own tensors enter the graph beside the widened ones
        self._problem: Exception | None = None
        self._in_checkpoint = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._detach_again()

    def hooked(self) -> RemovableHandle:
        """The hook on the layer, removed at the end of the block."""
        if self._to_input:
            return self._layer.register_forward_pre_hook(self._before)
        return self._layer.register_forward_hook(self._after)

    def visit(self, tensor: Tensor) -> Tensor:
        """In place of the hook: the layer's output, cut."""
        cut = self._visit(self._layer, (tensor,))
        return tensor if cut is None else cut[0]

    def _detach_again(self) -> None:
        """Take the graph from the tensors that were cut in place: the model may keep them beyond the pass."""
        for tensor in [] if self._keep_graph else self._in_place:
            tensor.detach_()
        self._in_place = []

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

    def is_reached(self) -> bool:
        """Whether the layer was reached, without a problem."""
        return bool(self.leaves) and self._problem is None

    def check(self) -> None:
        """Raise what the hook found."""
        problem, self._problem = self._problem, None
        try:
            if problem is not None:
                raise problem
        finally:
            del problem  # the exception's traceback leads here: no cycle
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
        return threading.get_ident() == self._thread or (self._replicas and getattr(module, "_is_replica", False))

    def _visit(self, module: nn.Module, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The tensors to go on with, or None for those that passed."""
        if self._differentiating:
            again = "unpack_hook" in _checkpoint_frames()[0]
            return tuple(_cut(tensor).passed for tensor in tensors) if again else None
        if not self._is_ours(module) or self._problem is not None:
            return None
        device = tensors[0].device
        self._problem = self._refusal(module, tensors, device)
        if self._problem is not None:
            return None
        if self._clean_every:
            # A copy: the model may change the tensor in place.
            seen = tensors if self._keep_graph else [tensor.detach() for tensor in tensors]
            self.activations[device] = tuple(tensor[:: self._clean_every].clone() for tensor in seen)
        torch.set_grad_enabled(True)
        cuts = tuple(_cut(tensor) for tensor in tensors)
        self._in_place += [cut.passed for cut in cuts if cut.in_place]
        if self._rows_at_layer:
            self.not_widened = [cut.edge for cut in cuts]
            cuts = tuple(_widened_cut(tensor, self._rows_at_layer) for tensor in tensors)
        self.leaves[device] = cuts
        return tuple(cut.passed for cut in cuts)

    def _refusal(self, module: nn.Module, tensors: tuple[Tensor, ...], device: torch.device) -> Exception | None:
        frames, reentrant = _checkpoint_frames()
        self._in_checkpoint = self._in_checkpoint or bool(frames)
        if reentrant:
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


class _Cut(NamedTuple):
    """Where one tensor of the layer enters the graph.

    Attributes:
        edge: what to differentiate with respect to: a leaf, or the place of the tensor in the graph of the front.
        like: a tensor of its shape, dtype and device.
        passed: the tensor that the model goes on with.
        in_place: whether that is the model's own tensor, changed to depend on the leaf.
    """

    edge: Any
    like: Tensor
    passed: Tensor
    in_place: bool


def _cut(tensor: Tensor) -> _Cut:
    if tensor.requires_grad:
        # The edge stays valid when the tensor is changed in place; the module gets a copy that it may change.
        return _Cut(get_gradient_edge(tensor), tensor.detach(), tensor.clone(), False)
    leaf = tensor.detach().clone().requires_grad_()
    if tensor._is_view():
        return _Cut(leaf, leaf, leaf.clone(), False)
    # In place, so that all who hold the tensor (hooks that ran before, the module itself) see the graph.
    return _Cut(leaf, leaf, tensor.copy_(leaf), True)


def _widened_cut(tensor: Tensor, rows: int) -> _Cut:
    """Instead of one row, `rows` identical ones, each of which can be varied on its own."""
    leaf = tensor.detach().repeat(rows, *(1,) * (tensor.dim() - 1)).requires_grad_()
    return _Cut(leaf, leaf, leaf.clone(), False)


def _rebuild(output: Any, tensors: tuple[Tensor, ...]) -> Any:
    """The tensors in the container that the layer returned: tuple, named tuple, list or torch's own result types."""
    return type(output)(*tensors) if hasattr(output, "_fields") else type(output)(tensors)


def _describe(output: object) -> str:
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {', '.join(type(value).__name__ for value in output) or 'nothing'}"
    return type(output).__name__


def _checkpoint_frames() -> tuple[set[str], bool]:
    """Names of torch's activation-checkpoint functions that the current call runs in (`unpack_hook`: the layer runs
    again during differentiation), and whether a checkpoint of the reentrant kind is among them."""
    names, reentrant = set(), False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            names.add(frame.f_code.co_name)
            reentrant = reentrant or frame.f_code is torch.utils.checkpoint.CheckpointFunction.forward.__code__
        frame = frame.f_back
    return names, reentrant


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
                f"forward_func: expected a model in evaluation mode, found {type(module).__name__} {reason}"
            )

    with ExitStack() as stack:
        if _compiler_is_loaded():  # compiled modules warn of every global hook, whatever it does
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
        stack.enter_context(register_module_forward_pre_hook(check))
        yield


def _batch_dependence(module: nn.Module) -> str | None:
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
