"""A run's parts made by Ray Data, on this machine or on a cluster.

Ray distributes the numbers of the missing parts. Its actors write them into the run's folder as any other runner does,
so a run can go on with another engine, and shares its folder with others. What is finished is known from that folder
alone, not from checkpoints of Ray. It must be on a file system that all nodes share.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_sgcampp.dataset.attributor import Attributor
from captum_sgcampp.dataset.one_part import readers, write_part
from captum_sgcampp.storage.run_folder import OWN, RunFolder, check_items, existing_run
from captum_sgcampp.storage.work import finish_part

try:
    import ray
    import ray.data
except ImportError as error:
    raise ImportError(
        f"--engine ray: expected Ray Data, found none ({error}); pip install '.[ray]' in a checkout"
    ) from error

MOST_DEATHS = 3  # processes that may die over one part, with their machine or for lack of memory
SEEN_WITHIN = 30.0  # seconds until a shared file system shows a new folder to all
STORE = 100 << 20  # bytes of Ray's object store, which holds numbers only
SHARE = 0.9  # of its CPUs that an actor books, so that something is left for small tasks

# No usage statistics, and no messages of Ray's C++ parts, which go to its log files anyway.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """In the block this process is connected to Ray. One that was connected before stays so.

    Args:
        address: of a cluster, as `ray.init` takes it. None: a new one on this machine, stopped afterwards.

    Raises:
        RuntimeError: no cluster there.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    new: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": STORE}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **new)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RuntimeError(f"--address: expected a Ray cluster at {address or 'local'}, found {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an `Attributor` of these arguments. Those with a GPU are found on a node that has one."""
    if not _on_gpu(arguments):
        return Attributor(**arguments).settings()
    _room(arguments, 1)
    try:
        found: dict[str, Any] = ray.get(ray.remote(num_gpus=1, num_cpus=0)(_settings).remote(_anywhere(arguments)))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return found


def work_on_cluster(
    run: RunFolder,
    arguments: Mapping[str, Any],
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Makes the missing parts of a run in actors of Ray Data.

    Args:
        run: opened. All nodes see its folder by the same path, and the sources too.
        arguments: of `Attributor`.
        workers: actors. None: one for each GPU, or as many as have CPUs for their threads.
        progress: called with the number of finished parts.

    Raises:
        ValueError: the device is a GPU and the cluster has none.
        RuntimeError: a part could not be made; the message says on which node and why. Finished parts stay.
    """
    check_items(run)
    room, resources = _room(arguments, run.settings["threads"])
    # Every part comes twice. What another runner works on is left alone at first, and waited for at the end.
    rows = [{"part": number, "wait": wait} for wait in (False, True) for number in run.parts.missing()]
    with _quiet(), _shared(run.folder) as shared:
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
        made = dataset.map_batches(
            PartMaker,
            batch_size=1,
            fn_constructor_args=(os.path.abspath(run.folder), shared, _anywhere(arguments)),
            compute=ray.data.ActorPoolStrategy(size=workers or room, max_tasks_in_flight_per_actor=1),
            **resources,
        )
        try:
            _follow(run, made.iter_rows(), progress)
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"--engine ray: expected a cluster that works, found {error}") from error


def _follow(run: RunFolder, made: Iterable[Mapping[str, Any]], progress: Callable[[int], object] | None) -> None:
    """Waits for the parts, and ends with the first one that fails."""
    reported = -1
    for row in made:
        if row["error"]:
            raise RuntimeError(
                f"--engine ray: part {row['part']}: {row['error']}; finished parts stay, the same command goes on"
            )
        finished = len(run.parts.finished())
        if progress is not None and finished > reported:
            progress(finished)
        reported = finished
    if missing := run.parts.missing():
        raise RuntimeError(f"--out: expected all parts, found none of number {missing[0]}; was it deleted?")


class PartMaker:
    """Makes the parts whose numbers it is given, in an actor. Errors are returned: raised ones would be tried again.

    Args:
        folder: of the run.
        shared: a folder in it that the driver has made, see `_shared`.
        arguments: of `Attributor`.
    """

    def __init__(self, folder: str, shared: str, arguments: Mapping[str, Any]) -> None:
        self._folder, self._arguments = Path(folder), arguments
        self._shared = self._folder / OWN / shared
        self._make: Callable[[int, bool], object] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """From columns `part` and `wait` to columns `part` and `error`, which is empty where all went well."""
        asked = zip(batch["part"].tolist(), batch["wait"].tolist(), strict=True)
        return {"part": batch["part"], "error": np.array([self._error(*one) for one in asked])}

    def _error(self, number: int, wait: bool) -> str:
        try:
            if self._make is None:
                _check_shared(self._shared)
                self._make = _maker(self._folder, self._arguments)
            with _attempt(self._shared, number):
                self._make(number, wait)
        except Exception as error:  # whatever the disk, the model and the user's code raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return f"{reason} (on node {socket.gethostname()})"
        return ""


def _maker(folder: Path, arguments: Mapping[str, Any]) -> Callable[[int, bool], object]:
    """The function that makes a part, for good settings of this node."""
    run = existing_run(folder)
    for source in run.settings["sources"]:
        if not os.path.exists(source):
            raise FileNotFoundError(f"SOURCE: expected {source} on all nodes, found none")
    attributor = Attributor(**arguments)
    run.check({**run.settings, **attributor.settings()})
    torch.set_num_threads(run.settings["threads"])
    write = partial(write_part, run, attributor, readers())
    return lambda number, wait: finish_part(number, run.parts, run.claims(), write, wait)


@contextmanager
def _shared(folder: Path) -> Iterator[str]:
    """The name of a new folder in a run's own. A node that does not see it has another folder of the same name."""
    path = folder / OWN / f".ray-{secrets.token_hex(8)}"
    path.mkdir()
    try:
        yield path.name
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _check_shared(shared: Path) -> None:
    until = time.monotonic() + SEEN_WITHIN
    while not shared.is_dir():
        if time.monotonic() > until:
            folder = shared.parents[1]
            raise OSError(f"--out: expected a folder that all nodes share, found none or another one at {folder}")
        time.sleep(0.2)


@contextmanager
def _attempt(shared: Path, number: int) -> Iterator[None]:
    """A file tells that this process has begun with a part. It stays only if the process dies.

    Raises:
        RuntimeError: too many did. Ray would try for ever.
    """
    deaths = len(list(shared.glob(f"{number}-*")))
    if deaths >= MOST_DEATHS:
        raise RuntimeError(f"expected a process that makes it, found {deaths} that died, often for lack of memory")
    mark = shared / f"{number}-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _room(arguments: Mapping[str, Any], threads: int) -> tuple[int, dict[str, Any]]:
    """How many actors fit into the cluster, and what each one books."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if _on_gpu(arguments):
        count = sum(int(node.get("GPU", 0)) for node in nodes)
        if not count:
            raise ValueError("--device: expected a GPU in the Ray cluster, found none")
        return count, {"num_gpus": 1, "num_cpus": 0}
    cpus = [node.get("CPU", 0) for node in nodes]
    # More than the largest node has would be waited for in vain.
    each = min(threads, max(cpus)) or threads
    return max(1, sum(int(own // each) for own in cpus)), {"num_cpus": SHARE * each}


def _on_gpu(arguments: Mapping[str, Any]) -> bool:
    return torch.device(arguments.get("device", "cpu")).type == "cuda"


def _settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return Attributor(**arguments).settings()


def _anywhere(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with absolute paths: actors have another working directory."""
    found = dict(arguments)
    if found.get("weights") is not None:
        found["weights"] = os.path.abspath(found["weights"])
    where, _, call = (found.get("model_factory") or "").rpartition(":")
    if where.endswith(".py"):
        found["model_factory"] = f"{os.path.abspath(where)}:{call}"
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """In the block Ray Data reports errors only."""
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
