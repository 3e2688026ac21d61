"""The loop: noisy rows, forward pass, gradients of the score, moments."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from captum_sgcampp.functional.moments import Derivatives, MomentSums
from captum_sgcampp.functional.noise import draw_seed, rewound_on_error
from captum_sgcampp.functional.sampling_statistics import standard_error
from captum_sgcampp.functional.selection import selection_mask
from captum_sgcampp.functional.tensors import at_least_float32
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.layer_gradients import LayerGradients
from captum_sgcampp.model.saved_tensors import RunAgain
from captum_sgcampp.sampling.convergence import checkpoints, is_sure
from captum_sgcampp.sampling.exact_derivatives import ExactDerivatives
from captum_sgcampp.sampling.request import Request
from captum_sgcampp.sampling.score_gradients import (
    TargetScore,
    are_probabilities,
    closed_form_derivatives,
    is_piecewise_linear,
    target_scores,
    warn_of_many_gradients,
)
from captum_sgcampp.sampling.targets import check_finite


@dataclass(frozen=True)
class LayerSample:
    """One tensor of a layer and one target: `A` at the clean input, `(N, K, *space)`, its selected entries (None: all),
    and the sums of the derivatives over the noisy samples."""

    activation: Tensor
    selected: Tensor | None
    moments: MomentSums

    def selected_in(self, example: int) -> Tensor | None:
        """The selected entries of one example, broadcasting to `(K, *space)`; None: all."""
        selected = self.selected
        if selected is None or selected.dim() < self.activation.dim():
            return selected
        return selected[example if len(selected) > 1 else 0]


def sample_layers(forward_pass: ForwardPass, request: Request) -> Sampler:
    """`A` and the moments for every target and every tensor of the layers.

    Args:
        forward_pass: the model and the layers.
        request: what is explained, and over which noise.

    Returns:
        *Sampler* with its `samples` and `tensors`.
    """
    noise = request.noise
    with rewound_on_error(noise.generator) if noise else nullcontext():
        sampler = Sampler(forward_pass, request, draw_seed(noise.generator) if noise else 0)
        if noise is None or noise.silent:
            sampler.add(range(0))
        elif noise.tolerance is None:
            sampler.add(range(noise.nt_samples))
        else:
            _sample_until_sure(sampler, noise.tolerance, noise.nt_samples)
        sampler.finish()
    return sampler


def _sample_until_sure(sampler: Sampler, tolerance: float, most: int) -> None:
    """Adds samples to the examples that are not sure yet. When an example stops depends on it alone."""
    done = 0
    for count in checkpoints(most):
        sampler.add(range(done, count))
        done = count
        sure = is_sure(sampler.errors(), sampler.effective_sizes(), count, tolerance)
        unsure = sampler.active[~sure[sampler.active]]
        if not len(unsure):
            break
        sampler.go_on_with(unsure)


class Sampler:
    """The sums of one call while they grow.

    Attributes:
        request: what is explained.
        active: the examples (indices) that get further samples.
        samples: for every target, every tensor of every layer.
        tensors: how many tensors each layer has.
        gives_probabilities: whether the model's output looks like that of a softmax.
    """

    def __init__(self, forward_pass: ForwardPass, request: Request, seed: int) -> None:
        self.request = self._of_active = request
        self.active = torch.arange(request.examples, device="cpu")
        self.samples: list[LayerSample] = []
        self.tensors: list[int] = []
        self.gives_probabilities = False
        self._forward_pass, self._seed = forward_pass, seed
        noise = request.noise if request.has_noise else None
        self._chunk = noise.chunk if noise else 1
        self._finite = torch.tensor(True)
        self._exact: ExactDerivatives | None = None  # chosen in the first pass
        self._progress = tqdm(
            total=noise.nt_samples if noise else 1,
            desc="Smooth Grad-CAM++ samples",
            disable=not (noise and noise.show_progress),
        )

    def go_on_with(self, examples: Tensor) -> None:
        """The others get no further samples."""
        self.active, self._of_active = examples, self.request.of(examples)

    def add(self, copies: range) -> None:
        """Add some samples, `chunk` in one pass. The first pass holds the clean example and one sample less."""
        start = copies.start
        while start < copies.stop or not self.samples:
            stop = min(start + self._chunk - (not self.samples), copies.stop)
            if self._fits(range(start, stop)):
                start = stop

    def errors(self) -> list[Tensor]:
        """The standard error of each example's map, for every sample."""
        options = self.request.map_options
        return [standard_error(one.activation, one.moments, one.selected, options) for one in self.samples]

    def effective_sizes(self) -> list[Tensor]:
        """The effective sample size of each example, for every sample."""
        return [one.moments.effective_sample_size() for one in self.samples]

    def finish(self) -> None:
        """The check that waits for the device."""
        self._progress.close()
        check_finite(self._finite)

    def _fits(self, copies: range) -> bool:
        """Run a pass. False where it must run again: in another way, or in halves where memory runs out."""
        try:
            if self._exact is None:
                self._run(copies)
            if self._exact is not None:
                self._run_exactly(copies)
            return True
        except RunAgain as reason:
            self._forward_pass.adapt_to(reason)
            return False
        except torch.OutOfMemoryError as error:
            _explain_memory(error, self._of_active, self._chunk)
        # Outside the except block: the traceback holds the failed pass.
        self._chunk = max(1, self._chunk // 2)
        warnings.warn(
            f"nt_samples_batch_size: out of memory, going on with {self._chunk} samples of each example in one pass",
            stacklevel=6,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _run(self, copies: range) -> None:
        request, first = self._of_active, not self.samples
        repeats = len(copies) + first
        rows = partial(request.rows, self._seed, copies, first)
        args, clean_every = request.args(repeats), repeats if first else 0
        with self._forward_pass.run(rows, args, clean_every, eager=request.exact) as run:
            scores = target_scores(run, request, repeats)
            samples = _first_samples(run, request, scores, repeats) if first else self.samples
            exact = request.exact and first and not is_piecewise_linear(run, request, scores)
            needed = not exact and (len(copies) > 0 or not request.has_noise)
            derivatives = closed_form_derivatives(run, request, scores) if needed else []
        self._check_scores(scores, now=first)
        if first:
            self.gives_probabilities = any(are_probabilities(one.output) for one in scores)
        self._add_up(samples, derivatives, skip=int(first and request.has_noise))
        self.samples, self.tensors = samples, run.tensors
        if exact:
            self._exact = ExactDerivatives(self._forward_pass)
        else:
            self._progress.update(len(copies))

    def _check_scores(self, scores: list[TargetScore], now: bool) -> None:
        for one in scores:
            self._finite = self._finite.to(one.score.device) & torch.isfinite(one.score.detach()).all()
        if now:
            check_finite(self._finite)

    def _add_up(self, samples: list[LayerSample], derivatives: list[Derivatives], skip: int) -> None:
        """Add a pass to the sums. It cannot be run again after this."""
        try:
            for sample, rows in zip(samples, derivatives, strict=False):
                sample.moments.add(rows, skip, self.active)
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                "nt_samples_batch_size: expected a number that leaves memory for the sums over the samples, found "
                f"{self._chunk}"
            ) from error

    def _run_exactly(self, copies: range) -> None:
        """The exact derivatives for the next samples, one example and sample at a time."""
        assert self._exact is not None
        for copy in copies if self.request.has_noise else range(1):
            found = [self._exact_row(self._exact, example, copy) for example in self.active.tolist()]
            rows = [Derivatives(*map(torch.cat, zip(*same, strict=True))) for same in zip(*found, strict=True)]
            self._add_up(self.samples, rows, skip=0)
            self._progress.update(1)

    def _exact_row(self, exact: ExactDerivatives, example: int, copy: int) -> list[Derivatives]:
        one = self.request.of(torch.tensor([example]))
        selected = [sample.selected_in(example) for sample in self.samples[: sum(self.tensors)]]
        return exact.derivatives(one, one.rows(self._seed, range(copy, copy + 1), False), selected)


def _first_samples(run: LayerGradients, request: Request, scores: list[TargetScore], repeats: int) -> list[LayerSample]:
    """For every target and every tensor of the layers, its activation and empty sums."""
    _check_activations(run, request.examples * repeats)
    warn_of_many_gradients(request, scores)
    groups, has_level = request.noise.groups if request.noise else 1, request.score not in ("exp", "sigmoid")
    return [
        LayerSample(
            at_least_float32(activation),
            _selected(request, activation),
            MomentSums(request.examples, groups, has_level),
        )
        for _ in request.targets
        for activation in run.activations
    ]


def _explain_memory(error: Exception, request: Request, chunk: int) -> None:
    """Raise where the caller chose the chunk, or it cannot get smaller."""
    if not request.has_noise or chunk == 1:
        raise RuntimeError(
            f"inputs: expected a batch that fits into memory, found {request.examples} examples that do not"
        ) from error
    if request.noise and request.noise.chunk_is_asked_for:
        raise RuntimeError(
            f"nt_samples_batch_size: expected a number that fits into memory, found {chunk}; None finds one"
        ) from error


def _selected(request: Request, activation: Tensor) -> Tensor | None:
    if request.entries is not None:
        return request.entries
    return selection_mask(request.feature_maps, request.neurons, activation)


def _check_activations(run: LayerGradients, rows: int) -> None:
    for shape in run.shapes:
        if len(shape) < 2:
            raise ValueError(f"layer: expected an activation of shape (N, K, ...), found {shape}")
        if shape[0] != rows:
            raise ValueError(f"layer: expected an activation with one row per input row ({rows}), found shape {shape}")
