"""What `captum_sgcampp` exports, and that nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import captum_sgcampp

HEAVY = ("torch", "torchvision", "captum", "numpy", "matplotlib", "PIL")
IMPORTED = f"print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY}))))"


def imported_by(code: str) -> list[str]:
    """The heavy packages that a fresh interpreter has imported after `code`."""
    code = f"import json, sys\n{code}\n{IMPORTED}"
    found: list[str] = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1])
    return found


def test_the_package_is_imported_without_torch() -> None:
    assert imported_by("import captum_sgcampp; captum_sgcampp.__version__; dir(captum_sgcampp)") == []


def test_every_exported_name_is_there() -> None:
    everything: dict[str, object] = {}
    exec("from captum_sgcampp import *", everything)
    assert set(captum_sgcampp.__all__) <= everything.keys() & set(dir(captum_sgcampp))
    for name in captum_sgcampp.__all__:
        assert everything[name] is getattr(captum_sgcampp, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LayerGradCam'"):
        _ = captum_sgcampp.LayerGradCam
    with pytest.raises(ImportError, match="LayerGradCam"):
        exec("from captum_sgcampp import LayerGradCam")


def test_type_checkers_read_the_modules_that_names_come_from() -> None:
    tree = ast.parse(Path(captum_sgcampp.__file__).read_text())
    read = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("captum_sgcampp.")
        for alias in node.names
    }
    at_run_time = {name: f"captum_sgcampp.{module}" for name, module in captum_sgcampp._MODULES.items()}
    assert read == {**at_run_time, "__version__": "captum_sgcampp._version"}
    assert set(read) == set(captum_sgcampp.__all__)


@pytest.mark.parametrize("name", [name for name in captum_sgcampp.__all__ if name != "__version__"])
def test_exported_names_survive_pickling(name: str) -> None:
    thing = getattr(captum_sgcampp, name)
    assert pickle.loads(pickle.dumps(thing)) is thing
