"""Models compiled with `torch.compile`: compiled once more, in pieces that meet at the layers.

Hooks cannot reach into compiled code. So the model is traced again, with a mark at each layer, and its graph is split
at the marks. The model's own backend (`"inductor"`, ...) compiles the pieces, and at a mark the explanation gets the
layer's tensor. The piece before the layer has no autograd graph, and no piece computes gradients of parameters.

Importing this module loads torch's compiler: only for models that are compiled.
"""

from __future__ import annotations

import builtins
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count
from operator import is_
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary, finalize, ref

import torch
from torch import Tensor, fx, nn
from torch._functorch import config as functorch_config
from torch.fx.passes.split_module import split_module

from captum_sgcampp.model.evaluation_mode import batch_dependence

# Compiles a model: from a graph and example inputs to a function.
Backend = Callable[..., Callable[..., Any]]

# What happens at a layer: from its tensor to the tensor that the model goes on with.
Visit = Callable[[Tensor], Tensor]


class SplitModel:
    """A compiled model that visits `layers` when it is called. One call at a time.

    The first call, and new kinds of inputs, take as long as compiling the model did. Other numbers of rows do not. The
    model must compile to one graph: torch keeps a limited number of pieces of several graphs with the model's code, and
    beyond it runs the caller's model eagerly, too.

    Attributes:
        is_hopeless: whether it failed where the model itself did not. Then it is not tried again.
    """

    def __init__(self, model: nn.Module, backend: Backend, layers: Sequence[nn.Module]) -> None:
        self.is_hopeless = False
        self._other_hooks = _other_hooks(model)
        self._backend = backend
        self._layers = [ref(layer) for layer in layers]  # weak: they may refer to the model, which must be freed
        self._hooks = [_marking_hook(number) for number in range(len(layers))]
        own = _own_function(ref(model))
        self._call = torch.compile(own, backend=partial(_split_at_marks, backend))

    def is_for(self, model: nn.Module, backend: Backend, layers: Sequence[nn.Module]) -> bool:
        """Whether it has this backend, these layers, and the hooks that the model has now."""
        known = [reference() for reference in self._layers]
        same = self._backend == backend and len(known) == len(layers) and all(map(is_, known, layers))
        return same and self._other_hooks == _other_hooks(model)

    def __call__(self, rows: Sequence[Tensor], args: Sequence[Any], visits: Sequence[Visit]) -> Any:
        """The model's output for rows, from a pass that calls `visits`, one for each layer."""
        for value in (*rows, *args):
            if isinstance(value, Tensor) and value.dim() and len(value) == len(rows[0]) > 1:
                torch._dynamo.maybe_mark_dynamic(value, 0)
        with ExitStack() as stack:
            for reference, hook in zip(self._layers, self._hooks, strict=True):
                if layer := reference():
                    stack.enter_context(layer.register_forward_hook(hook))
            stack.enter_context(several_gradients())
            _CURRENT.visits, _CURRENT.graph_breaks = visits, _graph_breaks()
            stack.callback(setattr, _CURRENT, "visits", None)
            stack.enter_context(warnings.catch_warnings())  # the compiler reads attributes that warn
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            return self._call(*rows, *args)


def _other_hooks(model: nn.Module) -> list[tuple[int, ...]]:
    """The numbers of all forward hooks: torch does not compile again when they change."""
    return [(*module._forward_pre_hooks, -1, *module._forward_hooks) for module in model.modules()]


class CompiledPieces:
    """A compiled model in pieces, for one call of `attribute`.

    Args:
        split: the pieces.
    """

    def __init__(self, split: SplitModel) -> None:
        self._split = split
        self._reason = ""

    def output(self, rows: Sequence[Tensor], args: Sequence[Any], visits: Sequence[Visit]) -> Any:
        """The model's output, with a graph from the layers on. None where that failed."""
        try:
            output = self._split(rows, args, visits)
            return output if getattr(output, "requires_grad", True) else None
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # from the compiler, or from the model, which will raise it again
            inner = getattr(error, "inner_exception", error)
            self._reason = f" ({type(inner).__name__}: {(str(inner).splitlines() or [''])[0]})"
            return None

    def give_up(self) -> None:
        """Warn that the model ran eagerly where its pieces did not run, and do not try them again."""
        self._split.is_hopeless = "stance" not in self._reason  # a stance that forbids compiling may not last
        warnings.warn(
            f"forward_func: expected a compiled model that can be split at layer, found one that cannot{self._reason}; "
            "it runs eagerly",
            stacklevel=9,
        )

    def differentiating(self) -> AbstractContextManager[None]:
        """To be held while gradients are taken."""
        return several_gradients()


def compiled_pieces(forward_func: nn.Module, layers: Sequence[nn.Module]) -> CompiledPieces | None:
    """The pieces of a compiled model. None where `forward_func` has none, or where they cannot replace hooks."""
    split = split_model(forward_func, layers)
    if split is None:
        return None
    # Modules that depend on the batch run eagerly, where they are refused when called.
    modules = list(forward_func.modules())
    unfit = (m._backward_hooks or m._backward_pre_hooks or batch_dependence(m) for m in modules)
    return None if any(unfit) else CompiledPieces(split)


_SPLIT_MODELS: WeakKeyDictionary[nn.Module, list[SplitModel]] = WeakKeyDictionary()


def split_model(forward_func: nn.Module, layers: Sequence[nn.Module]) -> SplitModel | None:
    """The same object for the same model, backend and layers. None where `forward_func` is not a compiled model with
    these layers, or cannot be split."""
    model, backend = _model_and_backend(forward_func)
    if backend is None:
        return None
    known = _SPLIT_MODELS.setdefault(model, [])
    found = next((split for split in known if split.is_for(model, backend, layers)), None)
    if found is None:
        if not {id(layer) for layer in layers} <= {id(module) for module in model.modules()}:
            return None
        found = SplitModel(model, backend, layers)
        known.append(found)
    return None if found.is_hopeless else found


def _model_and_backend(forward_func: nn.Module) -> tuple[nn.Module, Backend | None]:
    """The compiled module and its backend. None if it is not compiled, or in an unknown way."""
    if isinstance(forward_func, torch._dynamo.OptimizedModule):
        model = forward_func._orig_mod
        callback = forward_func.dynamo_ctx.callback
        if forward_func._forward_hooks or forward_func._forward_pre_hooks:  # they run outside the compiled code
            callback = None
    else:
        model = forward_func
        compiled = model._compiled_call_impl
        callback = compiled and inspect.getclosurevars(compiled).nonlocals.get("callback")
    backend: Any = callback or None
    for name in ("_torchdynamo_orig_backend", "_torchdynamo_orig_callable"):
        while hasattr(backend, name):
            backend = getattr(backend, name)
    return model, backend


_NUMBERS = count()


def _own_function(module: Callable[[], nn.Module | None]) -> Callable[..., Any]:
    """A function that calls the module, with its own code object, globals and name. Torch keeps compiled code with the
    code object, in limited number, and in the globals, which are emptied when the function is freed. By the name it
    remembers which sizes vary."""

    def call(*args: Any) -> Any:
        return module()._call_impl(*args)  # type: ignore[union-attr]

    own_globals = {"__name__": __name__, "__builtins__": builtins}
    code = call.__code__.replace(co_name=f"call_{next(_NUMBERS)}")
    own = FunctionType(code, own_globals, code.co_name, None, call.__closure__)
    finalize(own, _forget, own_globals).atexit = False
    return own


def _forget(own_globals: dict[str, Any]) -> None:
    """Free compiled code, whose reference cycle with the globals garbage collection misses."""
    for name in own_globals:
        own_globals[name] = None  # torch deletes the names


class _CurrentCall(threading.local):
    """The call of a `SplitModel` on this thread: its visits (None: no call), and the graph breaks before it."""

    visits: Sequence[Visit] | None = None
    graph_breaks = 0


_CURRENT = _CurrentCall()


def _graph_breaks() -> int:
    """The number of graph breaks in this process."""
    return sum(torch._dynamo.utils.counters["graph_break"].values())


@torch.compiler.assume_constant_result
def _visits_are_wanted() -> bool:
    """Whether the hooks are this thread's: other threads may run or trace the model meanwhile. The answer while tracing
    is compiled in."""
    return _CURRENT.visits is not None


@torch.compiler.allow_in_graph
def _mark(tensor: Tensor, number: int) -> Tensor:
    visits = _CURRENT.visits
    if visits is not None and not isinstance(tensor, torch._subclasses.FakeTensor):
        return visits[number](tensor)
    with torch.enable_grad():  # the model is being traced: not a leaf, as after a visit
        return tensor.detach().requires_grad_().clone()


def _marking_hook(number: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not _visits_are_wanted():
            return None
        if not isinstance(output, Tensor):
            torch._dynamo.graph_break()  # ends the attempt
            return None
        output = _mark(output, number)
        torch.set_grad_enabled(True)  # as the visit does, for the trace
        return output

    return hook


def _split_at_marks(backend: Backend, graph: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """A backend for `torch.compile` that compiles the pieces between marks."""
    if _graph_breaks() > _CURRENT.graph_breaks:
        raise RuntimeError("expected a model that is compiled to one graph, found several")
    _check_other_names(graph.graph)
    part, parts = 0, {}
    for node in graph.graph.nodes:
        is_mark = node.target is _mark
        part += 2 * is_mark
        parts[node] = part - is_mark  # each mark is a part of its own
    split = split_module(graph, None, parts.__getitem__, keep_original_order=True)  # type: ignore[arg-type]
    for name, piece in list(split.named_children()):
        assert isinstance(piece, fx.GraphModule)
        if all(node.target is not _mark for node in piece.graph.nodes):
            delattr(split, name)
            object.__setattr__(split, name, _compiled_piece(piece, backend))
    return split.forward


def _check_other_names(graph: fx.Graph) -> None:
    """Refuse models that use a layer's output other than through the mark: other names of its memory after the layer
    (views, its input where it works in place), and what was computed from it before the mark. The piece before the mark
    has no graph that would know of them."""
    before: dict[fx.Node, int] = {}
    marked: dict[int, set[fx.Node]] = {}  # for the memory of each layer's output, its names before the mark
    for node in graph.nodes:
        if node.target is _mark:
            if set(node.args[0].users) != {node}:
                raise RuntimeError("expected a model that uses what the layer returned, found other uses of it")
            memory = _memory(node.args[0])
            marked[memory] = {other for other, its in before.items() if its == memory}
        elif node.op != "output" and any(used in names for names in marked.values() for used in node.all_input_nodes):
            raise RuntimeError("expected a model that uses what the layer returned, found its memory by another name")
        elif (memory := _memory(node)) is not None:
            before[node] = memory


def _memory(node: fx.Node) -> Any:
    value = node.meta.get("example_value")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else None


def _compiled_piece(piece: fx.GraphModule, backend: Backend) -> Callable[..., Any]:
    """The piece, without gradients for parameters, compiled for any number of rows if the whole is."""
    inputs = [node for node in piece.graph.nodes if node.op == "placeholder"]
    values = [node.meta.get("example_value") for node in inputs]
    with piece.graph.inserting_after(inputs[-1]) if inputs else ExitStack():
        for node, value in zip(inputs, values, strict=True):
            replacement = None
            if isinstance(value, nn.Parameter):
                replacement = piece.graph.call_method("detach", (node,))
            elif isinstance(value, torch.SymInt) and (place := _size_in(values, value)):
                # Numbers among the inputs would be compiled for their value.
                replacement = piece.graph.call_method("size", (inputs[place[0]], place[1]))
            if replacement is not None:
                node.replace_all_uses_with(replacement, delete_user_cb=lambda user, new=replacement: user is not new)
    module = fx.GraphModule(piece, piece.graph)  # generates the code that the compiler reads
    dynamic = [_dynamic_dimensions(value) for value in values]
    compiled = torch.compile(_own_function(lambda: module), backend=backend)

    def call(*args: Any) -> Any:
        for value, dimensions in zip(args, dynamic, strict=True):
            if dimensions:
                torch._dynamo.maybe_mark_dynamic(value, dimensions)
        return compiled(*args)

    return call


@contextmanager
def several_gradients() -> Iterator[None]:
    """Keep what the backward pass of compiled code needs for another one. To be held while code is compiled, run and
    differentiated, all on this thread, since the setting is per thread."""
    with functorch_config.patch(donated_buffer=False), torch.autograd.set_multithreading_enabled(False):
        yield


def _dynamic_dimensions(value: Any) -> list[int]:
    if not isinstance(value, Tensor):
        return []
    return [dimension for dimension, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]


def _size_in(values: Sequence[Any], number: torch.SymInt) -> tuple[int, int] | None:
    """The value that has the number as a size, and the dimension."""
    for place, value in enumerate(values):
        for dimension in _dynamic_dimensions(value):
            if value.shape[dimension].node.expr == number.node.expr:
                return place, dimension
    return None
