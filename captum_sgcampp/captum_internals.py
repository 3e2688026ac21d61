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
    "is_called_by_noise_tunnel",
    "log_usage",
]


def is_called_by_noise_tunnel() -> bool:
    """Whether the method of this package that runs on this thread was called by `captum.attr.NoiseTunnel`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _module(frame) in ("captum_sgcampp", "captum.log"):
        frame = frame.f_back
    return bool(frame.f_globals.get("__name__") == NoiseTunnel.__module__)


def _module(frame: FrameType) -> str:
    """The package, or Captum's module that counts calls."""
    name = str(frame.f_globals.get("__name__"))
    return "captum.log" if name.startswith("captum.log") else name.partition(".")[0]
