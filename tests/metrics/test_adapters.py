"""The classes of this package where Quantus and Captum's metrics call them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from captum.metrics import infidelity, sensitivity_max
from networks import ConvNet, images
from torch import Tensor

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.metrics import as_input_attributions, image_maps, quantus_explanation


def test_gives_quantus_the_map_of_the_method() -> None:
    model, x, y = ConvNet(), images(3), np.array([0, 2, 4])
    found = quantus_explanation(model, x.numpy(), y, layer="relu2", method=LayerGradCam, relu_attributions=True)
    expected = LayerGradCam(model, model.relu2).attribute(x, torch.tensor(y), relu_attributions=True)
    assert found.shape == (3, 1, 8, 8) and found.dtype == np.float32
    assert np.allclose(found[:, 0], image_maps(expected, (8, 8)).numpy())


@pytest.mark.parametrize("metric", ["Sparseness", "MaxSensitivity", "MPRT", "PixelFlipping"])
def test_quantus_calls_it(metric: str) -> None:
    quantus = pytest.importorskip("quantus")
    options = {"MaxSensitivity": {"nr_samples": 2}, "PixelFlipping": {"features_in_step": 32}}.get(metric, {})
    measure = getattr(quantus, metric)(disable_warnings=True, **options)
    scores = measure(
        model=ConvNet(channels=3),
        x_batch=images(3, channels=3).numpy(),
        y_batch=np.array([0, 2, 4]),
        explain_func=quantus_explanation,
        explain_func_kwargs={"layer": "conv2", "method": LayerSmoothGradCamPlusPlus, "nt_samples": 2},
        device="cpu",
    )
    values = np.concatenate([np.ravel(v) for v in (scores.values() if isinstance(scores, dict) else scores)])
    assert values.size >= 3 and np.isfinite(values).all()


def test_sensitivity_max_is_zero_without_perturbation_and_not_with_one() -> None:
    model, x = ConvNet(), images(2)
    explain = as_input_attributions(LayerGradCamPlusPlus(model, model.relu2))
    still = sensitivity_max(explain, x, target=1, perturb_func=lambda inputs: inputs, n_perturb_samples=1)
    assert still.tolist() == [0, 0]
    moved = sensitivity_max(explain, x, target=1, perturb_radius=0.5, n_perturb_samples=3)
    assert (moved > 0).all()


def test_infidelity_takes_the_attributions_as_they_come() -> None:
    model, x = ConvNet(), images(2)
    attributions = as_input_attributions(LayerGradCamPlusPlus(model, model.relu2))(x, target=1)
    assert isinstance(attributions, tuple) and attributions[0].shape == x.shape
    assert torch.allclose(
        attributions[0].sum(1), image_maps(LayerGradCamPlusPlus(model, model.relu2).attribute(x, 1), (8, 8))
    )

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.full_like(inputs, 0.1)
        return noise, inputs - noise

    def half(inputs: Tensor) -> Tensor:
        return model(inputs)

    score = infidelity(half, perturb, x, attributions[0], target=1, n_perturb_samples=1)
    drop = (model(x) - model(x - 0.1))[:, 1]
    expected = (0.1 * attributions[0].sum((1, 2, 3)) - drop) ** 2
    assert torch.allclose(score, expected, atol=1e-5)


def test_several_inputs_are_refused() -> None:
    explain = as_input_attributions(LayerGradCamPlusPlus(ConvNet(), ConvNet().relu2))
    with pytest.raises(ValueError, match=r"^inputs: expected one tensor"):
        explain((images(), images()), target=1)
