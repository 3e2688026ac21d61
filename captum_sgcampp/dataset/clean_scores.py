"""The scores of the clean images, and the classes that they choose, from the pass that explains them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class ChosenScores(nn.Module):
    """A model whose outputs are the scores of a few classes, chosen by its scores for the clean images.

    A run explains classes such as the most probable one, which are known only after a forward pass. The first pass of
    an explanation holds the clean images, so none has to be made for this. Made anew for every batch.

    Args:
        model: from images to logits, `(rows, classes)`.
        examples: images in the batch, N. The rows of each follow one another, the clean one first in the first pass.
        choose: from the clean logits, `(N, classes)`, to the classes to explain, `(N, k)`.

    Attributes:
        logits: of the clean images, after the first pass.
        targets: the chosen classes, after the first pass.
    """

    def __init__(self, model: nn.Module, examples: int, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.logits: Tensor | None = None
        self.targets: Tensor | None = None
        self._examples, self._choose = examples, choose

    def forward(self, *args: Any) -> Tensor:
        """The scores of the chosen classes: `(rows, k)`."""
        scores: Tensor = self.model(*args)
        if self.targets is None:
            self.logits = scores.detach().unflatten(0, (self._examples, -1))[:, 0]
            self.targets = self._choose(self.logits)
        rows = self.targets.repeat_interleave(len(scores) // self._examples, 0)
        return scores.gather(1, rows)
