"""The scripts of the cost page take turns and report medians of ratios; this is never a test of speed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import data_sets
import growth
import many_images
import memory
import pytest
import speed
import torch
from PIL import Image
from setting import Setting, model_and_images
from speed import EAGER_BARE, NOISE_TUNNEL, OURS, PLAIN, TORCHCAM, Timing, measure, methods, report
from tables import is_installed
from timing import BARE, ONE_BATCH, THREES, bare_runs, quicker, repeated
from torch import Tensor

from captum_sgcampp.bundled import draw_scene


def test_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    timing = Timing("net", "layer", {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 4.0]})
    assert timing.ratio("a", "b") == 2.0


def test_bare_inference_is_the_better_of_one_batch_and_batches_of_three() -> None:
    seen: list[int] = []
    for run in bare_runs(lambda x: seen.append(len(x)), torch.zeros(8, 1)).values():  # type: ignore[arg-type]
        run()
    assert seen == [8, 3, 3, 2]
    one, threes = f"{BARE}, {ONE_BATCH}", f"{BARE}, {THREES}"
    assert quicker({one: [1.0, 9.0, 3.0], threes: [2.0, 2.0, 8.0]}) == [2.0, 2.0, 8.0]
    assert quicker({one: [1.0, 9.0, 1.5], threes: [2.0, 2.0, 8.0]}) == [1.0, 9.0, 1.5]


@pytest.mark.parametrize("mode", ["float32", "channels_last"])
def test_everybody_gets_the_same_memory_format(mode: str) -> None:
    setting = Setting(nt_samples=2, size=32, mode=mode)
    model, images = model_and_images("resnet18", setting)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for name, run in methods(model, model.get_submodule("layer4"), images, setting).items():
        if name not in (NOISE_TUNNEL, TORCHCAM):  # they add noise first, which may change the format of the images
            run()
    for x in [*seen, repeated(images, 3, setting), *(p for p in model.parameters() if p.dim() == 4)]:
        assert x.is_contiguous(memory_format=setting.memory_format)


@pytest.mark.parametrize("mode, targets", [("float32", 1), ("channels_last", 1), ("bfloat16", 2)])
def test_every_contestant_is_timed_in_every_round(mode: str, targets: int) -> None:
    setting = Setting(nt_samples=2, size=64, rounds=2, mode=mode, targets=targets)
    timing = measure("resnet18", "layer4", setting)
    assert {BARE, OURS, PLAIN, NOISE_TUNNEL} <= set(timing.seconds)
    assert (TORCHCAM in timing.seconds) == (is_installed("torchcam") and mode != "bfloat16")
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timing.seconds.values())
    text = report([timing, timing], setting)
    assert "geometric mean" in text and f"{mode}, {targets} target(s)" in text


@pytest.mark.slow
def test_compiled_models_are_compared_with_compiled_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = partial(torch.compile, backend="eager")  # needs no compiler
    monkeypatch.setattr("torch.compile", lambda model, backend="eager": compiled(model, backend=backend))
    setting = Setting(nt_samples=2, size=64, rounds=1, mode="compiled_bfloat16")
    timing = measure("resnet18", "layer4", setting)
    bare = {f"{name}, {way}" for name in (BARE, EAGER_BARE) for way in (ONE_BATCH, THREES)}
    assert set(timing.seconds) == {BARE, EAGER_BARE, OURS, PLAIN} | bare
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
@pytest.mark.parametrize("mode", ["float32", "channels_last"])
def test_memory_is_measured_in_fresh_processes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RUNS", 1)
    monkeypatch.setattr(memory, "SAMPLES", (1,))
    row = memory.memory_report([("squeezenet1_1", "features.12")], Setting(size=64, mode=mode)).splitlines()[-1]
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


def test_a_run_and_a_bare_loop_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        Image.fromarray(draw_scene(number).image).save(tmp_path / f"{number}.png")
    options = ["--layer", "features.14", "--nt-samples", "2", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["data_sets.py", str(tmp_path), *options])
    threads = torch.get_num_threads()
    data_sets.main()
    torch.set_num_threads(threads)
    assert capsys.readouterr().out.count("ratio") == 2


@pytest.mark.slow
def test_growth_of_runs_is_measured_and_tells_errors(capsys: pytest.CaptureFixture[str]) -> None:
    many_images.main(["growth", "--images", "3"])
    count, milliseconds, peak, start = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert count == "3" and float(milliseconds) < 60_000 and 100 < float(peak) < 5000 and float(start) > 0.1
    with pytest.raises(RuntimeError, match=r"expected runs that end well, found exit codes \[[1-9]"):
        many_images.seconds([many_images.sys.executable, "-c", "raise SystemExit(3)"])
