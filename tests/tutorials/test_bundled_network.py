"""The bundled network is trained repeatably and does well on unseen scenes; average precision is the standard one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate import average_precision, evaluate, main
from torch import nn
from train import Settings, _TrainingNetwork, save, train

from captum_sgcampp.bundled import CLASSES, draw_scenes, load_shapes_vgg
from captum_sgcampp.bundled.network import read_network
from captum_sgcampp.evaluation.cases import evaluation_seeds

QUICK = Settings(scenes=16, epochs=2)


@pytest.mark.parametrize(
    "labels, scores, expected",
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.5 * 1 + 0.5 * 2 / 3),
        ([1, 1, 0], [0.9, 0.8, 0.1], 1.0),
        ([0, 0, 1], [0.9, 0.8, 0.1], 1 / 3),
        ([1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),  # one threshold for all
        ([1, 0, 1], [2.0, 1.0, 1.0], 0.5 * 1 + 0.5 * 2 / 3),
    ],
)
def test_average_precision_by_hand(labels: list[int], scores: list[float], expected: float) -> None:
    assert average_precision(labels, scores) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [[], [0, 0]])
def test_average_precision_without_positives_is_not_a_number(labels: list[int]) -> None:
    assert math.isnan(average_precision(labels, np.zeros(len(labels))))


def test_average_precision_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for levels in (2, 5, 1000):  # from many equal scores to hardly any
        for _ in range(20):
            labels = np.append(rng.integers(0, 2, 50), 1)
            scores = rng.integers(0, levels, 51) / levels
            expected = metrics.average_precision_score(labels, scores)
            assert average_precision(labels, scores) == pytest.approx(expected)


def test_no_scene_is_both_trained_on_and_evaluated() -> None:
    last_trained = Settings(seed=999, scenes=1_000_000).scene_seeds[-1]
    assert evaluation_seeds(0, 1)[0] > last_trained
    first, second = evaluation_seeds(0, 1_000_000), evaluation_seeds(1, 10)
    assert first[-1] < second[0] and len(second) == 10


@pytest.mark.slow
def test_bundled_network_is_good_on_fresh_scenes() -> None:
    precisions = evaluate(load_shapes_vgg(), draw_scenes(evaluation_seeds(7, 300)))
    assert len(precisions) == len(CLASSES)
    assert np.mean(precisions) >= 0.97 and min(precisions) >= 0.9


def test_blind_network_is_as_good_as_chance() -> None:
    blind = nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, len(CLASSES)))
    nn.init.zeros_(blind[1].weight)
    scenes = list(draw_scenes(range(70)))
    chance = np.mean([scene.labels for scene in scenes], axis=0)
    assert evaluate(blind, scenes) == pytest.approx(list(chance))


def test_command_prints_every_class_and_the_mean(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--scenes", "40", "--seed", "3"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == [*CLASSES, "mean"]
    figures = [float(figure) for _, figure in lines]
    assert figures[-1] == pytest.approx(np.mean(figures[:-1]), abs=1e-3)


@pytest.mark.slow
def test_training_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    lines: list[str] = []
    first = train(QUICK, lines.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(lines) == 3 and "drew 16 scenes" in lines[0] and "epoch 2/2" in lines[2]
    torch.manual_seed(2)
    for name in ("first", "again", "other"):
        settings = Settings(seed=1, scenes=16, epochs=2) if name == "other" else QUICK
        save(first if name == "first" else train(settings, lines.append), tmp_path / name)
    files = {name: (tmp_path / name).read_bytes() for name in ("first", "again", "other")}
    assert files["first"] == files["again"] != files["other"]
    loaded = read_network(files["first"])
    for name, value in first.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())


def test_folding_batch_norm_keeps_the_logits() -> None:
    model = _TrainingNetwork()
    images = torch.randn(4, 3, 128, 128)
    with torch.no_grad():
        for _ in range(5):
            model.train()(images)
        expected, _ = model.eval()(images)
        found = model.finished()(images)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 1000}, {"scenes": 15}, {"scenes": 1_000_001}])
def test_training_refuses_what_it_cannot_do(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        Settings(**options)  # type: ignore[arg-type]
