"""The notebooks run from a clean kernel, and what is stored in them is clean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra 'test'")
nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra 'test'")

FOLDER = Path(__file__).resolve().parents[2] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_a_clean_kernel(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER), prepend=os.pathsep)  # the kernel runs elsewhere, to leave no files
    stored = nbformat.read(path, 4)
    fresh = nbformat.from_dict(stored)
    nbclient.NotebookClient(
        fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert not [output for output in outputs(fresh) if output.output_type == "error"]
    assert len(outputs(fresh)) > 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_have_pictures_and_no_errors_warnings_or_paths(path: Path) -> None:
    stored = nbformat.read(path, 4)
    assert any("image/png" in output.get("data", {}) for output in outputs(stored))
    for output in outputs(stored):
        assert output.output_type != "error" and output.get("name") != "stderr"
        text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        assert "image/gif" not in output.get("data", {})  # the site shows no such output, but HTML with one in it
        assert "/home/" not in text and "/tmp/" not in text and "/root/" not in text
