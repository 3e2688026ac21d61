"""Real networks that do not ship: the folder that the environment variable SGCAMPP_ASSETS names holds them."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import nn

VARIABLE = "SGCAMPP_ASSETS"


def assets_folder() -> Path | None:
    """The folder of the real networks; None where there is none."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else None
    return folder if folder and (folder / "networks.py").is_file() else None


def needed_folder() -> Path:
    """The folder of the real networks."""
    folder = assets_folder()
    if folder is None:
        raise RuntimeError(
            f"{VARIABLE}: expected a folder with networks.py, models and samples, found {os.environ.get(VARIABLE)!r}"
        )
    return folder


def load_network(name: str) -> nn.Module:
    """A network of that folder, on the CPU, in float32 and in evaluation mode."""
    return cast(nn.Module, _loader(needed_folder() / "networks.py").load(name))


@cache
def _loader(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks_of_assets", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{VARIABLE}: expected a Python module {path.name}, found none that can be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
