"""Strips of frames and files that browsers play: frames, colors, times, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from captum_sgcampp.visualization import save_clip, show_clip
from captum_sgcampp.visualization.arrays import frames_from_0_to_1

JET = matplotlib.colormaps["jet"]


def clip(count: int = 8) -> np.ndarray[Any, Any]:
    """Frames `(T, 4, 6, 3)`, each brighter than the one before."""
    levels = np.linspace(0, 255, count * 4 * 6 * 3).astype(np.uint8)
    return levels.reshape(count, 4, 6, 3)


def moving_map(count: int = 8) -> torch.Tensor:
    """A map `(T, 4, 6)` whose value 1 moves to the right and becomes 2 in the last frame."""
    values = torch.zeros(count, 4, 6)
    for frame in range(count):
        values[frame, 1, frame % 6] = 1
    values[-1] *= 2
    return values


def mixed(frame: np.ndarray[Any, Any], share: float, alpha: float = 0.5) -> np.ndarray[Any, Any]:
    """The color over the gray of one pixel `(3,)`, from 0 to 255."""
    return 255 * (alpha * np.asarray(JET(share)[:3]) + (1 - alpha) * frame.mean() / 255)


def maps_of(figure: Figure) -> list[np.ndarray[Any, Any]]:
    panels = [axis.images[0].get_array() for axis in figure.axes[:-1]]
    return [np.asarray(panel) for panel in panels[len(panels) // 2 :]]


def test_a_strip_has_evenly_spaced_frames_above_their_maps() -> None:
    figure = show_clip(clip(16), moving_map(16), title="cost $5 and $6")
    panels = figure.axes[:-1]
    assert [axis.get_title() for axis in panels[:6]] == [f"frame {n}" for n in (0, 3, 6, 9, 12, 15)]
    assert len(panels) == 12 and figure.get_suptitle() == "cost $5 and $6"
    for axis, number in zip(panels, (0, 3, 6, 9, 12, 15), strict=False):
        np.testing.assert_allclose(axis.images[0].get_array(), clip(16)[number] / 255, atol=1e-6)  # type: ignore[arg-type]


def test_one_scale_of_colors_holds_for_the_whole_clip() -> None:
    first, last = maps_of(show_clip(clip(), moving_map(), shown=[0, 7], outlier_perc=0))
    np.testing.assert_allclose(first[1, 0], mixed(clip()[0, 1, 0], 0.5), atol=0.51)
    np.testing.assert_allclose(last[1, 1], mixed(clip()[7, 1, 1], 1.0), atol=0.51)
    np.testing.assert_allclose(last[3, 3], mixed(clip()[7, 3, 3], 0.0), atol=0.51)


def test_the_scale_does_not_depend_on_the_frames_shown() -> None:
    assert np.array_equal(
        maps_of(show_clip(clip(), moving_map(), shown=[0]))[0], maps_of(show_clip(clip(), moving_map(), shown=8))[0]
    )


def test_maps_are_upsampled_trilinearly_to_the_clip() -> None:
    small = torch.rand(1, 1, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, (8, 4, 6), mode="trilinear")
    for ours, expected in zip(maps_of(show_clip(clip(), small)), maps_of(show_clip(clip(), large)), strict=True):
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize(
    "frames",
    [
        torch.from_numpy(clip()).movedim(3, 0),
        torch.from_numpy(clip()).movedim(3, 0) / 255,
        clip() / 255,
        [Image.fromarray(frame) for frame in clip()],
        list(torch.from_numpy(clip()).permute(0, 3, 1, 2)),
    ],
    ids=["integers", "floats", "array", "images", "tensors"],
)
def test_forms_of_clips(frames: Any) -> None:
    np.testing.assert_allclose(frames_from_0_to_1(frames), clip() / 255, atol=1e-6)


@pytest.mark.parametrize(
    "frames", [clip()[..., 0], torch.from_numpy(clip()[..., 0]), torch.from_numpy(clip()[None, ..., 0])]
)
def test_forms_of_gray_clips(frames: Any) -> None:
    assert np.array_equal(frames_from_0_to_1(frames), (clip()[..., :1] / np.float32(255)).repeat(3, 3))


def test_frames_may_leave_their_range_by_rounding() -> None:
    frames = torch.tensor([-1e-7, 1 + 1e-6]).reshape(1, 2, 1, 1)
    assert np.array_equal(frames_from_0_to_1(frames)[:, 0, 0, 0], [0, 1])


def test_a_clip_of_one_frame_is_shown_and_saved(tmp_path: Path) -> None:
    figure = show_clip(clip(1), torch.rand(1, 1, 1, 2, 3))
    assert [axis.get_title() for axis in figure.axes[:-1]] == ["frame 0", ""]
    save_clip(tmp_path / "one.gif", clip(1), torch.rand(1, 1, 1, 2, 3))
    with Image.open(tmp_path / "one.gif") as file:
        assert getattr(file, "n_frames", 1) == 1


def test_a_map_without_positive_values_is_said_to_be_so() -> None:
    figure = show_clip(clip(), -torch.rand(2, 2, 2), shown=3)
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["all zero"] * 3
    panel = maps_of(figure)[0]
    assert np.array_equal(panel[..., 0], panel[..., 2])  # gray


def read(path: Path) -> tuple[list[np.ndarray[Any, Any]], list[int], int | None]:
    """Frames, milliseconds and how often the file says to repeat."""
    frames, durations = [], []
    with Image.open(path) as file:
        for number in range(file.n_frames):  # type: ignore[attr-defined]
            file.seek(number)
            durations.append(file.info["duration"])
            frames.append(np.asarray(file.convert("RGB")))
        return frames, durations, file.info.get("loop")


def test_the_file_has_the_frames_of_the_clip_and_repeats_forever(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip.gif", clip(), moving_map(), fps=8, outlier_perc=0)
    frames, durations, loop = read(tmp_path / "clip.gif")
    assert len(frames) == 8 and sum(durations) == 1000 and set(durations) <= {120, 130}
    assert loop == 0  # without end
    for number, (frame, panel) in enumerate(
        zip(frames, maps_of(show_clip(clip(), moving_map(), 8, outlier_perc=0)), strict=True)
    ):
        assert np.array_equal(frame, panel)
        share = 1.0 if number == 7 else 0.5
        np.testing.assert_allclose(frame[1, number % 6], mixed(clip()[number, 1, number % 6], share), atol=0.51)
    assert all((a != b).any() for a, b in pairwise(frames))


@pytest.mark.parametrize(("fps", "total"), [(30, 270), (24, 330), (50, 160), (3, 2670)])
def test_single_frames_are_rounded_so_that_the_clip_is_not(fps: float, total: int, tmp_path: Path) -> None:
    save_clip(tmp_path / "clip.gif", clip(), moving_map(), fps=fps)
    durations = read(tmp_path / "clip.gif")[1]
    assert sum(durations) == total and max(durations) - min(durations) <= 10 and min(durations) >= 20


def test_frames_that_are_alike_last_as_long_together(tmp_path: Path) -> None:
    still = clip(2).repeat(2, 0)
    save_clip(tmp_path / "clip.gif", still, torch.ones(1, 2, 2), fps=10)
    assert read(tmp_path / "clip.gif")[1] == [200, 200]


def test_pixels_are_enlarged(tmp_path: Path) -> None:
    for zoom in (1, 3):
        save_clip(tmp_path / f"{zoom}.gif", clip(), moving_map(), zoom=zoom)
    small, large = (read(tmp_path / f"{zoom}.gif")[0] for zoom in (1, 3))
    assert np.array_equal(np.stack(small).repeat(3, 1).repeat(3, 2), np.stack(large))


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.gif"
    save_clip(path, clip(), moving_map())
    before = path.read_bytes()

    def failing(self: Image.Image, file: Path, **options: Any) -> None:
        Path(file).write_bytes(b"GIF89a")
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(OSError, match="the disk is full"):
        save_clip(path, clip(3), moving_map(3))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["clip.gif"]


NAN = torch.full((2, 2, 2), float("nan"))


@pytest.mark.parametrize(
    ("frames", "maps", "options", "message"),
    [
        (clip()[0], moving_map(), {}, r"^frames: expected .*found ndarray of shape \(4, 6, 3\)"),
        (torch.rand(3, 4, 6), moving_map(), {}, r"^frames: expected .*found Tensor of shape \(3, 4, 6\)"),
        (torch.rand(8, 3, 4, 6), moving_map(), {}, r"^frames: expected .*found Tensor of shape \(8, 3, 4, 6\)"),
        (clip()[:0], moving_map(), {}, r"^frames: expected at least one frame"),
        ([], moving_map(), {}, r"^frames: expected .*found 0"),
        (255.0 * torch.rand(3, 8, 4, 6), moving_map(), {}, r"^frames: expected floats from 0 to 1 .*found floats"),
        (-torch.rand(3, 8, 4, 6), moving_map(), {}, r"^frames: expected floats from 0 to 1"),
        (torch.full((3, 8, 4, 6), float("nan")), moving_map(), {}, r"^frames: expected floats .*nan"),
        ([torch.rand(4, 4, 6)], moving_map(), {}, r"^frames: expected a gray or an RGB image, found"),
        ([clip()[0], clip()[0, :2]], moving_map(), {}, r"^frames: expected images of one size .*\(2, 6\), \(4, 6\)"),
        (clip(), torch.rand(4, 6), {}, r"^maps: expected one map of shape \(d, h, w\).*found \(4, 6\)"),
        (clip(), torch.rand(2, 1, 2, 2, 2), {}, r"^maps: expected one map .*found \(2, 1, 2, 2, 2\)"),
        (clip(), NAN, {}, r"^maps: expected finite values, found NaN"),
        (clip(), torch.rand(0, 2, 2), {}, r"^maps: expected values, found shape \(0, 2, 2\)"),
        (clip(), moving_map(), {"shown": [8]}, r"^shown: expected numbers of frames from 0 to 7, found \[8\]"),
        (clip(), moving_map(), {"shown": []}, r"^shown: expected .*found \[\]"),
        (clip(), moving_map(), {"shown": 0}, r"^shown: expected at least 1, found 0"),
        (clip(), moving_map(), {"alpha_overlay": 1.5}, r"^alpha_overlay: expected .*found 1.5"),
    ],
)
def test_what_cannot_be_shown_is_refused(frames: Any, maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        show_clip(frames, maps, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clip.mp4", {}, r"^path: expected .*\.gif, found 'clip.mp4'"),
        ("clip.gif", {"fps": 0}, r"^fps: expected .*found 0"),
        ("clip.gif", {"fps": 60}, r"^fps: expected 0.01 to 50, .*found 60"),
        ("clip.gif", {"zoom": 0}, r"^zoom: expected at least 1, found 0"),
    ],
)
def test_what_cannot_be_saved_is_refused(name: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_clip(tmp_path / name, clip(), moving_map(), **options)
    assert not list(tmp_path.iterdir())


def test_maps_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^maps: expected a tensor or an array, found list"):
        show_clip(clip(), [[[1.0]]])  # type: ignore[arg-type]


def test_a_product_in_the_clips_size_is_summed_over_its_channels() -> None:
    product = torch.randn(1, 3, *clip().shape[:3])
    found, expected = (maps_of(show_clip(clip(), values)) for values in (product, product.sum(1)))
    assert all(map(np.array_equal, found, expected))
