"""The folder `tutorials/demo` as a Space of Hugging Face: it starts there, and names what it needs."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path

import pytest
from page_server import SCRIPT, free_port, serving

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "tutorials" / "demo"


@pytest.mark.slow
def test_the_space_serves_the_page(tmp_path: Path) -> None:
    """As a Space starts it: a copy of the folder, `python app.py`, at all addresses."""
    for name in ("app.py", "README.md", "requirements.txt"):
        (tmp_path / name).write_bytes((SPACE / name).read_bytes())
    port = free_port()
    space = {"SYSTEM": "spaces", "SPACE_ID": "nobody/demo", "GRADIO_SERVER_NAME": "0.0.0.0"}
    with serving(tmp_path, port, [SCRIPT, "app.py"], {**space, "GRADIO_SERVER_PORT": str(port)}) as url:
        config = json.load(urllib.request.urlopen(f"{url}config", timeout=60))
    assert config["title"] == "What did the network look at?"
    assert {"image", "layer", "maps"} <= {one["props"].get("elem_id") for one in config["components"]}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads pyproject.toml with tomllib")
def test_the_space_names_the_package_and_the_gradio_that_it_needs() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, extra = re.fullmatch(r"(.+)\[(.+)\]", (SPACE / "requirements.txt").read_text().strip()).groups()  # type: ignore[union-attr]
    assert name == project["name"]
    least, most = re.fullmatch(r"gradio>=([\d.]+),<(\d+)", project["optional-dependencies"][extra][0]).groups()  # type: ignore[union-attr]
    version = re.search(r"^sdk_version: (.+)$", (SPACE / "README.md").read_text(), re.MULTILINE)[1]  # type: ignore[index]
    assert version.startswith(least) and int(version.split(".")[0]) < int(most)
