"""A run: measures what is missing, beside other runners, then writes the results of all images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from captum_sgcampp.evaluation.cases import Cases
from captum_sgcampp.evaluation.contents import check_unchanged
from captum_sgcampp.evaluation.groups import Group, Metric, groups
from captum_sgcampp.evaluation.items import Item, of_part, part_count, read_items, write_items
from captum_sgcampp.evaluation.measures import Bench, Settings
from captum_sgcampp.evaluation.measuring import Measurer
from captum_sgcampp.evaluation.methods import Method
from captum_sgcampp.evaluation.report import failures, figure, head, notes, scaled, table
from captum_sgcampp.evaluation.rows import Measured, by_method, failed, noted, read_rows, write_rows
from captum_sgcampp.evaluation.settings import by_option, suited_settings
from captum_sgcampp.evaluation.summary import Row, summarize, write_images, write_summary
from captum_sgcampp.evaluation.targets import partners, with_targets
from captum_sgcampp.model.threads import computing_threads, share_of_threads
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.storage.progress import progress_of_parts
from captum_sgcampp.storage.run_folder import OWN, RunFolder, check_items, open_run, setting_of
from captum_sgcampp.storage.work import finish_parts
from captum_sgcampp.storage.workers import work_in_processes
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.identity import example_picture, model_identity
from captum_sgcampp.vision.layer_choice import deepest_layer, fitting_layer

RESULTS = ("table.md", "summary.csv", "images.csv", "figure.png")
EARLIER_RESULTS = "records.jsonl"
IMAGES_PER_PART = 4  # what a killed process loses at most


def evaluate(
    classifier: Classifier,
    cases: Cases,
    methods: Sequence[Method],
    out: Path,
    *,
    reference: str | None = None,
    strict: bool = False,
    **options: Any,
) -> str:
    """Measure methods on many images. A stopped run resumes, and several processes on one folder share the work.

    Args:
        classifier: its model is on the device of the cases.
        cases: images and the classes to explain.
        methods: what is compared.
        out: folder of the run and the results.
        reference: name of the method that the others are tested against. None: the first.
        strict: whether an image that cannot be measured ends the run. Otherwise it is left out, and the table says so.
        **options: those of `open_evaluation`.

    Returns:
        The table in Markdown, which is also in `out`.
    """
    compared = chosen_reference(reference, methods)
    evaluation = open_evaluation(classifier, cases, methods, out, **options)
    evaluation.measure(strict=strict)
    return evaluation.report(compared, strict=strict)


def open_evaluation(
    classifier: Classifier,
    cases: Cases,
    methods: Sequence[Method],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    channels_last: bool = False,
    workers: int = 1,
    threads: int | None = None,
    **options: Any,
) -> Evaluation:
    """The run in a folder, begun if there is none.

    Args:
        classifier, cases, methods, out: see `evaluate`.
        layers: names of the layers to explain. None: the deepest one.
        metrics: names of groups of metrics. None: all that the images allow.
        channels_last: whether the model is converted to torch's memory format `channels_last`, else to the usual one.
        workers: processes that share torch's threads.
        threads: of torch in each. None: those of the run, for a new one a worker's share.
        options: fields of `Settings`. What is missing or None is chosen for the images and the device.

    Raises:
        ValueError: the folder holds something else, or a run of other settings.
    """
    _check_format(out)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = classifier.model.to(memory_format=memory_format)  # type: ignore[call-overload]
    example = _example(classifier, cases)
    layers = list(dict.fromkeys(layers or [deepest_layer(model, example)]))
    for name in layers:
        _check_layer(model, name, example)
    chosen, left_out = _groups(cases, metrics, options.get("randomization_steps"))
    settings = suited_settings(classifier, example, cases.kind, tuple(chosen), options)
    fields = {
        **cases.settings(),
        "--model": classifier.name,
        "--layers": layers,
        "--methods": [method.name for method in methods],
        **by_option(settings),
        "--channels-last": channels_last,
        "--threads": threads or setting_of(out, "--threads") or share_of_threads(workers),
        **model_identity(classifier, cases.device),
    }
    run = open_run(out, fields, partial(_list, cases))
    return Evaluation(classifier, cases, methods, layers, Bench(model, settings), run, chosen, left_out)


def _check_format(out: Path) -> None:
    if (out / EARLIER_RESULTS).exists():
        raise ValueError(
            f"--out: expected results of this version, found {out / EARLIER_RESULTS}: their format has changed; choose "
            "another --out"
        )


def _check_layer(model: nn.Module, name: str, example: Tensor) -> None:
    """Captum's methods, which are compared here, would take tokens for feature maps."""
    if fitting_layer(model, name, example).reshape_transform is not None:
        raise ValueError(
            f"--layers: expected layers with feature maps (N, K, h, w), found {name}, whose features come last; name "
            "another layer"
        )


def _groups(
    cases: Cases, metrics: Sequence[str] | None, randomization_steps: int | None
) -> tuple[dict[str, Group], dict[str, str]]:
    """The groups that are measured, and what the others need."""
    known = groups(randomization_steps or Settings.randomization_steps)
    asked = {name: group for name, group in known.items() if metrics is None or name in metrics}
    chosen = {name: group for name, group in asked.items() if not group.needs or group.needs in cases.has}
    left_out = {name: f"needs {group.needs}" for name, group in asked.items() if name not in chosen}
    if not chosen:
        raise ValueError(f"--metrics: expected one that these images allow, found {_listed(left_out)}")
    return chosen, left_out


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _first(failures: Sequence[str], reasons: Mapping[str, str]) -> str:
    """Why nothing could be measured: of the first image, or of each group."""
    return failures[0].removeprefix("Not measured: ") if failures else _listed(reasons)


def _count(rows: pa.Table, listed: int) -> str:
    """How many images have values, of those in the list."""
    measured = len(pc.unique(rows.filter(pc.is_null(rows["error"]))["image"]))
    return str(listed) if measured == listed else f"{measured} of {listed}"


def _example(classifier: Classifier, cases: Cases) -> Tensor:
    """An input that the model takes. None of the images: any of them may be damaged."""
    example = classifier.prepare(example_picture()).to(cases.device)
    with torch.no_grad():
        classifier.model(example)
    return example


def _list(cases: Cases, path: Path) -> int:
    items = cases.items()
    write_items(path, items)
    return part_count(items, IMAGES_PER_PART)


@dataclass(frozen=True)
class Evaluation:
    """An opened run.

    Attributes:
        classifier, cases, methods, layers: what is measured.
        bench: the model and the settings.
        run: its folder.
        chosen: the groups of metrics by name.
        left_out: why the other groups are not measured.
    """

    classifier: Classifier
    cases: Cases
    methods: Sequence[Method]
    layers: Sequence[str]
    bench: Bench
    run: RunFolder
    chosen: Mapping[str, Group]
    left_out: Mapping[str, str]

    def measure(self, *, strict: bool = False) -> None:
        """Makes the parts that are missing, until all are there, whoever made them."""
        if not self.run.parts.missing():
            return
        items = read_items(check_items(self.run))
        with computing_threads(self.run.settings["--threads"]), self._progress() as report:
            finish_parts(
                self.run.parts, self.run.claims(), partial(self._write_part, self._measurer(items, strict)), report
            )

    def measure_in_processes(self, work: Callable[[], object], workers: int) -> None:
        """The same by several processes, each of which calls `work`."""
        if self.run.parts.missing():
            with self._progress() as report:
                work_in_processes(work, workers, self.run.parts, report)

    def _measurer(self, items: Sequence[Item], strict: bool) -> Measurer:
        found: Sequence[tuple[int, int, int] | None] = [None] * len(items)
        if "grid" in self.chosen:
            items = with_targets(self.run.folder / OWN / "targets", self.classifier, self.cases, items)
            found = partners(items, self.bench.settings.seed)
        trials = [(layer, method) for layer in self.layers for method in self.methods]
        return Measurer(self.bench, self.cases, items, found, trials, strict, worked=bool(self.run.parts.finished()))

    def _write_part(self, measurer: Measurer, number: int, path: Path) -> None:
        numbers = range(len(measurer.items))
        records = [record for index in of_part(numbers, number, IMAGES_PER_PART) for record in measurer.records(index)]
        write_rows(path, records, [name for group in self.chosen.values() for name in group.values])

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int], None]]:
        """What tells the standard error the number of finished parts."""
        with progress_of_parts() as tell:
            tell(len(self.run.parts.finished()), self.run.parts.count)
            yield lambda finished: tell(finished, self.run.parts.count)

    def report(self, reference: str, *, strict: bool = False) -> str:
        """Writes the results of a finished run. Returns the table."""
        paths = [path for _, path in sorted(self.run.parts.finished().items())]
        rows, items = read_rows(paths), read_items(check_items(self.run))
        check_unchanged(rows, self.cases, items, lambda number: paths[number // IMAGES_PER_PART])
        lines = failures(failed(rows))
        if lines and strict:
            raise ValueError(f"--strict: expected images that can all be measured, found {lines[0]}")
        for line in lines:
            print(line, file=sys.stderr)
        measured = by_method(rows)
        summary = summarize(measured, self._metrics(), reference)
        reasons = self._reasons(summary)
        if not summary:
            raise ValueError(f"FOLDER: expected images that can be measured, found none: {_first(lines, reasons)}")
        of_run = head(self.classifier, f"{_count(rows, len(items))} {self.cases.kind}", self.bench.settings)
        told = [*lines, *scaled(noted(rows)), *notes(self.bench)]
        text = table(summary, self.chosen, reference, of_run, reasons, told)
        self._write(text, measured, summary)
        return text

    def _metrics(self) -> list[Metric]:
        return [metric for group in self.chosen.values() for metric in group.metrics]

    def _reasons(self, summary: Sequence[Row]) -> dict[str, str]:
        """Why groups have no values."""
        found = {row.metric for row in summary}
        empty = {
            name: group.needs for name, group in self.chosen.items() if not found & {m.name for m in group.metrics}
        }
        return {**self.left_out, **{name: f"needs {needs}" if needs else "failed" for name, needs in empty.items()}}

    def _write(self, text: str, measured: Sequence[Measured], summary: Sequence[Row]) -> None:
        savers: list[Callable[[Path], object]] = [
            lambda path: path.write_text(text, encoding="utf-8"),
            lambda path: write_summary(path, summary),
            lambda path: write_images(path, measured),
            lambda path: figure(summary, self._metrics()).savefig(path, dpi=150),
        ]
        for name, save in zip(RESULTS, savers, strict=True):
            with written_whole(self.run.folder / name) as unfinished:
                save(unfinished)


def chosen_reference(wanted: str | None, methods: Sequence[Method]) -> str:
    """The first method of that name. Names of methods with noise include their settings."""
    names = [method.name for method in methods]
    wanted = wanted or names[0]
    matches = [name for name in names if name == wanted or name.startswith(f"{wanted} ")]
    if not matches:
        raise ValueError(f"--reference: expected one of {', '.join(names)}, found {wanted!r}")
    return matches[0]
