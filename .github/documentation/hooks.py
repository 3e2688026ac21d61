"""What the site needs beyond Markdown: equations as MathML, links out of `tutorials/` and inside of pages, messages."""

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
# In the HTML of notebooks equations stay as they were written, and code may hold dollar signs of its own.
CODE = re.compile(r"(<(pre|code|script|style)\b.*?</\2>|<img\b[^>]*>)", re.DOTALL)
DOLLARS = re.compile(r"\$\$(.+?)\$\$|\$(?=\S)([^$\n]+?)(?<=\S)\$", re.DOTALL)
CELL = re.compile(r"<(t[hd])\b.*?</\1>", re.DOTALL)
PAGE = re.compile(r'href="(?![a-z]+:)([^"#]+)\.md(?=["#])')
LONG_NAME = re.compile(r"\b(?:\w{12,}\b|\w{8,}\((?=\w))(?![^<>]*>)")
MESSAGES = "<!-- all error messages -->"
DOCUMENTED = re.compile(r"^::: ((?:\w+\.)+(\w+))$", re.MULTILINE)


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Called by MkDocs with the files of the site."""
    for name in ("site.css", "llms.txt"):
        files.append(File.generated(config, name, abs_src_path=str(Path(__file__).with_name(name))))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    folder = Path(config["docs_dir"], page.file.src_uri).parent
    markdown = LINK.sub(lambda link: resolved(link, folder, Path(config["docs_dir"])), markdown)
    return linked(markdown.replace(MESSAGES, error_messages.as_markdown(ROOT / "captum_sgcampp")))


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page: browsers draw MathML without a script."""
    if not page.file.src_uri.endswith(".ipynb"):
        content = CELL.sub(lambda cell: LONG_NAME.sub(breakable, cell[0]), content)
        return EQUATION.sub(lambda found: in_mathml(found[2], found[1] == "div"), content)
    content = PAGE.sub(lambda link: f'href="{link[1].replace("README", "index")}.html', content)
    parts = CODE.split(content)  # text, code, the code's tag, text, ...
    texts = [DOLLARS.sub(lambda found: in_mathml(found[1] or found[2], bool(found[1])), text) for text in parts[::3]]
    return "".join(text + code for text, code in zip(texts, [*parts[1::3], ""], strict=True))


def resolved(link: re.Match[str], folder: Path, docs: Path) -> str:
    """A link to a file that is no page leads to the repository, whose address is in REPOSITORY. Else its text stays."""
    text, path, _ = link.groups()
    target = (folder / path).resolve()
    if target.is_relative_to(docs) and target.suffix in (".md", ".ipynb", ".png", ".csv", ".py"):
        return link[0]
    if target.is_relative_to(docs) and (target / "README.md").is_file():
        return f"[{text}]({path.rstrip('/')}/README.md)"
    repository = os.environ.get("REPOSITORY")
    return f"[{text}]({repository}/{target.relative_to(ROOT).as_posix()})" if repository else text


def linked(markdown: str) -> str:
    """On pages of the API each name of the table leads to its documentation below."""
    for place, name in DOCUMENTED.findall(markdown):
        markdown = markdown.replace(f"\n| `{name}` |", f"\n| [`{name}`][{place}] |")
    return markdown


def breakable(name: re.Match[str]) -> str:
    """A long name in a table, where a line can end between its words: else its column is as wide as the name."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\()", "<wbr>", name[0])


def in_mathml(tex: str, is_block: bool) -> str:
    """An equation of LaTeX; a wide one is scrolled."""
    if is_block:
        return f'<div class="equation">{convert(html.unescape(tex), display="block")}</div>'
    return convert(html.unescape(tex))
