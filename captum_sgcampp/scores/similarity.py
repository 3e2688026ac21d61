"""How similar embeddings are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

from captum_sgcampp.scores.wrapped import Wrapped, checked_output


class Similarity(Wrapped):
    r"""
    How similar an embedding is to a reference: `cos(f(x), r)` or the dot product `f(x) . r`, `(N,)`.

    Args:

        model (Callable): Module or function with embeddings `(N, D)`.
        reference (Tensor, optional): Embedding `(D,)` that all examples are compared with. Default: None, `(N, D)`
                    follows as the last of the additional arguments
        measure (str, optional): `"cosine"` or `"dot"`. Default: `"cosine"`

    Examples::

        >>> embedder = torch.nn.Sequential(net.conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())  # (N, 8)
        >>> reference = embedder(torch.rand(1, 3, 32, 32))[0]
        >>> attr = LayerGradCamPlusPlus(Similarity(embedder, reference), net.conv).attribute(images)
    """

    reference: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        reference: Tensor | None = None,
        measure: Literal["cosine", "dot"] = "cosine",
    ) -> None:
        super().__init__(model)
        if measure not in ("cosine", "dot"):
            raise ValueError(f"measure: expected 'cosine' or 'dot', found {measure!r}")
        self.hold("reference", reference)
        self.measure = measure

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N,)`."""
        arguments, reference = self.split("reference", self.reference, arguments)
        embedding = checked_output(self.model(*arguments), 2, "(N, D)")
        wanted = tuple(embedding.shape) if self.reference is None else tuple(embedding.shape[1:])
        if tuple(reference.shape) != wanted:
            raise ValueError(f"reference: expected an embedding {wanted}, found shape {tuple(reference.shape)}")
        if self.measure == "dot":
            return (embedding * reference).sum(1)
        return cosine_similarity(embedding, reference.expand_as(embedding), dim=1)
