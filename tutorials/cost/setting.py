"""What is measured: the options that the scripts share, and the network and images that they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

# Network and layer; the weights are random, because they do not change the cost.
CASES = (
    ("resnet18", "layer4"),
    ("resnet50", "layer4"),
    ("resnet50", "layer3"),
    ("vgg16", "features.29"),
    ("mobilenet_v2", "features.18"),
    ("densenet121", "features"),
    ("efficientnet_b0", "features"),
    ("convnext_tiny", "features"),
)
MODES = ("float32", "channels_last", "bfloat16", "compiled", "compiled_bfloat16")


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        nt_samples: noisy samples.
        batch: images explained at once.
        size: height and width of the images.
        rounds: rounds after the warm-up.
        device: torch device.
        mode: `"float32"` (contiguous), `"channels_last"`, `"bfloat16"` (autocast and channels_last), `"compiled"`
            (`torch.compile`, float32, contiguous), or `"compiled_bfloat16"` (all three).
        targets: targets explained in one call.
    """

    nt_samples: int = 8
    batch: int = 1
    size: int = 224
    rounds: int = 3
    device: str = "cpu"
    mode: str = "float32"
    targets: int = 1

    @property
    def is_bfloat16(self) -> bool:
        """Whether autocast to bfloat16 is on."""
        return self.mode.endswith("bfloat16")

    @property
    def memory_format(self) -> torch.memory_format:
        """Of the model and of all images that anybody gets."""
        return torch.channels_last if self.mode == "channels_last" or self.is_bfloat16 else torch.contiguous_format

    @property
    def is_compiled(self) -> bool:
        """Whether the model is compiled."""
        return self.mode.startswith("compiled")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _device(text: str) -> str:
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"expected a device that torch can use, found {text!r} ({error})") from error
    return text


def _case(text: str) -> tuple[str, str]:
    network, colon, layer = text.partition(":")
    if not colon or not layer or network not in torchvision.models.list_models(module=torchvision.models):
        raise argparse.ArgumentTypeError(f"expected torchvision's name and a layer, as resnet18:layer4, found {text!r}")
    return network, layer


OPTIONS: dict[str, dict[str, Any]] = {
    "network": {"type": _case, "nargs": "+", "default": CASES, "help": "as resnet18:layer4 (default: eight)"},
    "nt-samples": {"type": _count, "help": "noisy samples (default: %(default)s)"},
    "batch": {"type": _count, "help": "images (default: %(default)s)"},
    "size": {"type": _count, "help": "height and width (default: %(default)s)"},
    "targets": {"type": _count, "help": "targets in one call (default: %(default)s)"},
    "rounds": {"type": _count, "help": "rounds after the warm-up (default: %(default)s)"},
    "threads": {"type": _count, "help": "threads (default: torch's)"},
    "device": {"type": _device, "help": "torch device (default: %(default)s)"},
    "mode": {"choices": MODES, "help": "float32 is contiguous, bfloat16 autocast and channels_last"},
}


def parser(description: str | None, *options: str) -> argparse.ArgumentParser:
    """A parser with those of the shared options."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {field.name: field.default for field in fields(Setting)}
    for name in options:
        made.add_argument(f"--{name}", **{"default": defaults.get(name.replace("-", "_")), **OPTIONS[name]})
    return made


def parsed(made: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Setting]:
    """The arguments, and those of them that are a setting; torch gets its threads."""
    arguments = made.parse_args(argv)
    if getattr(arguments, "threads", None):
        torch.set_num_threads(arguments.threads)
    given = {name: value for name, value in vars(arguments).items() if name in {f.name for f in fields(Setting)}}
    return arguments, Setting(**given)


def model_and_images(network: str, setting: Setting) -> tuple[nn.Module, Tensor]:
    """The network with random weights, and random images, in the setting's memory format."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(network, weights=None).eval().to(setting.device)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    model = model.to(memory_format=setting.memory_format)  # type: ignore[call-overload]
    return model, images.contiguous(memory_format=setting.memory_format)


def compiled_if_asked_for(model: nn.Module, setting: Setting) -> nn.Module:
    """The model, compiled in the modes for that."""
    return cast(nn.Module, torch.compile(model)) if setting.is_compiled else model
