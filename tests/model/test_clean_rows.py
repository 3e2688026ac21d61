"""A forward function can ask which of its rows are clean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calls import smooth
from captum.attr import LayerGradCam
from networks import ConvNet, images
from torch import Tensor

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.model.clean_rows import clean_rows_at, is_clean


class Asking(ConvNet):
    """Keeps what it is told, and its rows."""

    def forward(self, x: Tensor) -> Tensor:
        self.__dict__.setdefault("told", []).append((is_clean(len(x)), x.detach().clone()))
        return super().forward(x)

    def check(self, inputs: Tensor) -> list[int]:
        """How many rows of each pass are clean; they are the inputs, and no other row is."""
        for clean, rows in self.told:
            is_input = torch.tensor([any(torch.equal(row, one) for one in inputs) for row in rows])
            assert torch.equal(clean, is_input)
        return [int(clean.sum()) for clean, _ in self.told]


@pytest.mark.parametrize("chunk, passes", [(2, [3, 0]), (1, [3, 0, 0, 0]), (4, [3])])
def test_the_first_row_of_every_example_is_clean_in_the_first_pass(chunk: int, passes: list[int]) -> None:
    net, x = Asking(), images(3)
    smooth(net, net.relu1, x, nt_samples=3, nt_samples_batch_size=chunk)
    assert net.check(x) == passes


def test_all_rows_are_clean_without_noise_and_for_other_methods() -> None:
    for method in (LayerGradCamPlusPlus, LayerGradCam):
        net, x = Asking(), images(3)
        method(net, net.relu1).attribute(x, 1)
        assert set(net.check(x)) == {3}


def test_nothing_is_known_after_an_error() -> None:
    def fail(x: Tensor) -> Any:
        assert is_clean(4).tolist() == [True, False, True, False]
        raise RuntimeError("stop")

    net = ConvNet()
    with pytest.raises(RuntimeError, match="stop"):
        smooth(lambda x: fail(net(x)), net.relu1, images(), nt_samples=3, nt_samples_batch_size=2)
    assert is_clean(4).all()
    with clean_rows_at(0):
        assert not is_clean(4).any()
