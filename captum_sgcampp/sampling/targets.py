"""Captum's target formats: which entry of the model's output is the class score `S` of each row.

Captum selects (`_select_targets`); this module checks first, so that every mistake is an error that names `target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_sgcampp.captum_internals import ExpansionTypes, TargetType, _expand_target, _select_targets

_SEVERAL = "attribute_targets explains several classes of each example"


def normal_target(target: Any, examples: int) -> TargetType:
    """`target` with plain ints, in one of Captum's formats, checked as far as possible without the output.

    Args:
        target: None; an int, or a tensor with one, for all examples; a list or 1-D tensor of ints, one per example; a
            tuple of ints for outputs of more dimensions; a list of tuples, one per example. An array of numpy is read
            as a tensor.
        examples: N.
    """
    if target is None:
        return None
    if isinstance(target, np.ndarray):
        target = _tensor_of(target)
    if isinstance(target, Tensor):
        return _target_from_tensor(target, examples)
    if isinstance(target, tuple):
        return tuple(_plain_int(index) for index in target)
    if isinstance(target, list):
        if len(target) != examples:
            raise ValueError(
                f"target: expected one entry per example ({examples}), found a list of {len(target)}; {_SEVERAL}"
            )
        entries = [tuple(map(_plain_int, t)) if isinstance(t, tuple) else _plain_int(t) for t in target]
        if len({type(entry) for entry in entries}) > 1:
            raise TypeError("target: expected a list of ints or a list of tuples, found both in one list")
        return entries  # type: ignore[return-value]
    return _plain_int(target)


def _tensor_of(target: np.ndarray[Any, Any]) -> Tensor:
    if target.dtype.kind not in "iu":
        raise TypeError(f"target: expected an array of ints, found {target.dtype}")
    return torch.from_numpy(target.astype(np.int64))


def _target_from_tensor(target: Tensor, examples: int) -> TargetType:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target: expected a tensor of ints, found {target.dtype}")
    if target.numel() == 1:
        return int(target.item())
    if target.dim() != 1 or len(target) != examples:
        raise ValueError(
            f"target: expected one int, or one per example ({examples}), found {tuple(target.shape)}; {_SEVERAL}"
        )
    return [int(index) for index in target.tolist()]


def _plain_int(index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, int | np.integer):
        raise TypeError(
            "target: expected an int, a tensor of ints, a tuple, a list of ints or a list of tuples, found "
            f"{type(index).__name__} ({index!r})"
        )
    return int(index)


def check_output(output: Any, target: TargetType, rows: int) -> Tensor:
    """The model's output, after a check that `target` picks one value from each of its rows."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func: expected a tensor as output, found {type(output).__name__}; {_what_makes_scores(output)}"
        )
    if not output.is_floating_point():
        raise TypeError(f"forward_func: expected real floating-point scores, found {output.dtype}")
    if output.dim() == 0 or len(output) != rows:
        raise ValueError(
            f"forward_func: expected one row of scores per input row ({rows}), found an output of shape "
            f"{tuple(output.shape)}"
        )
    shape = tuple(output.shape[1:])
    if target is None:
        if output[0].numel() != 1:
            raise ValueError(f"target: expected an index into scores of shape {shape} per example, found None")
        return output
    _check_indices(target, shape)
    return output


def _what_makes_scores(output: Any) -> str:
    """How an output that is no tensor becomes one: `captum_sgcampp.scores` has the wrappers."""
    first = output[0] if isinstance(output, Sequence) and output else output
    if isinstance(first, Mapping) and ("boxes" in first or "pred_boxes" in first):
        return "captum_sgcampp.scores.DetectedBox(model) gives the scores of a box"
    entries = _tensor_entries(output)
    if not entries:
        return "wrap the model in a function that returns the tensor of scores"
    entry = next((name for name in entries if str(name).startswith("logits")), entries[0])
    return f"captum_sgcampp.scores.OutputEntry(model, {entry!r}) gives one of its tensors {entries}"


def _tensor_entries(output: Any) -> list[Any]:
    """The keys or places of the tensors in an output of several."""
    if isinstance(output, Mapping):
        return [name for name, value in output.items() if isinstance(value, Tensor)]
    if isinstance(output, Sequence):
        return [place for place, value in enumerate(output) if isinstance(value, Tensor)]
    return ["logits"] if isinstance(getattr(output, "logits", None), Tensor) else []


def _check_indices(target: TargetType, shape: tuple[int, ...]) -> None:
    per_example = isinstance(target, list)
    for index in target if isinstance(target, list) else [target]:
        places = index if isinstance(index, tuple) else (index,)
        if len(places) > len(shape) or any(size != 1 for size in shape[len(places) :]):
            expected = "None" if not shape else f"{len(shape)} ints"
            raise ValueError(f"target: expected {expected} for scores of shape {shape} per example, found {index!r}")
        if per_example and not isinstance(index, tuple) and len(shape) != 1:
            raise ValueError(f"target: expected a list of tuples for scores of shape {shape}, found a list of ints")
        for place, size in zip(places, shape, strict=False):
            if not isinstance(place, int) or not -size <= place < size:
                raise ValueError(f"target: expected an index from {-size} to {size - 1}, found {index!r}")


def repeat_target(target: TargetType, repeats: int, shape: Sequence[int]) -> TargetType:
    """`target` for rows that repeat every example `repeats` times."""
    expanded = _expand_target(target, repeats, ExpansionTypes.repeat_interleave)
    if isinstance(expanded, list) and expanded and isinstance(expanded[0], int):
        return [index % shape[1] for index in expanded]  # Captum's gather takes no negative indices
    return expanded


def select_scores(output: Tensor, target: TargetType) -> Tensor:
    """`S`: `(rows,)`, the entry of each row that `target` (already repeated) picks."""
    if isinstance(target, list) and isinstance(target[0], tuple):  # one index for all rows: Captum's is one per row
        index = (torch.arange(len(output)), *torch.tensor(target).unbind(1))
        return output[tuple(part.to(output.device) for part in index)].reshape(len(output))
    scores: Tensor = _select_targets(output, target)
    return scores.reshape(len(output))


def check_finite(finite: Tensor) -> None:
    """Raise unless all scores were finite. Waits for the device, to read the single bool `finite`."""
    if not bool(finite):
        raise RuntimeError("forward_func: expected finite scores of the target, found NaN or infinity")


def class_logits(output: Tensor, target: TargetType) -> tuple[Tensor, Tensor]:
    """All classes that compete with the target (dimension 1 of the output), and the target's own column in each row.

    Returns:
        Logits `(rows, classes)` and columns `(rows,)`.
    """
    if target is None or output.dim() < 2 or output.shape[1] < 2:
        raise ValueError(
            f"score: expected an output of at least 2 classes and a target for softmax, found {tuple(output.shape)}"
        )
    per_row = target if isinstance(target, list) else [target] * len(output)
    places = [index if isinstance(index, tuple) else (index,) for index in per_row]
    columns = torch.tensor([place[0] % output.shape[1] for place in places], device=output.device)
    if output.dim() == 2:
        return output, columns
    all_classes = [(slice(None), *place[1:]) for place in places]
    return torch.stack([row[index] for row, index in zip(output, all_classes, strict=True)]), columns


def competitors(logits: Tensor, own: Tensor, named_classes: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Which classes each row's softmax runs over, `(rows, columns)`, and those columns: the named classes and the row's
    own target, but not the other examples' targets."""
    classes = logits.shape[1]
    named = range(classes) if named_classes is None else sorted(named_classes)
    if named and not 0 <= named[-1] < classes:
        raise ValueError(f"score: expected classes from 0 to {classes - 1}, found {named[-1]}")
    is_named = torch.zeros(classes, dtype=torch.bool, device=logits.device)
    is_named[list(named)] = True
    counted = is_named[None, :] | torch.nn.functional.one_hot(own, classes).bool()
    if bool((counted.sum(1) < 2).any()):
        raise ValueError("score: expected at least one class beside the target in Softmax(classes=...), found none")
    columns = counted.any(0).nonzero()[:, 0]
    return counted[:, columns], columns
