"""The pages' figures are those of the finished tables, which agree with what is known of a uniform map."""

from __future__ import annotations

import re
from pathlib import Path

import figures
import page_tables
import pages
import pytest
from page_tables import verdict
from table_list import TABLES

FINISHED = [table for table in TABLES if figures.is_finished(table.name)]
KNOWN = {  # of a uniform map
    "average_drop": 0,
    "increase": 0,
    "grid": 0.25,
    "grid_two": 0.5,
    "grid_balance": 1,
    "pointing": 0,
    "sparseness": 0,
    "instance_recall": 1,
    "instance_balance": 1,
}


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_every_figure_of_a_page_is_that_of_its_table(path: Path) -> None:
    """`python tutorials/results/pages.py` mends it."""
    text = path.read_text(encoding="utf-8")
    assert pages.written(text) == text
    assert len(figures.links(text)) + text.count("<!-- table: ") > 1


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_every_link_to_a_table_leads_to_one(path: Path) -> None:
    for link in re.findall(r"\]\(([^) ]*(?:tables|earlier)/[^) ]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).is_file(), link


def test_no_link_of_the_advice_hides_from_the_check() -> None:
    """A link to a table whose text is a number but whose title is not understood would go stale."""
    for path in pages.PAGES:
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(r'/table[^) ]*\.md "', text)) == len(figures.links(text))


def test_the_advice_has_no_measured_figure_without_a_table() -> None:
    """Outside of links only whole numbers, and settings in code."""
    text = (pages.ROOT / "tutorials" / "advice.md").read_text(encoding="utf-8")
    assert re.findall(r"\d\.\d+", re.sub(r"\[[^\[\]]*(\[[^\]]*\])?\]\([^)]*\)|`[^`]*`", "", text)) == []


@pytest.mark.parametrize("table", FINISHED, ids=lambda table: table.name)
def test_a_uniform_map_gets_what_theory_says(table: page_tables.Table) -> None:
    found = {metric: row for (method, metric), row in figures.summary(table.name).items() if method == "uniform"}
    for metric, row in found.items():
        if metric in KNOWN:
            assert float(row["mean"]) == pytest.approx(KNOWN[metric], abs=1e-5), metric
    if "energy" in found:  # the share of the image that the boxes or masks cover
        boxed = [float(found[name]["mean"]) for name in ("loc_0", "loc_0.25", "loc_0.5")]
        assert max(boxed) == pytest.approx(min(boxed), abs=1e-6)
        assert table.pictures == "scenes" or float(found["energy"]["mean"]) == pytest.approx(boxed[0], abs=1e-5)
    assert not {"occlusion", "randomization_1"} & set(found)  # it has no order


@pytest.mark.parametrize("table", FINISHED, ids=lambda table: table.name)
def test_tables_and_summaries_agree(table: page_tables.Table) -> None:
    """`table.md` shows the means and intervals of `summary.csv`."""
    text = (figures.folder(table.name) / "table.md").read_text(encoding="utf-8")
    cells = set(re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text))
    for (method, metric), row in figures.summary(table.name).items():
        names = ("mean", "low", "high")
        digits = 1 if metric in figures.PERCENT else 3
        mean, low, high = (f"{float(row[name]):.{digits}f}" for name in names)
        assert f"{mean} [{low}, {high}]" in cells, (method, metric)


@pytest.fixture
def one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables `t` and, by earlier code, `old`."""
    head = "layer,method,metric,n,mean,low,high,paired,difference,difference_low,difference_high,p,p_holm\n"
    lines = [
        "conv,grad-cam,grid,9,0.75,0.7,0.8,0,,,,,\n",
        "conv,smooth n=4 s=0.1,grid,9,0.5,0.4,0.6,9,-0.25,-0.3,-0.2,0.001,0.002\n",
    ]
    for folder, name, mean in ((tmp_path / "tables", "t", "0.75"), (tmp_path / "earlier", "old", "0.81")):
        (folder / name).mkdir(parents=True)
        (folder / name / "summary.csv").write_text(head + lines[0].replace("0.75", mean) + lines[1])
    monkeypatch.setattr(figures, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(figures, "EARLIER", tmp_path / "earlier")
    figures.summary.cache_clear()


@pytest.mark.parametrize(
    "link, text",
    [
        ('[9](a/tables/t/table.md "grad-cam: grid")', "0.750"),
        ('[9 [1, 2]](tables/t/table.md "grad-cam: grid, interval")', "0.750 [0.700, 0.800]"),
        ('[](tables/t/table.md "smooth - grad-cam: grid")', "-0.250 [-0.300, -0.200]"),
        ('[9](earlier/old/table.md "grad-cam: grid")', "0.810"),
    ],
)
def test_a_stale_figure_is_mended(one_table: None, link: str, text: str) -> None:
    page = f"Before {link} after, [5](other.md)."
    assert pages.written(page) == page.replace(link[: link.index("](") + 1], f"[{text}]")
    assert pages.written(pages.written(page)) == pages.written(page)


@pytest.mark.parametrize(
    "title", ["grad-cam: energy", "layer-cam: grid", "grad-cam: grid, high", "smooth - uniform: grid"]
)
def test_a_figure_that_no_table_has_is_named(one_table: None, title: str) -> None:
    with pytest.raises(ValueError, match=r"^link: expected"):
        pages.written(f'[9](tables/t/table.md "{title}")')


def test_an_unknown_block_is_named() -> None:
    with pytest.raises(ValueError, match=r"^table: expected one of runs, drops.*found 'dorps'"):
        pages.written("<!-- table: dorps -->\n<!-- end -->")


@pytest.mark.parametrize(
    "low, mean, high, margin, expected",
    [
        (-0.009, 0, 0.01, 0.01, "holds"),
        (-0.011, 0.02, 0.05, 0.01, "**missed**, within the interval"),
        (-0.03, 0, 0.03, 0, "holds"),
        (-0.03, -0.01, 0.01, 0, "**missed**, within the interval"),
        (-0.03, -0.02, -0.01, 0, "**missed**"),
    ],
)
def test_verdicts(low: float, mean: float, high: float, margin: float, expected: str) -> None:
    found = {"difference_low": f"{low}", "difference": f"{mean}", "difference_high": f"{high}"}
    assert verdict(found, margin) == expected
