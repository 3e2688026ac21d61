"""What the method costs: against bare inference and other packages, as it grows, and in memory. Never a test."""

from captum_sgcampp.benchmark.growth import AXES, grow, growth_figure, growth_report
from captum_sgcampp.benchmark.memory import memory_report
from captum_sgcampp.benchmark.speed import (
    BARE,
    CASES,
    EAGER_BARE,
    MODES,
    OURS,
    Setting,
    Timing,
    measure,
    report,
    threads,
)

__all__ = [
    "AXES",
    "BARE",
    "CASES",
    "EAGER_BARE",
    "MODES",
    "OURS",
    "Setting",
    "Timing",
    "grow",
    "growth_figure",
    "growth_report",
    "measure",
    "memory_report",
    "report",
    "threads",
]
