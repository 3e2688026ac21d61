"""The exact derivatives of one example and sample, along every entry of a layer.

The model runs once for each layer. After the layer it has as many identical rows as directions are differentiated at a
time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from captum_sgcampp.functional.moments import Derivatives
from captum_sgcampp.functional.noise import copies_of
from captum_sgcampp.functional.score_derivatives import AlongEntries, ScoreFunction, Softmax, true_derivatives
from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.decompositions import elementary_operations
from captum_sgcampp.model.directional_derivatives import along_entries
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.layer_gradients import LayerGradients
from captum_sgcampp.model.saved_tensors import RunAgain, saved_bytes
from captum_sgcampp.sampling.request import Request
from captum_sgcampp.sampling.score_gradients import TargetScore, target_scores
from captum_sgcampp.sampling.targets import check_finite, class_logits, competitors

# What the backward passes keep for the rows after the layer fills at most this many bytes, estimated from one forward
# pass: the second and third derivative keep about six times as much as the first.
CPU_BYTES = 128 * 2**20
ACCELERATOR_BYTES = 2 * 2**30
GROWTH = 6
MOST_ROWS = 32

# Equal rows must have equal scores and gradients within this share. Rounding is far below, mixed rows are far above.
SAME_WITHIN = 1e-2
SAME_OUTPUT_WITHIN = 1e-4


class ExactDerivatives:
    """Derivatives of the score along every single entry of the layers, one example and sample at a time.

    Args:
        forward_pass: the model and the layers.
    """

    def __init__(self, forward_pass: ForwardPass) -> None:
        if forward_pass.has_replicas:
            raise RuntimeError(
                "derivatives: expected a model on one device for 'exact', found DataParallel; give the model in it"
            )
        self._layers = [_ExactLayer(single) for single in forward_pass.of_each_layer()]

    def derivatives(
        self, request: Request, row: tuple[Tensor, ...], selected: Sequence[Tensor | None]
    ) -> list[Derivatives]:
        """For every target, every tensor of the layers: one row each.

        Args:
            request: for a single example.
            row: its inputs, clean or with noise, one row each.
            selected: for each tensor of the layers, bool `(K, *space)`: the entries that have a part in the map.
        """
        masks = iter(selected)
        per_layer = [layer.derivatives(_ExactRow(request, row), masks) for layer in self._layers]
        return [found for number in range(len(request.targets)) for layer in per_layer for found in layer[number]]


@dataclass(frozen=True)
class _ExactRow:
    """One example and sample."""

    request: Request
    inputs: tuple[Tensor, ...]

    def rows(self, count: int) -> tuple[Tensor, ...]:
        """`count` equal rows of it."""
        return tuple(copies_of(x, count) for x in self.inputs)

    @property
    def shows_progress(self) -> bool:
        """Whether a bar counts the entries."""
        return self.request.noise is not None and self.request.has_noise and self.request.noise.show_progress


class _ExactLayer:
    """One layer, and what is known of the model so far: how many rows fit, and how to get them."""

    def __init__(self, forward_pass: ForwardPass) -> None:
        self._pass = forward_pass
        self._rows, self._tensors = 0, 0
        self._widens = True
        self._single: Tensor | None = None  # the model's output for the first row

    def derivatives(self, row: _ExactRow, selected: Iterator[Tensor | None]) -> list[list[Derivatives]]:
        """For every target, every tensor of the layer."""
        with elementary_operations():
            if not self._rows:
                self._rows, self._tensors = self._measure(row)
            masks = [next(selected) for _ in range(self._tensors)]
            while True:
                try:
                    return self._differentiate(row, masks)
                except RunAgain as reason:
                    self._pass.adapt_to(reason)
                    continue
                except torch.OutOfMemoryError as error:
                    if self._rows == 1:
                        raise RuntimeError(
                            "derivatives: expected a layer whose third derivatives fit into memory for 'exact', found "
                            "one for which not even a single entry does"
                        ) from error
                self._halve()

    def _halve(self) -> None:
        self._rows //= 2
        warnings.warn(f"derivatives: out of memory, going on with {self._rows} entries at a time", stacklevel=8)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _measure(self, row: _ExactRow) -> tuple[int, int]:
        """How many rows fit, and the number of the layer's tensors, from one forward pass."""
        try:
            with saved_bytes() as saved:
                return self._fitting(row, saved)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):  # `torch.func` allows none
                raise
        return self._fitting(row, [0])

    def _fitting(self, row: _ExactRow, saved: list[int]) -> tuple[int, int]:
        with self._pass.run(lambda: row.rows(1), row.request.args(1), 0) as run:
            tensors, cpu = run.tensors[0], run.output.device.type == "cpu"
            largest = max(int(torch.Size(shape).numel()) for shape in run.shapes)
            self._single = run.output.detach()
        fit = (CPU_BYTES if cpu else ACCELERATOR_BYTES) // max(GROWTH * saved[0], 1)
        return max(1, min(fit, MOST_ROWS, largest)), tensors

    def _differentiate(self, row: _ExactRow, masks: list[Tensor | None]) -> list[list[Derivatives]]:
        with self._run(row) as run:
            scalars = _scalars(run, row.request)
            return [
                _per_tensor(run, name, scalar, row, masks, more=number + 1 < len(scalars))
                for number, (name, scalar) in enumerate(scalars)
            ]

    @contextmanager
    def _run(self, row: _ExactRow) -> Iterator[LayerGradients]:
        """One pass with `rows` identical rows after the layer."""
        with ExitStack() as stack:
            run = self._widened(row, stack) if self._widens and self._pass.can_widen and self._rows > 1 else None
            self._widens = run is not None or self._rows == 1
            if run is None:
                run = stack.enter_context(
                    self._pass.run(lambda: row.rows(self._rows), row.request.args(self._rows), clean_every=self._rows)
                )
                if not _rows_are_equal(run, row):
                    raise RuntimeError(
                        "forward_func: expected scores of each row that depend on that row alone, found equal rows "
                        "with different scores or gradients"
                    )
            yield run

    def _widened(self, row: _ExactRow, stack: ExitStack) -> LayerGradients | None:
        """One row before the layer, several after it. None where the model does not allow that."""
        attempt = ExitStack()
        try:
            run: LayerGradients = attempt.enter_context(
                self._pass.run(lambda: row.rows(1), row.request.args(1), clean_every=1, rows_at_layer=self._rows)
            )
            usable = isinstance(run.output, Tensor) and run.output.dim() and len(run.output) == self._rows
            usable = usable and self._pass.can_widen and not run.goes_around() and self._is_as_single(run.output)
            if usable and _rows_are_equal(run, row):
                stack.push(attempt)
                return run
        except torch.OutOfMemoryError:
            attempt.close()
            raise
        except Exception:  # whatever a model raises when the rows of its input and of the layer differ in number
            pass
        attempt.close()
        return None

    def _is_as_single(self, output: Tensor) -> bool:
        """Whether the first row gives the output that it had without widening. It does not where the model changes the
        layer's tensor in place under another name: the widened rows are not that tensor."""
        single, self._single = self._single, None
        return single is None or bool((output[:1] - single).norm() <= SAME_OUTPUT_WITHIN * single.norm())


def _per_tensor(
    run: LayerGradients, name: str, score: Tensor, row: _ExactRow, masks: list[Tensor | None], more: bool
) -> list[Derivatives]:
    check_finite(torch.isfinite(score).all())
    graphs = run.graphs(score)
    _check_graphs(score, graphs)
    gradients = run.gradient(score, more=more, unused_is_zero=row.request.unused_is_zero, with_graph=True)
    with run.differentiating():
        return [
            true_derivatives(
                name, score.detach()[:1], _along(run, number, gradient, _is_pooled(run, graph, gradient), mask, row)
            )
            for number, (gradient, graph, mask) in enumerate(zip(gradients, graphs, masks, strict=True))
        ]


def _is_pooled(run: LayerGradients, graph: Graph, gradient: Tensor) -> bool:
    return not run.is_rearranged and graph.is_pooled(gradient.dim())


def _scalars(run: LayerGradients, request: Request) -> list[tuple[str, Tensor]]:
    """For every target, the name of a score function and the scalars `s`, `(rows,)`, that it is applied to."""
    return [_scalar(one, request.score) for one in target_scores(run, request, len(run.output))]


def _scalar(one: TargetScore, score: str | Softmax | ScoreFunction) -> tuple[str, Tensor]:
    if isinstance(score, str):
        return score, one.score
    if not isinstance(score, Softmax):
        return "identity", one.score
    logits, own = class_logits(one.output, one.target)
    columns = competitors(logits, own, score.classes)[1]
    return "sigmoid", one.score - logits[:, columns[columns != own[0]]].logsumexp(1)


def _check_graphs(score: Tensor, graphs: list[Graph]) -> None:
    if score.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"derivatives: expected scores in float32 or float64 for 'exact', found {score.dtype}, too coarse for "
            "third derivatives; use model.float() or 'closed_form'"
        )
    for graph in graphs:
        if (name := graph.doubtful()) is not None:
            raise RuntimeError(
                "derivatives: expected operations after the layer whose third derivative is known to be right for "
                f"'exact', found {name}; write it from elementary operations or use 'closed_form'"
            )


def _along(
    run: LayerGradients, number: int, gradient: Tensor, pooled: bool, mask: Tensor | None, row: _ExactRow
) -> AlongEntries:
    """The derivatives of `s` along the entries of one tensor that have a part in the map: one row."""
    first = gradient.detach()[0]
    unit = _largest(run.activations[number])
    wanted = torch.ones_like(first, dtype=torch.bool) if mask is None else mask.expand_as(first)
    entries = _entries(wanted if row.request.has_noise else wanted & _counts(first, row.request), pooled)
    with tqdm(total=len(entries), desc="entries", leave=False, disable=not row.shows_progress) as bar:
        second, third = along_entries(gradient, run.edges[number], entries, unit, run.rearrange, bar.update)
    if pooled:
        second, third = _first_of_each_map(second), _first_of_each_map(third)
    return AlongEntries(unit[None], unit * first[None], second[None], third[None])


def _counts(first: Tensor, request: Request) -> Tensor:
    """Which entries have a part in the map of a single sample, by their first derivative."""
    return first != 0 if request.map_options.two_sided else first > 0


def _entries(wanted: Tensor, pooled: bool) -> Tensor:
    """Numbers of the wanted entries in the flattened tensor. Of a pooled map, the first stands for all."""
    if pooled:
        return wanted.flatten(1).any(1).nonzero()[:, 0] * wanted[0].numel()
    return wanted.flatten().nonzero()[:, 0]


def _first_of_each_map(values: Tensor) -> Tensor:
    return values.flatten(1)[:, :1].expand(len(values), values[0].numel()).reshape(values.shape)


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude, `()`; 1 where all are 0."""
    largest = values.abs().amax()
    return torch.where(largest > 0, largest, 1)


def _rows_are_equal(run: LayerGradients, row: _ExactRow) -> bool:
    """Whether equal rows have equal scores and gradients, up to rounding, and no row depends on the others."""
    score = _scalars(run, row.request)[0][1]
    gradients = run.gradient(score, more=True, unused_is_zero=row.request.unused_is_zero)
    of_first_row = run.gradient(score[:1], more=True, unused_is_zero=row.request.unused_is_zero)
    equal = all(not bool((r - r[:1]).norm() > SAME_WITHIN * r.norm()) for r in (score.detach(), *gradients))
    return equal and all(not bool(g[1:].norm() > SAME_WITHIN * g.norm()) for g in of_first_row)
