"""Joined clips change where they say, and the measures of their maps count what they say."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from tasks import assets
from tasks.cuts import measure, scenes
from torch import nn

from captum_sgcampp import LayerGradCamPlusPlus


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smooth pictures of colors that differ much, of several sizes."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(300, 256), (256, 400), (341, 256)]):
        color = np.eye(3)[number] * 150
        pixels = np.clip(color + rng.uniform(0, 60, (5, 5, 3)), 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(paths[-1])
    return paths


@pytest.mark.parametrize("half", [False, True])
def test_pixels_jump_at_the_cut_and_only_where_they_are_said_to(photographs: list[Path], half: bool) -> None:
    sides = set()
    for seed in range(8):
        clip = scenes.draw_clip(seed, photographs, half=half)
        jumps = np.abs(np.diff(clip.frames.astype(float), axis=0)).max(3)  # (FRAMES - 1, HEIGHT, WIDTH)
        assert jumps[clip.cut][clip.changed].min() > 60 > jumps[np.arange(len(jumps)) != clip.cut].max()
        assert half or clip.changed.all()
        if half:
            assert clip.changed.mean() == 0.5 and jumps[clip.cut][~clip.changed].max() < 60
            sides.add(bool(clip.changed[0, 0]))
    assert sides == ({False, True} if half else set())


def test_pans_move_in_every_clip_and_leave_frames_on_both_sides_of_the_cut(photographs: list[Path]) -> None:
    for seed in range(8):
        clip = scenes.draw_clip(seed, photographs)
        assert not np.array_equal(clip.frames[0], clip.frames[5])
        assert 7 <= clip.cut <= scenes.FRAMES - 9


def test_the_same_seed_joins_the_same_clip(photographs: list[Path]) -> None:
    first, again, other = (scenes.draw_clip(seed, photographs) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames) and not np.array_equal(first.frames, other.frames)


def test_frames_near_a_cut_by_hand() -> None:
    assert np.flatnonzero(scenes.near(5, 1)).tolist() == [5, 6]
    assert np.flatnonzero(scenes.near(5, 2)).tolist() == [4, 5, 6, 7]
    assert np.flatnonzero(scenes.near(0, 2, count=3)).tolist() == [0, 1, 2]


def found_shares(clip: scenes.CutClip, map_: torch.Tensor) -> dict[str, list[float]]:
    found: measure.Found = defaultdict(list)
    measure._add_shares(found, "layer", "method", clip, map_)
    return {what: values for (_, _, what), values in found.items()}


def test_shares_of_a_map_by_hand() -> None:
    shape = (scenes.FRAMES, scenes.HEIGHT, scenes.WIDTH)
    changed = np.zeros(shape[1:], np.bool_)
    changed[:, :24] = True
    clip = scenes.CutClip(np.zeros((*shape, 3), np.uint8), 10, changed)
    map_ = torch.zeros(shape)
    map_[11, 0, 0], map_[14, 0, 47], map_[0, 0, 0] = 5.0, 2.0, 1.0
    expected = {"close": 5 / 8, "wide": 7 / 8, "place": 6 / 8, "both": 5 / 7, "peak": 1.0}
    assert found_shares(clip, map_) == {what: [pytest.approx(value)] for what, value in expected.items()}
    assert found_shares(clip, 0 * map_) == {}


def test_a_uniform_map_has_the_share_of_the_frames(photographs: list[Path]) -> None:
    clip = scenes.draw_clip(0, photographs, half=True)
    shares = found_shares(clip, torch.ones(scenes.FRAMES, scenes.HEIGHT, scenes.WIDTH))
    assert shares["close"] == [pytest.approx(2 / scenes.FRAMES)] and shares["wide"] == [pytest.approx(8 / 24)]
    assert shares["place"] == shares["both"] == [pytest.approx(0.5)]


class SmallFinder(nn.Module):
    """Three blocks of which the later ones and the end read the earlier ones, as in TransNet V2."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 4, 5, 6)
        self.SDDCNN = nn.ModuleList(
            nn.Sequential(nn.Conv3d(a, b, 3, padding=1), nn.ReLU()) for a, b in itertools.pairwise(widths)
        )
        self.end = nn.Linear(sum(widths[1:]), 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        seen = [clips]
        for block in self.SDDCNN:
            seen.append(block(seen[-1]))
        means = torch.cat([maps.mean((3, 4)) for maps in seen[1:]], 1).transpose(1, 2)
        return self.end(means.tanh()).squeeze(2)


def test_maps_of_one_pass_are_those_of_the_public_classes() -> None:
    network, clips = SmallFinder().double().eval(), torch.rand(2, 3, 5, 4, 6, dtype=torch.float64)
    maps = measure.maps_of_one_pass(network, clips, 2)
    assert len(maps) == 9 and not network.SDDCNN[0]._forward_hooks
    for layer in measure.LAYERS:
        place = network.get_submodule(layer)
        ours = LayerGradCamPlusPlus(network, place)
        expected = {
            measure.GRAD_CAM: LayerGradCam(network, place).attribute(clips, 2, relu_attributions=True).detach(),
            measure.PLUS_PLUS: ours.attribute(clips, 2, relu_attributions=True),
            measure.TWO_SIDED: ours.attribute(clips, 2, relu_attributions=True, two_sided=True),
        }
        for name, map_ in expected.items():
            torch.testing.assert_close(maps[layer, name], map_)


@pytest.mark.parametrize("value", [None, "", "no such folder"])
def test_a_missing_folder_of_networks_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(assets.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(assets.VARIABLE, value)
    assert assets.assets_folder() is None
    with pytest.raises(RuntimeError, match=rf"^SGCAMPP_ASSETS: expected a folder .* found {value!r}"):
        assets.needed_folder()
