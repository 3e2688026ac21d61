"""Feature maps and neurons as text: read, written, and refused."""

from __future__ import annotations

import pytest

from captum_sgcampp.demo.selection import cells_of, feature_maps_of, rectangle, text_of_cells, with_box


@pytest.mark.parametrize("cells", [[(2, 3)], [(2, 3), (2, 4), (3, 3), (3, 4)], [(0, 0), (5, 1)], []])
def test_cells_come_back_from_their_text(cells: list[tuple[int, int]]) -> None:
    assert cells_of(text_of_cells(cells), (6, 7)) == cells


def test_a_box_is_a_rectangle_and_other_cells_are_none() -> None:
    assert rectangle(cells_of("2:4,3:5", (6, 7))) == (slice(2, 4), slice(3, 5))
    assert rectangle([(2, 3), (3, 4)]) is None


def test_a_cell_clicked_twice_is_gone() -> None:
    once = with_box("2,3", (4, 5, 4, 5), (6, 7))
    assert once == "2,3 4,4" and with_box(once, (4, 5, 4, 5), (6, 7)) == "2,3"


@pytest.mark.parametrize("text", ["6,0", "0,7", "3:3,0:1", "a", "1", "1,2,3", "-1,0", "0:99,0:1", "9" * 30_000])
def test_places_outside_the_layer_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^neurons: expected"):
        cells_of(text, (6, 7))


@pytest.mark.parametrize("text", ["96", "-1", "x", "1.5", "1e1"])
def test_feature_maps_that_the_layer_lacks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^feature maps: expected numbers from 0 to 95 as 3 17, found"):
        feature_maps_of(text, 96)
