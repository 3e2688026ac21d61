"""The loss of Grad-CAM++'s section 5 (eqs 27, 28) is the paper's, trains the student and leaves the teacher alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from _asserts import Mistake, is_named
from captum.attr import LayerGradCam
from networks import ConvNet, images
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.distillation import distillation_loss, explanation_loss

GRAPH: Any = {"grad_kwargs": {"create_graph": True}}
LABELS = torch.tensor([1, 3])


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def with_graph(maps: Tensor) -> Tensor:
    return maps.clone().requires_grad_()


@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 3, 2)])
def test_the_term_is_the_squared_distance_of_the_positive_parts(space: tuple[int, ...]) -> None:
    student, teacher = random_maps(3, 1, *space), random_maps(3, 1, *space, seed=1)
    total = 0.0
    for example in range(3):
        for place in itertools.product(*map(range, space)):
            values = [max(float(maps[(example, 0, *place)]), 0.0) for maps in (student, teacher)]
            total += (values[0] - values[1]) ** 2
    assert explanation_loss(with_graph(student), teacher).item() == pytest.approx(total / 3, rel=1e-12)


def test_the_term_is_not_free_of_scale_but_grows_with_the_square_of_the_maps() -> None:
    student, teacher = random_maps(2, 1, 3, 4), random_maps(2, 1, 3, 4, seed=1)
    term = explanation_loss(with_graph(student), teacher).item()
    assert explanation_loss(with_graph(3 * student), 3 * teacher).item() == pytest.approx(9 * term, rel=1e-12)


@pytest.mark.parametrize("mode, small, large", [("linear", (4,), (7,)), ("bilinear", (3, 4), (6, 8))])
def test_maps_of_different_size_meet_at_the_larger(mode: str, small: tuple[int, ...], large: tuple[int, ...]) -> None:
    few, many = random_maps(2, 1, *small), random_maps(2, 1, *large, seed=1)
    wanted = (interpolate(few.relu(), large, mode=mode) - many.relu()).square().sum() / 2
    for student, teacher in ((few, many), (many, few)):
        assert torch.allclose(explanation_loss(with_graph(student), teacher), wanted)


def test_the_total_adds_a_hundredth_of_it_to_the_cross_entropy() -> None:
    logits, maps = random_maps(2, 5), [random_maps(2, 1, 3, 4, seed=seed) for seed in (1, 2)]
    entropy = (
        sum(math.log(sum(map(math.exp, row))) - row[k] for row, k in zip(logits.tolist(), [1, 3], strict=True)) / 2
    )
    term = explanation_loss(with_graph(maps[0]), maps[1]).item()
    for arguments, weight in (((), 0.01), ((2.0,), 2.0), ((0,), 0.0)):
        found = distillation_loss(logits, LABELS, with_graph(maps[0]), maps[1], *arguments)
        assert found.item() == pytest.approx(entropy + weight * term, rel=1e-12)


def explain(method: Any, model: ConvNet, layer: nn.Module, x: Tensor, **arguments: Any) -> Tensor:
    if method is LayerSmoothGradCamPlusPlus:
        arguments |= {"nt_samples": 3, "stdevs": 0.2, "generator": torch.Generator().manual_seed(0)}
    maps: Tensor = method(model, layer).attribute(x, LABELS, **arguments)
    return maps


@pytest.mark.parametrize("method", [LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, LayerGradCam])
def test_gradients_reach_the_student_as_finite_differences_and_not_the_teacher(method: Any) -> None:
    student, teacher, x = ConvNet(seed=0).double(), ConvNet(seed=1).double(), images().double()

    def loss(of_teacher: Any = None) -> Tensor:
        maps = explain(method, student, student.relu2, x, **GRAPH)  # 8 x 8, and the teacher's 4 x 4
        return distillation_loss(student(x), LABELS, maps, explain(method, teacher, teacher.pool, x, **GRAPH), 5.0)

    loss().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for parameter in (student.conv1.weight, student.fc1.weight, student.fc2.weight):
        assert parameter.grad is not None
        for place in parameter.grad.abs().flatten().topk(1).indices.tolist():
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                values.append(loss().item())
                with torch.no_grad():
                    parameter.view(-1)[place] -= step
            wanted = (values[0] - values[1]) / 2e-6
            assert parameter.grad.flatten()[place].item() == pytest.approx(wanted, rel=1e-4)


def test_three_steps_of_training_lower_the_loss() -> None:
    student, teacher, x = ConvNet(seed=0), ConvNet(seed=1), images()
    student.train()  # it has no layers that training changes
    of_teacher = explain(LayerGradCamPlusPlus, teacher, teacher.relu2, x)
    losses = []
    for _ in range(4):
        student.zero_grad()
        maps = explain(LayerGradCamPlusPlus, student, student.relu2, x, **GRAPH)
        loss = distillation_loss(student(x), LABELS, maps, of_teacher)
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for parameter in student.parameters():
                parameter -= 0.01 * parameter.grad
    assert all(after < before for before, after in itertools.pairwise(losses))
    assert student.training and all(parameter.grad is None for parameter in teacher.parameters())


def test_equal_maps_cost_nothing_and_validation_needs_no_graph() -> None:
    net, x = ConvNet(), images()
    maps = explain(LayerGradCamPlusPlus, net, net.relu1, x)
    with torch.no_grad():
        assert explanation_loss(maps, maps).item() == 0


MAPS = torch.ones(2, 1, 3, 4)
MISTAKES: list[Mistake] = [
    (lambda: explanation_loss(MAPS, MAPS), "student_maps"),
    (lambda: explanation_loss((with_graph(MAPS),), MAPS), "student_maps"),  # type: ignore[arg-type]
    (lambda: explanation_loss(with_graph(MAPS[:, 0]), MAPS), "student_maps"),
    (lambda: explanation_loss(with_graph(MAPS), MAPS.repeat(1, 2, 1, 1)), "teacher_maps"),
    (lambda: explanation_loss(with_graph(MAPS), MAPS[:1]), "teacher_maps"),
    (lambda: explanation_loss(with_graph(MAPS), MAPS[..., 0]), "teacher_maps"),
    (lambda: distillation_loss(MAPS[:, 0, 0], LABELS, with_graph(MAPS), MAPS, -1), "weight"),
    (lambda: distillation_loss(MAPS[:, 0, 0], LABELS, with_graph(MAPS), MAPS, math.nan), "weight"),
    (lambda: distillation_loss(MAPS[:, 0, 0], LABELS, with_graph(MAPS), MAPS, "1"), "weight"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
