"""Models compiled with `torch.compile`: compiled once more, in pieces that meet at the layers.

A compiled model is one piece of machine code, in which no hook can cut. So the model is traced again, with a mark at
each layer, and the graph that its own backend (`"inductor"`, ...) would get is split at the marks. The pieces between
them are compiled by that backend; at a mark, the explanation gets the layer's tensor. As in models that are not
compiled, the piece in front has no graph, and nothing is computed for parameters behind the layer either.

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

# What a model is compiled with: from a graph and example inputs, a function.
Backend = Callable[..., Callable[..., Any]]

# What is to be done with a layer's tensor; returns the tensor to go on with.
Visit = Callable[[Tensor], Tensor]


class SplitModel:
    """A compiled model that visits `layers` when it is called; one call at a time.

    Compiling takes as long as compiling the model did, at the first call and for new kinds of inputs, but not for
    other numbers of rows. It must come to one graph: pieces of several would be kept with the code of the model, where
    torch allows a limited number of them, and then runs the model of the caller eagerly, too.

    Attributes:
        is_hopeless: whether it failed where the model itself did not; not to be tried again.
    """

    def __init__(self, model: nn.Module, backend: Backend, layers: Sequence[nn.Module]) -> None:
        self.is_hopeless = False
        self._other_hooks = _other_hooks(model)
        self._backend = backend
        self._layers = [ref(layer) for layer in layers]  # they may lead to the model, which is to be freed
        self._hooks = [_marking_hook(number) for number in range(len(layers))]
        own = _own_function(ref(model))
        self._call = torch.compile(own, backend=partial(_split_at_marks, backend))

    def is_for(self, model: nn.Module, backend: Backend, layers: Sequence[nn.Module]) -> bool:
        """Whether it is compiled by this backend, visits these layers, and knows the hooks that the model has now."""
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
            stack.enter_context(warnings.catch_warnings())  # of what the compiler looks at
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            return self._call(*rows, *args)


def _other_hooks(model: nn.Module) -> list[tuple[int, ...]]:
    """The numbers of all forward hooks: code that was compiled is not compiled again when there are others."""
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
        """The model's output, with a graph from the layers on; None where that failed."""
        try:
            output = self._split(rows, args, visits)
            return output if getattr(output, "requires_grad", True) else None
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the model, which will raise it again, or of the compiler
            inner = getattr(error, "inner_exception", error)
            self._reason = f" ({type(inner).__name__}: {(str(inner).splitlines() or [''])[0]})"
            return None

    def give_up(self) -> None:
        """The model ran eagerly where its pieces did not: warn, and do not try them again."""
        self._split.is_hopeless = "stance" not in self._reason  # one that forbids to compile may not last
        warnings.warn(
            f"forward_func: expected a compiled model that can be cut at layer, found one that cannot{self._reason}; "
            "it runs eagerly",
            stacklevel=9,
        )

    def differentiating(self) -> AbstractContextManager[None]:
        """To be held while gradients are taken."""
        return several_gradients()


def compiled_pieces(forward_func: nn.Module, layers: Sequence[nn.Module]) -> CompiledPieces | None:
    """The pieces of a compiled model, where they can do what hooks do; None elsewhere."""
    split = split_model(forward_func, layers)
    if split is None:
        return None
    # What depends on the batch is refused where it is called.
    modules = list(forward_func.modules())
    unfit = (m._backward_hooks or m._backward_pre_hooks or batch_dependence(m) for m in modules)
    return None if any(unfit) else CompiledPieces(split)


_SPLIT_MODELS: WeakKeyDictionary[nn.Module, list[SplitModel]] = WeakKeyDictionary()


def split_model(forward_func: nn.Module, layers: Sequence[nn.Module]) -> SplitModel | None:
    """The same for the same model, backend and layers; None where `forward_func` is not a compiled model with these
    layers, or cannot be split."""
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
    """The module that was compiled, and with what; None if it was not, or in a way that is not known here."""
    if isinstance(forward_func, torch._dynamo.OptimizedModule):
        model = forward_func._orig_mod
        callback = forward_func.dynamo_ctx.callback
        if forward_func._forward_hooks or forward_func._forward_pre_hooks:  # they run in front of the compiled code
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
    """A function that calls the module. What torch compiles it to is kept with its code object, in limited number, and
    in its globals: every function has its own, and they are emptied when it is freed. It has a name of its own too: by
    that, torch remembers which sizes vary."""

    def call(*args: Any) -> Any:
        return module()._call_impl(*args)  # type: ignore[union-attr]

    own_globals = {"__name__": __name__, "__builtins__": builtins}
    code = call.__code__.replace(co_name=f"call_{next(_NUMBERS)}")
    own = FunctionType(code, own_globals, code.co_name, None, call.__closure__)
    finalize(own, _forget, own_globals).atexit = False
    return own


def _forget(own_globals: dict[str, Any]) -> None:
    """Free what was compiled: the globals refer to it, and it to them, in ways that garbage collection misses."""
    for name in own_globals:
        own_globals[name] = None  # torch deletes the names


class _CurrentCall(threading.local):
    """The call of a `SplitModel` on this thread: its visits (None: there is none), and the graph breaks before it."""

    visits: Sequence[Visit] | None = None
    graph_breaks = 0


_CURRENT = _CurrentCall()


def _graph_breaks() -> int:
    """How often the compiler has had to give up one graph, in the life of the process."""
    return sum(torch._dynamo.utils.counters["graph_break"].values())


@torch.compiler.assume_constant_result
def _visits_are_wanted() -> bool:
    """Whether the hooks are this thread's: others may run or trace the model while they are there. Asked while tracing,
    the answer is part of what is compiled."""
    return _CURRENT.visits is not None


@torch.compiler.allow_in_graph
def _mark(tensor: Tensor, number: int) -> Tensor:
    visits = _CURRENT.visits
    if visits is not None and not isinstance(tensor, torch._subclasses.FakeTensor):
        return visits[number](tensor)
    with torch.enable_grad():  # the model is being traced: as behind a visit, not a leaf
        return tensor.detach().requires_grad_().clone()


def _marking_hook(number: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not _visits_are_wanted():
            return None
        if not isinstance(output, Tensor):
            torch._dynamo.graph_break()  # ends the attempt
            return None
        output = _mark(output, number)
        torch.set_grad_enabled(True)  # as the visit does; known to whoever traces this
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
    """Refuse models that use a layer's output in another way than as what the layer returned: other names of its memory
    after the layer (views, its input where it works in place), and what was computed from it before the mark. The
    piece before the mark has no graph that would know of them."""
    before: dict[fx.Node, int] = {}
    marked: dict[int, set[fx.Node]] = {}  # for the memory of each layer's output, what was made of it in front
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
    module = fx.GraphModule(piece, piece.graph)  # with code for that graph, which the compiler can read
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
    """Keep what the backward pass of compiled code needs for another one. To be held while it is compiled, run and
    differentiated: this setting is one of the thread, so all of that happens on this one."""
    with functorch_config.patch(donated_buffer=False), torch.autograd.set_multithreading_enabled(False):
        yield


def _dynamic_dimensions(value: Any) -> list[int]:
    if not isinstance(value, Tensor):
        return []
    return [dimension for dimension, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]


def _size_in(values: Sequence[Any], number: torch.SymInt) -> tuple[int, int] | None:
    """Which of the values has the number as its size, and in which dimension."""
    for place, value in enumerate(values):
        for dimension in _dynamic_dimensions(value):
            if value.shape[dimension].node.expr == number.node.expr:
                return place, dimension
    return None
