"""The figures of the finished tables, and the links to them in the pages.

A figure in a page is a link to its table. Its title says what it is, and the script `pages.py` writes the number:

    [0.75](results/tables/mobilenet_v2-last-photos/table.md "grad-cam: grid")
    [0.75 [0.73, 0.77]](... "grad-cam: grid, interval")
    [-0.01 [-0.03, 0.01]](... "grad-cam++ - grad-cam: grid")
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLES = HERE / "tables"
SIGNIFICANT = 0.05
PERCENT = ("average_drop", "increase", "win")

Row = Mapping[str, str]
_TEXT = r"\[[^\]\[]*(?:\[[^\]]*\])?\]"  # of a link, with an interval or without
_LINK = re.compile(_TEXT + r'\(((?:[\w./-]*/)?tables/([\w.-]+)/table[\w+-]*\.md) "([^"]+)"\)')


def is_finished(table: str) -> bool:
    """Whether a table has been measured."""
    return (TABLES / table / "summary.csv").is_file()


@cache
def summary(table: str, reference: str = "") -> dict[tuple[str, str], Row]:
    """The rows of a table by method and metric. With a reference, those of the tests against it."""
    name = "summary.csv" if reference in ("", _first(table)) else f"summary-against-{reference}.csv"
    return {(row["method"], row["metric"]): row for row in _rows(TABLES / table / name)}


@cache
def _rows(path: Path) -> list[Row]:
    """None where a table has no tests against that reference."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _first(table: str) -> str:
    """The reference of `summary.csv`: the first method."""
    return next(iter(_rows(TABLES / table / "summary.csv")))["method"] if is_finished(table) else ""


def row(table: str, method: str, metric: str, reference: str = "") -> Row | None:
    """One row. A method with noise is found without its settings. None: it was not measured."""
    found = summary(table, reference)
    names = [name for name, _ in found if name == method or name.startswith(f"{method} ")]
    return found.get((names[0], metric)) if names else None


def number(value: str | float, metric: str, sign: str = "") -> str:
    """As the tables print it: percent with one decimal, shares with three."""
    text = f"{float(value):{sign}.{1 if metric in PERCENT else 3}f}"
    return text.lstrip("-") if float(text) == 0 else text


def value(found: Row, metric: str, interval: bool = True) -> str:
    """The mean, with its 95 % interval."""
    mean, low, high = (number(found[name], metric) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]" if interval else mean


def difference(found: Row, metric: str) -> str:
    """The mean difference from the reference, with its 95 % interval."""
    names = ("difference", "difference_low", "difference_high")
    mean, low, high = (number(found[name], metric) for name in names)
    return f"{mean} [{low}, {high}]"


def mark(found: Row) -> str:
    """`^` or `v` where the difference from the reference is significant."""
    if not found["p_holm"] or float(found["p_holm"]) >= SIGNIFICANT:
        return ""
    return " ^" if float(found["difference"]) > 0 else " v"


def text_of(table: str, title: str) -> str:
    """The text of a linked figure.

    Raises:
        ValueError: no table has it.
    """
    what, _, rest = title.partition(": ")
    metric, _, form = rest.partition(", ")
    method, _, reference = what.partition(" - ")
    found = row(table, method, metric, reference) if is_finished(table) else None
    if found is None or form not in ("", "interval") or (reference and not found["difference"]):
        expected = '"METHOD[ - REFERENCE]: METRIC[, interval]" of a table'
        raise ValueError(f"link: expected {expected}, found {title!r} of {table}")
    return difference(found, metric) if reference else value(found, metric, bool(form))


def linked(page: str) -> str:
    """The page with the number of every link as the tables have it."""
    return _LINK.sub(lambda link: f'[{text_of(link[2], link[3])}]({link[1]} "{link[3]}")', page)


def links(page: str) -> list[tuple[str, str]]:
    """Table and title of every linked figure."""
    return [(link[2], link[3]) for link in _LINK.finditer(page)]
