"""On a CUDA device: the maps of the CPU, and what only such a device can show."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from networks import ConvNet, images

from captum_sgcampp import GuidedSmoothGradCamPlusPlus, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_both(x_dtype: torch.dtype = torch.float64) -> tuple[Any, Any, Any, Any]:
    net, x = ConvNet().to(x_dtype), images(3).to(x_dtype)
    return net, x, copy.deepcopy(net).cuda(), x.cuda()


@pytest.mark.parametrize("options", [{}, {"score": "sigmoid"}, {"score": "softmax"}, {"derivatives": "exact"}])
def test_grad_cam_plus_plus_is_that_of_the_cpu(options: dict[str, Any]) -> None:
    net, x, net_there, x_there = on_both()
    expected = LayerGradCamPlusPlus(net, net.relu1).attribute(x, [0, 1, 2], **options)
    found = LayerGradCamPlusPlus(net_there, net_there.relu1).attribute(x_there, [0, 1, 2], **options)
    assert found.device == x_there.device
    torch.testing.assert_close(found.cpu(), expected)


def test_smooth_map_does_not_depend_on_chunk_batch_and_memory_format() -> None:
    _, _, net, x = on_both()
    method = LayerSmoothGradCamPlusPlus(net, net.relu1)

    def explain(inputs: Any, **options: Any) -> Any:
        return method.attribute(inputs, 1, nt_samples=6, generator=torch.Generator().manual_seed(0), **options)

    whole = explain(x)
    torch.testing.assert_close(explain(x, nt_samples_batch_size=2), whole)
    torch.testing.assert_close(explain(x[:1]), whole[:1])
    torch.testing.assert_close(explain(x.to(memory_format=torch.channels_last)), whole)


def test_sampling_until_sure_several_targets_and_several_layers_run() -> None:
    _, _, net, x = on_both(torch.float32)
    method = LayerSmoothGradCamPlusPlus(net, [net.relu1, net.relu2])
    results = method.attribute_targets(x, [0, 1], nt_samples="auto", return_statistics=True)
    assert len(results) == 2
    for maps, statistics in results:
        assert all(m.is_cuda and torch.isfinite(m).all() for m in maps)
        assert all((s.nt_samples >= 4).all() for s in statistics)


def test_no_host_synchronisation_once_the_first_chunk_is_through() -> None:
    _, _, net, x = on_both(torch.float32)
    method, counted = LayerSmoothGradCamPlusPlus(net, net.relu1), []
    for copies in (4, 24):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning) as caught:
                method.attribute(x, 1, nt_samples=copies, nt_samples_batch_size=2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counted.append(sum("synchroniz" in str(warning.message) for warning in caught))
    assert counted[0] == counted[1], "copies and synchronisations grow together"


def test_default_chunk_is_halved_where_memory_runs_out() -> None:
    _, _, net, _ = on_both(torch.float32)
    x = torch.rand(1, 2, 8, 8, device="cuda")
    calls: list[int] = []

    def tight(rows: Any) -> Any:
        calls.append(len(rows))
        if len(rows) > 4:
            torch.empty(1 << 62, dtype=torch.uint8, device="cuda")
        return net(rows)

    with pytest.warns(UserWarning, match="nt_samples_batch_size"):
        LayerSmoothGradCamPlusPlus(tight, net.relu1).attribute(x, 1, nt_samples=8)
    assert calls[0] == 9 and max(calls[2:]) <= 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_map_of_float32(dtype: torch.dtype) -> None:
    _, _, net, x = on_both(torch.float32)
    method = LayerSmoothGradCamPlusPlus(net, net.relu1)
    expected = method.attribute(x, 1, nt_samples=8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cuda", dtype):
        found = method.attribute(x, 1, nt_samples=8, generator=torch.Generator().manual_seed(0))
    assert found.dtype == torch.float32
    assert (found / found.norm() - expected / expected.norm()).norm() < 0.05


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_model_gives_the_maps_of_the_eager_one(mode: str) -> None:
    _, _, net, x = on_both(torch.float32)

    def explain(model: Any, size: int) -> Any:
        return LayerSmoothGradCamPlusPlus(model, [net.relu1, net.pool]).attribute_targets(
            x, [0, 3], nt_samples=6, nt_samples_batch_size=size, generator=torch.Generator().manual_seed(0)
        )

    compiled = torch.compile(net, mode=mode)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="forward_func")
        for size in (2, 4, 2):
            torch.testing.assert_close(explain(compiled, size), explain(net, size), rtol=1e-3, atol=1e-5)


def test_guided_map_runs() -> None:
    _, _, net, x = on_both(torch.float32)
    assert GuidedSmoothGradCamPlusPlus(net, net.relu1).attribute(x, 1, nt_samples=4).is_cuda
