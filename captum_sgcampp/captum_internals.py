"""The private helpers of Captum that this package uses, in one place. All have been stable from 0.6 to 0.9."""

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
    "log_usage",
]
