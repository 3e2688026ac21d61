"""Ray Data as the engine of a run, on real clusters of this machine whose nodes and drivers are killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captum_sgcampp import dataset
from captum_sgcampp.commands.main import main
from captum_sgcampp.storage.run_folder import OWN, existing_run

IMAGES, PER_PART, PATIENCE = 96, 8, 150  # seconds until a process counts as hanging

# `small=once@FILE` fails where the file exists, and makes it. `small=until@FILE` is slow, and each process stops at its
# 17th image until the file exists: however long the steps of Ray take, a run that is to be killed cannot end before.
FACTORY = """
import time
from pathlib import Path
import torch
from torch import nn
from torchvision.transforms.functional import to_tensor
from captum_sgcampp.vision.classifiers import Classifier

def small(argument=""):
    what, _, file = argument.partition("@")
    if what == "once":
        Path(file).touch(exist_ok=False)
    prepared = []
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4))

    def prepare(picture):
        prepared.append(picture)
        if what == "until":
            time.sleep(0.05)
            while len(prepared) > 16 and not Path(file).exists():
                time.sleep(0.05)
        return to_tensor(picture.convert("RGB"))[None]

    return Classifier("small", model.eval(), list("abcd"), prepare, lambda picture: picture, independent=False)
"""

PIPELINE = """
import sys
import ray
from captum_sgcampp.dataset import Attributor
from ray.data.checkpoint import CheckpointConfig

address, photos, factory, folder = sys.argv[1:]
ray.init(address, log_to_driver=False)
ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
    id_column="path", checkpoint_path=folder + "/checkpoint", delete_checkpoint_on_success=False
)
images = ray.data.read_images(photos, mode="RGB", include_paths=True, override_num_blocks=8, num_cpus=0.25)
images.map_batches(
    Attributor,
    fn_constructor_kwargs={"model_factory": factory, "nt_samples": 2},
    batch_size=8,
    batch_format="pyarrow",
    compute=ray.data.ActorPoolStrategy(size=1),
    num_cpus=0.25,
).write_parquet(folder + "/maps", ray_remote_args={"num_cpus": 0.25})
"""


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder with `photos`, `factory.py`, and `plain`: the run of one process without Ray."""
    with tempfile.TemporaryDirectory(prefix="sgcampp-") as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        generator = np.random.default_rng(0)
        for number in range(IMAGES):
            small = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((64, 64)).save(folder / "photos" / f"{number:02d}.png")
        (folder / "factory.py").write_text(FACTORY)
        plain_run(folder, folder / "plain")
        yield folder


def plain_run(work: Path, folder: Path) -> None:
    """Without Ray, in this process."""
    factory = f"{work / 'factory.py'}:small"
    options: dict[str, Any] = {"images_per_part": PER_PART, "threads": 1, "nt_samples": 2}
    dataset.attribute_dataset([work / "photos"], folder, model_factory=factory, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster with one node of 2 CPUs, to which a test may add others."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed")
    sessions = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets are short
    node = {"num_cpus": 2, "include_dashboard": False, "temp_dir": sessions}
    node["_system_config"] = {"health_check_period_ms": 1000}  # a dead node is noticed sooner
    started = utils.Cluster(initialize_head=True, head_node_args=node)
    yield started
    started.shutdown()
    shutil.rmtree(sessions, ignore_errors=True)


def command(work: Path, out: Path, *options: object, model: str = "small") -> list[str]:
    """The command of a run on Ray with a network of `FACTORY`."""
    factory = f"{work / 'factory.py'}:{model}"
    arguments = [work / "photos", "--out", out, "--model-factory", factory, "--nt-samples", 2, "--engine", "ray"]
    arguments += ["--images-per-part", PER_PART, "--threads", 1, *options]
    return [sys.executable, "-m", "captum_sgcampp", "attribute", *map(str, arguments)]


def finished(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE)


def killed_when(arguments: list[str], ready: Callable[[], bool], log: Path) -> None:
    """
    Runs a command, and kills it at a random moment soon after something is true.

    The commands wait for a file that is not there, so that they have work left then.
    """
    with log.open("w") as file, subprocess.Popen(arguments, stdout=file, stderr=file) as process:
        try:
            until(ready, process, log)
            time.sleep(random.random())
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL, log.read_text()


def until(ready: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, f"ended too early: {log.read_text()}"
        assert time.monotonic() < end, f"hangs: {log.read_text()}"
        time.sleep(0.02)


def parts(folder: Path) -> dict[str, bytes]:
    """The files of results, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def has_more_parts(folder: Path) -> Callable[[], bool]:
    before = len(parts(folder))
    return lambda: len(parts(folder)) > before


def assert_as_plain(work: Path, folder: Path) -> None:
    """The same files with the same bytes, every image once, and nothing left behind."""
    assert parts(folder) == parts(work / "plain")
    names = dataset.open(folder).table(["image"])["image"].to_pylist()
    assert names == [f"{number:02d}.png" for number in range(IMAGES)]
    assert not list((folder / OWN / "claims").iterdir())


@pytest.mark.slow
def test_a_killed_run_on_a_cluster_of_its_own_goes_on_and_says_little(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    folder = tmp_path / "maps"
    killed_when(
        command(work, folder, model=f"small=until@{tmp_path / 'go'}"), has_more_parts(folder), tmp_path / "log.txt"
    )
    assert set(parts(folder)) < set(parts(work / "plain"))
    done = finished(command(work, folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{IMAGES} rows in {folder}, 0 of them errors\n"
    noise = [line for line in done.stderr.splitlines() if " of 12 parts" not in line]
    assert len(noise) <= 1, noise  # Ray's C++ part says that it will say nothing
    assert_as_plain(work, folder)


@pytest.mark.slow
def test_a_plain_run_goes_on_where_the_driver_of_a_cluster_was_killed(work: Path, cluster: Any, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    started = command(work, folder, "--address", cluster.address, model=f"small=until@{tmp_path / 'go'}")
    killed_when(started, has_more_parts(folder), tmp_path / "log.txt")
    assert set(parts(folder)) < set(parts(work / "plain"))
    plain_run(work, folder)  # beside actors that may live for another moment
    assert_as_plain(work, folder)


@pytest.mark.slow
def test_ray_goes_on_with_a_plain_run_where_not_all_actors_fit(work: Path, cluster: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(work / "plain", tmp_path / "maps")
    for path in sorted(folder.glob("part-*"))[::2]:
        path.unlink()
    done = finished(command(work, folder, "--address", cluster.address, "--workers", 3))
    assert done.returncode == 0, done.stderr
    assert_as_plain(work, folder)


@pytest.mark.slow
def test_an_error_on_a_node_ends_the_run_and_finished_parts_stay(work: Path, cluster: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(work / "plain", tmp_path / "maps")
    next(folder.glob("part-000003*")).unlink()
    once = f"small=once@{tmp_path / 'once'}"  # the driver makes a model, actors cannot
    done = finished(command(work, folder, "--address", cluster.address, "--workers", 1, model=once))
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "error: --engine ray: part 3: ValueError: --model-factory: expected a model from small" in message
    assert "finished parts stay" in message and len(parts(folder)) == len(parts(work / "plain")) - 1


@pytest.mark.slow
def test_a_pipeline_of_ray_that_was_killed_has_the_rows_of_a_plain_run(
    work: Path, cluster: Any, tmp_path: Path
) -> None:
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    script, maps, go = tmp_path / "pipeline.py", tmp_path / "maps", tmp_path / "go"
    script.write_text(PIPELINE)
    factory = f"{work / 'factory.py'}:small=until@{go}"
    started = [sys.executable, str(script), cluster.address, str(work / "photos"), factory, str(tmp_path)]
    killed_when(started, lambda: bool(list(maps.glob("*.parquet"))), tmp_path / "log.txt")
    assert 0 < pq.read_table(maps).num_rows < IMAGES
    go.touch()
    done = finished(started)
    assert done.returncode == 0, done.stderr
    expected = dataset.open(work / "plain").table(["image", "map"]).to_pandas()
    files = list(map(str, maps.glob("*.parquet")))
    read = pandas.read_parquet(maps)
    others = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    for names, values in [(read["path"], read["map"]), (others["path"], others["map"])]:
        found = {Path(name).name: np.asarray(one, np.float32) for name, one in zip(names, values, strict=True)}
        assert len(names) == len(found) == IMAGES
        assert all(np.array_equal(found[name], one) for name, one in expected.itertuples(index=False))


@pytest.mark.slow
def test_a_node_killed_in_the_middle_is_replaced(work: Path, cluster: Any, tmp_path: Path) -> None:
    folder, log, go = tmp_path / "maps", tmp_path / "log.txt", tmp_path / "go"
    node = cluster.add_node(num_cpus=2)
    started = command(work, folder, "--address", cluster.address, "--workers", 4, model=f"small=until@{go}")
    with log.open("w") as file, subprocess.Popen(started, stdout=file, stderr=file) as process:
        try:
            until(lambda: works_at(folder, node), process, log)
            cluster.remove_node(node, allow_graceful=False)
            assert len(parts(folder)) < IMAGES // PER_PART
            go.touch()
            process.wait(PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()
    assert_as_plain(work, folder)


def works_at(folder: Path, node: Any) -> bool:
    """Whether the owner of a claim is an actor of that node: a child of its raylet."""
    raylet = node.all_processes["raylet"][0].process.pid
    for claim in (folder / OWN / "claims").glob("0*"):
        with suppress(OSError, ValueError):  # released meanwhile, or not yet written
            owner = json.loads(claim.read_text())["pid"]
            if f"PPid:\t{raylet}\n" in Path(f"/proc/{owner}/status").read_text():
                return True
    return False


@pytest.fixture(scope="module")
def engine() -> ModuleType:
    pytest.importorskip("ray.data", reason="ray is not installed")
    from captum_sgcampp.dataset import ray_engine

    return ray_engine


def made(engine: ModuleType, folder: Path, shared: str, **arguments: Any) -> str:
    """The error of an actor that is asked for the first part."""
    maker = engine.PartMaker(str(folder), shared, {"nt_samples": 2} | arguments)
    return str(maker({"part": np.array([0]), "wait": np.array([True])})["error"][0])


@pytest.mark.slow
def test_what_a_node_lacks_is_named(
    engine: ModuleType, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SEEN_WITHIN", 0)
    folder, factory = shutil.copytree(work / "plain", tmp_path / "maps"), f"{work / 'factory.py'}:small"
    elsewhere = shutil.copytree(folder, tmp_path / "of the same name")
    with engine._shared(folder) as shared:
        assert not made(engine, folder, shared, model_factory=factory)
        assert "--out: expected a folder that all nodes share" in made(engine, elsewhere, shared, model_factory=factory)
        assert "methods: expected ['smooth-grad-cam++']" in made(
            engine, folder, shared, model_factory=factory, methods=["grad-cam"]
        )
        photos = (work / "photos").rename(work / "away")
        try:
            assert f"SOURCE: expected {work / 'photos'} on all nodes" in made(
                engine, folder, shared, model_factory=factory
            )
        finally:
            photos.rename(work / "photos")


@pytest.mark.slow
def test_a_part_that_kills_its_process_is_given_up(engine: ModuleType, work: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(work / "plain", tmp_path / "maps")
    with engine._shared(folder) as shared:
        for _ in range(engine.MOST_DEATHS):
            (folder / OWN / shared / f"0-{random.random()}").touch()
        found = made(engine, folder, shared, model_factory=f"{work / 'factory.py'}:small")
        assert "RuntimeError: expected a process that makes it, found 3 that died" in found


@pytest.mark.parametrize(
    "nodes, threads, expected",
    [
        ([2], 1, (2, 0.9)),
        ([2], 2, (1, 1.8)),
        ([2], 8, (1, 1.8)),  # more than any node has
        ([0, 8, 4], 3, (3, 2.7)),
        ([0], 4, (1, 3.6)),  # a node that comes later
    ],
)
def test_as_many_actors_as_have_cpus_for_their_threads(
    engine: ModuleType, nodes: list[int], threads: int, expected: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in nodes]
    monkeypatch.setattr(engine.ray, "nodes", lambda: [*found, {"Alive": False, "Resources": {}}])
    count, resources = engine._room({}, threads)
    assert (count, resources["num_cpus"]) == (expected[0], pytest.approx(expected[1]))


def test_an_actor_for_every_gpu(engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": resources} for resources in ({"CPU": 4}, {"CPU": 8, "GPU": 2}, {"GPU": 1})]
    monkeypatch.setattr(engine.ray, "nodes", lambda: nodes)
    assert engine._room({"device": "cuda"}, 64) == (3, {"num_gpus": 1, "num_cpus": 0})
    monkeypatch.setattr(engine.ray, "nodes", lambda: nodes[:1])
    with pytest.raises(ValueError, match="--device: expected a GPU in the Ray cluster, found none"):
        engine._room({"device": "cuda"}, 64)


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "captum_sgcampp.dataset.ray_engine", raising=False)
    monkeypatch.delattr(dataset, "ray_engine", raising=False)
    assert main(["attribute", str(tmp_path), "--out", str(tmp_path / "maps"), "--engine", "ray"]) == 1
    assert "pip install '.[ray]' in a checkout" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        existing_run(tmp_path / "maps")
