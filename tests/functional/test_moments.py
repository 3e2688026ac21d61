"""The means of powers of the gradients over chunks of noisy samples, at any magnitude."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calls import seeded
from torch import nn

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.functional.moments import Derivatives, MomentSums
from captum_sgcampp.functional.sampling_statistics import standard_error
from captum_sgcampp.functional.score_derivatives import exp_derivatives
from captum_sgcampp.functional.tensors import unit_scaled


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_moments_of_chunks_are_the_weighted_means_of_all_copies(dtype: torch.dtype, bound: float) -> None:
    """Logits up to 400 apart and gradients of 30 orders of magnitude, against plain float64 arithmetic."""
    generator = seeded()
    score = 200 * torch.randn(2, 7, generator=generator, dtype=torch.float64).to(dtype).double()
    size = 10.0 ** torch.randint(-12, 3, (2, 7, 1, 1), generator=generator)
    gradient = (size * torch.randn(2, 7, 3, 5, generator=generator, dtype=torch.float64)).to(dtype).double()
    weight = (score - score.logsumexp(1, keepdim=True) + np.log(7)).exp()
    expected = [(weight[:, :, None, None] * gradient**p).mean(1) for p in (1, 2, 3)]
    for parts in ([7], [1, 6], [3, 3, 1], [1] * 7):
        sums, start = MomentSums(2, groups=3), 0
        for part in parts:
            rows = slice(start, start + part)
            s, g = score[:, rows].flatten().to(dtype), gradient[:, rows].flatten(0, 1).to(dtype)
            sums.add(exp_derivatives(s, g))
            start += part
        mean = sums.mean()
        for p, wanted in enumerate(expected, start=1):
            found = mean[p - 1].double() * mean.scale.double()[:, None, None] ** p
            assert (found - wanted).abs().max() <= bound * wanted.abs().max()
        size_wanted = weight.sum(1) ** 2 / weight.square().sum(1)
        assert torch.allclose(sums.effective_sample_size().double(), size_wanted, rtol=1e-4)


@pytest.mark.parametrize("parts", [[25], [4, 20, 1], [1] * 25])
@pytest.mark.parametrize("shape", [(6, 7, 9), (5, 3), (4, 8, 8), (2, 3, 4, 5)])
def test_groups_leave_the_bits_of_the_mean(parts: list[int], shape: tuple[int, ...]) -> None:
    """Statistics are asked for with groups: the map must not depend on whether they are."""
    generator = seeded()
    score, gradient = 9 * torch.randn(3, 25, generator=generator), torch.randn(3, 25, *shape, generator=generator)
    plain, grouped, start = MomentSums(3), MomentSums(3, groups=10), 0
    for part in parts:
        rows = slice(start, start := start + part)
        for sums in (plain, grouped):
            sums.add(exp_derivatives(score[:, rows].flatten(), gradient[:, rows].flatten(0, 1)))
    assert all(torch.equal(*same) for same in zip(plain.mean(), grouped.mean(), strict=True))


def test_sums_of_the_first_groups_are_those_of_a_call_with_so_many() -> None:
    generator = seeded()
    derivatives = exp_derivatives(torch.randn(6, generator=generator), torch.randn(6, 2, 4, generator=generator))
    activation = torch.rand(2, 2, 4, generator=generator)
    for groups in (1, 3):
        wide, narrow = MomentSums(2, groups=10), MomentSums(2, groups=groups)
        some = Derivatives(*(part.unflatten(0, (2, 3))[:, :groups].flatten(0, 1) for part in derivatives))
        for sums in (wide, narrow):
            sums.add(some)
        found = wide.of_first_groups(groups)
        assert found.copies.tolist() == [groups] * 2
        assert all(torch.equal(*same) for same in zip(found.mean(), narrow.mean(), strict=True))
        errors = [standard_error(activation, sums) for sums in (found, narrow)]
        assert torch.equal(*errors) if groups > 1 else all(error.isnan().all() for error in errors)


def test_the_first_rows_of_each_example_can_be_skipped() -> None:
    generator = seeded()
    score, gradient = torch.randn(6, generator=generator), torch.randn(6, 2, 4, generator=generator)
    sums, expected = MomentSums(2), MomentSums(2)
    sums.add(exp_derivatives(score, gradient), skip=1)
    keep = torch.tensor([1, 2, 4, 5])
    expected.add(exp_derivatives(score[keep], gradient[keep]))
    assert all(torch.equal(a, b) for a, b in zip(sums.mean(), expected.mean(), strict=True))


def test_examples_that_get_no_further_samples_keep_their_moments() -> None:
    """As if each had been sampled on its own; also their jackknife."""
    generator = seeded()
    score, gradient = torch.randn(3, 9, generator=generator), torch.randn(3, 9, 2, 4, generator=generator)
    activation = torch.rand(3, 2, 4, generator=generator)

    def rows(examples: list[int], copies: range) -> Derivatives:
        return exp_derivatives(score[examples][:, copies].flatten(), gradient[examples][:, copies].flatten(0, 1))

    together = MomentSums(3, groups=5)
    together.add(rows([0, 1, 2], range(4)))
    together.add(rows([0, 2], range(4, 6)), examples=torch.tensor([0, 2]))
    together.add(rows([2], range(6, 9)), examples=torch.tensor([2]))
    assert together.copies.tolist() == [6, 4, 9]
    errors = standard_error(activation, together)
    for example, copies in enumerate((6, 4, 9)):
        alone = MomentSums(1, groups=5)
        alone.add(rows([example], range(copies)))
        for found, wanted in zip(together.mean(), alone.mean(), strict=True):
            assert torch.allclose(found[example], wanted[0], rtol=1e-5)
        wanted = standard_error(activation[[example]], alone)[0]
        assert torch.allclose(errors[example], wanted, rtol=1e-4) and wanted > 0


def test_a_gradient_of_zero_has_scale_zero_and_no_nan() -> None:
    unit, scale = unit_scaled(torch.zeros(2, 3))
    assert not unit.any() and not scale.any()
    sums = MomentSums(2)
    sums.add(exp_derivatives(torch.zeros(2), torch.zeros(2, 3, 4)))
    assert all(torch.isfinite(part).all() for part in sums.mean())


def test_small_gradients_of_float16_models_keep_their_cubes() -> None:
    """g^3 of 1e-3 underflows in float16; the alpha of g = 1e-3 and sum A = 1e4 is 1 / 12."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(2, 1, bias=False)).half()
    model[2].weight.data = torch.tensor([[1e-3, 0]]).half()
    x = torch.tensor([[[6000.0, 4000.0]]]).half()
    g = model[2].weight[0, 0].item()
    found = LayerGradCamPlusPlus(model, model[0]).attribute(x, 0)
    assert torch.allclose(found, g / (2 + g * 1e4) * x.float(), rtol=1e-6)


def test_gradients_of_1e_minus_30_are_not_0_by_0() -> None:
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    model[2].weight.data = torch.tensor([[1e-30, 1e-31]])
    found = LayerGradCamPlusPlus(model, model[0]).attribute(torch.ones(1, 1, 2), 0)
    assert torch.allclose(found, torch.full((1, 1, 2), 0.55e-30), rtol=1e-5, atol=0)
