"""In trained networks, maps of captions, answers, regions, similarities and contrasts point to the objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    cross_entropy,
    interpolate,
    one_hot,
)

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.bundled import CLASSES, ShapesVGG, draw_scene, load_shapes_vgg
from captum_sgcampp.bundled.network import normalise
from captum_sgcampp.model.threads import computing_threads
from captum_sgcampp.scores import (
    CaptionLogProbability,
    Contrast,
    OutputEntry,
    RegionScores,
    Similarity,
    WordLogProbabilities,
    predicted_region,
)

pytestmark = pytest.mark.slow  # the networks are trained first

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
    """Takes about 15 seconds on one thread."""
    with computing_threads(1), torch.random.fork_rng():
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
        scenes = draw_pairs(range(7000, 7020))
        yield Trained(network, network.features[14], captioner, answerer, segmenter, scenes)


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
    forward = OutputEntry(lambda x, q: trained.answerer(pixels=x, question=q), "answers")
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
        "against": LayerGradCamPlusPlus(lambda x: -trained.network(x), trained.layer).attribute(pairs.inputs, left),
    }
    share = {name: energy(m, pairs.masks) for name, m in maps.items()}
    ratio = {name: (on[:, LEFT] / on[:, RIGHT]).median() for name, on in share.items()}
    assert ratio["contrast"] >= 1.5 * ratio["left"] and ratio["left"] >= 1.5 and ratio["against"] <= 0.5
