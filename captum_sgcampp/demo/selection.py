"""The text in which a visitor names feature maps and neurons, and in which the page keeps them."""

from __future__ import annotations

import re
from collections.abc import Iterable

Cell = tuple[int, int]  # row and column
LONGEST = 20_000  # characters


def feature_maps_of(text: str, count: int) -> list[int]:
    """The numbers in `3 17 20`, each once. None: all feature maps.

    Args:
        text: of the visitor.
        count: how many feature maps the layer has.

    Raises:
        ValueError: something else, or a number that the layer does not have.

    Examples::

        >>> feature_maps_of("3, 17", count=96)
        [3, 17]
    """
    words = _words("feature maps", text)
    if not all(re.fullmatch(r"[0-9]{1,5}", word) and int(word) < count for word in words):
        raise ValueError(f"feature maps: expected numbers from 0 to {count - 1} as 3 17, found {_short(text)}")
    return list(dict.fromkeys(map(int, words)))


def cells_of(text: str, size: tuple[int, int]) -> list[Cell]:
    """The cells in `2,3 5:8,0:4`: rows, then columns, as Python's slices. None: all.

    Args:
        text: of the visitor.
        size: rows and columns of the layer.

    Raises:
        ValueError: something else, or a place that the layer does not have.

    Examples::

        >>> cells_of("2,3 5:7,0:1", size=(16, 16))
        [(2, 3), (5, 0), (6, 0)]
    """
    words, cells = _words("neurons", re.sub(r"\s*,\s*", ",", text)), []
    for word in words:
        match = re.fullmatch(r"([0-9]{1,4})(?::([0-9]{1,4}))?,([0-9]{1,4})(?::([0-9]{1,4}))?", word)
        top, bottom, left, right = (
            (None if part is None else int(part) for part in match.groups()) if match else [None] * 4
        )
        rows = range(top or 0, (top or 0) + 1 if bottom is None else bottom)
        columns = range(left or 0, (left or 0) + 1 if right is None else right)
        if match is None or not rows or not columns or rows.stop > size[0] or columns.stop > size[1]:
            raise ValueError(
                f"neurons: expected rows and columns of the {size[0]} x {size[1]} cells, as 2,3 or 2:5,3:7, found "
                f"{_short(word)}"
            )
        cells += [(row, column) for row in rows for column in columns]
    return sorted(set(cells))


def _words(argument: str, text: str) -> list[str]:
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError(f"{argument}: expected a text of at most {LONGEST:,} characters, found another one")
    separator = r"[\s;]+" if argument == "neurons" else r"[\s,;]+"
    return [word for word in re.split(separator, text) if word]


def _short(text: str) -> str:
    return repr(text if len(text) < 40 else f"{text[:36]}...")


def text_of_maps(numbers: Iterable[int]) -> str:
    """The inverse of `feature_maps_of`."""
    return " ".join(map(str, numbers))


def rectangle(cells: Iterable[Cell]) -> tuple[slice, slice] | None:
    """The slices that hold exactly these cells, if there are such."""
    chosen = set(cells)
    rows, columns = {row for row, _ in chosen}, {column for _, column in chosen}
    if not chosen or len(chosen) != (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1):
        return None
    return slice(min(rows), max(rows) + 1), slice(min(columns), max(columns) + 1)


def text_of_cells(cells: Iterable[Cell]) -> str:
    """The inverse of `cells_of`: a box where they form one, else cell by cell.

    Examples::

        >>> text_of_cells([(2, 3), (2, 4)]), text_of_cells([(2, 3), (4, 4)])
        ('2:3,3:5', '2,3 4,4')
    """
    chosen = sorted(set(cells))
    box = rectangle(chosen)
    if box is not None and len(chosen) > 1:
        return ",".join(f"{side.start}:{side.stop}" for side in box)
    return " ".join(f"{row},{column}" for row, column in chosen)


def toggled(members: Iterable[int], one: int) -> list[int]:
    """Without it if it is among them, else with it.

    Examples::

        >>> toggled([3, 17], 3), toggled([3], 17)
        ([17], [3, 17])
    """
    chosen = list(members)
    return [member for member in chosen if member != one] if one in chosen else [*chosen, one]


def with_box(text: str, box: tuple[int, ...], size: tuple[int, int]) -> str:
    """The neurons after a box was dragged: a single cell is added or taken away, a larger box replaces all.

    Args:
        text: of the neurons before.
        box: first row, end row, first column, end column. Empty: all neurons count again.
        size: rows and columns of the layer.

    Examples::

        >>> with_box("2,3", (4, 5, 4, 5), size=(16, 16)), with_box("2,3", (2, 5, 3, 7), size=(16, 16))
        ('2,3 4,4', '2:5,3:7')
    """
    if not box:
        return ""
    top, bottom, left, right = box
    dragged = cells_of(f"{top}:{bottom},{left}:{right}", size)
    if len(dragged) > 1:
        return text_of_cells(dragged)
    cells = cells_of(text, size)
    return text_of_cells(set(cells) ^ set(dragged))
