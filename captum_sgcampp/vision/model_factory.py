"""The classifier that the options name: `--model` and `--weights`, or a user's own Python code by `--model-factory`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from captum_sgcampp.vision.any_classifier import described, with_classes
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier

_OWN = "a Classifier brings a preprocessing and a model of its own (see How to, your own network)"


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

    The function returns a `Classifier`; or a module, which gets the preprocessing and the classes that `explain` would
    give it: timm's for networks of timm, else ImageNet's. The classifier's `notes` tell them.
    """
    made = _made(text)
    if isinstance(made, Classifier):
        made.model.eval()
        return made
    if not isinstance(made, nn.Module):
        raise TypeError(f"--model-factory: expected a torch.nn.Module or a Classifier, found {type(made).__name__}")
    function, _, argument = text.rpartition(":")[2].partition("=")
    return replace(_of_module(made.eval()), name=argument or function)


def _of_module(model: nn.Module) -> Classifier:
    classifier, notes = described(model)
    try:
        inputs = classifier.prepare(Image.new("RGB", (256, 256), "gray"))
        with torch.no_grad():
            logits = classifier.model(inputs)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"--model-factory: expected a network that takes RGB pictures, found {_reason(error)}; {_OWN}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"--model-factory: expected a model that gives logits (N, classes), found {found}; {_OWN}")
    named = with_classes(classifier, inputs)
    return replace(named.classifier, notes=(*notes, *named.notes))


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
