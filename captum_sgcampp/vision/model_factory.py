"""The classifier that the options name: `--model` and `--weights`, or a user's own Python code by `--model-factory`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import torch
from torch import nn

from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier
from captum_sgcampp.vision.images import classifier_input, shown_crop


def chosen_classifier(model: str | None = None, weights: Path | None = None, factory: str | None = None) -> Classifier:
    """The classifier that the options name, for every command.

    Args:
        model: `--model`, see `load_classifier`. None: the bundled one.
        weights: `--weights`, a file for the torchvision model.
        factory: `--model-factory WHERE:FUNCTION[=ARGUMENT]`. The file or module is executed.

    Raises:
        ValueError, TypeError, OSError: options that do not go together, or as `load_classifier` and
            `classifier_from_factory`.
    """
    if factory is None:
        return load_classifier(BUNDLED if model is None else model, weights)
    for option, value in (("--model", model), ("--weights", weights)):
        if value is not None:
            raise ValueError(f"--model-factory: expected no {option} beside it, found {value}")
    return classifier_from_factory(factory)


def classifier_from_factory(text: str) -> Classifier:
    """The classifier of the option `--model-factory WHERE:FUNCTION[=ARGUMENT]`, in evaluation mode.

    The function returns a module of inputs `(N, 3, 224, 224)`, normalized as for ImageNet, or a `Classifier`.
    """
    made = _made(text)
    if isinstance(made, Classifier):
        made.model.eval()
        return made
    if not isinstance(made, nn.Module):
        raise TypeError(f"--model-factory: expected a torch.nn.Module or a Classifier, found {type(made).__name__}")
    count = _class_count(made.eval())
    function, _, argument = text.rpartition(":")[2].partition("=")
    name = argument or function
    classes = [f"class {k}" for k in range(count)]
    return Classifier(name, made, classes, classifier_input, shown_crop, independent=False)


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
    """What the function named by `WHERE:FUNCTION[=ARGUMENT]` returns."""
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
