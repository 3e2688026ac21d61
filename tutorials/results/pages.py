"""Writes the figures of the pages from the finished tables, so that pages and tables cannot disagree.

    python pages.py

Two things are written: the lines between `<!-- table: NAME -->` and `<!-- end -->` (`page_tables.py`, `choices.py`),
and the numbers of links to tables (`figures.py`). Everything else stays.
"""

from __future__ import annotations

import re
from pathlib import Path

import choices
import figures
import page_tables

ROOT = figures.HERE.parents[1]
PAGES = (ROOT / "README.md", ROOT / "tutorials" / "advice.md", figures.HERE / "README.md")
_BLOCK = re.compile(r"(<!-- table: ([\w. -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


BLOCKS = page_tables.BLOCKS | choices.BLOCKS


def written(page: str) -> str:
    """The page with the tables' figures."""
    return figures.linked(_BLOCK.sub(_filled, page))


def _filled(found: re.Match[str]) -> str:
    begin, name, end = found.groups()
    if name not in BLOCKS:
        raise ValueError(f"table: expected one of {', '.join(BLOCKS)}, found {name!r}")
    return begin + "\n".join(BLOCKS[name]()) + "\n" + end


def main(pages: tuple[Path, ...] = PAGES) -> None:
    """Writes the pages."""
    for path in pages:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
