"""Processes that cannot be started say why."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from captum_sgcampp.storage.parts import Parts
from captum_sgcampp.storage.workers import work_in_processes


def test_work_that_cannot_be_pickled_is_told(tmp_path: Path) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match=r"(?i)pickle"):
        work_in_processes(lambda: None, 2, Parts(tmp_path, 1))
