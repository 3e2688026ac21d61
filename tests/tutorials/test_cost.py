"""The scripts of the cost page take turns and report medians of ratios; this is never a test of speed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import growth
import memory
import pytest
import speed
import torch
from setting import Setting
from speed import EAGER_BARE, OURS, Timing, measure, report
from timing import BARE


def test_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    timing = Timing("net", "layer", {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 4.0]})
    assert timing.ratio("a", "b") == 2.0


@pytest.mark.parametrize("mode, targets", [("float32", 1), ("channels_last", 1), ("bfloat16", 2)])
def test_every_contestant_is_timed_in_every_round(mode: str, targets: int) -> None:
    setting = Setting(nt_samples=2, size=64, rounds=2, mode=mode, targets=targets)
    timing = measure("resnet18", "layer4", setting)
    assert {BARE, OURS, "Grad-CAM++", "captum NoiseTunnel(LayerGradCam)"} <= set(timing.seconds)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timing.seconds.values())
    text = report([timing, timing], setting)
    assert "geometric mean" in text and f"{mode}, {targets} target(s)" in text


def test_compiled_models_are_compared_with_compiled_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = partial(torch.compile, backend="eager")  # needs no compiler
    monkeypatch.setattr("torch.compile", lambda model, backend="eager": compiled(model, backend=backend))
    setting = Setting(nt_samples=2, size=64, rounds=1, mode="compiled_bfloat16")
    timing = measure("resnet18", "layer4", setting)
    assert list(timing.seconds) == [BARE, EAGER_BARE, OURS, "Grad-CAM++"]
    assert "bare inference, not compiled" in report([timing], setting)


def test_speed_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--network", "resnet18:layer4", "--size", "64", "--nt-samples", "1", "--rounds", "1"])
    out = capsys.readouterr().out
    assert "| resnet18 | layer4 |" in out and "torch " in out


def test_growth_is_measured_along_every_axis(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for axis in growth.AXES:
        monkeypatch.setitem(growth.AXES, axis, (1, 2))
    case, plot = "resnet18:layer4,layer3", tmp_path / "growth.png"
    growth.main(["--network", case, "--size", "32", "--nt-samples", "1", "--rounds", "1", "--out", str(plot)])
    out = capsys.readouterr().out
    assert plot.stat().st_size > 5000
    assert all(f"| {axis} | seconds | / with 1 | / bare inference |" in out for axis in growth.AXES)
    assert out.count("\n| 2 | ") == len(growth.AXES)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_memory_is_measured_in_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RUNS", 1)
    monkeypatch.setattr(memory, "COPIES", (1,))
    row = memory.memory_report([("squeezenet1_1", "features.12")], Setting(size=64), threads=1).splitlines()[-1]
    assert all(0 < float(cell) < 2000 for cell in row.split("|")[3:5])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_timed() -> None:
    timing = measure("resnet18", "layer4", Setting(nt_samples=2, size=64, rounds=1, device="cuda", mode="bfloat16"))
    assert {BARE, OURS} <= set(timing.seconds)


@pytest.mark.parametrize(
    "arguments",
    [["--network", "resnet18"], ["--network", "nothing:layer4"], ["--rounds", "0"], ["--device", "quantum"]],
)
def test_mistakes_are_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        speed.main(arguments)
    assert f"{arguments[0]}: expected" in capsys.readouterr().err
