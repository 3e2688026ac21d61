"""The tutorials' scripts import what stands beside them: their folders are on the path, as when they are run."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "tutorials"
sys.path[:0] = [str(FOLDER / name) for name in ("cost", "bundled_network", "side_by_side", "results")]
sys.path.append(str(FOLDER))  # for the package `tasks`
