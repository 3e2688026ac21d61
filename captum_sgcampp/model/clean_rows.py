"""Which rows of a forward pass are clean examples.

`forward_func` gets rows. A score that has to be found in the clean example, and may be lost in a noisy sample, asks
here which is which.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_EVERY: ContextVar[int | None] = ContextVar("clean_every", default=None)


@contextmanager
def clean_rows_at(every: int) -> Iterator[None]:
    """In the block, rows 0, every, 2 every, ... are clean; none for 0."""
    token = _EVERY.set(every)
    try:
        yield
    finally:
        _EVERY.reset(token)


def is_clean(rows: int) -> Tensor:
    """For each row of the current forward pass, whether it is clean, bool `(rows,)`. All are where nothing is known:
    outside of this package's methods."""
    every = _EVERY.get()
    clean = torch.full((rows,), every is None)
    if every:
        clean[::every] = True
    return clean
