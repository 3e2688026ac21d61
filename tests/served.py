"""The page's server, and visitors without a browser: the script of the tutorial."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def visitors() -> ModuleType:
    """The script `tutorials/demo/visitors.py`."""
    name = "visitors_of_the_page"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "tutorials" / "demo" / "visitors.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
