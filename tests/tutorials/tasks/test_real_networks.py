"""Maps of a real video network and a real volume network are the papers', and scores of theirs can be picked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from calls import received_rows, smooth
from reference import reference_map, relative_error
from tasks.assets import VARIABLE, load_network
from tasks.cuts import measure as cuts
from tasks.volumes import regions as volumes
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.scores import Contrast, OutputEntry

BOUND = 1e-9
SAMPLES = 2


@pytest.fixture(autouse=True)
def _in_float64(assets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also the histograms, which a network makes in the default type."""
    monkeypatch.setenv(VARIABLE, str(assets))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check_papers_maps(score: nn.Module, layer: nn.Module, x: Tensor, target: int) -> None:
    """The clean map and the smooth one are those of the loops."""
    plain = LayerGradCamPlusPlus(score, layer).attribute(x, target)
    assert relative_error(plain[0], reference_map(score, layer, (x,), [(x,)], target)) <= BOUND
    found, rows = received_rows(score, lambda: smooth(score, layer, x, target, nt_samples=SAMPLES))
    assert len(rows) == SAMPLES + 1 and torch.equal(rows[:1], x) and not torch.equal(rows[1], rows[2])
    samples = [(row[None],) for row in rows[1:]]
    assert relative_error(found[0], reference_map(score, layer, (x,), samples, target)) <= BOUND


class Video(NamedTuple):
    network: nn.Module
    frames: Tensor  # (1, 3, 2, 27, 48)


@pytest.fixture
def video(assets: Path) -> Video:
    """Two frames of the real clip, with a cut between them."""
    frames = np.load(assets / "samples" / "clip.npz")["frames"][39:41]
    return Video(
        load_network(cuts.NETWORK).double(), torch.from_numpy(frames).double().permute(3, 0, 1, 2)[None].contiguous()
    )


@pytest.mark.slow
@pytest.mark.parametrize("layer", cuts.LAYERS)
def test_maps_of_cuts_are_the_papers(video: Video, layer: str) -> None:
    """The network reads the first two blocks twice, and its histograms have no gradient."""
    check_papers_maps(video.network, video.network.get_submodule(layer), video.frames, 0)


@pytest.mark.parametrize("layer", volumes.LAYERS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_maps_of_regions_are_the_papers(layer: str, reduction: str) -> None:
    network = load_network(volumes.NETWORK).double()
    volume = volumes.scan()[..., 40:46, 30:36, 50:56].double()
    cube = torch.zeros(6, 6, 6, dtype=torch.bool)
    cube[2:5, 1:5, 2:6] = True
    regions = [volumes.Region(tissue, cube) for tissue in volumes.TISSUES]
    score = volumes.ManyRegionScores(network, regions, reduction)
    for target in range(len(regions)):
        check_papers_maps(score, network.get_submodule(layer), volume, target)


class TwoOutputs(nn.Module):
    """TransNet V2 as it was published: logits `(N, T, 1)`, and others in a dict."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.network(clips)
        return logits[..., None], {"many_hot": 2 * logits[..., None]}


def test_a_frame_of_one_of_several_outputs_is_picked(video: Video) -> None:
    layer, both = video.network.get_submodule("SDDCNN.2"), TwoOutputs(video.network)
    expected = LayerGradCamPlusPlus(video.network, layer).attribute(video.frames, 0)
    found = LayerGradCamPlusPlus(OutputEntry(both, 0), layer).attribute(video.frames, (0, 0))
    assert torch.equal(found, expected) and float(expected.abs().max()) > 0
    twice = LayerGradCamPlusPlus(lambda clips: 2 * video.network(clips), layer).attribute(video.frames, 0)
    many_hot = OutputEntry(OutputEntry(both, 1), "many_hot")
    assert torch.equal(LayerGradCamPlusPlus(many_hot, layer).attribute(video.frames, (0, 0)), twice)


def test_a_frame_is_contrasted_with_the_next(video: Video) -> None:
    layer = video.network.get_submodule("SDDCNN.2")
    found = LayerGradCamPlusPlus(Contrast(video.network, other=1), layer).attribute(video.frames, 0)

    def difference(clips: Tensor) -> Tensor:
        logits = video.network(clips)
        return logits[:, 0] - logits[:, 1]

    torch.testing.assert_close(found, LayerGradCamPlusPlus(difference, layer).attribute(video.frames))
