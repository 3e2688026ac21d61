"""Writes the figures of the pages from the finished tables, so that pages and tables cannot disagree.

    python pages.py

Two things are written: the lines between `<!-- table: NAME -->` and `<!-- end -->` (`page_tables.py`), and the numbers
of links to tables (`figures.py`). Everything else stays.
"""

from __future__ import annotations

import re
from pathlib import Path

import figures
import page_tables

ROOT = figures.HERE.parents[1]
PAGES = (ROOT / "README.md", ROOT / "tutorials" / "advice.md", figures.HERE / "README.md")
_BLOCK = re.compile(r"(<!-- table: ([\w. -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with the tables' figures."""
    filled = _BLOCK.sub(lambda found: found[1] + "\n".join(page_tables.block(found[2])) + "\n" + found[3], page)
    return figures.linked(filled)


def main(pages: tuple[Path, ...] = PAGES) -> None:
    """Writes the pages."""
    for path in pages:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
