"""Several processes of one machine at work on a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

from captum_sgcampp.storage.parts import Parts

POLL = 0.5  # seconds between two looks at the finished parts


def work_in_processes(
    work: Callable[[], object], workers: int, parts: Parts, progress: Callable[[int], object] | None = None
) -> None:
    """Makes the parts of a run in several processes.

    Args:
        work: makes missing parts until all are there. It is pickled.
        workers: processes.
        parts: of the run.
        progress: called with the number of finished parts.

    Raises:
        RuntimeError: the processes ended before the run was finished. It can be started again.
    """
    spawn = multiprocessing.get_context("spawn")  # torch's threads and CUDA do not survive a fork
    processes = [spawn.Process(target=_work, args=(work,)) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(POLL)
            if progress is not None:
                progress(len(parts.finished()))
    finally:
        for process in processes:
            if process.pid is not None:  # one that cannot be started has none
                process.terminate()
                process.join()
    if parts.missing():
        codes = ", ".join(str(process.exitcode) for process in processes)
        raise RuntimeError(
            f"--workers: expected processes that finish the run, found exit codes {codes} (-9: killed, often for lack "
            "of memory); the same command goes on with what is missing"
        )


def _work(work: Callable[[], object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes. The first one ends the others
    _end_with_parent()
    work()


def _end_with_parent() -> None:
    """A killed parent cannot end its processes, so they watch it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
