"""What the autograd graph between a score and a layer is made of, read from its nodes.

Node names are those of `torch.autograd.graph.Node.name()`, without the namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

# Nodes that are linear or piecewise linear in all their inputs together.
_LINEAR = {
    "AdaptiveAvgPool2DBackward0",
    "AdaptiveAvgPool3DBackward0",
    "AdaptiveMaxPool2DBackward0",
    "AdaptiveMaxPool3DBackward0",
    "AddBackward0",
    "AliasBackward0",
    "AvgPool2DBackward0",
    "AvgPool3DBackward0",
    "CatBackward0",
    "ClampBackward1",
    "ClampMinBackward0",
    "CloneBackward0",
    "ConstantPadNdBackward0",
    "CopyBackwards",
    "ExpandBackward0",
    "GatherBackward0",
    "HardtanhBackward0",
    "IndexBackward0",
    "LeakyReluBackward0",
    "MaxPool2DWithIndicesBackward0",
    "MaxPool3DWithIndicesBackward0",
    "MeanBackward0",
    "MeanBackward1",
    "NegBackward0",
    "PermuteBackward0",
    "ReflectionPad2DBackward0",
    "ReluBackward0",
    "ReplicationPad2DBackward0",
    "ReshapeAliasBackward0",
    "SelectBackward0",
    "SliceBackward0",
    "SplitBackward0",
    "SplitWithSizesBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "SqueezeBackward2",
    "StackBackward0",
    "SubBackward0",
    "SumBackward0",
    "SumBackward1",
    "TBackward0",
    "ThresholdBackward0",
    "TransposeBackward0",
    "UnbindBackward0",
    "UnsafeViewBackward0",
    "UnsqueezeBackward0",
    "UpsampleBilinear2DBackward0",
    "UpsampleNearest2DBackward0",
    "ViewBackward0",
}

# Nodes that are linear in each input while the others are fixed.
_LINEAR_IN_EACH = {
    "AddmmBackward0",
    "BaddbmmBackward0",
    "BmmBackward0",
    "ConvolutionBackward0",
    "DotBackward0",
    "LinearBackward0",
    "MmBackward0",
    "MulBackward0",
    "MvBackward0",
}

# Nodes that are linear in their first input alone.
_LINEAR_IN_FIRST = {"DivBackward0", "PreluKernelBackward0"}

# Batch normalization with running statistics is a fixed affine map.
_BATCH_NORM = {"CudnnBatchNormBackward0", "MiopenBatchNormBackward0", "NativeBatchNormBackward0"}

# Nodes whose third derivative PyTorch gets wrong without an error.
_WRONG = {"NativeLayerNormBackward0"}

# Nodes that pass the layer's tensor on unchanged.
_SAME = {"AliasBackward0", "CloneBackward0", "CopyBackwards"}


class Graph:
    """The part of the autograd graph through which a score depends on one tensor.

    Args:
        score: the score, any shape.
        edge: the tensor, a leaf or its place in the graph.
    """

    def __init__(self, score: Tensor, edge: Tensor | GradientEdge) -> None:
        target = get_gradient_edge(edge) if isinstance(edge, Tensor) else edge
        self._target = (target.node, target.output_nr)
        # For every node on a path to the tensor: which of its inputs are on one.
        self.inputs: dict[Any, list[int]] = {}
        for node in _children_first(score.grad_fn, target.node):
            on_path = [
                place for place, (child, number) in enumerate(node.next_functions) if self._leads_on(child, number)
            ]
            if on_path:
                self.inputs[node] = on_path

    def _leads_on(self, child: Any, number: int) -> bool:
        return child in self.inputs or (child, number) == self._target

    def doubtful(self) -> str | None:
        """The name of an operation whose second or third derivative may be wrong without an error: known to be wrong,
        or with a custom backward pass (other than torch's hook of `nn.Module`)."""
        for node in self.inputs:
            name = _name(node)
            custom = isinstance(node, BackwardCFunction) and name != "BackwardHookFunctionBackward"
            if name in _WRONG or custom or "CppNode" in name:
                return name
        return None

    def is_piecewise_linear(self) -> bool:
        """Whether the score is known to be a piecewise linear function of the tensor."""
        return all(_is_linear(node, on_path) for node, on_path in self.inputs.items())

    def is_pooled(self, dims: int) -> bool:
        """Whether the score uses the tensor, of `dims` dimensions, only through a mean over all but the first two."""
        if dims < 3:
            return False
        node, number = self._target
        while True:
            users = [user for user in self.inputs if (node, number) in user.next_functions]
            if len(users) != 1 or len(self.inputs[users[0]]) != 1:
                return False
            if _name(users[0]) not in _SAME:
                break
            node, number = users[0], 0
        return _name(users[0]) == "MeanBackward1" and _reduced(users[0]._saved_dim, dims) == set(range(2, dims))


def _children_first(root: Any, stop: Any) -> Iterator[Any]:
    """All nodes below `root`, every node after those that it depends on. Nothing below `stop`."""
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, children_done = stack.pop()
        if children_done:
            yield node
        elif node is not None and node is not stop and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(child, False) for child, _ in node.next_functions]


def _name(node: Any) -> str:
    return str(node.name()).removeprefix("torch::autograd::")


def _is_linear(node: Any, on_path: list[int]) -> bool:
    name = _name(node)
    if name in _LINEAR:
        return True
    if name in _LINEAR_IN_EACH:
        return len(on_path) == 1
    if name in _BATCH_NORM:
        return on_path == [0] and not getattr(node, "_saved_training", True)
    return name in _LINEAR_IN_FIRST and on_path == [0]


def _reduced(saved: Any, dims: int) -> set[int]:
    """Dimensions that a node saved, counted from 0. Nodes save negative ones as unsigned 64-bit numbers."""
    return {(dim - 2**64 if dim >= 2**63 else dim) % dims for dim in saved or ()}
