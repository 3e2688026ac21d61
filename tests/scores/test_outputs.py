"""Entries of what models return."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from _asserts import Mistake, is_named
from networks import images

from captum_sgcampp.scores import OutputEntry


def test_output_entry_reads_dicts_tuples_and_attributes() -> None:
    x = torch.arange(3.0)
    assert torch.equal(OutputEntry(lambda x: {"a": x, "b": x + 1}, "b")(x), x + 1)
    assert torch.equal(OutputEntry(lambda x: (x, x + 2), -1)(x), x + 2)
    assert torch.equal(OutputEntry(lambda x: SimpleNamespace(logits=x + 3), "logits")(x), x + 3)
    nested = OutputEntry(OutputEntry(lambda x: {"out": [x, x + 4]}, "out"), 1)
    assert torch.equal(nested(x), x + 4)


MISTAKES: list[Mistake] = [
    (lambda: OutputEntry(3, "a"), "model"),  # type: ignore[arg-type]
    (lambda: OutputEntry(lambda x: {"a": x}, "b")(images()), "entry"),
    (lambda: OutputEntry(lambda x: (x,), 1)(images()), "entry"),
    (lambda: OutputEntry(lambda x: SimpleNamespace(a=x), "b")(images()), "entry"),
    (lambda: OutputEntry(lambda x: x[0, 0, 0, 0].item(), 0)(images()), "entry"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
