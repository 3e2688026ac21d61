"""Sampling until the map is sure enough."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _asserts import close
from calls import seeded
from networks import ConvNet, PooledNet, TwoInputs, images

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.sampling.convergence import checkpoints, is_sure


def test_checkpoints_grow_and_end_with_the_most() -> None:
    assert list(checkpoints(64)) == [4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert list(checkpoints(20)) == [4, 6, 8, 12, 16, 20]
    assert list(checkpoints(4)) == [4]


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_auto_gives_the_map_of_as_many_copies_as_it_used(chunk: int | None) -> None:
    model, x = ConvNet().double(), images(4).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu2)
    found, statistics = method.attribute(
        x, [0, 1, 2, 3], nt_samples="auto", tolerance=0.1, generator=seeded(), return_statistics=True,
        nt_samples_batch_size=chunk,
    )  # fmt: skip
    used = statistics.nt_samples.tolist()
    assert len(set(used)) > 1 and all(n in checkpoints(64) for n in used)
    for number, n in enumerate(used):
        fixed, same = method.attribute(
            x[number : number + 1], number, nt_samples=n, generator=seeded(), return_statistics=True
        )
        assert close(found[number], fixed[0], 1e-9)
        assert statistics.standard_error[number].item() == pytest.approx(same.standard_error.item(), rel=1e-6)
        assert n == 64 or statistics.standard_error[number] <= 0.1


def test_auto_of_an_example_does_not_depend_on_its_companions() -> None:
    model, x = ConvNet().double(), images(5).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    options: Any = {"nt_samples": "auto", "tolerance": 0.1}
    together = method.attribute(x, 1, generator=seeded(), **options)
    for number in range(5):
        alone = method.attribute(x[number : number + 1], 1, generator=seeded(), **options)
        assert close(together[number], alone[0], 1e-9)


def test_auto_with_selections_arguments_and_tensors_per_example() -> None:
    model = TwoInputs().double()
    a, b = images(4, 1, size=6).double(), images(4, 1, size=6, seed=2).double()
    gain = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    method = LayerSmoothGradCamPlusPlus(model, model.both)
    chosen = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]]).bool()
    options: Any = {"nt_samples": "auto", "tolerance": 0.08, "return_statistics": True}
    maps, statistics = method.attribute(
        (a, b), [0, 1, 2, 1], (gain, "name"), feature_maps=chosen, generator=seeded(), **options
    )
    assert len(set(statistics[0].nt_samples.tolist())) > 1
    for i, target in enumerate([0, 1, 2, 1]):
        alone, _ = method.attribute(
            (a[i : i + 1], b[i : i + 1]), target, (gain[i : i + 1], "name"), feature_maps=chosen[i : i + 1],
            generator=seeded(), **options,
        )  # fmt: skip
        assert all(close(m[i], o[0], 1e-9) for m, o in zip(maps, alone, strict=True))


def test_auto_stops_at_the_least_where_the_noise_changes_nothing_but_scale() -> None:
    model = PooledNet()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.features[4]).attribute(
        images(2, channels=3), 1, nt_samples="auto", return_statistics=True
    )
    assert statistics.nt_samples.tolist() == [4, 4] and (statistics.standard_error < 1e-5).all()


def test_a_standard_error_that_hangs_on_one_sample_is_not_trusted() -> None:
    error, size = torch.tensor([0.01, 0.01, 0.0009, 0.02]), torch.tensor([1.2, 2.1, 1.2, 9.0])
    assert is_sure([error], [size], 8, 0.03).tolist() == [False, True, True, False]
    assert is_sure([error, error], [size, size.flip(0)], 8, 0.03).tolist() == [False, False, True, False]


def test_auto_goes_on_until_more_than_one_sample_counts() -> None:
    """With this tolerance the standard error alone would nearly always stop at the least number of samples."""
    model, x = ConvNet(), images(12)
    with torch.no_grad():
        model.fc2.weight.mul_(200)
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu2).attribute(
        x, 1, nt_samples="auto", tolerance=0.3, generator=seeded(), return_statistics=True
    )
    stopped = statistics.nt_samples < 64
    assert (statistics.nt_samples > 4).any() and stopped.any()
    assert ((statistics.effective_sample_size >= 2) | (statistics.standard_error <= 0.01))[stopped].all()


def test_auto_stops_at_the_most_and_says_what_it_reached() -> None:
    model = ConvNet()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        images(2), 1, nt_samples="auto", tolerance=1e-6, max_nt_samples=10, return_statistics=True
    )
    assert statistics.nt_samples.tolist() == [10, 10] and (statistics.standard_error > 1e-6).all()


def test_auto_without_noise_is_grad_cam_plus_plus_exactly() -> None:
    model = ConvNet()
    found, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        images(), 1, nt_samples="auto", stdevs=0, return_statistics=True
    )
    assert torch.equal(found, LayerGradCamPlusPlus(model, model.relu1).attribute(images(), 1))
    assert statistics.nt_samples.tolist() == [4, 4]


def test_several_targets_until_all_are_sure() -> None:
    model, x = ConvNet().double(), images(3).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu2)
    results = method.attribute_targets(
        x, [0, 1], nt_samples="auto", tolerance=0.1, generator=seeded(), return_statistics=True
    )
    used = [statistics.nt_samples.tolist() for _, statistics in results]
    assert used[0] == used[1]
    for number, n in enumerate(used[0]):
        for target, (maps, _) in enumerate(results):
            fixed = method.attribute(x[number : number + 1], target, nt_samples=n, generator=seeded())
            assert close(maps[number], fixed[0], 1e-9)
