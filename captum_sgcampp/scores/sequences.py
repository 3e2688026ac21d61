"""Log-probabilities of words and captions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_sgcampp.scores.wrapped import Wrapped, checked_output, is_int


class WordLogProbabilities(Wrapped):
    r"""
    The logarithm of the probability that a captioning (or language) network gives each word of a given caption, all
    words before it being given (teacher forcing): `log p(word t + 1 | words 0..t, image)`, `(N, L - 1)`. `target`
    picks a word; `attribute_targets` explains several in one pass.

    Args:

        model (Callable): Module or function of the inputs and the caption `(N, L)`, an int tensor that starts with the
                    token before the first word, and is the last of the additional arguments. It gives logits
                    `(N, L, V)`; those at place t are for the token at place t + 1.

    Examples::

        >>> def captioner(images, tokens):  # V = 10, and no grammar
        ...     return net(images)[:, None].expand(-1, tokens.shape[1], -1)
        >>> caption = torch.tensor([[0, 3, 5], [0, 7, 2]])
        >>> method = LayerGradCamPlusPlus(WordLogProbabilities(captioner), net.conv)
        >>> first_word, second_word = method.attribute_targets(images, [0, 1], additional_forward_args=caption)
    """

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, L - 1)`."""
        _, tokens = self.split("tokens", None, arguments)
        return _word_log_probabilities(checked_output(self.model(*arguments), 3, "(N, L, V)"), tokens)


def _word_log_probabilities(logits: Tensor, tokens: Tensor, padding: int | None = None) -> Tensor:
    """`log p` of each token but the first, `(N, L - 1)`; 0 at the padding, which need be no token of the vocabulary."""
    _check_tokens(tokens, logits)
    words = tokens[:, 1:].to(logits.device)
    ignored = torch.zeros_like(words, dtype=torch.bool) if padding is None else words == padding
    words = words.masked_fill(ignored, 0)  # any token: its value does not count
    if bool((words < 0).any()) or bool((words >= logits.shape[2]).any()):
        raise ValueError(f"tokens: expected 0 to {logits.shape[2] - 1}, found {int(words.min())} to {int(words.max())}")
    found = logits[:, :-1].log_softmax(2).gather(2, words[:, :, None].long())[:, :, 0]
    return found.masked_fill(ignored, 0)


def _check_tokens(tokens: Tensor, logits: Tensor) -> None:
    if tokens.dim() != 2 or tokens.shape[1] < 2 or tuple(logits.shape[:2]) != tuple(tokens.shape):
        raise ValueError(
            f"tokens: expected captions (N, L), L > 1, as in the logits {tuple(logits.shape)}, found shape "
            f"{tuple(tokens.shape)}"
        )
    if not is_int(tokens):
        raise TypeError(f"tokens: expected ints, found {tokens.dtype}")


class CaptionLogProbability(Wrapped):
    r"""
    The logarithm of the probability of a whole caption, `(N,)`: the sum of its words' (see `WordLogProbabilities`). The
    words that the network is least sure of have most of the map: the gradient of `log p` vanishes where p is near 1.

    Args:

        model (Callable): As in `WordLogProbabilities`.
        padding (int, optional): Token after the end of shorter captions, which does not count, and need be none of
                    the vocabulary where the network takes it (as -100). Default: None

    Examples::

        >>> def captioner(images, tokens):
        ...     return net(images)[:, None].expand(-1, tokens.shape[1], -1)
        >>> caption = torch.tensor([[0, 3, 5], [0, 7, 9]])
        >>> method = LayerGradCamPlusPlus(CaptionLogProbability(captioner, padding=9), net.conv)
        >>> attr = method.attribute(images, additional_forward_args=caption)
    """

    def __init__(self, model: Callable[..., Any], padding: int | None = None) -> None:
        super().__init__(model)
        self.padding = padding

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N,)`."""
        _, tokens = self.split("tokens", None, arguments)
        logits = checked_output(self.model(*arguments), 3, "(N, L, V)")
        return _word_log_probabilities(logits, tokens, self.padding).sum(1)
