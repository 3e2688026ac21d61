"""The private helpers of Captum that this package uses, in one place. All have been stable from 0.6 to 0.9."""

import sys
from types import FrameType

from captum._utils.common import (
    ExpansionTypes,
    _expand_target,
    _format_additional_forward_args,
    _format_output,
    _reduce_list,
    _select_targets,
    _sort_key_list,
)
from captum._utils.typing import TargetType
from captum.attr import NoiseTunnel
from captum.log import log_usage

__all__ = [
    "ExpansionTypes",
    "TargetType",
    "_expand_target",
    "_format_additional_forward_args",
    "_format_output",
    "_reduce_list",
    "_select_targets",
    "_sort_key_list",
    "frame_outside",
    "is_called_by_noise_tunnel",
    "log_usage",
]


def is_called_by_noise_tunnel() -> bool:
    """Whether the method of this package that runs on this thread was called by `captum.attr.NoiseTunnel`."""
    frame, _ = frame_outside("captum_sgcampp", "captum.log")
    return bool(frame.f_globals.get("__name__") == NoiseTunnel.__module__)


def frame_outside(*packages: str) -> tuple[FrameType, int]:
    """The nearest frame around the caller's that is in none of these packages, and the caller's `stacklevel` for it."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_in(frame, packages):
        frame, level = frame.f_back, level + 1
    return frame, level


def _is_in(frame: FrameType, packages: tuple[str, ...]) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return any(name == package or name.startswith(f"{package}.") for package in packages)
