"""How far torchcam, grad-cam and Captum's NoiseTunnel are from the papers' formulas, on the same inputs and noise.

Writes README.md and pictures beside this file. Needs: pip install torchcam grad-cam

    python compare.py
    SGCAMPP_ASSETS=/path/to/assets python compare.py --trained
    python compare.py --model-factory my_models.py:load=mobilenet_v2 --layers features.18 --images photographs

A stopped run goes on with the same command: what is measured lies in the folder `--work`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import measuring
from page import Row, Settings, draw, page
from samples import Network, given_network, own_networks, trained_networks

HERE = Path(__file__).resolve().parent
ASSETS = "SGCAMPP_ASSETS"
CHECKED = 3  # pictures of a layer on which the transcriptions are compared with the packages themselves


def rows_of(network: Network, arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for each layer, picture and seed; those that are on file are not measured again."""
    path = arguments.work / f"{network.name}.jsonl"
    known = {_key(row): row for row in map(json.loads, path.read_text("utf-8").splitlines())} if path.exists() else {}
    for number, picture in enumerate(network.pictures):
        for layer in network.layers:
            for repeat in range(arguments.seeds):
                key = {"layer": layer, "picture": Path(picture).name, "repeat": repeat, **_noise(arguments)}
                if _key(key) not in known:
                    print(f"{network.name} {layer}: picture {number}, seed {repeat}", file=sys.stderr)
                    seed = crc32(f"{key['picture']} {repeat}".encode())  # each picture has noise of its own
                    case = network.case(layer, picture, seed=seed, **_noise(arguments))
                    checked = number < CHECKED and repeat == 0
                    found = measuring.compare(case, checked, slow=checked and number == 0)
                    row = {"network": network.name, **key, **found.numbers()}
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    known[_key(key)] = row
                yield known[_key(key)]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("layer", "picture", "repeat", "copies", "noise_level"))


def _noise(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"copies": arguments.nt_samples, "noise_level": arguments.noise_level}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--trained", action="store_true", help="also the trained networks of the folder that SGCAMPP_ASSETS names")
    add("--model-factory", action="append", default=[], metavar="WHERE:FUNCTION[=ARGUMENT]", help="a further network")
    add("--layers", action="append", nargs="+", default=[], metavar="NAME", help="its layers, once per network")
    add("--images", action="append", type=Path, default=[], metavar="FOLDER", help="photographs, once per network")
    add("--photographs", type=int, default=24, metavar="N", help="taken of each folder (default: 24)")
    add("--scenes", type=int, default=100, metavar="N", help="for the bundled network (default: 100)")
    add("--seeds", type=int, default=3, metavar="N", help="of the noise, for each picture (default: 3)")
    add("--description", default="", metavar="TEXT", help="what the page says of these networks, as 'ImageNet weights'")
    add("--nt-samples", type=int, default=8, metavar="N", help="noisy copies (default: 8)")
    add("--noise-level", type=float, default=0.15, metavar="F", help="sigma / range of the input (default: 0.15)")
    add("--work", type=Path, default=Path("build/side_by_side"), metavar="FOLDER", help="what is measured so far")
    add("--out", type=Path, default=HERE, metavar="FOLDER", help="where the page goes (default: beside the script)")
    arguments = parser.parse_args(argv)
    if not len(arguments.model_factory) == len(arguments.layers) == len(arguments.images):
        parser.error("--layers and --images: expected once for every --model-factory")
    if arguments.trained and not Path(os.environ.get(ASSETS, "nowhere"), "imagenet").is_dir():
        parser.error(f"--trained: expected {ASSETS} to name a folder of networks and photographs")
    arguments.description = f" with {arguments.description}" if arguments.description else ""
    return arguments


def networks(arguments: argparse.Namespace) -> Iterator[Network]:
    """The sections of the page."""
    yield from own_networks(arguments.scenes)
    if arguments.trained:
        yield from trained_networks(Path(os.environ[ASSETS]), arguments.photographs)
    for factory, layers, folder in zip(arguments.model_factory, arguments.layers, arguments.images, strict=True):
        yield given_network(factory, layers, folder, arguments.photographs, arguments.description)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw and write."""
    arguments = _arguments(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sections, rows = [], []
    for network in networks(arguments):
        rows += list(rows_of(network, arguments))
        sections.append(network)
    for network in sections:
        cases = [network.case(layer, network.shown, seed=0, **_noise(arguments)) for layer in network.layers]
        results = [measuring.compare(case, checked=False) for case in cases]
        draw(network, results).savefig(arguments.out / f"{network.name}.png", dpi=90)
    settings = Settings(arguments.nt_samples, arguments.noise_level, arguments.seeds, CHECKED)
    (arguments.out / "README.md").write_text(page(rows, sections, settings), "utf-8")


if __name__ == "__main__":
    main()
