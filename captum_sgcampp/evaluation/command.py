"""Arguments and course of the command `evaluate`."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from captum_sgcampp._version import __version__
from captum_sgcampp.checks import check_count, check_positive
from captum_sgcampp.evaluation.measures import Bench, Case, Group, Metric, Settings, Trial, groups, measure, missing
from captum_sgcampp.evaluation.methods import METHODS, Method, chosen_methods
from captum_sgcampp.evaluation.records import Record, Records
from captum_sgcampp.evaluation.report import figure, table
from captum_sgcampp.evaluation.subjects import Subjects, folder_subjects, scene_subjects
from captum_sgcampp.evaluation.summary import summarise, write_images, write_summary
from captum_sgcampp.metrics.curves import BASELINES
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier, usable_device
from captum_sgcampp.vision.images import IMAGENET_MEAN, IMAGENET_STD, classifier_input, shown_crop
from captum_sgcampp.vision.layer_choice import deepest_layer, named_layer

DESCRIPTION = """\
Measure methods on many images: means with bootstrap intervals and paired tests, as a table, CSV and a figure.

Without arguments it measures on fresh scenes of the bundled generator, whose objects are known. With a folder, on its
images. Results of every image are written as they come; the same command again goes on where it was stopped.
"""
EPILOG = """\
examples:
  captum-sgcampp evaluate --scenes 50 --out scenes
  captum-sgcampp evaluate photos --model mobilenet_v2 --layers features.18 features.14.conv.0 --out photos-mobilenet
  captum-sgcampp evaluate photos --model-factory my_models.py:load=mobilenet_v2 --target-from-name --out mine
"""
DEFAULT_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++", "random", "center-gaussian")
SCENE_WINDOW, SCENE_STRIDE = 32, 16  # of the bundled network's input of 128 pixels


def add_command(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "evaluate",
        help="measure methods on many images",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_subject_arguments(parser)
    _add_method_arguments(parser)
    _add_metric_arguments(parser)
    parser.set_defaults(run=evaluate)


def _add_subject_arguments(parser: argparse.ArgumentParser) -> None:
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
        help="module or .py file and a function that gives a model of inputs (N, 3, 224, 224), normalised as ImageNet, "
        "or a Classifier",
    )
    add("--device", default="cpu", help="torch device (default: cpu)")


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
    add("--nt-samples", nargs="+", type=int, default=[8], metavar="N", help="noisy copies (default: 8)")
    add("--noise-level", nargs="+", type=float, default=[0.15], metavar="F", help="sigma / range (default: 0.15)")
    add("--seed", type=int, default=0, metavar="S", help="seed of noise, scenes, mosaics, parameters (default: 0)")


def _add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = list(groups(1))
    add("--metrics", nargs="+", choices=names, default=names, metavar="NAME", help=f"among {', '.join(names)}")
    add("--steps", type=int, default=16, metavar="N", help="steps of deletion and insertion (default: 16)")
    add("--deletion-baseline", choices=BASELINES, default="zero", help="default: zero, the mean colour")
    add("--insertion-baseline", choices=BASELINES, default="blur", help="default: blur")
    add("--window", type=int, metavar="N", help="side of the occluded square (default: 64; scenes: 32)")
    add("--stride", type=int, metavar="N", help="stride of the occlusion (default: 32; scenes: 16)")
    add("--tolerance", type=float, default=0.0, metavar="N", help="pixels, for the pointing game (default: 0)")
    add(
        "--grid-size",
        choices=("auto", "full", "half"),
        default="auto",
        help="mosaics of twice the image's side, or of its own; auto: full where the model takes it",
    )
    add("--randomization-steps", type=int, default=3, metavar="N", help="randomised copies of the model (default: 3)")
    add("--batch-size", type=int, metavar="N", help="rows of a forward pass (default: 4 on the CPU, else 32)")
    add("--out", type=Path, default=Path("evaluation"), metavar="FOLDER", help="results (default: evaluation)")


def evaluate(arguments: argparse.Namespace) -> None:
    """The command `evaluate`: measures what is not measured yet, then writes table, CSV and figure."""
    _check_numbers(arguments)
    _check_out(arguments.out)
    device = usable_device(arguments.device)
    classifier = _classifier(arguments)
    # The rows of a convolution come several times as fast in this memory format on a CPU.
    model = classifier.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    subjects = _subjects(arguments, classifier, device)
    layers = arguments.layers or [deepest_layer(model, subjects.load(0).inputs)]
    for name in layers:
        named_layer(model, name)
    methods = chosen_methods(arguments.methods, arguments.nt_samples, arguments.noise_level)
    reference = _reference(arguments, methods)
    known = groups(arguments.randomization_steps)
    reasons = {name: missing(known[name], subjects) for name in known if name in arguments.metrics}
    chosen = {name: known[name] for name, reason in reasons.items() if not reason}
    settings = _settings(arguments, classifier, subjects, tuple(chosen))
    records = Records(arguments.out, _identity(arguments, classifier, subjects, settings))
    bench = Bench(model, settings)
    _measure_all(bench, subjects, layers, methods, records)
    done = [records[name, layer, m.name] for layer in layers for m in methods for name in subjects.names]
    left_out = {name: reason for name, reason in reasons.items() if reason}
    _write(arguments.out, done, chosen, reference, _head(classifier, subjects, settings), left_out, _notes(bench))


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("scenes", "steps", "randomization_steps"):
        check_count(f"--{name.replace('_', '-')}", getattr(arguments, name))
    for name in ("limit", "window", "stride", "batch_size"):
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


def classifier_from_factory(text: str) -> Classifier:
    """The classifier of the option `--model-factory WHERE:FUNCTION[=ARGUMENT]`."""
    made = _made(text)
    if isinstance(made, Classifier):
        return made
    if not isinstance(made, nn.Module):
        raise TypeError(f"--model-factory: expected a torch.nn.Module or a Classifier, found {type(made).__name__}")
    count = _class_count(made.eval())
    prepare = partial(classifier_input, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    function, _, argument = text.rpartition(":")[2].partition("=")
    name = argument or function
    return Classifier(name, made, [f"class {k}" for k in range(count)], prepare, shown_crop, independent=False)


def _class_count(model: nn.Module) -> int:
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, 3, 224, 224))
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"--model-factory: expected a model of inputs (N, 3, 224, 224), found {_reason(error)}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"--model-factory: expected a model that gives logits (N, classes), found {found}")
    return logits.shape[1]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _made(text: str) -> object:
    """What the function named by `WHERE:FUNCTION[=ARGUMENT]` gives."""
    where, colon, call = text.rpartition(":")
    function, equals, argument = call.partition("=")
    if not colon or not function:
        raise ValueError(f"--model-factory: expected module:function or file.py:function[=argument], found {text!r}")
    factory = getattr(_imported(where), function, None)
    if not callable(factory):
        raise ValueError(f"--model-factory: expected a function {function!r} in {where}, found none")
    try:
        return factory(argument) if equals else factory()
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"--model-factory: expected a model from {call}, found {_reason(error)}") from error


def _imported(where: str) -> object:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except Exception as error:  # whatever the user's code raises
            raise ValueError(f"--model-factory: expected a module that runs, found {_reason(error)}") from error
    path = Path(where)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise FileNotFoundError(f"--model-factory: expected a Python file, found none at {where}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"--model-factory: expected a file that runs, found {_reason(error)}") from error
    return module


def _subjects(arguments: argparse.Namespace, classifier: Classifier, device: torch.device) -> Subjects:
    if arguments.folder is not None:
        return folder_subjects(
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
    return scene_subjects(classifier, arguments.scenes, arguments.seed, device)


def _reference(arguments: argparse.Namespace, methods: list[Method]) -> str:
    names = [method.name for method in methods]
    wanted = arguments.reference or names[0]
    matches = [name for name in names if name == wanted or name.startswith(f"{wanted} ")]
    if not matches:
        raise ValueError(f"--reference: expected one of {', '.join(names)}, found {wanted!r}")
    return matches[0]


def _settings(
    arguments: argparse.Namespace, classifier: Classifier, subjects: Subjects, chosen: tuple[str, ...]
) -> Settings:
    inputs = subjects.load(0).inputs
    small = min(inputs.shape[2:]) < 2 * 64 or subjects.kind.endswith("scenes")
    given = {field.name: getattr(arguments, field.name) for field in fields(Settings) if hasattr(arguments, field.name)}
    given |= {
        "groups": chosen,
        "link": "sigmoid" if classifier.independent else "softmax",
        # Larger blocks of memory go back to the system after each use, which costs more than the rows save.
        "batch_size": arguments.batch_size or (4 if inputs.device.type == "cpu" else 32),
        "window": arguments.window or (SCENE_WINDOW if small else 64),
        "stride": arguments.stride or (SCENE_STRIDE if small else 32),
    }
    if arguments.grid_size == "auto":
        given["grid_size"] = _grid_size(classifier.model, inputs) if "grid" in chosen else "full"
    return Settings(**given)


def _grid_size(model: nn.Module, inputs: torch.Tensor) -> str:
    """Whether the model takes images of twice the side: a fully connected head of fixed size does not."""
    try:
        with torch.no_grad():
            model(inputs.repeat(1, 1, 2, 2))
    except RuntimeError:
        return "half"
    return "full"


def _identity(
    arguments: argparse.Namespace, classifier: Classifier, subjects: Subjects, settings: Settings
) -> dict[str, Any]:
    """What must be the same for records to stand in one table, by the name of the option."""
    options = {f"--{name.replace('_', '-')}": value for name, value in asdict(settings).items()}
    options["--metrics"] = options.pop("--groups")
    return {
        "version": __version__,
        "--model": classifier.name,
        "--weights": _digest(classifier.model),
        "images": subjects.kind,
        "images and targets": subjects.digest(),
        "--masks": subjects.mask_digest(),
        **options,
    }


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _measure_all(bench: Bench, subjects: Subjects, layers: list[str], methods: list[Method], records: Records) -> None:
    total = len(subjects.names) * len(layers) * len(methods)
    with tqdm(total=total, unit="map", file=sys.stderr, disable=None) as progress:
        for index, name in enumerate(subjects.names):
            todo = [(x, m) for x in layers for m in methods if (name, x, m.name) not in records]
            progress.update(len(layers) * len(methods) - len(todo))
            for record in _measured(bench, subjects, index, todo) if todo else ():
                records.add(record)
                progress.update()


def _measured(bench: Bench, subjects: Subjects, index: int, todo: list[tuple[str, Method]]) -> Iterator[Record]:
    case = Case(bench, subjects, index)
    for layer, method in todo:
        values = measure(Trial(case, layer, method))
        yield Record(case.subject.name, layer, method.name, case.subject.target, float(case.confidence), values)


def _head(classifier: Classifier, subjects: Subjects, settings: Settings) -> list[str]:
    s = settings
    of_groups = {
        "curves": f"curves: {s.steps} steps, deletion to {s.deletion_baseline}, insertion from {s.insertion_baseline}",
        "occlusion": f"occlusion of {s.window} x {s.window} pixels, stride {s.stride}",
        "localization": f"pointing game with a tolerance of {s.tolerance:g} pixels",
        "grid": f"mosaics of {s.grid_size} size",
    }
    parts = [f"{classifier.name} on {subjects.kind}", f"confidence by {s.link}", f"seed {s.seed}"]
    parts += [text for name, text in of_groups.items() if name in s.groups]
    return [f"{'; '.join(parts)}; captum_sgcampp {__version__}."]


def _notes(bench: Bench) -> list[str]:
    notes = [
        "Average drop, increase and win: the normalised image times the map scaled to [0, 1], as torchcam does it; "
        "what the map leaves out becomes the mean colour.",
    ]
    if "randomization" in bench.settings.groups:
        names = "; ".join(
            f"{number}: from the top down to {name}" for number, (name, _) in enumerate(bench.randomized, 1)
        )
        notes.append(f"Similarity after randomisation: rank correlation with the map of a model drawn anew ({names}).")
    return notes


def _write(
    folder: Path,
    records: list[Record],
    chosen: Mapping[str, Group],
    reference: str,
    head: list[str],
    left_out: Mapping[str, str],
    notes: list[str],
) -> None:
    metrics: list[Metric] = [metric for group in chosen.values() for metric in group.metrics]
    rows = summarise(records, metrics, reference)
    text = table(rows, chosen, reference, head, left_out, notes)
    writers: dict[str, Callable[[Path], object]] = {
        "table.md": lambda path: path.write_text(text, encoding="utf-8"),
        "summary.csv": lambda path: write_summary(path, rows),
        "images.csv": lambda path: write_images(path, records),
        "figure.png": lambda path: figure(rows, metrics).savefig(path, dpi=150),
    }
    for name, write in writers.items():
        write(folder / name)
    print(text)
    print(f"wrote {', '.join(writers)} into {folder}")
