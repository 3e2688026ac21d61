"""The folder of uploads and downloads. Files in it go after their time, and all when the process ends.

Gradio removes only the files of components that are the same for all visitors; it makes copies of some for each.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

FILES_AGE, SWEEP_SECONDS = 1800.0, 30.0


def new_cache() -> str:
    """A folder that nobody else on this machine can read, where Gradio keeps its files from now on."""
    cache = os.path.realpath(tempfile.mkdtemp(prefix="captum-sgcampp-demo-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = cache
    threading.Thread(target=_sweep, args=(Path(cache),), name="temporary files", daemon=True).start()
    return cache


def _sweep(cache: Path) -> None:
    """As long as the folder exists."""
    while cache.is_dir():
        for path in sorted(cache.rglob("*"), reverse=True):  # files before their folders
            with suppress(OSError):  # somebody else removed it, or a folder holds newer files
                _remove_if_old(path)
        time.sleep(SWEEP_SECONDS)


def _remove_if_old(path: Path) -> None:
    if time.time() - path.lstat().st_ctime < FILES_AGE:
        return
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
