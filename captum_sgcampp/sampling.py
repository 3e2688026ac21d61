"""The pipeline from inputs to averaged derivatives: noisy copies, passes of the model, score link, moments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from captum_sgcampp.captum_internals import TargetType
from captum_sgcampp.model_pass import LayerPass, LayerRun
from captum_sgcampp.moments import Derivatives, MomentSums, PowerSums
from captum_sgcampp.noise import chunks, copies_of, draw_seed, noisy_rows, rewound_on_error
from captum_sgcampp.scores import Softmax, exp_derivatives, sigmoid_derivatives, softmax_derivatives, softmax_margin
from captum_sgcampp.targets import check_output, class_logits, repeat_target, select_scores

# The score link softmax warns beyond this many gradients in one call.
MANY_GRADIENTS = 1000


@dataclass(frozen=True)
class Question:
    """What is explained: the score of `target` for `inputs`, through a score link.

    Attributes:
        inputs: clean inputs, `(N, ...)` each.
        additional_args: the arguments behind them.
        target: in one of Captum's formats, plain ints.
        score: score link.
        select: from the layer's activation, the selected entries (None: all); an error in them costs one pass only.
        unused_is_zero: whether a layer without influence has the gradient 0, or raises.
    """

    inputs: tuple[Tensor, ...]
    additional_args: tuple[Any, ...]
    target: TargetType
    score: str | Softmax
    select: Callable[[Tensor], Tensor | None]
    unused_is_zero: bool = False


@dataclass(frozen=True)
class Noise:
    """How the copies are made.

    Attributes:
        sigmas: for each input `(N, 1, ...)`, or None to leave it alone.
        nt_samples: number of copies.
        chunk: copies of each example in one pass.
        generator: source of the seed.
        groups: groups of copies for the jackknife.
        show_progress: whether a bar counts the copies.
    """

    sigmas: tuple[Tensor | None, ...]
    nt_samples: int
    chunk: int
    generator: Generator | None = None
    groups: int = 1
    show_progress: bool = False

    @property
    def silent(self) -> bool:
        """Whether every copy equals the clean example."""
        return all(sigma is None for sigma in self.sigmas)


@dataclass(frozen=True)
class LayerSample:
    """One tensor of the layer: `A` at the clean input, `(N, K, *space)`, the selected entries of it, and the sums of
    the derivatives over the copies."""

    activation: Tensor
    selected: Tensor | None
    moments: MomentSums


def sample_layer(layer_pass: LayerPass, question: Question, noise: Noise | None) -> tuple[LayerSample, ...]:
    """`A` and the moments for every tensor of the layer.

    Args:
        layer_pass: the model and the layer.
        question: what is explained.
        noise: how the copies are made; None (or silent noise) takes the clean example as the only copy.
    """
    if noise is None:
        return _sample(layer_pass, question, iter([range(0)]), None, seed=0)
    with rewound_on_error(noise.generator):
        seed = draw_seed(noise.generator)
        if noise.silent:
            return _sample(layer_pass, question, iter([range(0)]), None, seed)
        return _sample(layer_pass, question, chunks(noise.nt_samples, noise.chunk), noise, seed)


def _sample(
    layer_pass: LayerPass, question: Question, passes: Iterator[range], noise: Noise | None, seed: int
) -> tuple[LayerSample, ...]:
    samples: tuple[LayerSample, ...] = ()
    finite, checked = torch.tensor(True), False
    with tqdm(
        total=noise.nt_samples if noise else 1,
        desc="Smooth Grad-CAM++ copies",
        disable=not (noise and noise.show_progress),
    ) as progress:
        for copies in passes:
            clean = not samples  # the clean example rides in the first pass
            repeats = len(copies) + clean
            make_rows = partial(_rows, question.inputs, noise, seed, copies, clean)
            rows = len(question.inputs[0]) * repeats
            args = tuple(_repeat_argument(arg, len(question.inputs[0]), repeats) for arg in question.additional_args)
            with layer_pass.run(make_rows, args, clean_every=repeats if clean else 0) as run:
                output = check_output(run.output, question.target, rows)
                _check_activations(run, rows)
                target = repeat_target(question.target, repeats, output.shape)
                if clean:
                    _warn_of_many_gradients(question, output, noise.nt_samples if noise else 1)
                    groups = noise.groups if noise else 1
                    samples = tuple(_start(a, groups, question) for a in run.activations)
                if copies or noise is None:
                    score, derivatives = _derivatives(run, output, target, question)
                    finite = (
                        finite & torch.isfinite(score).all() if checked else _check_scores(torch.isfinite(score).all())
                    )
                    checked = True
                    skip = int(clean and noise is not None)
                    for sample, rows_of_layer in zip(samples, derivatives, strict=True):
                        sample.moments.add(rows_of_layer, len(question.inputs[0]), skip)
            progress.update(len(copies))
    _check_scores(finite)
    return samples


def _check_scores(finite: Tensor) -> Tensor:
    if not bool(finite):
        raise RuntimeError("forward_func: expected finite scores of the target, found NaN or infinity")
    return finite


def _rows(inputs: tuple[Tensor, ...], noise: Noise | None, seed: int, copies: range, clean: bool) -> tuple[Tensor, ...]:
    sigmas = noise.sigmas if noise else (None,) * len(inputs)
    return tuple(
        noisy_rows(x, sigma, seed, index, copies, clean)
        for index, (x, sigma) in enumerate(zip(inputs, sigmas, strict=True))
    )


def _repeat_argument(argument: Any, examples: int, repeats: int) -> Any:
    """A tensor with one entry per example grows with the rows; anything else passes as it is."""
    if isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == examples:
        return copies_of(argument, repeats)
    return argument


def _start(activation: Tensor, groups: int, question: Question) -> LayerSample:
    """The mathematics runs in float32 or wider whatever the model's dtype."""
    return LayerSample(_widened(activation), question.select(activation), MomentSums(groups))


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_activations(run: LayerRun, rows: int) -> None:
    for shape in run.shapes:
        if len(shape) < 2:
            raise ValueError(f"layer: expected an activation of shape (N, K, ...), found {shape}")
        if shape[0] != rows:
            raise ValueError(f"layer: expected an activation with one row per input row ({rows}), found shape {shape}")


def _derivatives(
    run: LayerRun, output: Tensor, target: TargetType, question: Question
) -> tuple[Tensor, tuple[Derivatives, ...]]:
    """`S` of every row, and the derivatives of the score link for every tensor of the layer."""
    score = select_scores(output, target)
    softmax = Softmax() if question.score == "softmax" else question.score
    if isinstance(softmax, Softmax):
        return score.detach(), _softmax(run, output, target, softmax, question.unused_is_zero)
    gradients = run.gradient(score, unused_is_zero=question.unused_is_zero)
    link = {"exp": exp_derivatives, "sigmoid": sigmoid_derivatives}[str(softmax)]
    return score.detach(), tuple(link(_widened(score.detach()), _widened(g)) for g in gradients)


def _softmax(
    run: LayerRun, output: Tensor, target: TargetType, softmax: Softmax, unused_is_zero: bool
) -> tuple[Derivatives, ...]:
    logits, own = class_logits(output, target)
    counted, columns = _competitors(logits, own, softmax)
    position = (columns[None, :] == own[:, None]).to(torch.int8).argmax(1)
    values = _widened(logits.detach())[:, columns].masked_fill(~counted, -torch.inf)
    margin = softmax_margin(values, position)
    picked = logits.gather(1, own[:, None])[:, 0]
    own_gradients = [_widened(g) for g in run.gradient(picked, keep_graph=True, unused_is_zero=unused_is_zero)]
    sums = [PowerSums(g) for g in own_gradients]
    rivals = [(number, column) for number, column in enumerate(columns.tolist()) if not bool((own == column).all())]
    for number, column in rivals:
        more = (number, column) != rivals[-1]
        gradients = run.gradient(logits[:, column], keep_graph=more, unused_is_zero=unused_is_zero)
        for total, other, mine in zip(sums, gradients, own_gradients, strict=True):
            total.add(margin.others[:, number], _widened(other) - mine)
    return tuple(softmax_derivatives(margin, total) for total in sums)


def _competitors(logits: Tensor, own: Tensor, softmax: Softmax) -> tuple[Tensor, Tensor]:
    """Which classes each row's softmax runs over, `(rows, columns)`, and those columns: the named classes and the
    row's own target, never another example's."""
    classes = logits.shape[1]
    named = range(classes) if softmax.classes is None else sorted({int(index) for index in softmax.classes})
    if named and not 0 <= named[-1] < classes:
        raise ValueError(f"score: expected classes from 0 to {classes - 1}, found {named[-1]}")
    is_named = torch.zeros(classes, dtype=torch.bool, device=logits.device)
    is_named[list(named)] = True
    counted = is_named[None, :] | torch.nn.functional.one_hot(own, classes).bool()
    if bool((counted.sum(1) < 2).any()):
        raise ValueError("score: expected at least one class beside the target in Softmax(classes=...), found none")
    columns = counted.any(0).nonzero()[:, 0]
    return counted[:, columns], columns


def _warn_of_many_gradients(question: Question, output: Tensor, copies: int) -> None:
    score = question.score
    if score == "softmax" or isinstance(score, Softmax):
        named = score.classes if isinstance(score, Softmax) else None
        gradients = copies * (output[0].numel() if named is None else len(named) + 1)
        if gradients > MANY_GRADIENTS:
            warnings.warn(
                f"score: softmax takes one gradient per class and noisy copy, here {gradients} per example; name the "
                "classes that count with Softmax(classes=...)",
                stacklevel=5,
            )
