"""The closed form: from the gradients of one forward pass to the derivatives of every target's score."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_sgcampp.captum_internals import TargetType
from captum_sgcampp.functional.moments import Derivatives, PowerSums
from captum_sgcampp.functional.score_derivatives import (
    ScoreFunction,
    Softmax,
    exp_derivatives,
    identity_derivatives,
    sigmoid_derivatives,
    softmax_derivatives,
    softmax_margin,
)
from captum_sgcampp.functional.tensors import at_least_float32
from captum_sgcampp.model.layer_gradients import LayerGradients
from captum_sgcampp.sampling.request import Request
from captum_sgcampp.sampling.targets import check_output, class_logits, competitors, repeat_target, select_scores

# The score function softmax warns beyond this many gradients in one call.
MANY_GRADIENTS = 1000
# By which probabilities in bfloat16 may miss the sum 1.
SUM_ROUNDING = 0.01

_FORMULAS: dict[Any, Callable[[Tensor, Tensor], Derivatives]] = {"exp": exp_derivatives, "sigmoid": sigmoid_derivatives}


class TargetScore(NamedTuple):
    """One target in one pass.

    Attributes:
        output: of the model, `(rows, ...)`.
        target: repeated for the rows.
        score: what the score function is applied to, `(rows,)`.
    """

    output: Tensor
    target: TargetType
    score: Tensor


def target_scores(run: LayerGradients, request: Request, repeats: int) -> list[TargetScore]:
    """The score of every target, after a check of the model's output."""
    return [_target_score(run, request, repeats, target) for target in request.targets]


def _target_score(run: LayerGradients, request: Request, repeats: int, target: TargetType) -> TargetScore:
    output = check_output(run.output, target, request.examples * repeats)
    repeated = repeat_target(target, repeats, output.shape)
    score = select_scores(output, repeated)
    return TargetScore(output, repeated, own_score(request.score, score) if callable(request.score) else score)


def are_probabilities(output: Tensor) -> bool:
    """Whether the classes of every row (dimension 1) are not negative and sum to 1, as after a softmax."""
    if output.dim() < 2 or output.shape[1] < 2:
        return False
    values = at_least_float32(output.detach())
    return bool((values.amin() >= 0) & ((values.sum(1) - 1).abs().amax() <= SUM_ROUNDING))


def own_score(score: ScoreFunction, picked: Tensor) -> Tensor:
    """`score(S)`, checked."""
    found = score(picked)
    if not isinstance(found, Tensor) or found.shape != picked.shape:
        form = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"score: expected a function from scores {tuple(picked.shape)} to as many, found {form}")
    return found


def closed_form_derivatives(run: LayerGradients, request: Request, scores: list[TargetScore]) -> list[Derivatives]:
    """For every target and every tensor of the layers, one row per row of the pass."""
    last = len(scores) - 1
    derivatives = _softmax if isinstance(request.score, Softmax) else _of_score
    return [
        found for number, score in enumerate(scores) for found in derivatives(run, request, score, more=number < last)
    ]


def _of_score(run: LayerGradients, request: Request, score: TargetScore, more: bool) -> Iterator[Derivatives]:
    formula = _FORMULAS.get(request.score, identity_derivatives)
    values = at_least_float32(score.score if request.create_graph else score.score.detach())
    return (formula(values, g) for g in _gradients(run, request, score.score, more))


def _gradients(run: LayerGradients, request: Request, score: Tensor, more: bool) -> list[Tensor]:
    """`g` for every tensor of the layers, in float32 or wider."""
    gradients = run.gradient(score, more=more, unused_is_zero=request.unused_is_zero, with_graph=request.create_graph)
    return [at_least_float32(g) for g in gradients]


def _softmax(run: LayerGradients, request: Request, score: TargetScore, more: bool) -> Iterator[Derivatives]:
    """One gradient per class."""
    assert isinstance(request.score, Softmax)
    logits, own = class_logits(score.output, score.target)
    counted, columns = competitors(logits, own, request.score.classes)
    position = (columns[None, :] == own[:, None]).to(torch.int8).argmax(1)
    values = at_least_float32(logits if request.create_graph else logits.detach())
    margin = softmax_margin(values[:, columns].masked_fill(~counted, -torch.inf), position)
    own_gradients = _gradients(run, request, logits.gather(1, own[:, None])[:, 0], more=True)
    sums = [PowerSums(g) for g in own_gradients]
    rivals = [(number, column) for number, column in enumerate(columns.tolist()) if not bool((own == column).all())]
    for number, column in rivals:
        gradients = _gradients(run, request, logits[:, column], more or (number, column) != rivals[-1])
        for total, other, mine in zip(sums, gradients, own_gradients, strict=True):
            total.add(margin.others[:, number], other - mine)
    return (softmax_derivatives(margin, total) for total in sums)


def is_piecewise_linear(run: LayerGradients, request: Request, scores: list[TargetScore]) -> bool:
    """Whether the closed form is exact: what the score function is applied to is piecewise linear in the layer."""
    softmax = isinstance(request.score, Softmax)
    return all(
        graph.is_piecewise_linear() for one in scores for graph in run.graphs(one.output if softmax else one.score)
    )


def warn_of_many_gradients(request: Request, scores: list[TargetScore]) -> None:
    """Softmax in closed form can take long."""
    if not isinstance(request.score, Softmax) or request.exact:
        return
    copies, named = request.noise.nt_samples if request.noise else 1, request.score.classes
    gradients = copies * max(one.output[0].numel() if named is None else len(named) + 1 for one in scores)
    if gradients > MANY_GRADIENTS:
        warnings.warn(
            f"score: softmax takes one gradient per class and noisy sample, here {gradients} per example; name the "
            "classes that count with Softmax(classes=...)",
            stacklevel=5,
        )
