r"""
Scores of all kinds, in the form that `forward_func` takes: one number, or one row of numbers, per example.

What is explained need not be the logit of a classifier. Everything that a network says of an example can be, as long as
it is computed from the layer by differentiable operations. The recipe:

1. Wrap the model in a module (or a function) that returns scores `(N,)` or `(N, m)`. The wrappers below do that for
   common cases, and take each other: `Contrast(OutputEntry(model, "logits"), other=5)`.
2. Give the wrapper as `forward_func`, and the model's own layer as `layer`: it is the same module.
3. `target` picks one of `m` scores, and is None for scores `(N,)`.

What belongs to each example (a question, a mask, a reference) follows the inputs through `additional_forward_args`, as
a tensor with one entry per example. It is then repeated for the noisy samples, which are further rows to the model.
What a wrapper or a function holds itself is not repeated, and must suit any number of rows. Hence the convention: what
the constructor gets is shared by all examples; where it gets None, the last additional argument has it per example. A
shared tensor does not belong into `additional_forward_args`: if it happens to have as many entries as there are
examples, it is taken for one entry per example.

    >>> embedder = torch.nn.Sequential(net.conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> references = embedder(images).detach()  # one per example, (2, 8)
    >>> method = LayerGradCamPlusPlus(Similarity(embedder), net.conv)
    >>> method.attribute(images, additional_forward_args=references).shape
    torch.Size([2, 1, 16, 16])

A score that no wrapper below computes is a function of a few lines: one of two classes; what speaks against a class
(the counterfactual explanation of Selvaraju et al., *Grad-CAM*, https://arxiv.org/abs/1610.02391); a model that takes
its arguments by name.

    >>> def class_3_or_class_5(images):
    ...     logits = net(images)
    ...     return torch.logaddexp(logits[:, 3], logits[:, 5])
    >>> attr = LayerGradCamPlusPlus(class_3_or_class_5, net.conv).attribute(images)
    >>> attr = LayerGradCamPlusPlus(lambda images: -net(images), net.conv).attribute(images, target=3)
    >>> by_name = lambda *, question, pixels: net(pixels) * question[:, None]
    >>> method = LayerGradCamPlusPlus(lambda x, q: by_name(pixels=x, question=q), net.conv)
    >>> attr = method.attribute(images, 3, additional_forward_args=torch.tensor([1.0, 2.0]))

The score function `exp` explains `Y = exp(S)`: for the logarithm of a probability that is the probability itself.
Scores should be of the order of logits; those in the hundreds let a single noisy sample decide the map (see
`SamplingStatistics.effective_sample_size`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity


class _Wrapped(nn.Module):
    """A module around the model, whose layers and parameters it shares."""

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model: expected a module or a function, found {type(model).__name__}")
        self.model = model

    def _hold(self, name: str, value: Tensor | None) -> None:
        """Keep a tensor that all examples share; it moves with the module and is not part of its state."""
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor or None, found {type(value).__name__}")
        self.register_buffer(name, None if value is None else value.detach(), persistent=False)

    def _split(self, name: str, held: Tensor | None, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], Tensor]:
        """The model's arguments, and the tensor that is held or comes last, per example."""
        if held is not None:
            return arguments, held
        if len(arguments) < 2 or not isinstance(arguments[-1], Tensor):
            raise ValueError(
                f"additional_forward_args: expected {name} of each example as the last tensor, found none; give one "
                f"that all examples share to the constructor of {type(self).__name__}"
            )
        return arguments[:-1], arguments[-1]


class OutputEntry(_Wrapped):
    r"""
    One entry of an output that is a dict, a tuple or an object with attributes (a dataclass, a named tuple).

    Args:

        model (Callable): Module or function.
        entry (str or int): Key, position or name of the attribute. For nested outputs wrap twice.

    Examples::

        >>> as_dict = lambda images: {"logits": net(images), "loss": None}
        >>> attr = LayerGradCamPlusPlus(OutputEntry(as_dict, "logits"), net.conv).attribute(images, target=3)
    """

    def __init__(self, model: Callable[..., Any], entry: str | int) -> None:
        super().__init__(model)
        self.entry = entry

    def forward(self, *arguments: Any) -> Any:
        """The entry of what the model returns."""
        output = self.model(*arguments)
        try:
            if isinstance(self.entry, str) and not isinstance(output, Mapping):
                return getattr(output, self.entry)
            return output[self.entry]
        except (LookupError, AttributeError, TypeError) as error:
            raise ValueError(f"entry: expected {_entries(output)}, found {self.entry!r}") from error


def _entries(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"one of {list(output)}"
    if isinstance(output, Sequence):
        return f"a position below {len(output)}"
    return f"an attribute of {type(output).__name__}"


class Contrast(_Wrapped):
    r"""
    What speaks for the target rather than for another class: `S_target - S_other` for every class as target.

    Args:

        model (Callable): Module or function with scores `(N, C)`.
        other (int, optional): The other class. Default: None, an int tensor `(N,)` follows as the last of the
                    additional arguments

    Examples::

        >>> method = LayerGradCamPlusPlus(Contrast(net, other=5), net.conv)
        >>> three_rather_than_five = method.attribute(images, target=3)
    """

    other: Tensor | None

    def __init__(self, model: Callable[..., Any], other: int | None = None) -> None:
        super().__init__(model)
        if other is not None and (isinstance(other, bool) or not isinstance(other, Integral)):
            raise TypeError(f"other: expected an int or None, found {type(other).__name__} ({other!r})")
        self._hold("other", None if other is None else torch.tensor(int(other)))

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, C)`."""
        arguments, other = self._split("other", self.other, arguments)
        scores = _output(self.model(*arguments), 2, "(N, C)")
        if not _is_int(other) or tuple(other.shape) not in ((), (len(scores),)):
            raise ValueError(f"other: expected ints ({len(scores)},), found {other.dtype}, {tuple(other.shape)}")
        other = other.to(scores.device, torch.long)
        if bool((other < -scores.shape[1]).any()) or bool((other >= scores.shape[1]).any()):
            raise ValueError(f"other: expected a class below {scores.shape[1]}, found {other.tolist()}")
        return scores - scores.gather(1, (other % scores.shape[1]).expand(len(scores))[:, None])


class RegionScores(_Wrapped):
    r"""
    The scores of a segmentation network over a region: class scores `(N, C, H, W)`, averaged (or added) over the pixels
    of a mask, give `(N, C)`. `predicted_region` makes the mask of what the network predicts.

    Explaining the sum over a region is Seg-Grad-CAM (Vinogradova et al., https://arxiv.org/abs/2002.11434); the mean
    keeps the size of a logit, on which the score function `exp` depends.

    Args:

        model (Callable): Module or function with scores `(N, C, *space)`.
        region (Tensor, optional): bool, `(*space)`, shared by all examples. Default: None, `(N, *space)` follows as the
                    last of the additional arguments
        reduction (str, optional): `"mean"` or `"sum"`. Default: `"mean"`

    Examples::

        >>> segmenter = torch.nn.Sequential(net.conv, torch.nn.Conv2d(8, 10, 1))  # (N, 10, 16, 16)
        >>> region = torch.zeros(16, 16, dtype=torch.bool)
        >>> region[4:8, 2:9] = True
        >>> attr = LayerGradCamPlusPlus(RegionScores(segmenter, region), net.conv).attribute(images, target=3)
    """

    region: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        region: Tensor | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(model)
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected 'mean' or 'sum', found {reduction!r}")
        self._hold("region", region)
        self.reduction = reduction

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N, C)`."""
        arguments, region = self._split("region", self.region, arguments)
        scores = _output(self.model(*arguments), 3, "(N, C, *space)")
        space = tuple(scores.shape[2:])
        wanted = (len(scores), *space) if self.region is None else space
        if tuple(region.shape) != wanted or region.dtype != torch.bool:
            raise ValueError(f"region: expected a bool tensor {wanted}, found {region.dtype}, {tuple(region.shape)}")
        inside = region.to(scores.device).reshape(-1, 1, math.prod(space))
        pixels = inside.sum(2)
        if not bool(pixels.all()):
            raise ValueError("region: expected at least one pixel in every example, found none")
        total = (scores.flatten(2) * inside).sum(2)
        return total / pixels if self.reduction == "mean" else total


def predicted_region(scores: Tensor, target: int | Sequence[int] | Tensor) -> Tensor:
    r"""
    The pixels at which a segmentation network gives a class the highest score.

    Args:

        scores (Tensor): What the network gives for the clean inputs, `(N, C, *space)`.
        target (int, sequence of int or Tensor): The class, or one for each example.

    Returns:
        *Tensor* of bool, `(N, *space)`: for `RegionScores`, through `additional_forward_args`.

    Examples::

        >>> predicted_region(torch.rand(2, 10, 16, 16), 3).shape
        torch.Size([2, 16, 16])
    """
    classes = torch.as_tensor(target, device=scores.device)
    if scores.dim() < 3 or classes.dim() > 1 or (classes.dim() == 1 and len(classes) != len(scores)):
        raise ValueError(
            f"target: expected a class, or one per example, of scores (N, C, *space), found {target!r} for "
            f"{tuple(scores.shape)}"
        )
    return scores.argmax(1) == classes.reshape(-1, *(1,) * (scores.dim() - 2))


class Similarity(_Wrapped):
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
        self._hold("reference", reference)
        self.measure = measure

    def forward(self, *arguments: Any) -> Tensor:
        """Scores `(N,)`."""
        arguments, reference = self._split("reference", self.reference, arguments)
        embedding = _output(self.model(*arguments), 2, "(N, D)")
        wanted = tuple(embedding.shape) if self.reference is None else tuple(embedding.shape[1:])
        if tuple(reference.shape) != wanted:
            raise ValueError(f"reference: expected an embedding {wanted}, found shape {tuple(reference.shape)}")
        if self.measure == "dot":
            return (embedding * reference).sum(1)
        return cosine_similarity(embedding, reference.expand_as(embedding), dim=1)


class WordLogProbabilities(_Wrapped):
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
        _, tokens = self._split("tokens", None, arguments)
        return _word_log_probabilities(_output(self.model(*arguments), 3, "(N, L, V)"), tokens)


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
    if not _is_int(tokens):
        raise TypeError(f"tokens: expected ints, found {tokens.dtype}")


class CaptionLogProbability(_Wrapped):
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
        _, tokens = self._split("tokens", None, arguments)
        logits = _output(self.model(*arguments), 3, "(N, L, V)")
        return _word_log_probabilities(logits, tokens, self.padding).sum(1)


def _is_int(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _output(output: Any, dims: int, form: str) -> Tensor:
    """The model's output, once it is known to be a tensor of the right form: `dims` dimensions, or at least 1 or 3."""
    fits = isinstance(output, Tensor) and (output.dim() == dims or (dims != 2 and output.dim() > dims))
    if not fits:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model: expected an output of shape {form}, found {found}; see OutputEntry for others")
    return output  # type: ignore[no-any-return]
