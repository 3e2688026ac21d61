"""What reading, claims and Parquet cost: a run over a folder against a bare loop over `attribute`, in turns.

python data_sets.py FOLDER --model-factory my_models.py:load --layer features.9
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.dataset import Attributor, attribute_dataset

BATCH = 8


def main() -> None:
    """Print the seconds of both and the ratio of their images per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model-factory")
    parser.add_argument("--layer", required=True)
    parser.add_argument("--limit", type=int, default=32, help="images, in batches of 8")
    parser.add_argument("--nt-samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = sorted(path for path in arguments.folder.iterdir() if path.is_file())[: arguments.limit]
    options: dict[str, Any] = {"model_factory": arguments.model_factory, "layers": (arguments.layer,)}
    options |= {"nt_samples": arguments.nt_samples, "batch_size": BATCH}
    attributor = Attributor(**options)
    ratios = []
    for number in range(arguments.rounds + 1):
        bare = bare_loop(attributor, images, arguments)
        with tempfile.TemporaryDirectory() as folder:
            run = run_over_folder(images, Path(folder) / "maps", options)
        if number:  # the first round warms up
            ratios.append(bare / run)
            print(f"bare loop {bare:.2f} s, run {run:.2f} s, ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


def bare_loop(attributor: Attributor, images: list[Path], arguments: argparse.Namespace) -> float:
    """Seconds of `attribute` for images that are decoded and whose classes are known."""
    model = attributor.classifier.model
    prepared = [attributor.prepare(path.name, path).inputs for path in images]
    inputs = torch.cat([one for one in prepared if one is not None])
    with torch.no_grad():
        targets = model(inputs).argmax(1).tolist()
    method = LayerSmoothGradCamPlusPlus(model, model.get_submodule(arguments.layer))
    start = time.perf_counter()
    for first in range(0, len(inputs), BATCH):
        method.attribute(
            inputs[first : first + BATCH],
            targets[first : first + BATCH],
            relu_attributions=True,
            nt_samples=arguments.nt_samples,
            generator=Generator().manual_seed(0),
        )
    return time.perf_counter() - start


def run_over_folder(images: list[Path], out: Path, options: dict[str, Any]) -> float:
    """Seconds of a run, less those of a start that finds everything finished: the model is loaded once in a run."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        attribute_dataset(images, out, **options)
        seconds.append(time.perf_counter() - start)
    return seconds[0] - seconds[1]


if __name__ == "__main__":
    main()
