"""What the site needs beyond Markdown: equations as MathML, links out of `tutorials/`, messages, more files."""

from __future__ import annotations

import html
import os
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

sys.path.append(str(Path(__file__).parent))

import error_messages
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?![a-z]+:|#)([^()\s#]+)(#[^()\s]*)?\)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
MESSAGES = "<!-- all error messages -->"


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Called by MkDocs with the files of the site."""
    for name in ("site.css", "llms.txt"):
        files.append(File.generated(config, name, abs_src_path=str(Path(__file__).with_name(name))))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    folder = Path(config["docs_dir"], page.file.src_uri).parent
    markdown = LINK.sub(lambda link: resolved(link, folder, Path(config["docs_dir"])), markdown)
    return markdown.replace(MESSAGES, error_messages.as_markdown(ROOT / "captum_sgcampp"))


def on_page_content(content: str, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page: browsers draw MathML without a script."""
    return EQUATION.sub(in_mathml, content)


def resolved(link: re.Match[str], folder: Path, docs: Path) -> str:
    """A link to a file that is no page leads to the repository, whose address is in REPOSITORY. Else its text stays."""
    text, path, _ = link.groups()
    target = (folder / path).resolve()
    if target.is_relative_to(docs) and target.suffix in (".md", ".ipynb", ".png", ".csv"):
        return link[0]
    if target.is_relative_to(docs) and (target / "README.md").is_file():
        return f"[{text}]({path.rstrip('/')}/README.md)"
    repository = os.environ.get("REPOSITORY")
    return f"[{text}]({repository}/{target.relative_to(ROOT).as_posix()})" if repository else text


def in_mathml(equation: re.Match[str]) -> str:
    display = "block" if equation[1] == "div" else "inline"
    return convert(html.unescape(equation[2]), display=display)
