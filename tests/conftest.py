"""Fixtures: the real models and photographs, where they are; heads without shortcuts."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: two teams of spinning threads slow each other down
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.threads import computing_threads

pytest.register_assert_rewrite("_asserts", "truth")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with real pretrained models and photographs (not part of the project)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "assets"
    folder = Path(os.environ.get("SGCAMPP_ASSETS", default))
    if not (folder / "zoo.py").is_file():
        pytest.skip("no real models and photographs: set SGCAMPP_ASSETS to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def zoo(assets: Path) -> ModuleType:
    """The loader of the real models."""
    spec = importlib.util.spec_from_file_location("zoo", assets / "zoo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _same_start() -> None:
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums have the same bits with every number of cores."""
    with computing_threads(1):
        yield


@pytest.fixture
def no_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are taken entry by entry even where they are known to be piecewise linear."""
    monkeypatch.setattr(Graph, "is_piecewise_linear", lambda self: False)
