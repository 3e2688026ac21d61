"""Tables in Markdown, and the sentences above them: on which machine, with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence

import torch
from setting import Setting


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    return ["| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *rows)]


def machine(device: str) -> str:
    """Machine and versions in a sentence."""
    name = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else _processor()
    names = [n for n in ("torch", "torchvision", "captum", "torchcam", "grad-cam") if is_installed(n)]
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
    return f"{name}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}."


def summary(setting: Setting) -> str:
    """Machine, versions and setting, for times."""
    return (
        f"{machine(setting.device)} {setting.nt_samples} noisy samples, batch {setting.batch}, "
        f"{setting.size} x {setting.size}, {setting.mode}, {setting.targets} target(s), "
        f"medians of {setting.rounds} rounds."
    )


def is_installed(distribution: str) -> bool:
    """Whether a package is there."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
