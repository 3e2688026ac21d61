"""The command `evaluate`: what its arguments stand for."""

from __future__ import annotations

import argparse

import torch

from captum_sgcampp.commands.outputs import check_folder
from captum_sgcampp.evaluation.cases import Cases, folder_cases, scene_cases
from captum_sgcampp.evaluation.methods import chosen_methods
from captum_sgcampp.evaluation.run import RESULTS, evaluate
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
    device = usable_device(arguments.device)
    classifier = chosen_classifier(arguments.model, arguments.weights, arguments.model_factory)
    # Convolutions on a CPU are several times as fast in this memory format.
    classifier.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    text = evaluate(
        classifier,
        _cases(arguments, classifier, device),
        chosen_methods(arguments.methods, arguments.nt_samples, arguments.noise_level),
        arguments.out,
        layers=arguments.layers,
        reference=arguments.reference,
        metrics=arguments.metrics,
        **{name: getattr(arguments, name) for name in SETTINGS},
    )
    print(text)
    print(f"wrote {', '.join(RESULTS)} into {arguments.out}")


def _check_out(arguments: argparse.Namespace) -> None:
    """Results go into a folder of their own: those of an earlier run are made anew."""
    out = arguments.out
    check_folder("--out", out)
    inputs = [folder for folder in (arguments.folder, arguments.masks) if folder is not None and folder.exists()]
    if out.exists() and any(out.samefile(folder) for folder in inputs):
        raise ValueError(f"--out: expected another folder than those that are read, found {str(out)!r}")
    foreign = [] if (out / "settings.json").exists() else [name for name in RESULTS if (out / name).exists()]
    if foreign:
        raise FileExistsError(
            f"--out: expected a new folder or one of this command, found {foreign[0]} in {str(out)!r}"
        )


def _cases(arguments: argparse.Namespace, classifier: Classifier, device: torch.device) -> Cases:
    if arguments.folder is not None:
        return folder_cases(
            classifier,
            arguments.folder,
            target_from_name=arguments.target_from_name,
            masks=arguments.masks,
            seed=arguments.seed,
            device=device,
            limit=arguments.limit,
        )
    if classifier.name != BUNDLED:
        raise ValueError(f"FOLDER: expected a folder of images for {classifier.name}, found none")
    return scene_cases(classifier, arguments.scenes, arguments.seed, device)
