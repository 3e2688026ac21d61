"""The benchmark runs its contestants in turn and reports medians of ratios; it is never a test of speed."""

from __future__ import annotations

import pytest

from captum_sgcampp.benchmark import BARE, OURS, Setting, Timing, measure, report
from captum_sgcampp.cli import main


def test_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    timing = Timing("net", "layer", {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 4.0]})
    assert timing.ratio("a", "b") == 2.0


@pytest.mark.parametrize("mode, targets", [("float32", 1), ("bfloat16", 2)])
def test_every_contestant_is_timed_in_every_round(mode: str, targets: int) -> None:
    setting = Setting(nt_samples=2, size=64, rounds=2, mode=mode, targets=targets)
    timing = measure("resnet18", "layer4", setting)
    assert {BARE, OURS, "Grad-CAM++", "captum NoiseTunnel(LayerGradCam)"} <= set(timing.seconds)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timing.seconds.values())
    text = report([timing, timing], setting)
    assert "geometric mean" in text and f"{mode}, {targets} target(s)" in text


def test_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["benchmark", "--network", "resnet18:layer4", "--size", "64", "--nt-samples", "1", "--rounds", "1"])
    out = capsys.readouterr().out
    assert status == 0 and "| resnet18 | layer4 |" in out and "torch " in out


@pytest.mark.parametrize(
    "arguments",
    [["--network", "resnet18"], ["--network", "nothing:layer4"], ["--rounds", "0"], ["--device", "quantum"]],
)
def test_mistakes_are_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    assert "expected" in capsys.readouterr().err
