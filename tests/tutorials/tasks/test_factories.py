"""The networks for `explain` of clips, volumes and signals give what their files hold."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tasks.assets import VARIABLE
from tasks.clips.scenes import ACTIONS, draw_clip

from captum_sgcampp.commands.main import main

FACTORIES = Path(__file__).resolve().parents[3] / "tutorials" / "tasks" / "factories.py"


def explain(folder: Path, file: str, factory: str, layer: str, *options: str) -> int:
    arguments = ["explain", str(folder / file), "--model-factory", f"{FACTORIES}:{factory}", "--layer", layer]
    arguments += ["--nt-samples", "2", "--method", "smooth-grad-cam++", "--out", str(folder / "x.png"), *options]
    return main(arguments)


def test_the_action_of_a_drawn_clip_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = draw_clip(5)
    np.save(tmp_path / "clip.npy", clip.frames)
    assert explain(tmp_path, "clip.npy", "actions", "features.10", "--kind", "clip") == 0
    assert f"clip.npy: {ACTIONS[clip.action]}: " in capsys.readouterr().out
    assert Image.open(tmp_path / "x.gif").n_frames > 1


@pytest.mark.slow
def test_the_pitch_of_a_sound_is_named(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(assets))
    times = np.arange(2000) / 16000
    sound = sum(np.sin(2 * np.pi * 220 * k * times) / k for k in range(1, 6))
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((10000 * sound).astype("<i2").tobytes())
    assert explain(tmp_path, "sound.wav", "pitch", "conv4") == 0
    named = float(capsys.readouterr().out.split("sound.wav: ")[1].split(" Hz")[0])
    assert named == pytest.approx(220, rel=0.01) and (tmp_path / "x.png").is_file()


@pytest.mark.slow
def test_the_cut_of_the_real_clip_is_found(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(assets))
    np.save(tmp_path / "clip.npy", np.load(assets / "samples" / "clip.npz")["frames"][10:70])
    assert explain(tmp_path, "clip.npy", "cuts", "SDDCNN.2", "--kind", "clip") == 0
    named = int(capsys.readouterr().out.split("clip.npy: frame ")[1].split(":")[0])
    assert named + 10 in (39, 50)


@pytest.mark.slow
def test_a_scan_has_maps_of_its_size(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(assets))
    np.save(tmp_path / "scan.npy", np.load(assets / "samples" / "t1_crop96.npz")["t1"][30:46, 30:46, 30:46])
    assert explain(tmp_path, "scan.npy", "tissue", "network.15", "--kind", "volume", "--target", "white matter") == 0
    assert "network.15: 16 x 16 x 16" in capsys.readouterr().out
