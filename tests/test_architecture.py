"""Which folder may import which, where hooks and Captum's private names are used, and how long things may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "captum_sgcampp"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# commands > evaluation | dataset | demo > vision | metrics > attr > sampling > model | functional
LEVELS = [
    {"commands"},
    {"evaluation", "dataset", "demo"},
    {"vision", "metrics"},
    {"attr"},
    {"sampling"},
    {"model", "functional"},
]
BESIDE_VISION = {
    "scores",
    "distillation",
    "visualization",
    "bundled",
    PACKAGE,
}  # PACKAGE: the names that its __init__ exports
FOR_ALL = {"checks", "names", "wide_gray", "captum_internals", "_version", "storage"}
ENTRY = "__main__"

MOST_LINES, MOST_CLASS_LINES, MOST_BODY_LINES = 330, 120, 30
HOOKS = re.compile(r"_?register_\w*hook\w*|saved_tensors_hooks|_global_\w*hooks")
MAY_HOOK = re.compile(r"model/\w+\.py|vision/layer_choice\.py")

# What is not yet true. A test fails when an entry is no longer needed: then delete it.
KNOWN_IMPORTS: set[str] = set()
KNOWN_HOOKS: set[str] = set()
KNOWN_LONG_FILES = {"bundled/scenes.py", "vision/images.py"}
KNOWN_LONG_CLASSES = {"model/forward_pass.py::ForwardPass", "model/layer_hook.py::LayerHook"}
KNOWN_LONG_FUNCTIONS: set[str] = set()


@cache
def sources() -> dict[str, ast.Module]:
    """Every file of the package, by its path below it."""
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def held(rule: str, found: Mapping[str, str], known: set[str]) -> None:
    """Fails for offenders that are not known, and for known ones that are none any more."""
    new = [f"{offender}: {what}" for offender, what in found.items() if offender not in known]
    gone = [f"{offender}: no longer needs its exception" for offender in sorted(known - set(found))]
    if new or gone:
        pytest.fail("\n".join([rule, *new, *gone]), pytrace=False)


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, also inside functions, but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                yield other
                yield from run_nodes(other)
        else:
            yield child
            yield from run_nodes(child)


def imports(file: str) -> Iterator[str]:
    """The full name of everything that a file imports: `torch.nn`, `captum_sgcampp.checks.check_count`."""
    package = [PACKAGE, *Path(file).parent.parts]
    tree = sources()[file]
    # The package's names are imported when they are first used. Only a type checker reads where they come from.
    for node in ast.walk(tree) if file == "__init__.py" else run_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parent, *([node.module] if node.module else [])])
            yield from (f"{module}.{name.name}" for name in node.names)


def place(name: str) -> str:
    """The folder, or the file at the top, that a full name of the package stands in; PACKAGE for what it exports."""
    parts = name.split(".")
    top = parts[1] if len(parts) > 1 else "__init__"
    is_there = (ROOT / top).is_dir() or (ROOT / f"{top}.py").is_file()
    return top if is_there and top != "__init__" else PACKAGE


def place_of_file(file: str) -> str:
    return place(f"{PACKAGE}.{Path(file).with_suffix('').parts[0]}")


def level(of: str) -> int | None:
    """Its row in LEVELS; None for what stands in none."""
    return next((number for number, row in enumerate(LEVELS) if of in row), None)


def may_import(importer: str, imported: str) -> bool:
    vision, attr = level("vision"), level("attr")
    assert vision is not None and attr is not None
    if importer in (imported, ENTRY) or imported in FOR_ALL:
        return True
    above, below = level(importer), level(imported)
    if importer in FOR_ALL:
        return False
    if importer in BESIDE_VISION:
        # What the package exports is imported when it is first used, so that it may come from higher up.
        return below is not None and below >= (vision if importer == PACKAGE else attr)
    if imported in BESIDE_VISION:
        return above is not None and above <= vision
    return above is not None and below is not None and above < below


def test_folders_import_only_what_stands_below_them() -> None:
    found = {}
    for file in sources():
        for name in imports(file):
            if name.split(".")[0] == PACKAGE and not may_import(place_of_file(file), place(name)):
                found[f"{file} imports {name}"] = f"{place_of_file(file)} may not import {place(name)}"
    rule = "commands > evaluation | dataset | demo > vision | metrics > attr > sampling > model | functional"
    held(rule, found, KNOWN_IMPORTS)


def test_every_file_has_a_place() -> None:
    places = set().union(*LEVELS, BESIDE_VISION, FOR_ALL, {ENTRY})
    found = {file: f"{place_of_file(file)} is in no rule" for file in sources() if place_of_file(file) not in places}
    held("Every file stands in a folder of the rule", found, set())


def used_names(file: str) -> Iterator[str]:
    """All names that a file's code reads, sets or imports, without what they belong to."""
    for node in ast.walk(sources()[file]):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.split(".")[-1]


def test_hooks_are_registered_only_where_the_model_is_met() -> None:
    found = {
        f"{file} uses {name}": "hooks stand in model/ and vision/layer_choice.py"
        for file in sources()
        if not MAY_HOOK.fullmatch(file)
        for name in sorted(set(used_names(file)))
        if HOOKS.fullmatch(name)
    }
    held("Only model/ and vision/layer_choice.py use hooks", found, KNOWN_HOOKS)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression that reads so, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def read_names(file: str) -> Iterator[str]:
    """The full names that a file imports or reads as `torch.autograd.grad`."""
    yield from imports(file)
    for node in run_nodes(sources()[file]):
        if isinstance(node, ast.Attribute):
            yield dotted(node)


def test_captums_private_names_are_imported_in_one_file() -> None:
    found = {
        f"{file} uses {name}": "captum_internals.py alone does"
        for file in sources()
        if file != "captum_internals.py"
        for name in read_names(file)
        if name.split(".")[0] == "captum" and any(part.startswith("_") for part in name.split("."))
    }
    held("Captum's private names stand in captum_internals.py", found, set())


IMPURE = re.compile(
    rf"captum(\..+)?|{PACKAGE}\.captum_internals(\..+)?|torch\.autograd(\..+)?|torch\.nn\.(?!functional\b).+"
    r"|torch\.(\w*_grad|inference_mode)(\..+)?"
)
MACHINERY = re.compile(r"backward|requires_grad_?|retain_grad|grad_fn|grad|register_\w*hook")


def test_functional_is_pure() -> None:
    """No Captum, no modules, no autograd: tensors in, tensors out."""
    found = {}
    for file in sources():
        if place_of_file(file) != "functional":
            continue
        names = [name for name in read_names(file) if IMPURE.fullmatch(name)]
        names += [name for name in imports(file) if name == "torch.nn"]
        names += [name for name in used_names(file) if MACHINERY.fullmatch(name)]
        found |= {f"{file} uses {name}": "functional/ knows tensors only" for name in names}
    held("functional/ imports neither Captum nor torch's modules, hooks and autograd", found, set())


Function = ast.FunctionDef | ast.AsyncFunctionDef
Defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Functions and classes at any depth, by their qualified names."""
    for child in ast.iter_child_nodes(node):
        name = owner
        if isinstance(child, Defined):
            name = f"{owner}.{child.name}" if owner else child.name
            yield name, child
        yield from definitions(child, name)


def lines(nodes: list[ast.stmt] | list[ast.AST]) -> set[int]:
    """The lines that they span, with their decorators."""
    spanned: set[int] = set()
    for node in nodes:
        decorators = [d.lineno for d in getattr(node, "decorator_list", [])]
        spanned |= set(range(min([node.lineno, *decorators]), node.end_lineno + 1))  # type: ignore[union-attr, operator]
    return spanned


def docstring_lines(node: ast.AST) -> set[int]:
    """The lines of its docstring and those of all that is defined in it."""
    owners = [child for child in ast.walk(node) if isinstance(child, Defined) and ast.get_docstring(child) is not None]
    return lines([owner.body[0] for owner in owners])


def body_length(function: Function) -> int:
    """From the first line after the docstring to the last, without functions and classes inside."""
    inside = [child for child in ast.walk(function) if isinstance(child, Defined) and child is not function]
    first = 1 if ast.get_docstring(function) is not None else 0
    body = function.body[first:]
    if not body:
        return 0
    span = set(range(min(lines(body)), max(lines(body)) + 1))
    return len(span - lines(inside))  # type: ignore[arg-type]


def class_length(definition: ast.ClassDef) -> int:
    return len(lines([definition]) - docstring_lines(definition))


def too_long(kind: tuple[type, ...], length: Callable[..., int], most: int) -> dict[str, str]:
    return {
        f"{file}::{name}": f"{length(node)} lines, at most {most}"
        for file, tree in sources().items()
        for name, node in definitions(tree)
        if isinstance(node, kind) and length(node) > most
    }


def test_files_are_short() -> None:
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in sources()}
    found = {file: f"{n} lines, at most {MOST_LINES}" for file, n in lengths.items() if n > MOST_LINES}
    held("Files are short", found, KNOWN_LONG_FILES)


@pytest.mark.parametrize(
    "kind, length, most, known",
    [
        ((ast.ClassDef,), class_length, MOST_CLASS_LINES, KNOWN_LONG_CLASSES),
        ((ast.FunctionDef, ast.AsyncFunctionDef), body_length, MOST_BODY_LINES, KNOWN_LONG_FUNCTIONS),
    ],
    ids=["classes", "functions"],
)
def test_classes_and_functions_are_short(
    kind: tuple[type, ...], length: Callable[..., int], most: int, known: set[str]
) -> None:
    held("Classes and functions are short, docstrings not counted", too_long(kind, length, most), known)
