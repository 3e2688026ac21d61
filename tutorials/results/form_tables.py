"""The tables of `search_forms.py`."""

from __future__ import annotations

import pandas as pd
import torch
from forms import GRAD_CAM, GRAD_CAM_PLUS_PLUS, TWO_SIDED_SMOOTH
from torch import Tensor

from captum_sgcampp import metrics as m

TITLES = {
    "mosaic": "share in mosaics",
    "mosaic_top": "its top 25 %",
    "loc": "Loc(0.5)",
    "half_area": "area above 0.5",
    "loc_equal": "Loc, equal area",
    "recall": "recall of several",
    "kept": "kept at 25 %",
    "kept_zero": "kept at 25 %, black",
    "kept_mean": "kept at 25 %, mean color",
    "kept_blur": "kept at 25 %, blurred",
}
# What is compared: with what is wanted of two-sided weights, then with themselves.
COMPARED = (
    ("mosaic", GRAD_CAM),
    ("loc", GRAD_CAM_PLUS_PLUS),
    ("recall", GRAD_CAM_PLUS_PLUS),
    ("kept", GRAD_CAM),
    ("kept", GRAD_CAM_PLUS_PLUS),
    ("loc_equal", GRAD_CAM_PLUS_PLUS),
    ("kept_zero", GRAD_CAM_PLUS_PLUS),
    ("kept_mean", GRAD_CAM_PLUS_PLUS),
    ("kept_blur", GRAD_CAM_PLUS_PLUS),
    ("mosaic", TWO_SIDED_SMOOTH),
    ("loc", TWO_SIDED_SMOOTH),
    ("kept", TWO_SIDED_SMOOTH),
)


def report(title: str, values: pd.DataFrame) -> str:
    """Means of both halves, and differences on the reporting half."""
    counts = ", ".join(
        f"{TITLES[name]} {' + '.join(str(part.picture.nunique()) for _, part in group.groupby('half'))}"
        for name, group in values.groupby("measure", sort=False)
    )
    return "\n".join(
        [
            f"# {title}",
            "",
            f"Pictures (choosing + reporting half): {counts}.",
            "",
            "## Means: choosing half / reporting half",
            "",
            *means(values),
            "",
            "## Reporting half: differences with 95 % bootstrap intervals over the pictures",
            "",
            *differences(values[values.half == 1]),
            "",
        ]
    )


def means(values: pd.DataFrame) -> list[str]:
    """A row for every form."""
    found = values.groupby(["form", "measure", "half"], sort=False).value.mean()
    names = [name for name in TITLES if name in set(values.measure)]
    lines = [_row("form", [TITLES[name] for name in names]), _row("---", ["---"] * len(names))]
    for form in values.form.unique():
        pairs = [[found.get((form, name, half)) for half in (0, 1)] for name in names]
        lines.append(_row(form, ["" if None in pair else " / ".join(f"{one:.3f}" for one in pair) for pair in pairs]))
    return lines


def differences(values: pd.DataFrame) -> list[str]:
    """A row for every form, a column for every comparison; bold where the interval lies below 0."""
    known = set(values.measure) | set(values.form)
    pairs = [pair for pair in COMPARED if known.issuperset(pair)]
    titles = [f"{TITLES[name]} - {reference.split(' (')[0]}" for name, reference in pairs]
    lines = [_row("form", titles), _row("---", ["---"] * len(pairs))]
    tables = {
        name: part.pivot(index="picture", columns="form", values="value") for name, part in values.groupby("measure")
    }
    for form in values.form.unique():
        lines.append(_row(form, [_difference(tables[name], form, reference) for name, reference in pairs]))
    return lines


def _difference(table: pd.DataFrame, form: str, reference: str) -> str:
    if form not in table or form == reference:
        return ""
    found: Tensor = torch.from_numpy((table[form] - table[reference]).dropna().to_numpy(copy=True))
    low, high = m.bootstrap_interval(found)
    text = f"{float(found.mean()):+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"**{text}**" if high < 0 else text


def _row(first: str, cells: list[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"
