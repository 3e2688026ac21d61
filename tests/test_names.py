"""Names of any origin can be shown."""

from __future__ import annotations

import os
import unicodedata

import pytest

from captum_sgcampp.names import printable


@pytest.mark.parametrize("text", ["cat.jpg", "Ünï 图 кот ديك שלום ไก่", "$5 \\frac{1}", "🐱"])
def test_letters_of_all_languages_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines\r", r"two\nlines\r"),
        ("gpj.\u202etac", r"gpj.\u202etac"),
        (os.fsdecode(b"a\xff.jpg"), r"a\udcff.jpg"),
        ("\x7f\x9b", r"\x7f\x9b"),
    ],
)
def test_what_steers_a_terminal_or_has_no_encoding_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    printable(text).encode()


def test_no_character_of_unicode_but_visible_ones_and_the_space_is_left() -> None:
    left = printable("".join(map(chr, range(0x110000))))
    assert {unicodedata.category(c) for c in left}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


def test_line_breaks_may_be_kept() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
