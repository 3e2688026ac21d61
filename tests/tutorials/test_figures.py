"""The pages' figures are those of the finished tables, which agree with what is known of a uniform map."""

from __future__ import annotations

import re
from pathlib import Path

import choices
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
    for link in re.findall(r"\]\(([^) ]*tables/[^) ]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).is_file(), link


def test_no_link_of_the_advice_hides_from_the_check() -> None:
    """A link to a table whose text is a number but whose title is not understood would go stale."""
    for path in pages.PAGES:
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(r'/table[^) ]*\.md "', text)) == len(figures.links(text))


def test_the_advice_has_no_measured_figure_without_a_table() -> None:
    """Outside of generated tables and links only whole numbers, and settings in code."""
    text = (pages.ROOT / "tutorials" / "advice.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", text, flags=re.DOTALL)
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
    text = (figures.TABLES / table.name / "table.md").read_text(encoding="utf-8")
    cells = set(re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text))
    for (method, metric), row in figures.summary(table.name).items():
        names = ("mean", "low", "high")
        digits = 1 if metric in figures.PERCENT else 3
        mean, low, high = (f"{float(row[name]):.{digits}f}" for name in names)
        assert f"{mean} [{low}, {high}]" in cells, (method, metric)


@pytest.fixture
def one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table `t`."""
    head = "layer,method,metric,n,mean,low,high,paired,difference,difference_low,difference_high,p,p_holm\n"
    lines = [
        "conv,grad-cam,grid,9,0.75,0.7,0.8,0,,,,,\n",
        "conv,smooth n=4 s=0.1,grid,9,0.5,0.4,0.6,9,-0.25,-0.3,-0.2,0.001,0.002\n",
    ]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "summary.csv").write_text(head + "".join(lines))
    monkeypatch.setattr(figures, "TABLES", tmp_path)
    figures.summary.cache_clear()


@pytest.mark.parametrize(
    "link, text",
    [
        ('[9](a/tables/t/table.md "grad-cam: grid")', "0.750"),
        ('[9 [1, 2]](tables/t/table.md "grad-cam: grid, interval")', "0.750 [0.700, 0.800]"),
        ('[](tables/t/table.md "smooth - grad-cam: grid")', "-0.250 [-0.300, -0.200]"),
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


HEAD = "layer,method,metric,n,mean,low,high,paired,difference,difference_low,difference_high,p,p_holm\n"
Cells = dict[str, tuple[float, float]]  # mean, and p after Holm's adjustment


def write(folder: Path, layer: str, metrics: dict[str, Cells], name: str = "summary.csv") -> None:
    """A summary with intervals of 0.02 around the means, and differences from the first method."""
    lines = [HEAD]
    for metric, cells in metrics.items():
        first = next(iter(cells.values()))[0]
        for method, (mean, p) in cells.items():
            difference = mean - first
            ends = f"{mean},{mean - 0.01:.4f},{mean + 0.01:.4f},9,{difference:.4f}"
            lines.append(
                f"{layer},{method},{metric},9,{ends},{difference - 0.01:.4f},{difference + 0.01:.4f},{p},{p}\n"
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(lines))


@pytest.fixture
def all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every table of the list, in which all methods are equal."""
    for table in TABLES:
        groups = [group for name, group in page_tables.groups(3).items() if name in table.metrics]
        cells = {method: (0.5, 1.0) for method in table.methods}
        metrics = {metric.name: cells for group in groups for metric in group.metrics}
        for name in ("summary.csv", "summary-against-grad-cam++.csv"):
            write(tmp_path / table.name, table.layer, metrics, name)
    monkeypatch.setattr(figures, "TABLES", tmp_path)
    figures.summary.cache_clear()
    return tmp_path


def test_all_blocks_are_full_when_all_tables_are_finished(all_tables: Path) -> None:
    for name, block in pages.BLOCKS.items():
        text = "\n".join(block())
        assert "ot run" not in text and "not tested" not in text, name
    assert len(page_tables.BLOCKS["runs"]()) == 2 + len(TABLES)
    assert "\n".join(page_tables.measure("grid")).count(".md)") == 8  # three networks at two layers, the signs at two
    assert "\n".join(page_tables.wants()).count(": holds") == 3 * 6  # in mosaics -0.01 is too low
    assert page_tables.wants()[-1] == "All rows hold at: none."
    assert page_tables._hold(["0.1 [0.0, 0.2]: holds"]) and not page_tables._hold(["1: holds", "not run"])
    assert all("**Grad-CAM**" in line or "none, or Grad-CAM " in line for line in choices.choices()[2:])
    assert "to be taken in 0." in choices.two_sided()[0]


def test_the_advice_takes_the_simplest_of_the_best(all_tables: Path) -> None:
    table = next(table for table in TABLES if table.name == "gtsrb-last")

    def takes(metric: str, **cells: tuple[float, float]) -> str:
        named = {name.replace("_pp", "++").replace("_", "-"): found for name, found in cells.items()}
        write(all_tables / table.name, table.layer, {metric: {"grad-cam": (0.5, 1.0), **named}})
        figures.summary.cache_clear()
        figures._rows.cache_clear()
        return choices.taken(table, metric)

    assert takes("grid", hires_cam=(0.9, 0.06)) == "grad-cam"  # not significant
    assert takes("grid", grad_cam_pp=(0.4, 0.01)) == "grad-cam"  # significantly worse
    assert takes("grid", hires_cam=(0.6, 0.01), two_sided_grad_cam_pp=(0.62, 0.01)) == "two-sided-grad-cam++"
    assert takes("grid", hires_cam=(0.615, 0.01), two_sided_grad_cam_pp=(0.62, 0.01)) == "hires-cam"
    assert takes("deletion", hires_cam=(0.4, 0.01), grad_cam_pp=(0.6, 0.01)) == "hires-cam"  # lower is better
    takes("grid", hires_cam=(0.6, 0.01), random=(0.3, 1.0), center_gaussian=(0.6, 0.01))
    assert choices.without_network(table, "grid") == "center-gaussian"
    assert choices.is_beaten(table, "hires-cam", "grid")
    takes("grid", hires_cam=(0.6, 0.01), random=(0.595, 1.0))
    assert choices.is_beaten(table, "hires-cam", "grid")  # in its interval
    takes("grid", hires_cam=(0.6, 0.01), random=(0.58, 1.0))
    assert not choices.is_beaten(table, "hires-cam", "grid")


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
