"""Clips, volumes and signals are read as they were written, and what is none of them is refused by name."""

from __future__ import annotations

import pickle
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_sgcampp.vision.images import ImageError
from captum_sgcampp.vision.recording_pictures import map_affine, save_nifti
from captum_sgcampp.vision.recordings import Recording, kind_of, read_recording
from captum_sgcampp.visualization import upsampled


def write_wav(path: Path, samples: np.ndarray, width: int, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(b"".join(struct.pack("<i", int(x))[:width] for x in samples))


@pytest.mark.parametrize("width", [2, 3, 4])
def test_signals_of_every_width_go_from_minus_1_to_1(width: int, tmp_path: Path) -> None:
    half = 2 ** (8 * width - 2)
    write_wav(tmp_path / "x.wav", np.array([0, half, -half, -2 * half]), width)
    found = read_recording(tmp_path / "x.wav", "signal")
    assert found.rate == 8000 and found.values.tolist() == [[0, 0.5, -0.5, -1]]


def test_8_bits_have_no_sign_and_channels_are_apart(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.array([128, 0, 192, 64]), 1, channels=2)
    assert read_recording(tmp_path / "x.wav", "signal").values.tolist() == [[0, 0.5], [-1, -0.5]]


def test_frames_of_a_gif_and_their_rate(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), (20 * k, 0, 255 - 20 * k)) for k in range(5)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=200, loop=0)
    found = read_recording(tmp_path / "x.gif", "clip")
    assert found.rate == 5 and found.values.shape == (5, 4, 6, 3)
    assert np.abs(found.values[:, 0, 0].astype(int) - [[20 * k, 0, 255 - 20 * k] for k in range(5)]).max() <= 2


def test_a_volume_keeps_its_affine_and_its_map_lies_in_it(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[0, -2.0, 0, 90], [1.5, 0, 0, -10], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    values = np.random.default_rng(0).random((8, 6, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "x.nii.gz")
    found = read_recording(tmp_path / "x.nii.gz", "volume")
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_allclose(found.affine, affine)
    small = np.random.default_rng(1).random((4, 3, 1)).astype(np.float32)
    for name in ("map.nii.gz", "again.nii.gz"):
        save_nifti(tmp_path / name, small, found)
    assert (tmp_path / "map.nii.gz").read_bytes() == (tmp_path / "again.nii.gz").read_bytes()
    saved = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(np.asarray(saved.dataobj), small)
    corners = np.array([[-0.5, -0.5, -0.5, 1], [3.5, 2.5, 0.5, 1]]).T  # of the map's box, in its cells
    ends = np.array([[-0.5, -0.5, -0.5, 1], [7.5, 5.5, 3.5, 1]]).T  # of the volume's, in voxels
    np.testing.assert_allclose(saved.affine @ corners, affine @ ends, rtol=1e-6)


def test_cells_of_a_map_are_where_the_upsampling_puts_them() -> None:
    """A map that counts its cells, upsampled, has at every inner voxel the number that the affine gives it."""
    recording = Recording("volume", np.zeros((12, 5, 5)), affine=np.eye(4))
    ramp = upsampled(torch.arange(4.0)[:, None, None].expand(4, 5, 5), (12, 5, 5))
    to_cells = np.linalg.inv(map_affine((4, 5, 5), recording))
    expected = [(to_cells @ [voxel, 2, 2, 1])[0] for voxel in range(1, 11)]
    np.testing.assert_allclose(ramp[1:11, 2, 2], expected, atol=1e-6)


@pytest.mark.parametrize(
    "name, named, expected",
    [
        ("a.WAV", None, "signal"),
        ("a.nii.gz", None, "volume"),
        ("a.gif", None, "image"),
        ("a.gif", "clip", "clip"),
        ("a.npy", "signal", "signal"),
    ],
)
def test_the_kind_is_named_or_told_by_the_suffix(name: str, named: str | None, expected: str) -> None:
    assert kind_of(Path(name), named) == expected


def test_an_array_could_be_anything() -> None:
    with pytest.raises(ValueError, match=r"--kind: expected one of clip, volume, signal for a\.npy, found none"):
        kind_of(Path("a.npy"), None)


@pytest.mark.parametrize(
    "kind, values, message",
    [
        ("clip", np.zeros((3, 4, 5, 4)), r"expected a clip \(T, H, W\) or \(T, H, W, 3\), found shape \(3, 4, 5, 4\)"),
        ("volume", np.zeros((3, 4)), r"expected a volume \(D, H, W\)"),
        ("signal", np.zeros((2, 3, 4)), r"expected a signal \(L,\) or \(C, L\)"),
        ("signal", np.array([1, np.nan]), "expected finite values, found NaN or infinity"),
        ("signal", np.zeros((2, 0)), "expected 1 to 250000000 values, found 0"),
        ("volume", np.zeros((3, 4, 5), complex), "expected whole numbers or floats, found complex128"),
        ("signal", np.array(["a"], object), r"expected a complete \.npy file, found ValueError"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(kind: str, values: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", values, allow_pickle=True)
    with pytest.raises(ImageError, match=f"'x.npy': {message}"):
        read_recording(tmp_path / "x.npy", kind)


def test_a_header_that_claims_too_much_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(ImageError, match=r"'x\.npy': expected"):
        read_recording(tmp_path / "x.npy", "signal")


@pytest.mark.parametrize(
    "kind, name", [("signal", "x.wav"), ("clip", "x.gif"), ("volume", "x.nii"), ("volume", "x.nii.gz")]
)
@pytest.mark.parametrize("content", [b"", b"no such file", bytes(range(256)) * 8])
def test_damaged_files_are_refused_by_name(kind: str, name: str, content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"'{name}': expected a complete"):
        read_recording(tmp_path / name, kind)


def test_a_signal_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.arange(1000), 2)
    (tmp_path / "x.wav").write_bytes((tmp_path / "x.wav").read_bytes()[:-100])
    with pytest.raises(ImageError, match="expected a complete"):
        read_recording(tmp_path / "x.wav", "signal")


class Opened:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Opened(tmp_path / "touched")))
    with pytest.raises(ImageError, match="expected a complete"):
        read_recording(tmp_path / "x.npy", "signal")
    assert not (tmp_path / "touched").exists()


def test_missing_files_and_other_suffixes_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_recording(tmp_path / "x.wav", "signal")
    with pytest.raises(ImageError, match=r"expected a clip in a file \.npy or \.gif, found another name"):
        read_recording(tmp_path / "x.wav", "clip")
