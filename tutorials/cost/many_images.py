"""Runs over thousands of small generated images: growth, two runners, and runs that are killed. Prints what it finds.

python many_images.py growth --images 1000,20000,100000
python many_images.py runners --images 4000
python many_images.py kills --images 20000 --kills 20 --workers 2
python many_images.py kills --images 20000 --kills 20 --engine ray
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from captum_sgcampp import dataset
from captum_sgcampp.vision.classifiers import Classifier

SIDE = 64


def small() -> Classifier:
    """Three convolutions and two linear layers, of random weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels_in, channels in ((3, 8), (8, 16), (16, 16)):
        layers += [nn.Conv2d(channels_in, channels, 3, 2, 1), nn.ReLU()]
    head = [nn.Flatten(), nn.Linear(16 * 64, 32), nn.ReLU(), nn.Linear(32, 4)]
    model = nn.Sequential(*layers, *head).eval()

    def prepare(picture: Image.Image) -> Tensor:
        return to_tensor(picture.resize((SIDE, SIDE)))[None]

    return Classifier(
        "small", model, list("abcd"), prepare, lambda picture: picture.resize((SIDE, SIDE)), independent=False
    )


def draw(folder: Path, count: int) -> None:
    """Blurred noise of 64 x 64, a file each."""
    generator = np.random.default_rng(0)
    for number in range(count):
        values = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def command(photos: Path, out: Path, *options: object) -> list[str]:
    """The run of one image after the other, one thread each."""
    factory = f"{Path(__file__).resolve()}:small"
    fixed = [photos, "--out", out, "--model-factory", factory, "--threads", 1, "--images-per-part", 128]
    return [sys.executable, "-m", "captum_sgcampp", "attribute", *map(str, (*fixed, *options))]


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def seconds(*runs: list[str]) -> float:
    """Until all of the commands, which begin together, have ended well."""
    begin = time.perf_counter()
    codes = [process.wait() for process in [started(run) for run in runs]]
    if any(codes):
        raise RuntimeError(f"expected runs that end well, found exit codes {codes}")
    return time.perf_counter() - begin


def growth(counts: Sequence[int]) -> Iterator[str]:
    """Milliseconds for an image, the peak of memory, and the seconds of a start that finds everything finished."""
    yield "| images | ms per image | peak memory, MiB | start of the finished run, s |\n| --- | --- | --- | --- |"
    for count in counts:
        with images(count) as folder:
            run = command(folder / "photos", folder / "maps", "--methods", "grad-cam++")
            process, begin, peak = started(run), time.perf_counter(), 0
            while process.poll() is None:
                peak = max(peak, _peak(process.pid))
                time.sleep(0.05)
            whole, again = time.perf_counter() - begin, seconds(run)
            yield f"| {count} | {1000 * (whole - again) / count:.2f} | {peak / 2**20:.0f} | {again:.1f} |"


def _peak(pid: int) -> int:
    """Bytes that a process has had at most (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def runners(count: int, rounds: int) -> Iterator[str]:
    """Images per second of two runners on one folder over those of one alone, with and without their starts."""
    with images(count) as folder:
        for number in range(rounds):
            out = [folder / f"maps-{number}-{name}" for name in ("one", "two")]
            run = [command(folder / "photos", path, "--nt-samples", 8) for path in out]
            one, two = seconds(run[0]), seconds(run[1], run[1])
            start = seconds(run[0])
            yield f"{one / two:.2f} with starts of {start:.1f} s, {(one - start) / (two - start):.2f} without"


def kills(count: int, times: int, *options: object) -> Iterator[str]:
    """Whether a run that was killed at random moments and then finished has the bytes of one that was not."""
    with images(count) as folder:
        plain, killed = folder / "plain", folder / "killed"
        whole = seconds(command(folder / "photos", plain, "--nt-samples", 2))
        run = command(folder / "photos", killed, "--nt-samples", 2, *options)
        parts = len(list(plain.glob("part-*")))
        for number in range(times):
            _kill_after(run, killed, parts * (number + 1) // (times + 1))
            yield f"kill {number + 1}: {len(list(killed.glob('part-*')))} of {parts} parts"
        yield f"finished in {seconds(run):.0f} s more (a plain run: {whole:.0f} s)"
        names = dataset.open(killed).table(["image"])["image"].to_pylist()
        once = len(names) == len(set(names)) == count
        same = _contents(plain) == _contents(killed)
        yield f"every image once: {once}; the same bytes as a plain run that was not killed: {same}"


def _kill_after(run: list[str], out: Path, parts: int) -> None:
    """SIGKILL at a random moment after so many parts are there."""
    process = started(run)
    while process.poll() is None and len(list(out.glob("part-*"))) < parts:
        time.sleep(0.02)
    time.sleep(random.random())
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError(f"expected a run that was killed, found one that had ended with {process.returncode}")


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


@contextmanager
def images(count: int) -> Iterator[Path]:
    """A folder with `photos` that goes afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "photos").mkdir()
        draw(folder / "photos", count)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was asked for, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("growth", "runners", "kills"))
    parser.add_argument("--images", default="1000", help="how many; for growth several, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--engine", choices=("plain", "ray"), default="plain")
    options = parser.parse_args(arguments)
    counts = [int(text) for text in options.images.split(",")]
    for line in {
        "growth": lambda: growth(counts),
        "runners": lambda: runners(counts[0], options.rounds),
        "kills": lambda: kills(counts[0], options.kills, "--workers", options.workers, "--engine", options.engine),
    }[options.what]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
