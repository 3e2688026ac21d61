"""The map that the ways of running a model are compared with."""

from __future__ import annotations

import pytest
from calls import smooth
from networks import ConvNet, images
from torch import Tensor


@pytest.fixture(scope="module")
def expected() -> Tensor:
    """The map of the plain network: float32, no noise in the model's ways."""
    model = ConvNet()
    return smooth(model, model.relu1, images())
