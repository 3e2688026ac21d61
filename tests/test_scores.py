"""Scores of all kinds: each wrapper gives what its formula says, and its maps point to the right object of a scene."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from _asserts import left_as_it_was
from networks import ConvNet, images
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, one_hot

from captum_sgcampp import GuidedGradCamPlusPlus, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import CLASSES, ShapesVGG, draw_scene, load_shapes_vgg
from captum_sgcampp.bundled.network import normalise
from captum_sgcampp.scores import (
    CaptionLogProbability,
    Contrast,
    Counterfactual,
    NamedArguments,
    OutputEntry,
    RegionScores,
    Similarity,
    WordLogProbabilities,
    predicted_region,
)

BEGIN = len(CLASSES)  # the token in front of a caption
LEFT, RIGHT = 0, 1


class Pairs(NamedTuple):
    """Scenes of two objects of different classes, the left one first."""

    inputs: Tensor  # (N, 3, 128, 128)
    classes: Tensor  # (N, 2)
    masks: Tensor  # (N, 2, 128, 128)


def draw_pairs(seeds: range) -> Pairs:
    orders = list(itertools.permutations(range(len(CLASSES)), 2))
    scenes = [draw_scene(seed, classes=orders[seed % len(orders)]) for seed in seeds]
    masks = [torch.from_numpy(scene.masks) for scene in scenes]
    left_first = [sorted((0, 1), key=lambda i, m=pair: m[i].nonzero()[:, 1].float().mean()) for pair in masks]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    return Pairs(
        normalise(pixels),
        torch.tensor([[scene.classes[i] for i in order] for scene, order in zip(scenes, left_first, strict=True)]),
        torch.stack([pair[order] for pair, order in zip(masks, left_first, strict=True)]),
    )


class Captioner(nn.Module):
    """Names the left object and then the right one: a recurrent head on the bundled network's features."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.start, self.embed = nn.Linear(1536, 64), nn.Embedding(len(CLASSES) + 1, 16)
        self.cell, self.out = nn.GRU(16, 64, batch_first=True), nn.Linear(64, len(CLASSES) + 1)

    def forward(self, inputs: Tensor, tokens: Tensor) -> Tensor:
        return self.speak(self.features(inputs).flatten(1), tokens)

    def speak(self, features: Tensor, tokens: Tensor) -> Tensor:
        return self.out(self.cell(self.embed(tokens), self.start(features / 10).tanh()[None])[0])


class Answerer(nn.Module):
    """Question 0: which shape is on the left? Question 1: on the right? By keyword, and with an output by name."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.embed, self.start, self.out = nn.Embedding(2, 64), nn.Linear(1536, 64), nn.Linear(64, len(CLASSES))

    def forward(self, *, question: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        return {"answers": self.answer(self.features(pixels).flatten(1), question), "question": question}

    def answer(self, features: Tensor, question: Tensor) -> Tensor:
        return self.out(self.start(features / 10).relu() * self.embed(question))


class Segmenter(nn.Module):
    """A linear score of every class, and of nothing, at every pixel."""

    def __init__(self, features: nn.Module, weight: Tensor) -> None:
        super().__init__()
        self.features = features
        self.score = nn.Conv2d(96, len(CLASSES) + 1, 1)
        with torch.no_grad():
            self.score.weight.copy_(weight[:-1].T[:, :, None, None])
            self.score.bias.copy_(weight[-1])

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"out": interpolate(self.score(self.features(inputs)), (128, 128), mode="bilinear")}


@dataclass
class Trained:
    """What the tests of this file share: frozen features, heads trained on them, scenes that none was trained on."""

    network: ShapesVGG
    layer: nn.Module
    captioner: Captioner
    answerer: Answerer
    segmenter: Segmenter
    pairs: Pairs


def fit(head: nn.Module, loss: Callable[[], Tensor]) -> None:
    parameters = [p for name, p in head.named_parameters() if not name.startswith("features")]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@pytest.fixture(scope="module")
def trained() -> Iterator[Trained]:
    """Takes about 6 seconds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, pairs = load_shapes_vgg(), draw_pairs(range(5000, 5224))
        with torch.no_grad():
            maps = network.features[:15](pairs.inputs)
            pooled = network.features[15:](maps).flatten(1)
        captioner, answerer = Captioner(network.features), Answerer(network.features)
        given = torch.cat([torch.full((len(pooled), 1), BEGIN), pairs.classes[:, :1]], 1)
        fit(captioner, lambda: cross_entropy(captioner.speak(pooled, given).flatten(0, 1), pairs.classes.flatten()))
        both = torch.arange(2).repeat(len(pooled))
        fit(
            answerer,
            lambda: cross_entropy(answerer.answer(pooled.repeat_interleave(2, 0), both), pairs.classes.flatten()),
        )
        segmenter = Segmenter(network.features[:15], least_squares(maps, pairs))
    yield Trained(network, network.features[14], captioner, answerer, segmenter, draw_pairs(range(7000, 7020)))
    torch.set_num_threads(threads)


def least_squares(maps: Tensor, pairs: Pairs) -> Tensor:
    """Weights (97, 9) of a linear score of the class that covers a cell of 8 x 8 pixels."""
    covered, which = avg_pool2d(pairs.masks.float(), 8).max(1)
    label = torch.where(covered > 0.25, pairs.classes.gather(1, which.flatten(1)).view_as(which), BEGIN)
    x = torch.cat([maps, torch.ones_like(maps[:, :1])], 1).movedim(1, -1).flatten(0, 2)
    y = 10 * one_hot(label.flatten(), BEGIN + 1).float()
    return torch.linalg.solve(x.T @ x + torch.eye(97), x.T @ y)


def energy(maps: Tensor, masks: Tensor) -> Tensor:
    """How much of each map lies on each object, (N, 2)."""
    upsampled = interpolate(maps.clamp_min(0), masks.shape[2:], mode="bilinear")
    return (upsampled * masks).sum((2, 3))


def check_points_to(side: int, maps: Tensor, pairs: Pairs, at_least: float) -> None:
    """The object on that side gets more of the map than the other in at least 18 of the 20 scenes, and `at_least` times
    as much in the median."""
    on = energy(maps, pairs.masks)
    ratio = on[:, side] / on[:, 1 - side]
    assert (ratio > 1).sum() >= 18 and ratio.median() >= at_least, ratio.sort().values


def captions(pairs: Pairs) -> Tensor:
    return torch.cat([torch.full((len(pairs.classes), 1), BEGIN), pairs.classes], 1)


@pytest.mark.parametrize("method, at_least", [(LayerGradCamPlusPlus, 5.0), (LayerSmoothGradCamPlusPlus, 2.0)])
def test_the_two_words_of_a_caption_point_to_their_objects(trained: Trained, method: Any, at_least: float) -> None:
    tokens = captions(trained.pairs)
    arguments = {"nt_samples": 4} if method is LayerSmoothGradCamPlusPlus else {}
    left, right = method(WordLogProbabilities(trained.captioner), trained.layer).attribute_targets(
        trained.pairs.inputs, [LEFT, RIGHT], additional_forward_args=tokens, **arguments
    )
    check_points_to(LEFT, left, trained.pairs, at_least)
    check_points_to(RIGHT, right, trained.pairs, at_least)


def test_a_whole_caption_shows_the_objects_and_not_the_background(trained: Trained) -> None:
    objects = trained.pairs.masks.any(1, keepdim=True)
    places = torch.cat([objects, ~objects], 1)
    method = LayerGradCamPlusPlus(CaptionLogProbability(trained.captioner), trained.layer)
    on = energy(method.attribute(trained.pairs.inputs, None, captions(trained.pairs)), places)
    per_pixel = on / places.sum((2, 3))
    assert (per_pixel[:, 0] / per_pixel[:, 1]).median() >= 3


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_the_question_decides_which_object_the_answer_points_to(trained: Trained, side: int) -> None:
    forward = OutputEntry(NamedArguments(trained.answerer, "pixels", "question"), "answers")
    question = torch.full((len(trained.pairs.inputs),), side)
    answers = trained.pairs.classes[:, side]
    maps = LayerSmoothGradCamPlusPlus(forward, trained.layer).attribute(
        trained.pairs.inputs, answers, question, nt_samples=4
    )
    check_points_to(side, maps, trained.pairs, 2.0)


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_a_segmentation_networks_score_over_a_region_points_to_the_class(trained: Trained, side: int) -> None:
    pairs, target = trained.pairs, trained.pairs.classes[:, side]
    segmenter = OutputEntry(trained.segmenter, "out")
    with torch.no_grad():
        predicted = predicted_region(segmenter(pairs.inputs), target)
    for region in (pairs.masks[:, side], predicted):
        maps = LayerGradCamPlusPlus(RegionScores(segmenter), trained.layer).attribute(pairs.inputs, target, region)
        check_points_to(side, maps, pairs, 1.8)


@pytest.mark.parametrize("measure", ["cosine", "dot"])
def test_similarity_to_a_reference_points_to_what_is_in_both(trained: Trained, measure: Any) -> None:
    embedder = nn.Sequential(trained.network.features[:15], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    scenes = [draw_scene(9000 + shape, classes=[shape] * 3) for shape in range(len(CLASSES))]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    with torch.no_grad():
        reference = embedder(normalise(pixels))
        reference -= reference.mean(0)
    method = LayerGradCamPlusPlus(Similarity(embedder, measure=measure), trained.layer)
    for side in (LEFT, RIGHT):
        maps = method.attribute(trained.pairs.inputs, None, reference[trained.pairs.classes[:, side]])
        check_points_to(side, maps, trained.pairs, 2.0)


def test_a_contrast_moves_the_map_to_the_class_and_a_counterfactual_away_from_it(trained: Trained) -> None:
    pairs = trained.pairs
    left, right = pairs.classes.unbind(1)
    maps = {
        "left": LayerGradCamPlusPlus(trained.network, trained.layer).attribute(pairs.inputs, left),
        "contrast": LayerGradCamPlusPlus(Contrast(trained.network), trained.layer).attribute(pairs.inputs, left, right),
        "against": LayerGradCamPlusPlus(Counterfactual(trained.network), trained.layer).attribute(pairs.inputs, left),
    }
    share = {name: energy(m, pairs.masks) for name, m in maps.items()}
    ratio = {name: (on[:, LEFT] / on[:, RIGHT]).median() for name, on in share.items()}
    assert ratio["contrast"] >= 1.5 * ratio["left"] and ratio["left"] >= 1.5 and ratio["against"] <= 0.5


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


def test_contrast_is_the_difference_of_two_scores_and_counterfactual_the_negative() -> None:
    model, x = Heads("scores"), images(3)
    scores = model(x)
    assert torch.allclose(Contrast(model, 2)(x), scores - scores[:, 2:3])
    others = torch.tensor([4, 0, -2])
    assert torch.allclose(Contrast(model)(x, others), scores - scores[[0, 1, 2], [4, 0, 3]][:, None])
    assert torch.equal(Counterfactual(model)(x), -scores)


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
    (lambda: NamedArguments(lambda **names: names, "a")(images(), images()), "names"),
    (lambda: Contrast(Heads("scores"))(images()), "additional_forward_args"),
    (lambda: Contrast(Heads("scores"), 5)(images()), "other"),
    (lambda: Contrast(Heads("scores"), 1.0), "other"),  # type: ignore[arg-type]
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1.0, 2.0])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1, 2, 3])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([[1, 2]])), "other"),
    (lambda: Contrast(Heads("pixels"), 1)(images()), "model"),
    (lambda: Counterfactual(lambda x: {"a": x})(images()), "model"),
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
