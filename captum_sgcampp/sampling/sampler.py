"""The pipeline from inputs to averaged derivatives: noisy copies, passes of the model, score link, moments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from captum_sgcampp.captum_internals import TargetType
from captum_sgcampp.functional.moments import Derivatives, MomentSums, PowerSums
from captum_sgcampp.functional.noise import copies_of, draw_seed, noisy_rows, rewound_on_error
from captum_sgcampp.functional.score_derivatives import (
    ScoreFunction,
    Softmax,
    exp_derivatives,
    identity_derivatives,
    sigmoid_derivatives,
    softmax_derivatives,
    softmax_margin,
)
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.layer_gradients import LayerGradients
from captum_sgcampp.model.saved_tensors import RunAgain
from captum_sgcampp.sampling.exact_derivatives import ExactPass, Row, own_score
from captum_sgcampp.sampling.targets import (
    check_finite,
    check_output,
    class_logits,
    competitors,
    repeat_target,
    select_scores,
)

# The score link softmax warns beyond this many gradients in one call.
MANY_GRADIENTS = 1000

# Sampling with a tolerance starts with this many copies.
LEAST_COPIES = 4


@dataclass(frozen=True)
class Question:
    """What is explained: the scores of targets for `inputs`, through a score link.

    Attributes:
        inputs: clean inputs, `(N, ...)` each.
        additional_args: the arguments behind them.
        per_example: which of these have one entry per example and grow with the rows.
        targets: in Captum's formats, plain ints; each is explained on its own, over the same copies.
        score: score link: `"exp"`, `"sigmoid"` or a `Softmax`; with exact derivatives also `"identity"` or a function.
        select: from the layer's activation, the selected entries (None: all); an error in them costs one pass only.
        unused_is_zero: whether a layer without influence has the gradient 0, or raises.
        exact: whether to take true derivatives where the head is not piecewise linear.
        create_graph: whether the maps are to be differentiated.
    """

    inputs: tuple[Tensor, ...]
    additional_args: tuple[Any, ...]
    per_example: tuple[bool, ...]
    targets: tuple[TargetType, ...]
    score: str | Softmax | ScoreFunction
    select: Callable[[Tensor], Tensor | None]
    unused_is_zero: bool = False
    exact: bool = False
    create_graph: bool = False

    @property
    def examples(self) -> int:
        """N."""
        return len(self.inputs[0])

    def of(self, examples: Tensor) -> Question:
        """The question for some of the examples (indices)."""
        chosen = examples.tolist()
        return replace(
            self,
            inputs=tuple(x[examples.to(x.device)] for x in self.inputs),
            additional_args=tuple(
                arg[examples.to(arg.device)] if per_example else arg
                for arg, per_example in zip(self.additional_args, self.per_example, strict=True)
            ),
            targets=tuple([t[i] for i in chosen] if isinstance(t, list) else t for t in self.targets),
        )


@dataclass(frozen=True)
class Noise:
    """How the copies are made.

    Attributes:
        sigmas: for each input `(N, 1, ...)`, or None to leave it alone.
        nt_samples: number of copies; with `tolerance`, the most of them.
        chunk: copies of each example in one pass.
        chunk_is_asked_for: whether the caller chose it; otherwise it is halved where memory runs out.
        generator: source of the seed.
        groups: groups of copies for the jackknife.
        show_progress: whether a bar counts the copies.
        tolerance: sample until the standard error of every map is below it; None: no.
    """

    sigmas: tuple[Tensor | None, ...]
    nt_samples: int
    chunk: int
    chunk_is_asked_for: bool = True
    generator: Generator | None = None
    groups: int = 1
    show_progress: bool = False
    tolerance: float | None = None

    @property
    def silent(self) -> bool:
        """Whether every copy equals the clean example."""
        return all(sigma is None for sigma in self.sigmas)

    def of(self, examples: Tensor) -> Noise:
        """The noise for some of the examples (indices)."""
        return replace(self, sigmas=tuple(s if s is None else s[examples.to(s.device)] for s in self.sigmas))


@dataclass(frozen=True)
class LayerSample:
    """One tensor of a layer and one target: `A` at the clean input, `(N, K, *space)`, the selected entries of it, and
    the sums of the derivatives over the copies."""

    activation: Tensor
    selected: Tensor | None
    moments: MomentSums

    def selected_in(self, example: int) -> Tensor | None:
        """The selected entries of one example, broadcasting to `(K, *space)`; None: all."""
        selected = self.selected
        if selected is None or selected.dim() < self.activation.dim():
            return selected
        return selected[example if len(selected) > 1 else 0]

    def of(self, examples: Tensor) -> LayerSample:
        """The sample of some of the examples (indices)."""
        selected = self.selected
        if selected is not None and selected.dim() == self.activation.dim() and len(selected) > 1:
            selected = selected[examples]
        return LayerSample(self.activation[examples], selected, self.moments.of(examples))


class Part(NamedTuple):
    """Examples that got the same number of copies.

    Attributes:
        examples: their indices in the batch.
        samples: for every target, every tensor of every layer.
        tensors: how many tensors each layer has.
    """

    examples: Tensor
    samples: list[LayerSample]
    tensors: list[int]


class _Picked(NamedTuple):
    """One target in one pass.

    Attributes:
        output: of the model, `(rows, ...)`.
        target: repeated for the rows.
        score: what the score link is applied to, `(rows,)`.
    """

    output: Tensor
    target: TargetType
    score: Tensor


# From a sample, the standard error of each example's map.
ErrorOf = Callable[[LayerSample], Tensor]


def sample_layers(forward_pass: ForwardPass, question: Question, noise: Noise | None, error_of: ErrorOf) -> list[Part]:
    """`A` and the moments for every target and every tensor of the layers.

    Args:
        forward_pass: the model and the layers.
        question: what is explained.
        noise: how the copies are made; None (or silent noise) takes the clean example as the only copy.
        error_of: what `noise.tolerance` bounds.

    Returns:
        One part; with a tolerance, one for every number of copies that was needed.
    """
    if noise is None:
        return [_Sampling(forward_pass, question, None, 0).all(0)]
    with rewound_on_error(noise.generator):
        seed = draw_seed(noise.generator)
        if noise.silent:
            return [_Sampling(forward_pass, question, None, seed).all(0)]
        sampling = _Sampling(forward_pass, question, noise, seed)
        if noise.tolerance is None:
            return [sampling.all(noise.nt_samples)]
        return list(_until_sure(sampling, noise, error_of))


def _until_sure(sampling: _Sampling, noise: Noise, error_of: ErrorOf) -> Iterator[Part]:
    """Adds copies to the examples that are not sure yet. An example's copies and its end depend on it alone."""
    assert noise.tolerance is not None
    examples, done = torch.arange(sampling.question.examples), 0
    for count in checkpoints(noise.nt_samples):
        sampling.add(range(done, count))
        done = count
        errors = torch.stack([error_of(sample) for sample in sampling.samples]).amax(0).cpu()
        sure = (errors * caution(count) <= noise.tolerance) | torch.tensor(count == noise.nt_samples)
        if sure.any():
            yield Part(examples[sure], [s.of(sure.nonzero()[:, 0]) for s in sampling.samples], sampling.tensors)
            if sure.all():
                break
            sampling.continue_with((~sure).nonzero()[:, 0])
            examples = examples[~sure]
    sampling.finish()


def checkpoints(most: int) -> Iterator[int]:
    """The numbers of copies at which the standard error is looked at: 4, 6, 8, 12, 16, 24, 32, ... and the last."""
    count = LEAST_COPIES
    while count < most:
        yield count
        count = count * 3 // 2 if count & (count - 1) == 0 else count * 4 // 3
    yield most


def caution(copies: int) -> float:
    """What a standard error is multiplied by before it is believed: half of all errors are larger than it says, and
    few copies tell it badly. With it, 47 of 48 maps (12 photographs, two layers each of SqueezeNet and MobileNetV2)
    were within 3 % of the map of 512 copies.
    """
    return 1.35 + 1.4 / copies


class _Sampling:
    """The sums of one call while they grow.

    Attributes:
        question: what is explained, for the examples that are still sampled.
        samples: for every target, every tensor of every layer.
        tensors: how many tensors each layer has.
    """

    def __init__(self, forward_pass: ForwardPass, question: Question, noise: Noise | None, seed: int) -> None:
        self.question = question
        self.samples: list[LayerSample] = []
        self.tensors: list[int] = []
        self._forward_pass = forward_pass
        self._noise = noise
        self._seed = seed
        self._chunk = noise.chunk if noise else 1
        self._finite = torch.tensor(True)
        self._exact_pass: ExactPass | None = None  # once a head turns out not to be piecewise linear
        self._progress = tqdm(
            total=noise.nt_samples if noise else 1,
            desc="Smooth Grad-CAM++ copies",
            disable=not (noise and noise.show_progress),
        )

    def all(self, copies: int) -> Part:
        """Run all passes."""
        self.add(range(copies))
        self.finish()
        return Part(torch.arange(self.question.examples), self.samples, self.tensors)

    def add(self, copies: range) -> None:
        """Add some copies, `chunk` in one pass; the clean example rides in the first, which holds one copy less."""
        start = copies.start
        while start < copies.stop or not self.samples:
            stop = min(start + self._chunk - (not self.samples), copies.stop)
            if self._fits(range(start, stop)):
                start = stop

    def _fits(self, copies: range) -> bool:
        """Run a pass; where memory runs out, halve the chunk and say so."""
        try:
            self._run(copies)
            return True
        except RunAgain as reason:
            self._forward_pass.adapt_to(reason)
            return False
        except torch.OutOfMemoryError as error:
            self._explain_memory(error)
        # Out of the except block, so that the failed pass is no longer held by its traceback.
        self._chunk = max(1, self._chunk // 2)
        warnings.warn(
            f"nt_samples_batch_size: out of memory, going on with {self._chunk} copies of each example in one pass",
            stacklevel=6,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _explain_memory(self, error: Exception) -> None:
        """Raise where a smaller chunk is not ours to choose, or not to be had."""
        if self._noise is None or self._chunk == 1:
            raise RuntimeError(
                f"inputs: expected a batch that fits into memory, found {self.question.examples} examples that do not"
            ) from error
        if self._noise.chunk_is_asked_for:
            raise RuntimeError(
                f"nt_samples_batch_size: expected a number that fits into memory, found {self._chunk}; None finds one"
            ) from error

    def continue_with(self, examples: Tensor) -> None:
        """Drop the other examples."""
        self.question = self.question.of(examples)
        self._noise = self._noise.of(examples) if self._noise else None
        self.samples = [sample.of(examples) for sample in self.samples]

    def finish(self) -> None:
        """The check that waits for the device."""
        self._progress.close()
        check_finite(self._finite)

    def _run(self, copies: range) -> None:
        """One pass of the model."""
        if self._exact_pass is not None:
            self._run_exactly(copies)
            return
        question, noise = self.question, self._noise
        clean = not self.samples  # the clean example rides in the first pass
        repeats = len(copies) + clean
        make_rows = partial(_rows, question.inputs, noise, self._seed, copies, clean)
        args = tuple(
            copies_of(arg, repeats) if per_example else arg
            for arg, per_example in zip(question.additional_args, question.per_example, strict=True)
        )
        every = repeats if clean else 0
        with self._forward_pass.run(make_rows, args, clean_every=every, eager=question.exact) as run:
            samples = self._start(run, repeats) if clean else self.samples
            needs_entries = question.exact and not self._is_piecewise_linear(run, repeats)
            derivatives = self._derivatives(run, repeats) if (copies or noise is None) and not needs_entries else []
        if needs_entries:
            self.samples, self.tensors, self._exact_pass = samples, run.tensors, ExactPass(self._forward_pass)
            self._run_exactly(copies)
            return
        if derivatives and not samples[0].moments.copies:
            check_finite(self._finite)
        self._count(samples, derivatives, skip=int(clean and noise is not None))
        self.samples, self.tensors = samples, run.tensors
        self._progress.update(len(copies))

    def _count(self, samples: list[LayerSample], derivatives: list[Derivatives], skip: int) -> None:
        """Add a pass to the sums, whole or not at all: it may not be repeated after this."""
        try:
            for sample, rows in zip(samples, derivatives, strict=False):
                sample.moments.add(rows, self.question.examples, skip)
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                "nt_samples_batch_size: expected a number that leaves memory for the sums over the copies, found "
                f"{self._chunk}"
            ) from error

    def _start(self, run: LayerGradients, repeats: int) -> list[LayerSample]:
        question = self.question
        _check_activations(run, question.examples * repeats)
        for target in question.targets:
            output = check_output(run.output, target, question.examples * repeats)
            _warn_of_many_gradients(question, output, self._noise.nt_samples if self._noise else 1)
        groups = self._noise.groups if self._noise else 1
        return [
            LayerSample(_widened(activation), question.select(activation), MomentSums(groups))
            for _ in question.targets
            for activation in run.activations
        ]

    def _is_piecewise_linear(self, run: LayerGradients, repeats: int) -> bool:
        """Whether the closed form is exact: what the link is applied to is piecewise linear in the layer."""
        softmax = isinstance(self.question.score, Softmax)
        scores = (picked.output if softmax else picked.score for picked in self._picked(run, repeats))
        return all(graph.is_piecewise_linear() for score in scores for graph in run.graphs(score))

    def _picked(self, run: LayerGradients, repeats: int) -> Iterator[_Picked]:
        """The score of every target."""
        question = self.question
        for target in question.targets:
            output = check_output(run.output, target, question.examples * repeats)
            repeated = repeat_target(target, repeats, output.shape)
            score = select_scores(output, repeated)
            yield _Picked(output, repeated, own_score(question.score, score) if callable(question.score) else score)

    def _run_exactly(self, copies: range) -> None:
        """The true derivatives for the next copies, one example and copy at a time."""
        assert self._exact_pass is not None
        for copy in copies if self._noise else range(1):
            rows = [self._exact_pass.derivatives(self._row(example, copy)) for example in range(self.question.examples)]
            derivatives = [Derivatives(*map(torch.cat, zip(*same, strict=True))) for same in zip(*rows, strict=True)]
            self._count(self.samples, [Derivatives(*map(_widened, found)) for found in derivatives], skip=0)
            self._progress.update(1)

    def _row(self, example: int, copy: int) -> Row:
        """One example and copy."""
        index = torch.tensor([example])
        question, noise = self.question.of(index), self._noise and self._noise.of(index)
        # The noise is drawn once; the pass asks for rows several times.
        row = _rows(question.inputs, noise, self._seed, range(copy, copy + 1), clean=False)
        return Row(
            make_rows=lambda rows: tuple(copies_of(x, rows) for x in row),
            additional_args=question.additional_args,
            per_example=question.per_example,
            targets=question.targets,
            score=question.score,
            selected=[sample.selected_in(example) for sample in self.samples[: sum(self.tensors)]],
            positive_only=noise is None,
            unused_is_zero=question.unused_is_zero,
            show_progress=bool(noise and noise.show_progress),
        )

    def _derivatives(self, run: LayerGradients, repeats: int) -> list[Derivatives]:
        """For every target and every tensor of the layers."""
        question, picked = self.question, list(self._picked(run, repeats))
        for one in picked:
            self._finite = self._finite.to(one.score.device) & torch.isfinite(one.score.detach()).all()
        if isinstance(question.score, Softmax):
            parts = [
                _softmax(run, one.output, one.target, question, more=number + 1 < len(picked))
                for number, one in enumerate(picked)
            ]
        else:
            parts = [
                _linked(question, one.score, _gradients(run, one.score, question, more=number + 1 < len(picked)))
                for number, one in enumerate(picked)
            ]
        return [derivatives for part in parts for derivatives in part]


def _rows(inputs: tuple[Tensor, ...], noise: Noise | None, seed: int, copies: range, clean: bool) -> tuple[Tensor, ...]:
    sigmas = noise.sigmas if noise else (None,) * len(inputs)
    return tuple(
        noisy_rows(x, sigma, seed, index, copies, clean)
        for index, (x, sigma) in enumerate(zip(inputs, sigmas, strict=True))
    )


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_activations(run: LayerGradients, rows: int) -> None:
    for shape in run.shapes:
        if len(shape) < 2:
            raise ValueError(f"layer: expected an activation of shape (N, K, ...), found {shape}")
        if shape[0] != rows:
            raise ValueError(f"layer: expected an activation with one row per input row ({rows}), found shape {shape}")


_LINKS: dict[Any, Callable[[Tensor, Tensor], Derivatives]] = {"exp": exp_derivatives, "sigmoid": sigmoid_derivatives}


def _linked(question: Question, score: Tensor, gradients: Sequence[Tensor]) -> tuple[Derivatives, ...]:
    """The derivatives of the score link for every tensor of the layer."""
    link = _LINKS.get(question.score, identity_derivatives)
    values = _widened(score if question.create_graph else score.detach())
    return tuple(link(values, g) for g in gradients)


def _gradients(run: LayerGradients, score: Tensor, question: Question, more: bool) -> list[Tensor]:
    """`g` for every tensor of the layers, in float32 or wider."""
    gradients = run.gradient(score, more=more, unused_is_zero=question.unused_is_zero, with_graph=question.create_graph)
    return [_widened(g) for g in gradients]


def _softmax(
    run: LayerGradients, output: Tensor, target: TargetType, question: Question, more: bool
) -> tuple[Derivatives, ...]:
    """The derivatives of the score link `softmax` for every tensor of the layer: one gradient per class."""
    assert isinstance(question.score, Softmax)
    logits, own = class_logits(output, target)
    counted, columns = competitors(logits, own, question.score.classes)
    position = (columns[None, :] == own[:, None]).to(torch.int8).argmax(1)
    values = _widened(logits if question.create_graph else logits.detach())[:, columns].masked_fill(
        ~counted, -torch.inf
    )
    margin = softmax_margin(values, position)
    picked = logits.gather(1, own[:, None])[:, 0]
    own_gradients = _gradients(run, picked, question, more=True)
    sums = [PowerSums(g) for g in own_gradients]
    rivals = [(number, column) for number, column in enumerate(columns.tolist()) if not bool((own == column).all())]
    for number, column in rivals:
        follows = more or (number, column) != rivals[-1]
        gradients = _gradients(run, logits[:, column], question, follows)
        for total, other, mine in zip(sums, gradients, own_gradients, strict=True):
            total.add(margin.others[:, number], other - mine)
    return tuple(softmax_derivatives(margin, total) for total in sums)


def _warn_of_many_gradients(question: Question, output: Tensor, copies: int) -> None:
    if isinstance(question.score, Softmax) and not question.exact:
        named = question.score.classes
        gradients = copies * (output[0].numel() if named is None else len(named) + 1)
        if gradients > MANY_GRADIENTS:
            warnings.warn(
                f"score: softmax takes one gradient per class and noisy copy, here {gradients} per example; name the "
                "classes that count with Softmax(classes=...)",
                stacklevel=5,
            )
