"""Runs the model and watches the layers: one forward pass, after which gradients can be taken.

Plain autograd is the truth: the gradient is the total derivative of the score with respect to what the layer returned,
so the network before the layer runs with a graph, whose saved tensors are dropped. Where a gradient does go through it
(layers that return their input, or several tensors of which one is computed from another), they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_sgcampp.model.clean_rows import clean_rows_at
from captum_sgcampp.model.evaluation_mode import training_layers_refused
from captum_sgcampp.model.layer_gradients import LayerGradients
from captum_sgcampp.model.layer_hook import LayerHook, is_of_pass, next_node_number
from captum_sgcampp.model.layout_checks import ReshapeTransform, check_layouts
from captum_sgcampp.model.model_access import compiler_is_loaded, eager_models
from captum_sgcampp.model.saved_tensors import ChangedInPlace, DropSavedTensors, RunAgain, SavedTensorsDropped

if TYPE_CHECKING:  # it loads the compiler
    from captum_sgcampp.model.compiled_model import CompiledPieces

# Makes the inputs, one row per noisy sample, in memory that the model may change.
MakeRows = Callable[[], tuple[Tensor, ...]]


class _GraphBegins(Enum):
    """Where the graph of a pass begins."""

    AT_PARAMETERS = auto()
    AT_INPUTS = auto()  # of frozen networks
    AT_FROZEN_PARAMETERS = auto()  # of frozen networks whose inputs have no gradients (tokens)
    AT_LAYER = auto()  # of networks that autograd refuses before the layer (`.numpy()`, `out=`)


class ForwardPass:
    """Runs `forward_func` and watches `layers`. One object serves one call of `attribute`.

    Args:
        forward_func: model or function, called with the inputs and then the additional arguments.
        layers: the modules to watch.
        device_ids: order of the devices of a `DataParallel` model.
        attribute_to_layer_input: watch the layer's inputs, not its output.
        reshape_transform: from the layer's tensors to `(rows, K, *space)`; None where they have that form.
        keep_graph: keep the whole graph of the model, for maps that are to be differentiated.

    Attributes:
        has_replicas: whether the model runs on several devices (`DataParallel`).
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
        self._reshape = reshape_transform
        self._keep_graph = keep_graph
        self.has_replicas = isinstance(forward_func, nn.DataParallel) or device_ids is not None
        self._graph_begins = _GraphBegins.AT_INPUTS if _is_frozen(forward_func, layers) else _GraphBegins.AT_PARAMETERS
        self._keep_saved = keep_graph or self.has_replicas  # replicas run in other threads, where nothing is dropped
        self._copy = False
        self._called: list[nn.Module] = []  # in the first pass
        self._first, self._input_dims = True, 0

    def of_each_layer(self) -> list[ForwardPass]:
        """A pass for each of the layers alone."""
        return [
            ForwardPass(self._forward_func, [layer], self._device_ids, self._to_input, self._reshape)
            for layer in self._layers
        ]

    @property
    def can_widen(self) -> bool:
        """Whether one row before the layer can be widened to several identical ones at the layer."""
        return self._may_detach and self._graph_begins != _GraphBegins.AT_LAYER

    @property
    def _may_detach(self) -> bool:
        """Whether the graph may begin at the layer's output, on one device."""
        return not (self._to_input or self.has_replicas or self._keep_graph)

    def adapt_to(self, reason: RunAgain) -> None:
        """From now on, keep what the network before the layer saves, or go on with a copy of the layer's tensors."""
        self._keep_saved = self._keep_saved or isinstance(reason, SavedTensorsDropped)
        self._copy = self._copy or isinstance(reason, ChangedInPlace)

    @contextmanager
    def run(
        self,
        make_rows: MakeRows,
        additional_args: tuple[Any, ...],
        clean_every: int,
        rows_at_layer: int = 0,
        eager: bool = True,
    ) -> Iterator[LayerGradients]:
        """One pass. Gradients are enabled in the block, and the hooks stay until it ends: checkpoints run the layer
        again while they are differentiated.

        Args:
            make_rows: makes the inputs.
            additional_args: the arguments after them.
            clean_every: keep the layer's values at rows 0, clean_every, 2 clean_every, ...; 0: keep none.
            rows_at_layer: the model gets one row, and goes on after the layer with this many identical ones; 0: no.
            eager: run compiled models eagerly: the graph is looked at, or differentiated more than once.

        Raises:
            RunAgain: while gradients are taken; the pass is to be run again, after `adapt_to`.
        """
        drop = DropSavedTensors()
        hooks = [self._hook(layer, clean_every, rows_at_layer, drop) for layer in self._layers]
        pieces = None if eager else self._pieces
        with torch.no_grad(), clean_rows_at(clean_every), ExitStack() as stack:
            if not self._keep_graph:
                stack.callback(_detach_kept, self._called, next_node_number())
            output = self._compiled_output(pieces, hooks, make_rows, additional_args) if pieces else None
            around_backward = pieces.differentiating if pieces and output is not None else nullcontext
            if output is None:
                stack.enter_context(eager_models())
                for hook in hooks:
                    stack.enter_context(hook.registered())
                output = self._eager_output(hooks, drop, make_rows, additional_args)
                if pieces and all(hook.is_reached() for hook in hooks):
                    pieces.give_up()
            for hook in hooks:
                hook.check()
            if self._first:
                shapes = [[tensor.passed.shape for tensor in next(iter(hook.tensors.values()))] for hook in hooks]
                check_layouts(self._forward_func, self._layers, shapes, self._input_dims, self._reshape)
            self._first = False
            torch.set_grad_enabled(True)
            yield LayerGradients(output, hooks, self._device_ids, self._reshape, around_backward)

    def _hook(self, layer: nn.Module, clean_every: int, rows_at_layer: int, drop: DropSavedTensors) -> LayerHook:
        return LayerHook(
            layer,
            to_input=self._to_input,
            clean_every=clean_every,
            replicas=self.has_replicas,
            rows_at_layer=rows_at_layer,
            keep_graph=self._keep_graph,
            copy=self._copy,
            reached=drop.end,
        )

    @cached_property
    def _pieces(self) -> CompiledPieces | None:
        """The compiled model in pieces, where that can do what hooks do."""
        if not (self._may_detach and isinstance(self._forward_func, nn.Module) and compiler_is_loaded()):
            return None
        from captum_sgcampp.model.compiled_model import compiled_pieces

        return compiled_pieces(self._forward_func, self._layers)

    def _compiled_output(
        self, pieces: CompiledPieces, hooks: Sequence[LayerHook], make_rows: MakeRows, additional_args: tuple[Any, ...]
    ) -> Any:
        """The output of a compiled model in pieces; None, and not tried again, where that failed."""
        output = pieces.output(self._rows(make_rows), additional_args, [hook.visit for hook in hooks])
        if output is not None and all(hook.is_reached() for hook in hooks):
            return output
        self._pieces = None
        for hook in hooks:
            hook.reset()
        return None

    def _eager_output(
        self,
        hooks: Sequence[LayerHook],
        drop: DropSavedTensors,
        make_rows: MakeRows,
        additional_args: tuple[Any, ...],
    ) -> Any:
        """The model's output, with a graph from the layers' tensors on that knows all their uses."""
        refused: Exception | None = None
        while True:
            try:
                output = self._call(drop, make_rows, additional_args)
            except SavedTensorsDropped:  # the model takes gradients itself before the layer
                self._keep_saved = True
            except (RuntimeError, ValueError, TypeError) as error:
                if not self._keep_saved and _is_about_saving(error):
                    self._keep_saved = True
                elif refused is not None:
                    raise refused from error
                elif self._graph_begins == _GraphBegins.AT_LAYER or not _is_about_graphs(error):
                    raise
                else:
                    refused, self._graph_begins = error, _GraphBegins.AT_LAYER
            else:
                if not all(hook.saves_as_usual for hook in hooks):
                    self._keep_saved = True
                elif self._graph_begins in _LATER and any(hook.lacks_graph for hook in hooks):
                    self._graph_begins = _LATER[self._graph_begins]
                else:
                    refused = None  # its traceback leads here: no cycle
                    return output
            for hook in hooks:
                hook.reset()

    def _call(self, drop: DropSavedTensors, make_rows: MakeRows, additional_args: tuple[Any, ...]) -> Any:
        torch.set_grad_enabled(self._keep_graph)
        rows = self._rows(make_rows)
        torch.set_grad_enabled(self._graph_begins != _GraphBegins.AT_LAYER)
        args: tuple[Any, ...] = (*rows, *additional_args)
        if self._graph_begins == _GraphBegins.AT_INPUTS or self._to_input:
            args = tuple(_with_graph(value) for value in args)
        with ExitStack() as stack:
            if self._first:
                stack.enter_context(training_layers_refused(self._called))
            if not self._keep_saved:
                stack.enter_context(drop)
                model = self._forward_func
                stack.enter_context(
                    drop.in_place_modules(model.modules() if isinstance(model, nn.Module) else set(self._called))
                )
            if self._graph_begins == _GraphBegins.AT_FROZEN_PARAMETERS:
                stack.enter_context(_unfrozen(self._called))
            return self._forward_func(*args)

    def _rows(self, make_rows: MakeRows) -> tuple[Tensor, ...]:
        rows = make_rows()
        self._input_dims = max(x.dim() for x in rows)
        return rows


# What to try next where a layer's tensor came without a graph.
_LATER = {
    _GraphBegins.AT_PARAMETERS: _GraphBegins.AT_INPUTS,
    _GraphBegins.AT_INPUTS: _GraphBegins.AT_FROZEN_PARAMETERS,
}


def _is_frozen(forward_func: Callable[..., Any], layers: Sequence[nn.Module]) -> bool:
    modules = [forward_func] if isinstance(forward_func, nn.Module) else layers
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _with_graph(value: Any) -> Any:
    """A clone of a tensor in the graph of a leaf, because a model may not change a leaf in place."""
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return value
    return value.clone() if value.requires_grad else value.detach().requires_grad_().clone()


@contextmanager
def _unfrozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Parameters have gradients in the block, as in the training of the model, so that what they make has a graph."""
    parameters = {p for module in modules for p in module._parameters.values() if p is not None}
    frozen = [p for p in parameters if not p.requires_grad and p.is_floating_point() and not p.is_inference()]
    try:
        for parameter in frozen:
            parameter.requires_grad_()
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _detach_kept(modules: Sequence[nn.Module], start: int) -> None:
    """What modules keep of a pass (buffers computed anew, features) has no graph afterwards: it could not be used."""
    for module in set(modules):
        for kept in (module._buffers, module.__dict__):
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.grad_fn is not None and is_of_pass(value, start):
                    kept[name] = value.detach() if value._is_view() else value.detach_()


def _is_about_saving(error: Exception) -> bool:
    """Whether the model uses `torch.func` before the layer, which allows neither hooks nor functions that drop."""
    return "saved tensor hooks" in str(error) or "functorch transforms" in str(error)


def _is_about_graphs(error: Exception) -> bool:
    """Whether the model does something before the layer that autograd refuses."""
    text = str(error).replace("_", " ")
    reasons = ("requires grad", "require grad", "automatic differentiation", "inplace", "deepcopy protocol")
    return any(reason in text for reason in reasons)
