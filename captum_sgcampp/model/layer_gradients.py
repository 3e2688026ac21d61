"""After a forward pass: the model's output, the layers' tensors, and gradients of scores with respect to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from captum_sgcampp.captum_internals import _reduce_list, _sort_key_list
from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.layer_hook import LayerHook, LayerTensor, reentrant_checkpoint
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.model.saved_tensors import ChangedInPlace


class LayerGradients:
    """One forward pass.

    Attributes:
        output: what the model returned.
        tensors: how many tensors each layer has.
        rearrange: from a layer's tensor to `(rows, K, *space)`.
        is_rearranged: whether that is the caller's `reshape_transform`.

    Args:
        output: what the model returned.
        hooks: one per layer.
        device_ids: order of the devices of a `DataParallel` model.
        reshape_transform: see `rearrange`. None where the tensors have that form.
        around_backward: a context to hold while gradients are taken.
    """

    def __init__(
        self,
        output: Any,
        hooks: Sequence[LayerHook],
        device_ids: list[int] | None = None,
        reshape_transform: ReshapeTransform | None = None,
        around_backward: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.output = output
        self._around_backward = around_backward
        self.is_rearranged = reshape_transform is not None
        self.rearrange: ReshapeTransform = reshape_transform or (lambda tensor: tensor)
        self._hooks = hooks
        self._devices = _sort_key_list(list(hooks[0].tensors), device_ids)
        self.tensors = [len(hook.tensors[self._devices[0]]) for hook in hooks]

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """The layers' tensors as they were when reached: `(rows, K, *space)` each, detached unless the graph is
        kept."""
        kept = [[hook.activations[device] for hook in self._hooks] for device in self._devices]
        gathered: tuple[Tensor, ...] = _reduce_list([tuple(t for layer in device for t in layer) for device in kept])
        return tuple(self.rearrange(tensor) for tensor in gathered)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the layers' tensors, rows of all devices together."""
        parts = [[self.rearrange(t.passed.detach()).shape for t in self._on(device)] for device in self._devices]
        return [(sum(part[0] for part in shapes), *shapes[0][1:]) for shapes in zip(*parts, strict=True) if shapes[0]]

    @property
    def edges(self) -> list[GradientEdge]:
        """The gradient edge of each tensor of the layers (on one device)."""
        return [tensor.edge for tensor in self._on(self._devices[0])]

    def graphs(self, score: Tensor) -> list[Graph]:
        """For every tensor of the layers, the graph through which the score depends on it."""
        return [Graph(score, tensor.edge) for device in self._devices for tensor in self._on(device)]

    def goes_around(self) -> bool:
        """Whether the output depends on a layer's tensor other than through the widened rows."""
        others = [other for hook in self._hooks for other in hook.not_widened]
        return any(Graph(self.output, other).inputs for other in others)

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """To hold while gradients are taken."""
        with ExitStack() as stack:
            stack.enter_context(self._around_backward())
            for hook in self._hooks:
                stack.enter_context(hook.differentiating())
            yield

    def gradient(
        self, score: Tensor, *, more: bool = False, unused_is_zero: bool = False, with_graph: bool = False
    ) -> tuple[Tensor, ...]:
        """`g = dS/dA` for every row: tensors of the shapes `shapes`.

        Args:
            score: `S`, `(rows,)`.
            more: whether another gradient of the same pass follows.
            with_graph: whether the gradient will be differentiated again.
            unused_is_zero: whether a layer that the score does not depend on has the gradient 0, or raises.
        """
        if not score.requires_grad and not unused_is_zero:
            raise RuntimeError(
                "forward_func: expected an output that depends differentiably on layer, found one without a graph "
                "(detached, made in inference mode, or not computed from the layer)"
            )
        tensors = [tensor for device in self._devices for tensor in self._on(device)]
        gradients: tuple[Tensor | None, ...] = (None,) * len(tensors)
        if score.requires_grad:
            with self.differentiating(), self._named_errors():
                gradients = torch.autograd.grad(
                    score,
                    [tensor.edge for tensor in tensors],
                    torch.ones_like(score),
                    retain_graph=more or with_graph,
                    create_graph=with_graph,
                    allow_unused=True,
                )
        if not unused_is_zero and any(g is None for g in gradients):
            raise RuntimeError(
                "layer: expected a layer that the score depends on, found no path from it to the score (its output is "
                "unused or detached); grad_kwargs={'materialize_grads': True} takes its gradient as zero"
            )
        filled = [tensor.zeros() if g is None else g for g, tensor in zip(gradients, tensors, strict=True)]
        count = len(filled) // len(self._devices)
        by_device = [tuple(filled[start : start + count]) for start in range(0, len(filled), count)]
        return tuple(self.rearrange(g) for g in _reduce_list(by_device))

    def _on(self, device: torch.device) -> list[LayerTensor]:
        return [tensor for hook in self._hooks for tensor in hook.tensors[device]]

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if "use_reentrant=True" in str(error):
                raise reentrant_checkpoint() from error
            if "inplace operation" in str(error) and not all(hook.copy for hook in self._hooks):
                raise ChangedInPlace from error
            raise
