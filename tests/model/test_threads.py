"""The number of torch's threads is restored, and shared between processes."""

from __future__ import annotations

import pytest
import torch

from captum_sgcampp.model.threads import computing_threads, share_of_threads


def test_the_number_of_threads_is_restored_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), computing_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("workers, share", [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_processes_share_the_threads(workers: int, share: int) -> None:
    with computing_threads(6):
        assert share_of_threads(workers) == share
