"""The command line as a whole: how it is started, and what it stands on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torchvision

import captum_sgcampp

PACKAGE = Path(captum_sgcampp.__file__).parent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["explian"],
            "COMMAND: expected one of explain, attribute, evaluate, demo, found 'explian' (did you mean explain?)",
        ),
        ([], "COMMAND"),
        (["explain", "--version\x1b[31m"], "--version\\x1b[31m"),
    ],
)
def test_a_command_must_be_named(command: Any, arguments: list[str], message: str) -> None:
    status, _, err = command(*arguments)
    assert status == 2 and message in err and "Traceback" not in err


@pytest.mark.parametrize("name", ["explain", "attribute", "evaluate"])
def test_the_names_of_networks_are_printed_on_request_and_nothing_else_is_asked_for(command: Any, name: str) -> None:
    status, out, err = command(name, "--list-models")
    names = out.splitlines()
    assert (status, err) == (0, "") and names[0] == "shapes" and {"resnet50", "vit_b_16"} <= set(names)
    assert names[1:] == torchvision.models.list_models(module=torchvision.models)


@pytest.mark.slow
def test_module_can_be_run_with_python_m() -> None:
    result = subprocess.run([sys.executable, "-m", "captum_sgcampp", "--version"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("captum-sgcampp ")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["explain", "--help"], ["evaluate", "--help"], ["demo", "--help"]]
)
def test_help_is_given_without_importing_torch(arguments: list[str]) -> None:
    code = f"""
import json, sys
from captum_sgcampp.commands.main import main
try:
    main({arguments})
except SystemExit as stop:
    assert stop.code == 0
found = {{name.split(".")[0] for name in sys.modules}}
assert not found & {{"torch", "torchvision", "captum", "numpy", "matplotlib", "PIL", "gradio"}}, found
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if "--help" in arguments:
        assert "0 done; 1 the model failed; 2 an argument does not fit; 3 a file cannot" in result.stdout


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, 2), (TypeError, 2), (FileNotFoundError, 3), (RuntimeError, 1), (MemoryError, 1)]
)
def test_errors_have_one_line_and_a_status(
    command: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception], status: int
) -> None:
    def fail(arguments: object) -> None:
        raise error("argument: expected this, found that")

    monkeypatch.setattr("captum_sgcampp.commands.explain.run", fail)
    assert command("explain") == (status, "", "captum-sgcampp: error: argument: expected this, found that\n")


def test_only_commands_know_about_arguments() -> None:
    for path in PACKAGE.rglob("*.py"):
        found = re.findall(
            r"^ *(?:import|from) (argparse|captum_sgcampp\.commands)", path.read_text("utf-8"), re.MULTILINE
        )
        assert not found or path.parent.name == "commands" or path.name == "__main__.py", path
