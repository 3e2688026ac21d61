"""The command `evaluate`: its arguments."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from captum_sgcampp.checks import check_count, check_positive
from captum_sgcampp.evaluation.cases import Cases, ImageFolder, Scenes
from captum_sgcampp.evaluation.measures import groups
from captum_sgcampp.evaluation.methods import METHODS, Method, chosen_methods
from captum_sgcampp.evaluation.run import RESULTS, Evaluation, chosen_reference, open_evaluation
from captum_sgcampp.metrics.curves import BASELINES
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier, usable_device
from captum_sgcampp.vision.model_factory import classifier_from_factory

DESCRIPTION = """\
Measure methods on many images: means with bootstrap intervals and paired tests, as a table, CSV and a figure.

Without arguments it measures on fresh scenes of the bundled generator, whose objects are known. With a folder, on its
images. A run that was stopped, by whatever, goes on with the same command, and several runners on one folder share the
work. An image that cannot be measured is left out, and the table says why.
"""
EPILOG = """\
examples:
  captum-sgcampp evaluate --scenes 50 --out scenes
  captum-sgcampp evaluate photos --model mobilenet_v2 --layers features.18 features.14.conv.0 --out photos-mobilenet
  captum-sgcampp evaluate photos --model-factory my_models.py:load=mobilenet_v2 --target-from-name --out mine
"""
DEFAULT_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++", "random", "center-gaussian")
# Options that are settings of the evaluation, where their defaults are.
SETTINGS = (
    "seed",
    "steps",
    "deletion_baseline",
    "insertion_baseline",
    "window",
    "stride",
    "tolerance",
    "grid_size",
    "randomization_steps",
    "batch_size",
)
COUNTS = ("scenes", "limit", "steps", "randomization_steps", "window", "stride", "batch_size", "workers", "threads")


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "evaluate",
        help="measure methods on many images",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_case_arguments(parser)
    _add_method_arguments(parser)
    _add_metric_arguments(parser)
    _add_run_arguments(parser)
    parser.set_defaults(run=run)


def _add_case_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="FOLDER", help="folder of images (default: bundled scenes)")
    add("--scenes", type=int, default=100, metavar="N", help="bundled scenes (default: 100)")
    add("--limit", type=int, metavar="N", help="only the first images of the folder")
    add("--masks", type=Path, metavar="FOLDER", help="masks as PNG by the images' stems, not black where the object is")
    add(
        "--target-from-name",
        action="store_true",
        help="a file's stem is its class number (default: the most probable class)",
    )
    add("--model", default=BUNDLED, metavar="NAME", help=f"{BUNDLED} (bundled, default) or a torchvision model")
    add("--weights", type=Path, metavar="FILE", help="state dict of the torchvision model")
    add(
        "--model-factory",
        metavar="WHERE:FUNCTION[=ARGUMENT]",
        help="module or .py file and a function that gives a model of inputs (N, 3, 224, 224), normalized as ImageNet, "
        "or a Classifier",
    )
    add("--device", default="cpu", help="torch device (default: cpu)")
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the model in torch's memory format channels_last, which is faster on CPUs and changes the last bits "
        "(default: yes, as the tables in tutorials/results were made)",
    )


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--layers", nargs="+", metavar="NAME", help="modules to explain (default: the deepest one)")
    add(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(DEFAULT_METHODS),
        metavar="NAME",
        help=f"among {', '.join(METHODS)} (default: {', '.join(DEFAULT_METHODS)})",
    )
    add("--reference", metavar="NAME", help="method that the others are tested against (default: the first)")
    add("--nt-samples", nargs="+", type=int, default=[8], metavar="N", help="noisy samples (default: 8)")
    add("--noise-level", nargs="+", type=float, default=[0.15], metavar="F", help="sigma / range (default: 0.15)")
    add("--seed", type=int, default=0, metavar="S", help="seed of noise, scenes, mosaics, parameters (default: 0)")


def _add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = list(groups(1))
    add("--metrics", nargs="+", choices=names, default=names, metavar="NAME", help=f"among {', '.join(names)}")
    add("--steps", type=int, metavar="N", help="steps of deletion and insertion (default: 16)")
    add("--deletion-baseline", choices=BASELINES, help="default: zero, the mean color")
    add("--insertion-baseline", choices=BASELINES, help="default: blur")
    add("--window", type=int, metavar="N", help="side of the occluded square (default: 64; scenes: 32)")
    add("--stride", type=int, metavar="N", help="stride of the occlusion (default: 32; scenes: 16)")
    add("--tolerance", type=float, metavar="N", help="pixels, for the pointing game (default: 0)")
    add(
        "--grid-size",
        choices=("auto", "full", "half"),
        default="auto",
        help="mosaics of twice the image's side, or of its own; auto: full where the model takes it",
    )
    add("--randomization-steps", type=int, metavar="N", help="randomized copies of the model (default: 3)")
    add("--batch-size", type=int, metavar="N", help="rows of a forward pass (default: 4 on the CPU, else 32)")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--strict", action="store_true", help="stop at an image that cannot be measured")
    add("--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    add(
        "--threads",
        type=int,
        metavar="N",
        help="threads of each process, which the last bits depend on (default: torch's own, shared by the workers)",
    )
    add("--out", type=Path, default=Path("evaluation"), metavar="FOLDER", help="results (default: evaluation)")


def run(arguments: argparse.Namespace) -> None:
    """Measure what is missing, then write and print the results."""
    _check_numbers(arguments)
    _check_out(arguments.out)
    reference = chosen_reference(arguments.reference, _methods(arguments))
    evaluation = _evaluation(arguments)
    if arguments.workers == 1:
        evaluation.measure(strict=arguments.strict)
    else:
        evaluation.measure_in_processes(partial(work_in_process, arguments), arguments.workers)
    print(evaluation.report(reference, strict=arguments.strict))
    print(f"wrote {', '.join(RESULTS)} into {arguments.out}")


def work_in_process(arguments: argparse.Namespace) -> None:
    """Measure what is missing, in a process of its own."""
    try:
        _evaluation(arguments).measure(strict=arguments.strict)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        sys.exit(f"captum-sgcampp: error: {error}")


def _evaluation(arguments: argparse.Namespace) -> Evaluation:
    device = usable_device(arguments.device)
    classifier = _classifier(arguments)
    classifier.model.to(device)
    return open_evaluation(
        classifier,
        _cases(arguments, classifier, device),
        _methods(arguments),
        arguments.out,
        layers=arguments.layers,
        metrics=arguments.metrics,
        channels_last=arguments.channels_last,
        workers=arguments.workers,
        threads=arguments.threads,
        **{name: getattr(arguments, name) for name in SETTINGS},
    )


def _methods(arguments: argparse.Namespace) -> list[Method]:
    return chosen_methods(arguments.methods, arguments.nt_samples, arguments.noise_level)


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in COUNTS:
        if getattr(arguments, name) is not None:
            check_count(f"--{name.replace('_', '-')}", getattr(arguments, name))
    for count in arguments.nt_samples:
        check_count("--nt-samples", count)
    for level in arguments.noise_level:
        check_positive("--noise-level", level)
    if not 0 <= arguments.seed < 1000:
        raise ValueError(f"--seed: expected 0 to 999, found {arguments.seed}")


def _check_out(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"--out: expected a folder, found a file at {place}")


def _classifier(arguments: argparse.Namespace) -> Classifier:
    if arguments.model_factory is None:
        return load_classifier(arguments.model, arguments.weights)
    return classifier_from_factory(arguments.model_factory)


def _cases(arguments: argparse.Namespace, classifier: Classifier, device: torch.device) -> Cases:
    if arguments.folder is not None:
        return ImageFolder(
            classifier, arguments.folder, device, arguments.target_from_name, arguments.masks, arguments.limit
        )
    if classifier.name != BUNDLED:
        raise ValueError(f"FOLDER: expected a folder of images for {classifier.name}, found none")
    return Scenes(classifier, arguments.scenes, arguments.seed, device)
