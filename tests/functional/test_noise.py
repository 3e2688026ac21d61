"""The noise of a copy depends on the seed, the copy and the input only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _asserts import close
from calls import seeded
from networks import ConvNet, TwoInputs, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.functional.noise import copies_of, default_chunk, noisy_rows, relative_sigma, standard_noise


def received(model: nn.Module, layer: nn.Module, x: Tensor, seed: int = 7, **options: Any) -> tuple[Tensor, Tensor]:
    """The map, and the rows that the model got as `(N, 1 + copies, ...)`."""
    passes: list[Tensor] = []

    def keep(module: nn.Module, args: Any) -> None:
        passes.append(args[0].detach().clone().unflatten(0, (len(x), -1)))

    handle = model.register_forward_pre_hook(keep)
    generator = seeded(seed)
    found = LayerSmoothGradCamPlusPlus(model, layer).attribute(x, 1, generator=generator, **options)
    handle.remove()
    return found, torch.cat(passes, 1)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("layer", ["relu2", "fc1"])
def test_same_noise_bit_for_bit_and_same_map_for_every_chunk(layer: str, dtype: torch.dtype, bound: float) -> None:
    model, x = ConvNet().to(dtype), images().to(dtype)
    found, rows = received(model, model.get_submodule(layer), x, nt_samples=7)
    assert rows.shape[1] == 8 and torch.equal(rows[:, 0], x)
    for chunk in (1, 2, 3, 8, 100):
        other, other_rows = received(
            model, model.get_submodule(layer), x, nt_samples=7, nt_samples_batch_size=chunk, bound_alpha=False
        )
        assert torch.equal(other_rows, rows)
        assert close(other, found, bound)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_an_example_gets_the_same_noise_and_map_alone_and_in_a_batch(dtype: torch.dtype, bound: float) -> None:
    model, x = ConvNet().to(dtype), images(3).to(dtype)
    found, rows = received(model, model.relu2, x, nt_samples=5)
    for number in range(3):
        alone, alone_rows = received(model, model.relu2, x[number : number + 1], nt_samples=5)
        assert torch.equal(alone_rows[0], rows[number])
        assert close(alone[0], found[number], bound)


def test_all_examples_of_a_batch_share_the_streams() -> None:
    model, x = ConvNet(), images(2)
    _, rows = received(model, model.relu2, x.double().float(), nt_samples=2, stdevs=1.0)
    assert torch.allclose(rows[0, 1] - x[0], rows[1, 1] - x[1], atol=1e-6)


@pytest.mark.parametrize("dims, layout", [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_channels_last_stays_and_gets_the_same_noise(dims: int, layout: torch.memory_format) -> None:
    model, x = ConvNet(dims).double(), images(dims=dims).double()
    layouts: list[bool] = []
    model.register_forward_pre_hook(lambda module, args: layouts.append(args[0].is_contiguous(memory_format=layout)))
    found, rows = received(model, model.relu2, x, nt_samples=3, nt_samples_batch_size=3)
    layouts.clear()
    other, other_rows = received(model, model.relu2, x.to(memory_format=layout), nt_samples=3, nt_samples_batch_size=3)
    assert layouts and all(layouts)
    assert torch.equal(other_rows, rows)
    assert close(other, found, 1e-9) and other.is_contiguous()


@pytest.mark.parametrize(
    "copies, chunk, expected", [(7, 3, [9, 9, 6]), (3, 1, [3, 3, 3, 3]), (2, 9, [9]), (4, 5, [15]), (5, 2, [6, 6, 6])]
)
def test_a_pass_never_exceeds_batch_times_chunk_rows(copies: int, chunk: int, expected: list[int]) -> None:
    model, x = ConvNet(), images(3)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    LayerSmoothGradCamPlusPlus(model, model.relu2).attribute(x, 0, nt_samples=copies, nt_samples_batch_size=chunk)
    assert sizes == expected and all(size <= 3 * chunk for size in sizes)


def test_generator_decides_the_noise_and_the_global_one_stays_untouched() -> None:
    model, x = ConvNet(), images()
    before = torch.get_rng_state()
    first, rows = received(model, model.relu1, x, seed=1, nt_samples=3)
    again, _ = received(model, model.relu1, x, seed=1, nt_samples=3)
    other, other_rows = received(model, model.relu1, x, seed=2, nt_samples=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(rows, other_rows) and not torch.equal(first, other)


def test_a_generator_moves_on_by_one_draw_whatever_the_number_of_copies() -> None:
    model, x = ConvNet(), images()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    states = []
    for copies in (2, 9):
        generator = seeded(3)
        method.attribute(x, 0, nt_samples=copies, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(*states) and not torch.equal(states[0], seeded(3).get_state())
    torch.manual_seed(5)
    first = method.attribute(x, 0, nt_samples=3)
    assert not torch.equal(first, method.attribute(x, 0, nt_samples=3))
    torch.manual_seed(5)
    assert torch.equal(first, method.attribute(x, 0, nt_samples=3))


@pytest.mark.parametrize("options", [{"stdevs": 0}, {"stdevs": 0.0}, {"noise_level": 0.0}])
def test_no_noise_is_grad_cam_plus_plus_exactly(options: Any) -> None:
    model, x = ConvNet(), images()
    plain = LayerGradCamPlusPlus(model, model.relu1).attribute(x, 2)
    smooth, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        x, 2, return_statistics=True, **options
    )
    assert torch.equal(plain, smooth)
    assert statistics.nt_samples.tolist() == [25, 25] and statistics.effective_sample_size.tolist() == [25, 25]
    assert statistics.standard_error.tolist() == [0, 0]


def test_tiny_noise_comes_close_to_grad_cam_plus_plus() -> None:
    model, x = ConvNet().double(), images().double()
    plain = LayerGradCamPlusPlus(model, model.relu2).attribute(x, 2)
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu2).attribute(x, 2, stdevs=1e-9, nt_samples=3)
    assert torch.allclose(plain, smooth, rtol=1e-5)


def test_noise_level_is_a_fraction_of_each_examples_own_range() -> None:
    x = torch.stack([torch.tensor([0.0, 1.0, 3.0]), torch.tensor([-10.0, 0.0, 10.0]), torch.tensor([2.0, 2.0, 2.0])])
    assert torch.allclose(relative_sigma(x, 0.1), torch.tensor([[0.3], [2.0], [0.0]]))


def test_noise_is_standard_normal_and_streams_are_independent() -> None:
    like = torch.empty(1, 100_000, dtype=torch.float64)
    noise = torch.stack([standard_noise(11, copy, index, like) for copy in range(3) for index in range(2)])
    assert noise.mean(1).abs().max() < 0.02 and (noise.std(1) - 1).abs().max() < 0.02
    correlation = torch.corrcoef(noise) - torch.eye(6, dtype=torch.float64)
    assert correlation.abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_noise_is_drawn_in_the_inputs_dtype(dtype: torch.dtype) -> None:
    x = images().to(dtype)
    rows = noisy_rows(x, relative_sigma(x, 0.1), 0, 0, range(2), with_clean=True)
    assert rows.dtype == dtype and standard_noise(0, 0, 0, x).dtype == dtype
    assert torch.equal(rows[0], x[0]) and torch.equal(rows[3], x[1]) and not torch.equal(rows[1], rows[2])


def test_stdevs_may_leave_an_input_alone() -> None:
    model = TwoInputs()
    seen: list[tuple[Tensor, ...]] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args))
    a, b = images(2, 1, size=6), images(2, 1, size=6, seed=2)
    for options in ({"stdevs": (0.0, 0.3)}, {"noise_level": (0, 0.1)}):
        seen.clear()
        LayerSmoothGradCamPlusPlus(model, model.both).attribute((a, b), 1, nt_samples=3, **options)
        left, right = seen[0][0].unflatten(0, (2, -1)), seen[0][1].unflatten(0, (2, -1))
        assert torch.equal(left, a[:, None].expand_as(left))
        assert torch.equal(right[:, 0], b) and not torch.equal(right[:, 1], b)


def test_integer_inputs_are_left_alone_by_a_sigma_of_zero() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.gain = ConvNet(), nn.Embedding(4, 5)

        def forward(self, x: Tensor, code: Tensor) -> Tensor:
            return self.net(x) * self.gain(code)

    model = Gate()
    inputs = (images(), torch.tensor([1, 3]))
    method = LayerSmoothGradCamPlusPlus(model, model.net.relu2)
    assert method.attribute(inputs, 0, noise_level=(0.1, 0), nt_samples=2).shape == (2, 1, 8, 8)
    with pytest.raises(TypeError, match=r"noise_level: expected 0 for an input of dtype torch.int64"):
        method.attribute(inputs, 0)


def test_default_chunk_is_bounded_by_bytes() -> None:
    photo = torch.empty(1, 3, 224, 224)
    assert default_chunk([photo], 10_000) == 4
    assert default_chunk([photo], 8) == 9
    assert default_chunk([photo], 25) == 5
    assert default_chunk([photo.expand(64, -1, -1, -1)], 25) == 1
    assert default_chunk([torch.empty(1, 10)], 25) == 26


def test_copies_repeat_each_example_in_a_row() -> None:
    x = images(2)
    assert torch.equal(copies_of(x, 3), x.repeat_interleave(3, 0))
