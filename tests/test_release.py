"""What is released: metadata, the built wheel and sdist, the README as an index renders it, workflows, the recipe."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from captum_sgcampp import __version__

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
REPOSITORY = "https://host.invalid/owner/repository"
MOST_WHEEL_BYTES = 3_000_000
MOST_SECONDS = 0.2
# CPU time, so that a busy machine does not count; what Captum has imported already does not count either.
IMPORT_SECONDS = """
import captum.attr, time
start = time.process_time()
from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
print(time.process_time() - start)
"""


def least_versions() -> dict[str, str]:
    """The oldest version of each dependency, "" where any will do."""
    return {re.split(r"[>=\[]", entry)[0]: entry.partition(">=")[2] for entry in PROJECT["dependencies"]}


def python_versions() -> list[str]:
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"])
    return [match[1] for match in found if match]


def load_yaml(path: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it, of a checkout prepared as the release workflow does."""
    pytest.importorskip("build", reason="a development tool")
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "captum_sgcampp", checkout / "captum_sgcampp", ignore=shutil.ignore_patterns("__pycache__"))
    release_tool().main(REPOSITORY, "v1", checkout)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def release_tool() -> ModuleType:
    path = ROOT / ".github" / "release" / "absolute_links.py"
    spec = spec_from_file_location("absolute_links", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def test_links_of_the_readme_on_an_index_are_absolute_and_lead_to_files() -> None:
    page = release_tool().with_absolute_links(README, REPOSITORY, "v1")
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    own = [link for link in links if link.startswith(REPOSITORY)]
    assert any(link.startswith(f"{REPOSITORY}/raw/v1/") for link in own)
    for link in own:
        assert (ROOT / re.sub(r"^.*?/(raw|blob)/v1/", "", link).partition("#")[0]).exists(), link


def test_pictures_and_linked_pictures_become_absolute() -> None:
    page = (
        "![a map](a.png) [text](b.md#part) [![badge](https://x.invalid/y)](LICENSE) [out](https://z.invalid) [in](#c)"
    )
    assert release_tool().with_absolute_links(page, "R", "T") == (
        "![a map](R/raw/T/a.png) [text](R/blob/T/b.md#part) [![badge](https://x.invalid/y)](R/blob/T/LICENSE) "
        "[out](https://z.invalid) [in](#c)"
    )


def test_badges_say_what_pyproject_says() -> None:
    badges = dict(re.findall(r"\[!\[([^\]]+)\]\((https://img\.shields\.io/badge/[^)]+)\)\]", README))
    pythons, least = python_versions(), least_versions()
    assert set(badges) == {
        f"License: {PROJECT['license']}",
        f"Python {pythons[0]} to {pythons[-1]}",
        f"torch {least['torch']} or newer",
        f"captum {least['captum']} or newer",
    }
    for text, address in badges.items():
        label, _, value = text.replace(" or newer", "").replace("License:", "license").partition(" ")
        assert f"/{label.lower()}-" in address
        assert value.replace("-", "--").replace(" ", "_").split("_")[0] in address


def test_python_classifiers_begin_where_the_package_does() -> None:
    pythons = python_versions()
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert pythons == [f"3.{minor}" for minor in range(int(pythons[0][2:]), int(pythons[-1][2:]) + 1)]


def test_bibtex_and_citation_name_the_version() -> None:
    citation = (ROOT / ".github" / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    assert f"version = {{{__version__}}}" in README
    for arxiv in ("1908.01224", "1710.11063"):
        assert arxiv in citation and arxiv in README


def test_changelog_has_the_form_of_keep_a_changelog() -> None:
    changes = (ROOT / ".github" / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (.*)$", changes, re.MULTILINE)[0] == "[Unreleased]"
    kinds = set(re.findall(r"^### (.*)$", changes, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_workflows_test_all_supported_pythons_and_the_oldest_versions() -> None:
    jobs = load_yaml(".github/workflows/tests.yml")["jobs"]
    oldest = next(step["with"]["python-version"] for step in jobs["oldest"]["steps"] if "setup-python" in str(step))
    assert sorted([oldest, *jobs["newest"]["strategy"]["matrix"]["python"]]) == sorted(python_versions())
    commands = " ".join(step.get("run", "") for step in jobs["oldest"]["steps"])
    for name in ("torch", "torchvision", "captum"):
        assert f"'{name}=={least_versions()[name]}.*'" in commands
    for folder in re.findall(r"tests/\w+", commands):
        assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".github" / "workflows").iterdir()))
def test_workflows_run_only_scripts_that_are_there(name: str) -> None:
    workflow = load_yaml(f".github/workflows/{name}")
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            for path in re.findall(r"(?<!/)\.github/\S+", step.get("run", "")):
                assert (ROOT / path).is_file(), path


def test_extras_are_named_with_commands_that_work_in_a_checkout() -> None:
    """The package is on no index yet."""
    files = [ROOT / "README.md", *(ROOT / "tutorials").rglob("*.md"), *(ROOT / "captum_sgcampp").rglob("*.py")]
    command = re.compile(r"pip install '([\w.-]+)\[(\w+)\]'")
    named = {found for file in files for found in command.findall(file.read_text("utf-8"))}
    assert {package for package, _ in named} == {"."}
    assert {"demo", "ray", "huggingface"} <= {extra for _, extra in named} <= set(PROJECT["optional-dependencies"])


def test_the_documentation_workflow_installs_the_extra_docs() -> None:
    steps = load_yaml(".github/workflows/documentation.yml")["jobs"]["build"]["steps"]
    commands = [step["run"].replace("'", "") for step in steps if "run" in step]
    assert f"pip install {' '.join(PROJECT['optional-dependencies']['docs'])}" in commands


def test_hooks_before_a_commit_run_tools_of_the_extra_test() -> None:
    hooks = [hook for repo in load_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    tools = {hook["entry"].split()[0] for hook in hooks}
    assert tools == {"ruff", "mypy"}
    assert tools <= {re.split(r"[>=<\[]", entry)[0] for entry in PROJECT["optional-dependencies"]["test"]}


def test_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = load_yaml(".github/conda/recipe.yaml")
    assert recipe["context"]["version"] == __version__
    assert recipe["build"]["noarch"] == "python"
    ((name, target),) = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {target}"]
    elsewhere = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    wanted = {f"{elsewhere.get(name, name)} >={least}".removesuffix(" >=") for name, least in least_versions().items()}
    assert set(recipe["requirements"]["run"]) == {*wanted, f"python {PROJECT['requires-python']}"}


def test_conda_recipe_renders() -> None:
    rattler_build = pytest.importorskip("rattler_build", reason="py-rattler-build is not installed")
    recipe = rattler_build.Stage0Recipe.from_file(str(ROOT / ".github" / "conda" / "recipe.yaml"))
    (variant,) = recipe.render(rattler_build.VariantConfig())
    assert (variant.recipe.package.name, str(variant.recipe.package.version)) == ("captum-sgcampp", __version__)


@pytest.mark.slow
def test_the_wheel_is_small_and_has_the_package_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < MOST_WHEEL_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"captum_sgcampp", f"captum_sgcampp-{__version__}.dist-info"}
    assert {"captum_sgcampp/py.typed", "captum_sgcampp/bundled/shapes_vgg.safetensors"} <= set(names)


@pytest.mark.slow
def test_the_sdist_has_all_that_a_build_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")  # the wheel beside it was built from it
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "captum_sgcampp/bundled/shapes_vgg.safetensors"} <= names
    assert sdist.name == f"captum_sgcampp-{__version__}.tar.gz"  # as the conda recipe expects it


@pytest.mark.slow
def test_the_metadata_have_addresses_and_a_description_with_absolute_links(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    found = metadata(wheel)
    urls = dict(line.split(", ") for line in found.get_all("Project-URL", []))
    assert urls["Repository"] == REPOSITORY
    assert {"Captum", "Grad-CAM++ (paper)", "Smooth Grad-CAM++ (paper)"} <= set(urls)
    assert f"({REPOSITORY}/raw/v1/tutorials/pictures/" in str(found.get_payload())


@pytest.mark.slow
def test_twine_has_no_complaint(built: Path) -> None:
    pytest.importorskip("twine", reason="a development tool")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_the_import_costs_little_beyond_that_of_captum() -> None:
    seconds = [json.loads(subprocess.check_output([sys.executable, "-c", IMPORT_SECONDS])) for _ in range(3)]
    assert statistics.median(seconds) < MOST_SECONDS
