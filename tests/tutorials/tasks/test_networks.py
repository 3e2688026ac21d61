"""The networks that ship are good on fresh scenes, are trained repeatably, and their maps are the papers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import seeded
from reference import reference_map, relative_error
from safetensors.torch import load_file
from tasks import training
from tasks.captions import network as captions
from tasks.captions import scenes as caption_scenes
from tasks.captions import train as caption_training
from tasks.clips import network as clips
from tasks.clips import scenes as clip_scenes
from tasks.clips import train as clip_training
from tasks.questions import network as questions
from tasks.questions import scenes as question_scenes
from tasks.questions import train as question_training
from tasks.training import Settings, fresh_seeds, save
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.scores import CaptionLogProbability, WordLogProbabilities

TASKS = {
    "captions": (caption_training, captions.load_captioner, captions.WEIGHTS),
    "questions": (question_training, questions.load_answerer, questions.WEIGHTS),
    "clips": (clip_training, clips.load_action_net, clips.WEIGHTS),
}
BOUND = 1e-9
COPIES = 2


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_at_least_95_of_100_fresh_examples_are_right(task: str) -> None:
    module, load, _ = TASKS[task]
    assert module.accuracy(load(), fresh_seeds(1000, first=500_000)) >= 0.95


@pytest.mark.parametrize("task", TASKS)
def test_weights_are_small_and_in_half_precision(task: str) -> None:
    _, load, path = TASKS[task]
    assert path.stat().st_size <= 2_000_000
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    network = load()
    assert not network.training and {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_training_is_the_same_for_the_same_seed(task: str, tmp_path: Path, one_thread: None) -> None:
    train = TASKS[task][0].train
    torch.manual_seed(1)
    before = torch.get_rng_state()
    files = []
    for seed in (0, 0, 1):
        save(train(Settings(seed, steps=3, batch_size=4), lambda line: None), tmp_path / "weights")
        files.append((tmp_path / "weights").read_bytes())
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        before = torch.get_rng_state()
    assert files[0] == files[1] != files[2]


def test_no_example_is_both_trained_on_and_fresh() -> None:
    last = Settings(999, steps=training.SEEDS_PER_RUN // 32, batch_size=32)
    assert last.example_seeds(last.steps - 1)[-1] < fresh_seeds(1)[0]
    assert Settings(0, steps=10).example_seeds(9)[-1] < Settings(1).example_seeds(0)[0]


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 1000}, {"steps": 0}, {"steps": 100_000}])
def test_training_refuses_what_it_cannot_do(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^(seed|steps): expected .* found"):
        Settings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("conv", [nn.Conv2d, nn.Conv3d])
def test_folding_batch_norm_keeps_the_maps(conv: Any) -> None:
    plain = nn.Sequential(conv(3, 5, 3, padding=1), nn.ReLU(), conv(5, 4, 3))
    wide = training.with_batch_norm(plain)
    x = torch.randn(6, 3, *(7,) * (2 if conv is nn.Conv2d else 3))
    with torch.no_grad():
        for _ in range(5):
            wide.train()(x)
        expected = wide.eval()(x)
        training.fold_batch_norm(wide, plain)
        assert torch.allclose(plain(x), expected, atol=1e-5, rtol=1e-4)


def rows_of(module: nn.Module, run: Callable[[], Any]) -> tuple[Any, tuple[Tensor, ...]]:
    """What `run()` returns, and all tensors that the module was given meanwhile, row by row."""
    passes: list[tuple[Tensor, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, args: passes.append(tuple(x.detach().clone() for x in args)))
    try:
        return run(), tuple(torch.cat(tensors) for tensors in zip(*passes, strict=True))
    finally:
        handle.remove()


def check_papers_map(forward: nn.Module, layer: nn.Module, image: Tensor, target: int, *others: Tensor) -> None:
    """The clean map and the smooth one are the loops'; the noise is on the image alone."""

    def of_image(x: Tensor) -> Tensor:
        return forward(x, *others)

    plain = LayerGradCamPlusPlus(forward, layer).attribute(image, target, others)
    assert relative_error(plain[0], reference_map(of_image, layer, (image,), [(image,)], target)) <= BOUND
    smooth, (images, *rest) = rows_of(
        forward,
        lambda: LayerSmoothGradCamPlusPlus(forward, layer).attribute(
            image, target, others, nt_samples=COPIES, generator=seeded()
        ),
    )
    assert len(images) == COPIES + 1 and torch.equal(images[:1], image) and not torch.equal(images[1], image[0])
    assert all(torch.equal(row, other[0]) for other, given in zip(others, rest, strict=True) for row in given)
    copies = [(row[None],) for row in images[1:]]
    assert relative_error(smooth[0], reference_map(of_image, layer, (image,), copies, target)) <= BOUND


class Column(nn.Module):
    """Scores `(N,)` as `(N, 1)`, which the loops take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.model(*arguments)[:, None]


@pytest.mark.parametrize("relation", ["left", "above"])  # sentences of ten and of nine words
def test_the_likeliest_sentences_are_different_and_have_the_probability_that_is_told(relation: str) -> None:
    network = captions.load_captioner()
    scene = next(one for one in map(caption_scenes.draw_scene, range(9)) if one.relation == relation)
    image = captions.inputs([scene])
    sentences, scores = captions.likeliest(network, image, 5)
    assert len(sentences.unique(dim=0)) == 5 and torch.equal(scores, scores.sort(descending=True).values)
    logits = network(image.expand(5, -1, -1, -1), sentences)[:, :-1].log_softmax(2)
    steps = logits.gather(2, sentences[:, 1:, None])[..., 0]
    ended = sentences[:, :-1] == caption_scenes.TOKENS[caption_scenes.END]  # what follows the first end is certain
    torch.testing.assert_close((steps * ~ended).sum(1), scores, rtol=1e-4, atol=1e-4)
    assert torch.equal(sentences[:1], captions.captions(network, image))


@pytest.mark.slow
@pytest.mark.parametrize("word", [3, 8])
def test_maps_of_words_are_the_papers(word: int) -> None:
    network = captions.load_captioner().double()
    scene = caption_scenes.draw_scene(1)
    image, tokens = captions.inputs([scene]).double(), torch.tensor([scene.tokens])
    check_papers_map(WordLogProbabilities(network), network.get_submodule(captions.LAYER), image, word, tokens)


@pytest.mark.slow
def test_the_map_of_a_sentence_is_the_papers() -> None:
    network = captions.load_captioner().double()
    scene = caption_scenes.draw_scene(2)
    image, tokens = captions.inputs([scene]).double(), torch.tensor([scene.tokens])
    whole = Column(CaptionLogProbability(network, padding=caption_scenes.TOKENS[caption_scenes.END]))
    check_papers_map(whole, network.get_submodule(captions.LAYER), image, 0, tokens)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [questions.BEFORE, questions.LAYER])
def test_maps_of_answers_are_the_papers(layer: str) -> None:
    network = questions.load_answerer().double()
    scene = question_scenes.draw_scene(1)
    (question,) = question_scenes.draw_questions(scene, 1, 1)
    image, tokens = questions.inputs([scene]).double(), questions.tokens([question])
    check_papers_map(network, network.get_submodule(layer), image, question.target, tokens)


class Reader(nn.Module):
    """The network of questions, with two inputs that are both numbers: the image, and the embedded question."""

    def __init__(self, network: questions.Answerer) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        return self.network.read(image, words)


@pytest.mark.slow
def test_maps_of_two_inputs_with_noise_on_the_image_alone_are_the_papers() -> None:
    network = questions.load_answerer().double()
    reader, layer = Reader(network), network.get_submodule(questions.LAYER)
    scene = question_scenes.draw_scene(2)
    (question,) = question_scenes.draw_questions(scene, 2, 1)
    both = (questions.inputs([scene]).double(), network.embed(questions.tokens([question])).detach())
    found, (images, words) = rows_of(
        reader,
        lambda: LayerSmoothGradCamPlusPlus(reader, layer).attribute(
            both, question.target, nt_samples=COPIES, noise_level=(0.15, 0.0), generator=seeded()
        ),
    )
    assert not torch.equal(images[1], images[0]) and all(torch.equal(row, both[1][0]) for row in words)
    copies = [(images[m : m + 1], words[m : m + 1]) for m in range(1, COPIES + 1)]
    assert relative_error(found[0], reference_map(reader, layer, both, copies, question.target)) <= BOUND


@pytest.mark.slow
def test_maps_of_actions_are_the_papers() -> None:
    network = clips.load_action_net().double()
    clip = clip_scenes.draw_clip(1)
    check_papers_map(network, network.get_submodule(clips.LAYER), clips.inputs([clip]).double(), clip.action)
