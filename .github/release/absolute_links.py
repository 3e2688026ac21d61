"""Prepares a checkout for a package index: `python absolute_links.py https://HOST/OWNER/REPOSITORY TAG`.

A package index renders README.md alone, so its links into the repository must be absolute there. In the repository they
stay relative, and lead to the files of the same commit. The repository's address is known where this runs: the release
workflow passes its own. It also goes into `[project.urls]`. Both files are changed in place.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# Inline links and images of Markdown whose address has no scheme and is no place in the page itself.
RELATIVE_LINK = re.compile(r"(!?)(\[(?:[^\[\]]|\[[^\[\]]*\]\([^()]*\))*\]\()(?![a-z]+:|#)([^()\s]+)(\))")


def with_absolute_links(markdown: str, repository: str, tag: str) -> str:
    """The page with absolute links: pictures to the file itself, everything else to its page."""

    def absolute(link: re.Match[str]) -> str:
        bang, text, path, end = link.groups()
        return f"{bang}{text}{repository}/{'raw' if bang else 'blob'}/{tag}/{path}{end}"

    return RELATIVE_LINK.sub(absolute, markdown)


def with_addresses(pyproject: str, repository: str) -> str:
    """pyproject.toml with the repository's addresses in `[project.urls]`."""
    changes = f"{repository}/blob/HEAD/.github/CHANGELOG.md"
    urls = f'Repository = "{repository}"\nIssues = "{repository}/issues"\nChangelog = "{changes}"\n'
    return pyproject.replace("[project.urls]\n", f"[project.urls]\n{urls}", 1)


def main(repository: str, tag: str, root: Path) -> None:
    readme, pyproject = root / "README.md", root / "pyproject.toml"
    repository = repository.rstrip("/")
    readme.write_text(with_absolute_links(readme.read_text(encoding="utf-8"), repository, tag), encoding="utf-8")
    pyproject.write_text(with_addresses(pyproject.read_text(encoding="utf-8"), repository), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(__file__).resolve().parents[2])
