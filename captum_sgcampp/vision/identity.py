"""What tells one model from another, and the software around it: for the settings of a run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp._version import __version__
from captum_sgcampp.storage.checksums import DIGITS, digest
from captum_sgcampp.vision.classifiers import Classifier

_OWN = Path(__file__).resolve().parents[1]
# Their versions are in the identity.
_KNOWN = (*(Path(package.__path__[0]).resolve() for package in (torch, torchvision)), _OWN)


def model_identity(classifier: Classifier, device: torch.device) -> dict[str, str]:
    """What must stay the same within a run: values of few characters, by what they stand for.

    Args:
        classifier: its model may be on any device.
        device: where it will run.

    Returns:
        Digests of `weights` (parameters and buffers), `architecture` (modules, their settings, the files of their
        classes), `preprocessing` (an example picture, prepared) and `classes`; versions of `captum_sgcampp` (with a
        digest of its files), `torch`, `torchvision`, `captum`, `pillow` and `pyarrow`; the name of the `device`.

    Examples::

        >>> from captum_sgcampp.vision.classifiers import load_classifier
        >>> classifier = load_classifier()
        >>> model_identity(classifier, torch.device("cpu"))["device"]
        'cpu'
    """
    return {
        "weights": weights_digest(classifier.model),
        "architecture": _architecture(classifier.model),
        "preprocessing": _preprocessing(classifier),
        "classes": digest(*(name.encode() for name in classifier.classes), bytes([classifier.independent])),
        "captum_sgcampp": f"{__version__} {_own_files()}",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "captum": version("captum"),
        "pillow": version("pillow"),  # decodes the images
        "pyarrow": version("pyarrow"),  # writes the parts
        "device": device_name(device),
    }


def device_name(device: torch.device) -> str:
    """The processor. CUDA's noise differs between kinds of devices."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def example_picture() -> Image.Image:
    """A picture of odd size with gradients and noise, the same everywhere and always."""
    width, height = 301, 223
    noise = hashlib.shake_256(b"captum_sgcampp").digest(height * width * 3)
    pixels = np.frombuffer(noise, np.uint8).reshape(height, width, 3) // 4
    slopes = np.stack(
        [np.add.outer(np.arange(height) * down, np.arange(width) * right) for down, right in ((0, 1), (1, 0), (2, 1))],
        axis=2,
    )
    return Image.fromarray((pixels + slopes % 192).astype(np.uint8))


def weights_digest(model: nn.Module) -> str:
    """Digest of the names, shapes, types and bytes of all parameters and buffers."""
    found = hashlib.sha256()
    for name, tensor in _tensors(model):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        found.update(_data(tensor))
    return found.hexdigest()[:DIGITS]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, also those that a state dict leaves out."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _data(tensor: Tensor) -> bytes:
    """The bytes of a tensor's entries, whatever its dtype, device and memory format."""
    entries = tensor.detach().cpu().contiguous().reshape(-1)
    return entries.resolve_conj().resolve_neg().view(torch.uint8).numpy().tobytes()


def _architecture(model: nn.Module) -> str:
    settings = [f"{name} {key} {value!r}" for name, key, value in _settings(model)]
    files = sorted(digest(path.read_bytes()) for path in _files(model))
    shown = re.sub(r" at 0x[0-9a-f]+", "", repr(model))  # addresses of functions
    return digest(shown.encode(), *(text.encode() for text in settings + files))


def _settings(model: nn.Module) -> Iterator[tuple[str, str, object]]:
    """Numbers and texts among the attributes of all modules, which `repr` need not show."""
    for name, module in model.named_modules():
        for key, value in sorted(vars(module).items()):
            if _is_plain(value):
                yield name, key, value


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | None)


def _files(model: nn.Module) -> set[Path]:
    """The Python files in which the modules' classes and replaced methods are written. A factory's own is mostly among
    them. What other libraries add to all modules, as transformers does once it made a model, says nothing of this one.
    """
    owners = {owner for module in model.modules() for owner in (module, *type(module).__mro__)} - {nn.Module}
    codes = [getattr(value, "__code__", None) for owner in owners for value in list(vars(owner).values())]
    paths = {Path(code.co_filename).resolve() for code in codes if code is not None}
    return {path for path in paths if path.is_file() and not any(path.is_relative_to(known) for known in _KNOWN)}


def _preprocessing(classifier: Classifier) -> str:
    inputs, shown = classifier.prepare(example_picture()), classifier.show(example_picture())
    return digest(f"{tuple(inputs.shape)} {inputs.dtype} {shown.size}".encode(), _data(inputs), shown.tobytes())


@cache
def _own_files() -> str:
    paths = sorted(_OWN.rglob("*.py"), key=lambda path: path.relative_to(_OWN).as_posix())
    return digest(*(part for path in paths for part in (path.relative_to(_OWN).as_posix().encode(), path.read_bytes())))
