"""One explanation at a time: threads and forked processes."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from calls import smooth
from networks import ConvNet, images


def test_two_threads_explain_with_one_model_and_a_third_runs_it_undisturbed() -> None:
    model, x = ConvNet(), images()
    wanted = {name: smooth(model, model.get_submodule(name), x, nt_samples=8) for name in ("relu1", "relu2")}
    plain = model(x).detach()
    stop = threading.Event()
    wrong: list[str] = []

    def explain(name: str) -> None:
        for _ in range(15):
            if not torch.equal(smooth(model, model.get_submodule(name), x, nt_samples=8), wanted[name]):
                wrong.append(name)

    def run() -> None:
        while not stop.is_set():
            output = model(x)
            if not torch.allclose(output, plain, atol=1e-6) or not output.requires_grad:
                wrong.append("run")
            gradient = torch.autograd.grad(output.sum(), model.conv1.weight)[0]
            if not gradient.any():
                wrong.append("gradient in front of the layer")

    runner = threading.Thread(target=run)
    explainers = [threading.Thread(target=explain, args=(name,)) for name in ("relu1", "relu2", "relu1")]
    runner.start()
    for thread in explainers:
        thread.start()
    for thread in explainers:
        thread.join()
    stop.set()
    runner.join()
    assert not wrong
    assert not model.relu1._forward_hooks and not model.relu2._forward_hooks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    from captum_sgcampp.model import model_access

    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with model_access._ONE_EXPLANATION:
            holding.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        free = model_access._ONE_EXPLANATION.acquire(timeout=5)
        os._exit(0 if free else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
