"""The documentation site is built without a warning, its examples run, and it has every message that can be raised."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import torch

from captum_sgcampp.commands.main import main
from captum_sgcampp.dataset.columns import TYPES

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "tutorials"
DOCUMENTATION = ROOT / ".github" / "documentation"
PAGES = [
    *(TUTORIALS / f"{name}.md" for name in ("start", "method", "coming_from", "troubleshooting")),
    *sorted((TUTORIALS / "how_to").glob("*.md")),
]
OWN_NETWORK = TUTORIALS / "how_to" / "own_network.md"  # has a file and a command between its examples
REPOSITORY = "https://host.invalid/owner/repository/blob/main"


def python_blocks(page: Path) -> list[str]:
    """The Python examples of a page, also those in tabs, which are indented."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [dedent(code) for _, code in found]


def error_messages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCUMENTATION))
    return import_module("error_messages")


def text_of(page: Path) -> str:
    """What a reader sees of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as the workflow does: with warnings as errors."""
    pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(ROOT / ".github" / "mkdocs.yml"),
    ]
    environment = {**os.environ, "REPOSITORY": REPOSITORY, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run([*command, "--site-dir", str(folder)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page) and page != OWN_NETWORK], ids=lambda page: page.stem
)
def test_examples_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, needed_by in (("timm", "timm"), ("transformers", "hugging_face clip"), ("torchcam", "coming_from")):
        if page.stem in needed_by.split():
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # some write pictures
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "example"}
    for code in python_blocks(page):
        exec(compile(code, page.name, "exec"), names)


@pytest.mark.slow
def test_the_page_on_ones_own_network_runs_with_its_file_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    blocks = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for language, code in blocks.findall(OWN_NETWORK.read_text()):
        capsys.readouterr()
        if name := re.match(r"# (\w+\.py)\n", code):
            Path(name[1]).write_text(code)
        elif language == "bash":
            assert main(shlex.split(code)[1:]) == 0
        else:
            exec(compile(code, OWN_NETWORK.name, "exec"), names)
        promised = re.findall(r"^print\(.*\)  # ([([\d][^:\n]*)", code, re.MULTILINE)
        printed = capsys.readouterr().out.replace("torch.Size([", "(").replace("])", ")").splitlines()
        assert [one for one in promised if one not in printed] == []
    assert "4095 white" in names["row"]["note"] and names["row"]["target_name"] == "nodule"
    sys.modules.pop("lungs", None)


def test_the_page_on_ones_own_network_has_every_column_of_a_run() -> None:
    cells = "".join(re.findall(r"^\| (`.*?) \|", OWN_NETWORK.read_text(), re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", cells)) == set(TYPES)


def test_every_kind_of_network_has_a_page_with_an_example() -> None:
    wanted = {"README", "own_network", "torchvision", "timm", "hugging_face", "clip"}
    wanted |= {"detection", "segmentation", "video", "signals"}
    assert {page.stem for page in PAGES if page.parent.name == "how_to" and python_blocks(page)} == wanted


def test_shapes_that_the_examples_promise_are_those_that_they_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for code in python_blocks(TUTORIALS / "how_to" / "signals.md"):
        exec(code, names)
        promised = re.findall(r"print\(.*\)  # (\(.*?\))$", code, re.MULTILINE)
        assert re.findall(r"torch\.Size\(\[(.*?)\]\)", capsys.readouterr().out) == [one.strip("()") for one in promised]


def test_messages_are_read_from_all_ways_of_raising_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text(
        '_ZERO = "maps: expected values, found none, because "\n'
        'def f(k, name):\n'
        '    start = f"weights: expected weights of {name}, found"\n'
        '    warnings.warn("layer: expected tokens, found none", stacklevel=2)\n'
        '    problem = RuntimeError("inputs: expected a batch that fits, found another")\n'
        '    raise ValueError(f"{start} none for {k}") from TypeError(f"{name}: expected an int, found {k}")\n'
        'def why():\n'
        '    return f"{_ZERO}all is 0"\n'
    )  # fmt: skip
    found = error_messages(monkeypatch).by_argument(error_messages(monkeypatch).found_in(tmp_path))
    assert found == {
        "": ["…: expected an int, found …"],
        "inputs": ["inputs: expected a batch that fits, found another"],
        "layer": ["layer: expected tokens, found none"],
        "maps": ["maps: expected values, found none, because ", "maps: expected values, found none, because all is 0"],
        "weights": ["weights: expected weights of …, found none for …"],
    }


def test_advice_is_given_on_arguments_that_messages_name(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = error_messages(monkeypatch)
    named = set(messages.by_argument(messages.found_in(ROOT / "captum_sgcampp")))
    assert set(messages.ADVICE) - named == set()


def test_bold_messages_of_the_troubleshooting_page_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    raised = list(error_messages(monkeypatch).found_in(ROOT / "captum_sgcampp"))
    named = re.findall(r"\*\*`(.+?)`\*\*", (TUTORIALS / "troubleshooting.md").read_text())
    assert len(named) > 5
    assert [message for message in named if not any(one.startswith(message) for one in raised)] == []


@pytest.mark.slow
def test_the_troubleshooting_page_has_every_message_by_its_first_words(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = error_messages(monkeypatch)
    page = text_of(site / "troubleshooting.html")
    wanted = [messages.first_words(one) for one in messages.found_in(ROOT / "captum_sgcampp")]
    assert len(wanted) > 300
    assert [one for one in wanted if " ".join(one.split()) not in page] == []


@pytest.mark.slow
def test_the_site_needs_no_other_host_and_shows_equations(site: Path) -> None:
    page = (site / "method.html").read_text()
    assert page.count("<math") > 30 and "arithmatex" not in page
    assert "<math" in next(site.glob("6_*.html")).read_text()  # notebooks, too
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"', path.read_text()
        )
        assert loaded == [], path.name


@pytest.mark.slow
def test_lines_end_inside_long_names_of_tables_and_nowhere_else(site: Path) -> None:
    page = (site / "side_by_side" / "index.html").read_text()
    cells = re.findall(r"<t[hd]\b.*?</t[hd]>", page, re.DOTALL)
    assert any("Noise<wbr>Tunnel" in cell for cell in cells)
    assert sum(cell.count("<wbr>") for cell in cells) == page.count("<wbr>")
    assert "<wbr>" not in "".join(re.findall(r"<[^<>]+=[^<>]+>", page))  # no link is broken


@pytest.mark.slow
def test_links_out_of_the_site_lead_to_files_of_the_repository(site: Path) -> None:
    pages = "".join(path.read_text() for path in site.rglob("*.html"))
    links = set(re.findall(rf'href="{REPOSITORY}/([^"#]+)', pages))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_summary_for_language_models_leads_to_pages(site: Path) -> None:
    text = (site / "llms.txt").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert text.startswith("# captum_sgcampp\n\n> ") and len(links) > 10
    assert [link for link in links if not (site / link).is_file()] == []


@pytest.mark.slow
def test_links_between_pages_lead_to_pages(site: Path) -> None:
    counted = 0
    for path in site.rglob("*.html"):
        links = re.findall(r'<a [^>]*?href="([^"]+)"', path.read_text())
        local = {re.split("[#?]", link)[0] for link in links if not re.match(r"[a-z]+:|/", link)} - {""}
        assert [link for link in local if not (path.parent / unquote(link)).exists()] == [], path.relative_to(site)
        counted += len(local)
    assert counted > 500


def test_tables_of_the_api_pages_name_all_that_is_exported_and_what_stands_below() -> None:
    import captum_sgcampp
    from captum_sgcampp import metrics, scores, visualization

    listed: dict[str, list[str]] = {}
    for page in (TUTORIALS / "api").glob("[!R]*.md"):
        text = page.read_text()
        listed[page.stem] = re.findall(r"^\| `(\w+)` \| \S", text, re.MULTILINE)
        assert listed[page.stem] == re.findall(r"^::: captum_sgcampp\.\w+\.(?:\w+\.)*(\w+)$", text, re.MULTILINE), page
    for module in (metrics, scores, visualization):
        assert sorted(listed[module.__name__.rpartition(".")[2]]) == sorted({*module.__all__} - {"Picture"})
    assert {*captum_sgcampp.__all__} - {"__version__"} <= {*listed["attribution"], *listed["vision"]}


@pytest.mark.slow
def test_tables_of_the_api_pages_lead_to_what_stands_below(site: Path) -> None:
    page = (site / "api" / "metrics.html").read_text()
    links = re.findall(r'<td><a [^>]*href="#([^"]+)"><code>(\w+)</code></a></td>', page)
    assert len(links) > 30
    assert all(place.endswith(f".{name}") and f'id="{place}"' in page for place, name in links)


def test_docstrings_in_captums_form_become_googles(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe", reason="needs the extra 'docs'")
    monkeypatch.syspath_prepend(str(DOCUMENTATION))
    captums = "Args:\n\n    a,\n    b:\n            as in `f`.\n\nReturns:\n    of **x**:\n    - **x**: one\n"
    googles = "Args:\n    a, b: as in `f`.\n\nReturns:\n    of **x**:\n\n    - **x**: one\n"
    assert import_module("docstrings").in_googles_form(captums) == googles


@pytest.mark.slow
def test_every_exported_name_has_its_place_in_the_api_pages(site: Path) -> None:
    import captum_sgcampp
    from captum_sgcampp import metrics, scores, visualization

    places = set(re.findall(r'id="(captum_sgcampp\.[^"]+)"', "".join(p.read_text() for p in (site / "api").iterdir())))
    shown = {place.rpartition(".")[2] for place in places}
    for module in (captum_sgcampp, metrics, scores, visualization):
        public = {name for name in module.__all__ if callable(getattr(module, name)) and name != "Picture"}
        assert public - shown == set()
