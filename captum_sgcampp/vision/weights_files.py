"""Files of weights: state dicts from any training script, the torchvision models that they fit, and digests."""

from __future__ import annotations

import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_sgcampp.names import nearest

# Where training scripts keep the state dict, and what wrappers of the model put before its names.
_HOLDERS = ("state_dict", "model_state_dict", "model", "model_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the names of the model
# The published files of DenseNets have the names of an older torchvision.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
_SLOW_TO_INITIALIZE = ("googlenet", "inception_v3")
_POSITIONS, _PATCHES = "encoder.pos_embedding", "conv_proj.weight"  # of torchvision's ViT


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, in float32. A `.pt` file is read with `weights_only=True`.

    Checkpoints that hold it under `state_dict`, `model_state_dict`, `model` or `model_ema` are opened. The prefixes of
    `DataParallel`, `torch.compile` and Lightning are removed from the names.

    Raises:
        FileNotFoundError: no file.
        ValueError: no state dict of dense and finite tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights: expected a file, found none at {path}")
    try:
        read: Any = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except OSError:
        raise
    except Exception as error:  # whatever the readers make of a damaged file
        raise ValueError(f"weights: expected a state dict in {path}, found {_reason(error, path)}") from error
    state = _opened(read)
    if not isinstance(state, Mapping) or not state:
        found = "an empty one" if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"weights: expected a state dict of tensors in {path}, found {found}")
    return {name: _checked(name, value, path) for name, value in _without_prefixes(state).items()}


def fitted_model(name: str, path: Path) -> tuple[nn.Module, Any]:
    """The torchvision model `name` with the weights in a file, and torchvision's weights whose preprocessing it needs.

    The model is built once the shapes of all tensors are known to fit, so that a file cannot ask for more memory than
    it has itself.

    Raises:
        OSError, ValueError: as `read_state`; or weights of another model.
    """
    state = read_state(path)
    last = next(reversed(_sketch(name).state_dict()))  # has a row for each class
    expected = f"weights: expected weights of {name} in {path}, found"
    if last not in state:
        raise ValueError(f"{expected} none for {last}{nearest(last, state)}")
    if state[last].dim() == 0 or len(state[last]) == 0:
        raise ValueError(f"{expected} shape {tuple(state[last].shape)} for {last}")
    published = _published(name, state)
    arguments = _arguments(name, state, len(state[last]), published)
    try:
        _load(_sketch(name, **arguments), state)
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{expected} {first[:200]}") from error
    model = _built(name, **arguments)
    _load(model, state)
    return model, published


def _built(name: str, **arguments: Any) -> nn.Module:
    if name in _SLOW_TO_INITIALIZE:
        arguments["init_weights"] = False
    model: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    return model


def _sketch(name: str, **arguments: Any) -> nn.Module:
    """The model without the memory of its parameters."""
    with _EmptyOnMeta():
        return _built(name, **arguments)


class _EmptyOnMeta(TorchFunctionMode):
    """`torch.empty`, of which torch's layers make their parameters, takes no memory.

    The context `torch.device("meta")` would take more functions, also those with which RegNet computes its widths.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def _read_pickle(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception, path: Path) -> str:
    """What was found instead of a state dict, in one line."""
    if path.stat().st_size == 0:
        return "an empty file"
    if isinstance(error, UnpicklingError):  # torch's own message advises to run the file's code
        kind = re.search(r"GLOBAL ([\w.]+)", str(error))
        return f"a pickled {kind[1]}; save model.state_dict()" if kind else "no file of tensors that torch reads safely"
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def _opened(read: Any) -> Any:
    """The state dict, out of the checkpoint that holds it."""
    if isinstance(read, Mapping):
        for holder in _HOLDERS:
            if isinstance(read.get(holder), Mapping):
                return read[holder]
    return read


def _without_prefixes(state: Mapping[Any, Any]) -> dict[Any, Any]:
    names = {name: name for name in state if name != _COUNTER}
    while names and (prefix := _common_prefix(list(names.values()))):
        names = {own: name.removeprefix(prefix) for own, name in names.items()}
    return {
        _OLD_DENSENET.sub(r"\1", name) if isinstance(name, str) else name: state[own] for own, name in names.items()
    }


def _common_prefix(names: list[Any]) -> str | None:
    return next((p for p in _PREFIXES if all(isinstance(name, str) and name.startswith(p) for name in names)), None)


def _checked(name: object, value: object, path: Path) -> Tensor:
    """The tensor in float32, if it can be a parameter."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise ValueError(
            f"weights: expected a state dict of tensors by name in {path}, found {type(value).__name__} at {name!r}"
        )
    # An expanded tensor is small in the file and as large as it claims in the model.
    dense = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    if not dense or value.is_complex() or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"weights: expected real, dense tensors in {path}, found {name} of {value.dtype} and shape "
            f"{tuple(value.shape)}"
        )
    if not value.is_floating_point():
        return value
    value = value.float()
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"weights: expected finite values in {path}, found NaN or infinity in {name}")
    return value


def _published(name: str, state: Mapping[str, Tensor]) -> Any:
    """torchvision's default weights. For a ViT of another image size those of this size."""
    known = torchvision.models.get_model_weights(name)
    side = _image_size(state)
    fitting = [weights for weights in known if side in (None, *weights.transforms().crop_size)]
    if not fitting:
        sizes = sorted({weights.transforms().crop_size[0] for weights in known})
        raise ValueError(f"weights: expected {name} for images of {sizes} pixels, found one for {side}")
    return known.DEFAULT if known.DEFAULT in fitting else fitting[0]


def _image_size(state: Mapping[str, Tensor]) -> int | None:
    """The side of the images that a ViT has positions for. None: no ViT."""
    positions, patches = state.get(_POSITIONS), state.get(_PATCHES)
    if positions is None or patches is None or positions.dim() != 3 or patches.dim() != 4:
        return None
    return math.isqrt(max(positions.shape[1] - 1, 0)) * patches.shape[3]


def _arguments(name: str, state: Mapping[str, Tensor], classes: int, published: Any) -> dict[str, Any]:
    """What the model is built with."""
    arguments: dict[str, Any] = {"num_classes": classes}
    if side := _image_size(state):
        arguments["image_size"] = side
    if name in _SLOW_TO_INITIALIZE:  # those with auxiliary classifiers
        arguments["aux_logits"] = any(key.lower().startswith("aux") for key in state)
        # As torchvision does it for its own weights, which were trained with another normalization.
        arguments["transform_input"] = classes == len(published.meta["categories"])
    return arguments


def _load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    versioned = OrderedDict(state)
    versioned._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]  # MNASNet takes no other
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")
        model.load_state_dict(versioned)
