"""The same settings in Python: what the page gives, without a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from visits import one_thread

from captum_sgcampp.demo.downloads import write_files
from captum_sgcampp.demo.explaining import complete, explanation, sampled
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.settings import settings_of
from captum_sgcampp.demo.visitor import Visitor


def assert_python_gives(
    files: dict[str, Path], link: str, networks: Networks, picture: Path | None = None, beside: Sequence[Path] = ()
) -> Any:
    """The settings of the link make the downloaded files in Python, and the downloaded code their maps, to the bit.

    Args:
        files: that were downloaded, by name.
        link: to the settings.
        networks: of the page.
        picture: that was uploaded. None: the link names an example.
        beside: files that the code reads.

    Returns:
        The manifest.
    """
    folder = next(iter(files.values())).parent.parent / "python"
    folder.mkdir()
    made = {path.name: path for path in _written(folder, link, networks, picture)}
    assert made.keys() == files.keys()
    for name, path in made.items():
        assert files[name].read_bytes() == path.read_bytes(), name
    manifest = json.loads(files["manifest.json"].read_text())
    _assert_code_gives(files, manifest, [path for path in (picture, *beside) if path is not None])
    return manifest


def _written(folder: Path, link: str, networks: Networks, picture: Path | None) -> list[Path]:
    visitor, given = Visitor(), dict(parse_qsl(urlsplit(link).query))
    if picture is None:
        visitor.show_scene(int(given["scene"]))
    else:
        visitor.show_file(picture)
    settings = complete(visitor, networks, settings_of(given))
    list(sampled(visitor, networks, settings))
    return write_files(folder, visitor, explanation(visitor, networks, settings))


def _assert_code_gives(files: dict[str, Path], manifest: Any, needed: Sequence[Path]) -> None:
    folder = files["explain.py"].parent.parent / "code"
    folder.mkdir()
    for path in needed:
        (folder / path.name).write_bytes(path.read_bytes())
    subprocess.run([sys.executable, files["explain.py"]], cwd=folder, env=one_thread(), check=True, capture_output=True)
    for entry in manifest["maps"]:
        made = np.load(folder / f"{entry['method']}_{entry['target']}.npy")
        assert np.array_equal(np.load(files[entry["file"]]), made), entry["method"]
    assert len(list(folder.glob("*.npy"))) == len(manifest["maps"])
