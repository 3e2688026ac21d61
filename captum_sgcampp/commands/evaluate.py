"""The command `evaluate`: what its arguments stand for."""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch

from captum_sgcampp.commands.outputs import check_folder
from captum_sgcampp.evaluation.cases import Cases, ImageFolder, Scenes
from captum_sgcampp.evaluation.methods import Method, chosen_methods
from captum_sgcampp.evaluation.run import RESULTS, Evaluation, chosen_reference, open_evaluation
from captum_sgcampp.names import printable
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, usable_device
from captum_sgcampp.vision.model_factory import chosen_classifier

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


def run(arguments: argparse.Namespace) -> None:
    """Measure what is missing, then write and print the results."""
    _check_out(arguments)
    reference = chosen_reference(arguments.reference, _methods(arguments))
    evaluation = _evaluation(arguments)
    if arguments.workers == 1:
        evaluation.measure(strict=arguments.strict)
    else:
        evaluation.measure_in_processes(partial(work_in_process, arguments), arguments.workers)
    print(evaluation.report(reference, strict=arguments.strict))
    print(f"wrote {', '.join(RESULTS)} into {printable(str(arguments.out))}")


def work_in_process(arguments: argparse.Namespace) -> None:
    """Measure what is missing, in a process of its own."""
    try:
        _evaluation(arguments).measure(strict=arguments.strict)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        sys.exit(f"captum-sgcampp: error: {printable(str(error))}")


def _evaluation(arguments: argparse.Namespace) -> Evaluation:
    device = usable_device(arguments.device)
    classifier = chosen_classifier(arguments.model, arguments.weights, arguments.model_factory)
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


def _check_out(arguments: argparse.Namespace) -> None:
    """Results go into a folder of their own: those of an earlier run are made anew."""
    out = arguments.out
    check_folder("--out", out)
    inputs = [folder for folder in (arguments.folder, arguments.masks) if folder is not None and folder.exists()]
    if out.exists() and any(out.samefile(folder) for folder in inputs):
        raise ValueError(f"--out: expected another folder than those that are read, found {str(out)!r}")


def _cases(arguments: argparse.Namespace, classifier: Classifier, device: torch.device) -> Cases:
    if arguments.folder is not None:
        return ImageFolder(
            classifier,
            arguments.folder,
            device,
            arguments.target_from_name,
            arguments.masks,
            arguments.limit,
            arguments.boxes,
            arguments.white,
        )
    if classifier.name != BUNDLED:
        raise ValueError(f"FOLDER: expected a folder of images for {classifier.name}, found none")
    return Scenes(classifier, arguments.scenes, arguments.seed, device)
