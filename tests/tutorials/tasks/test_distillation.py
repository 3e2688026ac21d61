"""Students differ in their loss alone, learn their teacher's maps, and are compared seed by seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reference import reference_map, relative_error
from tasks.distillation import measure, train
from tasks.distillation.network import TRAINING_DIGITS, DigitNet, split
from tasks.distillation.train import LOSSES, Loss

from captum_sgcampp.distillation import explanation_loss

ERRORS = Path(train.__file__).with_name("errors.csv")


pytestmark = pytest.mark.usefixtures("one_thread")


def test_digits_are_learned_or_judged_and_never_both() -> None:
    learned, judged = split(3)
    both = torch.cat([learned.images, judged.images]).flatten(1)
    assert len(learned.labels) == TRAINING_DIGITS and len(both) == 1797
    assert len(both.unique(dim=0)) == 1797 and -1 <= both.min() < both.max() <= 1
    assert not torch.equal(learned.labels, split(4)[0].labels)


@pytest.mark.slow
def test_one_seed_gives_one_result_and_leaves_the_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "TEACHER_EPOCHS", 1)
    monkeypatch.setattr(train, "EPOCHS", 1)
    losses = {"a": Loss("Grad-CAM++", 0.01, logits=True), "b": Loss()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train.errors(0, losses)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert train.errors(0, losses) == first
    assert train.errors(0, {"b": losses["b"]})["b"] == first["b"]  # whatever is trained before it
    assert train.errors(1, losses) != first


@pytest.mark.slow
@pytest.mark.parametrize("method", train.METHODS)
def test_a_student_learns_its_teachers_maps(method: str) -> None:
    learned, _ = split(0)
    torch.manual_seed(0)
    teacher = DigitNet(4)
    seen = train.maps(teacher, method, learned.images, learned.labels).detach()
    distance = []
    for weight in (0.0, 1.0):
        student = train.train_student(learned, teacher, Loss(method, weight), seed=1, epochs=8)
        own = train.maps(student, method, learned.images, learned.labels, create_graph=True)
        distance.append(explanation_loss(own, seen).item())
    assert distance[1] < 0.5 * distance[0]


@pytest.mark.parametrize("method, growth", [("Grad-CAM", (4, 4)), ("Grad-CAM++", (1, 3.9))])
def test_maps_follow_the_size_of_the_logits_and_not_that_of_the_activation(
    method: str, growth: tuple[float, float]
) -> None:
    learned, _ = split(0)
    torch.manual_seed(0)
    network, some = DigitNet(4).double(), slice(0, 20)
    convolution, first, logits = network.features[5], network.classifier[1], network.classifier[3]

    def size() -> float:
        found = train.maps(network, method, learned.images[some].double(), learned.labels[some], create_graph=True)
        return explanation_loss(found, torch.zeros_like(found)).item()

    before = size()
    with torch.no_grad():
        for parameter in (convolution.weight, convolution.bias):
            parameter *= 3
        first.weight /= 3
    assert size() == pytest.approx(before, rel=1e-9)  # the same function with a larger activation
    with torch.no_grad():
        for parameter in (logits.weight, logits.bias):
            parameter *= 2
    assert growth[0] * (1 - 1e-9) <= size() / before <= growth[1] * (1 + 1e-9)


def test_the_loss_of_logits_is_its_definition_and_0_for_the_teachers_own() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 10, dtype=torch.float64)
    expected = 0.0
    for s, t in zip((student / 4).softmax(1), (teacher / 4).softmax(1), strict=True):
        expected += 16 * float(sum(q * (q / p).log() for p, q in zip(s, t, strict=True))) / 3
    assert float(train.logits_loss(student, teacher)) == pytest.approx(expected, rel=1e-12)
    assert float(train.logits_loss(teacher, teacher)) == 0


def test_maps_of_digits_are_the_papers() -> None:
    learned, _ = split(0)
    torch.manual_seed(0)
    network, digit = DigitNet(3).double().eval(), learned.images[:1].double()
    label = int(learned.labels[0])
    found = train.maps(network, "Grad-CAM++", digit, learned.labels[:1], create_graph=True)
    assert relative_error(found.detach(), reference_map(network, network.features, (digit,), [(digit,)], label)) < 1e-9


def test_a_stopped_run_goes_on_after_its_last_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def errors(seed: int, losses: dict[str, Loss]) -> dict[str, float]:
        asked.append(seed)
        return {"teacher": 1.0, "cross-entropy": seed / 8}

    monkeypatch.setattr(train, "errors", errors)
    list(train.run(range(2), LOSSES, tmp_path / "errors.csv"))
    list(train.run(range(4), LOSSES, tmp_path / "errors.csv"))
    assert asked == [0, 1, 2, 3]
    assert train.read(tmp_path / "errors.csv")["cross-entropy"] == [0, 1 / 8, 2 / 8, 3 / 8]


def test_losses_with_maps_are_compared_with_the_same_loss_without_them() -> None:
    names = [name for name in LOSSES if LOSSES[name].maps]
    assert all(LOSSES[str(measure.reference(name))] == Loss(logits=LOSSES[name].logits) for name in names)
    errors = {"seed": [0.0] * 8, "cross-entropy": [5.0] * 8, "+ L_KD": [4.0, 4.5] * 4, "+ Grad-CAM": [5.0] * 8}
    found = measure.comparisons(errors)
    assert found["+ L_KD"][0].tolist() == [-1.0, -0.5] * 4 and found["+ L_KD"][1] < 0.05
    assert found["+ Grad-CAM"][1] == 1


def test_the_committed_page_is_that_of_the_committed_errors() -> None:
    errors = train.read(ERRORS)
    assert list(errors) == ["seed", "teacher", *LOSSES] and len(errors["seed"]) >= 8
    assert ERRORS.with_name("results.md").read_text() == measure.page(errors)
