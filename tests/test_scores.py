"""The wrappers compute the scores that they say, row by row, and name mistakes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _asserts import left_as_it_was
from networks import ConvNet, images
from torch import Tensor, nn

from captum_sgcampp import GuidedGradCamPlusPlus, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.scores import (
    CaptionLogProbability,
    Contrast,
    OutputEntry,
    RegionScores,
    Similarity,
    WordLogProbabilities,
    predicted_region,
)

# What the wrappers compute, exactly.


class Heads(nn.Module):
    """Any output that the wrappers take, from one layer and one example-wise argument."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.net, self.form = ConvNet(), form

    def forward(self, x: Tensor, extra: Any = None) -> Any:
        scores = self.net(x)
        if self.form == "words":  # (N, L, 5): the logits depend on the tokens in front
            return scores[:, None] * (1 + extra[:, :, None].cumsum(1) / 7)
        if self.form == "pixels":
            return scores[:, :, None, None] * torch.arange(6.0).reshape(2, 3) + x[:, :1, :2, :3]
        return scores


def row_by_row(wrapper: nn.Module, x: Tensor, extra: Tensor) -> Tensor:
    return torch.cat([wrapper(x[i : i + 1], extra[i : i + 1]) for i in range(len(x))])


def test_output_entry_reads_dicts_tuples_and_attributes() -> None:
    x = torch.arange(3.0)
    assert torch.equal(OutputEntry(lambda x: {"a": x, "b": x + 1}, "b")(x), x + 1)
    assert torch.equal(OutputEntry(lambda x: (x, x + 2), -1)(x), x + 2)
    assert torch.equal(OutputEntry(lambda x: SimpleNamespace(logits=x + 3), "logits")(x), x + 3)
    nested = OutputEntry(OutputEntry(lambda x: {"out": [x, x + 4]}, "out"), 1)
    assert torch.equal(nested(x), x + 4)


def test_contrast_is_the_difference_of_two_scores() -> None:
    model, x = Heads("scores"), images(3)
    scores = model(x)
    assert torch.allclose(Contrast(model, 2)(x), scores - scores[:, 2:3])
    others = torch.tensor([4, 0, -2])
    assert torch.allclose(Contrast(model)(x, others), scores - scores[[0, 1, 2], [4, 0, 3]][:, None])


def test_region_scores_are_means_or_sums_over_the_pixels_of_the_region() -> None:
    model, x = Heads("pixels"), images(2)
    region = torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]]]).bool()
    scores = model(x)
    wanted = torch.stack([scores[0][:, region[0]].sum(1), scores[1][:, region[1]].sum(1)])
    assert torch.allclose(RegionScores(model, reduction="sum")(x, region), wanted)
    assert torch.allclose(RegionScores(model)(x, region), wanted / torch.tensor([[3.0], [1.0]]))
    assert torch.allclose(RegionScores(model, region[0])(x)[1], scores[1][:, region[0]].mean(1))
    assert predicted_region(scores, [1, 2]).tolist() == [
        (scores[0].argmax(0) == 1).tolist(),
        (scores[1].argmax(0) == 2).tolist(),
    ]


def test_similarity_is_the_cosine_or_the_dot_product() -> None:
    model, x = Heads("scores"), images(2)
    embedding, reference = model(x), torch.randn(2, 5)
    dot = (embedding * reference).sum(1)
    assert torch.allclose(Similarity(model, measure="dot")(x, reference), dot)
    assert torch.allclose(Similarity(model)(x, reference), dot / embedding.norm(dim=1) / reference.norm(dim=1))
    assert torch.allclose(Similarity(model, reference[0], "dot")(x), embedding @ reference[0])


def test_words_are_scored_with_the_words_in_front_of_them_given() -> None:
    model, x = Heads("words"), images(2)
    tokens = torch.tensor([[0, 3, 1, 4], [0, 2, 4, 4]])
    words = WordLogProbabilities(model)(x, tokens)
    for example in range(2):
        for place in range(3):
            seen = tokens[example : example + 1, : place + 1]
            probabilities = model(x[example : example + 1], seen)[0, -1].softmax(0)
            assert torch.isclose(words[example, place], probabilities[tokens[example, place + 1]].log())
    assert torch.allclose(CaptionLogProbability(model)(x, tokens), words.sum(1))
    unpadded = CaptionLogProbability(model, padding=4)(x, tokens)
    assert torch.allclose(unpadded, torch.stack([words[0, :2].sum(), words[1, 0]]))


def test_padding_need_be_no_token_of_the_vocabulary() -> None:
    def captioner(x: Tensor, tokens: Tensor) -> Tensor:  # what follows the padding does not count
        return Heads("words")(x, tokens.clamp_min(0))

    x, inside = images(2), torch.tensor([[0, 3, 4, 4], [0, 2, 1, 4]])
    outside = torch.tensor([[0, 3, -100, -100], [0, 2, 1, -100]])
    found = CaptionLogProbability(captioner, padding=-100)(x, outside)
    assert torch.allclose(found, CaptionLogProbability(Heads("words"), padding=4)(x, inside))


@pytest.mark.parametrize(
    "make, extra, target",
    [
        (lambda: Contrast(Heads("scores")), torch.tensor([4, 0]), 1),
        (lambda: Similarity(Heads("scores")), torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), None),
        (lambda: RegionScores(Heads("pixels")), torch.tensor([[[1, 0, 1]] * 2, [[0, 1, 0]] * 2]).bool(), 1),
        (lambda: WordLogProbabilities(Heads("words")), torch.tensor([[0, 3, 1], [0, 2, 4]]), 1),
        (lambda: CaptionLogProbability(Heads("words"), 4), torch.tensor([[0, 3, 1], [0, 2, 4]]), None),
    ],
    ids=["contrast", "similarity", "region", "words", "caption"],
)
def test_what_belongs_to_an_example_goes_with_it_into_the_noisy_copies(make: Any, extra: Tensor, target: Any) -> None:
    wrapper, x = make().eval(), images(2)
    layer = next(m for m in wrapper.modules() if isinstance(m, ConvNet)).relu1

    def explain(x: Tensor, extra: Tensor) -> Tensor:
        arguments: dict[str, Any] = {"nt_samples": 3, "nt_samples_batch_size": 2, "stdevs": 0.3}
        seed = torch.Generator().manual_seed(0)
        return LayerSmoothGradCamPlusPlus(wrapper, layer).attribute(x, target, extra, generator=seed, **arguments)

    with left_as_it_was(wrapper):
        together = explain(x, extra)
        alone = torch.cat([explain(x[i : i + 1], extra[i : i + 1]) for i in range(2)])
        swapped = explain(x, extra.flip(0))
    assert together.any() and torch.allclose(together, alone, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(together, swapped, rtol=0.01)


def test_guided_methods_find_the_models_relus_in_a_wrapper() -> None:
    model, x = ConvNet(), images()
    found = GuidedGradCamPlusPlus(Contrast(model, 2), model.relu2).attribute(x, 1)
    maps = LayerGradCamPlusPlus(Contrast(model, 2), model.relu2).attribute(x, 1, relu_attributions=True)
    x = x.clone().requires_grad_()
    scores = model(x)
    (plain,) = torch.autograd.grad((scores[:, 1] - scores[:, 2]).sum(), x)
    assert found.any() and not torch.allclose(found, plain * maps, rtol=0.01)


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: OutputEntry(3, "a"), "model"),  # type: ignore[arg-type]
    (lambda: OutputEntry(lambda x: {"a": x}, "b")(images()), "entry"),
    (lambda: OutputEntry(lambda x: (x,), 1)(images()), "entry"),
    (lambda: OutputEntry(lambda x: SimpleNamespace(a=x), "b")(images()), "entry"),
    (lambda: OutputEntry(lambda x: x[0, 0, 0, 0].item(), 0)(images()), "entry"),
    (lambda: Contrast(Heads("scores"))(images()), "additional_forward_args"),
    (lambda: Contrast(Heads("scores"), 5)(images()), "other"),
    (lambda: Contrast(Heads("scores"), 1.0), "other"),  # type: ignore[arg-type]
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1.0, 2.0])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1, 2, 3])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([[1, 2]])), "other"),
    (lambda: Contrast(Heads("pixels"), 1)(images()), "model"),
    (lambda: RegionScores(Heads("pixels"), reduction="max"), "reduction"),  # type: ignore[arg-type]
    (lambda: RegionScores(Heads("pixels"), [1, 2]), "region"),  # type: ignore[arg-type]
    (lambda: RegionScores(Heads("pixels"), torch.ones(2, 3))(images()), "region"),
    (lambda: RegionScores(Heads("pixels"), torch.ones(3, 3).bool())(images()), "region"),
    (lambda: RegionScores(Heads("pixels"))(images(), torch.ones(2, 3).bool()), "region"),
    (lambda: RegionScores(Heads("pixels"))(images(), torch.zeros(2, 2, 3).bool()), "region"),
    (lambda: RegionScores(Heads("scores"), torch.ones(2, 3).bool())(images()), "model"),
    (lambda: predicted_region(torch.ones(2, 5), 1), "target"),
    (lambda: predicted_region(torch.ones(2, 5, 3, 3), [1, 2, 3]), "target"),
    (lambda: Similarity(Heads("scores"), measure="angle"), "measure"),  # type: ignore[arg-type]
    (lambda: Similarity(Heads("scores"), torch.ones(2, 5))(images()), "reference"),
    (lambda: Similarity(Heads("scores"))(images(), torch.ones(5)), "reference"),
    (lambda: WordLogProbabilities(Heads("words"))(images(), torch.ones(2, 1).long()), "tokens"),
    (lambda: WordLogProbabilities(Heads("words"))(images(), torch.ones(2, 3)), "tokens"),
    (lambda: WordLogProbabilities(Heads("words"))(images(), torch.tensor([[0, 1], [0, 5]])), "tokens"),
    (lambda: CaptionLogProbability(Heads("words"))(images(), torch.tensor([[0, 1], [0, -100]])), "tokens"),
    (lambda: CaptionLogProbability(Heads("words"), 4)(images(), torch.ones(2, 3)), "tokens"),
    (lambda: WordLogProbabilities(lambda x, tokens: x)(images(), torch.ones(2, 3).long()), "model|tokens"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    call, name = MISTAKES[number]
    with pytest.raises((TypeError, ValueError), match=rf"^({name}): expected .*found"):
        call()
