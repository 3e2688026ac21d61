"""The scores of the clean images, and the classes that they choose, from the pass that explains them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from captum_sgcampp.model.clean_rows import is_clean


class ChosenScores(nn.Module):
    """A model whose outputs are the scores of a few classes, chosen by its scores for the clean images.

    A run explains classes such as the most probable one, which are known only after a forward pass. The first pass of
    an explanation holds the clean images, so none has to be made for this. Made anew for every batch.

    Args:
        model: from images to logits, `(rows, classes)`.
        choose: from the clean logits, `(N, classes)`, to the classes to explain, `(N, k)`.

    Attributes:
        logits: of the clean images, after the first pass.
        targets: the chosen classes, after the first pass.
    """

    def __init__(self, model: nn.Module, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.logits: Tensor | None = None
        self.targets: Tensor | None = None
        self._choose = choose

    def forward(self, *args: Any) -> Tensor:
        """The scores of the chosen classes: `(rows, k)`."""
        scores: Tensor = self.model(*args)
        if self.targets is None:
            self.logits = scores.detach()[is_clean(len(scores))]
            self.targets = self._choose(self.logits)
        rows = self.targets.repeat_interleave(len(scores) // len(self.targets), 0)
        return scores.gather(1, rows)
