"""Many visitors of the page at once: whether each gets the right maps, and what becomes of the server's memory.

`python visitors.py --visitors 20 --seconds 120`, in a checkout with the extra `demo`, on Linux. The server is started
on 127.0.0.1 with one thread, and told to stop at the end. The exit status is 1 if an answer is wrong or lost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import torch
from gradio_client.utils import apply_diff
from PIL import Image

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.demo import html
from captum_sgcampp.demo.changes import OUTPUTS, SETTINGS
from captum_sgcampp.demo.explaining import complete, explanation, sampled
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Visitor

WAIT_SECONDS = 120
FIRST = Settings(network="shapes", layer="features.12")  # an inner layer: its maps change with the noise


class Busy(Exception):
    """The server refused, since too many wait. Its text is what the server says."""


@dataclass(frozen=True)
class Question:
    """What a visitor does, and the right answer.

    Attributes:
        does: element and event, as `("run", "click")`.
        settings: complete.
        figures: the HTML of the maps.
    """

    does: tuple[str, str]
    settings: Settings
    figures: str


@dataclass
class Report:
    """What became of all questions.

    Attributes:
        right, wrong, lost, refused: their numbers.
        seconds: from each question to its answer.
    """

    right: int = 0
    wrong: int = 0
    lost: int = 0
    refused: int = 0
    seconds: list[float] = field(default_factory=list)


class Session:
    """One open page, without a browser.

    Args:
        address: of the page.

    Attributes:
        name: under which the server knows it.
    """

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=WAIT_SECONDS, trust_env=False, verify=False)
        self.name = uuid4().hex
        heartbeat = self._client.build_request("GET", f"gradio_api/heartbeat/{self.name}")
        self._heartbeat = self._client.send(heartbeat, stream=True)  # until the page is closed
        config = self._client.get("config").raise_for_status().json()
        names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self._functions = {
            (names.get(target, "page"), event): function["id"]
            for function in config["dependencies"]
            for target, event in function["targets"]
        }

    def opens(self) -> dict[str, Any]:
        """The page is opened."""
        return self.answer("page", "load", [])

    def uploads(self, picture: bytes, settings: Settings, name: str = "picture.png") -> dict[str, Any]:
        """A file is uploaded."""
        files = {"files": (name, picture, "image/png")}
        (path,) = self._client.post("gradio_api/upload", files=files).raise_for_status().json()
        file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        return self.answer("image", "input", [*data_of(settings), file])

    def answer(self, element: str, event: str, data: Sequence[Any], event_data: Any = None) -> dict[str, Any]:
        """What the page's components show after an event.

        Raises:
            Busy: too many wait.
            ConnectionError: no answer, or an error.
        """
        return self.answer_to(self.asks(element, event, data, event_data))

    def asks(self, element: str, event: str, data: Sequence[Any], event_data: Any = None) -> str:
        """Send an event, and give the name under which it waits."""
        body = {
            "fn_index": self._functions[element, event],
            "data": list(data),
            "event_data": event_data,
            "session_hash": self.name,
        }
        response = self._client.post("gradio_api/queue/join", json=body)
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise Busy(response.json()["detail"])
        name: str = response.raise_for_status().json()["event_id"]
        return name

    def answer_to(self, name: str) -> dict[str, Any]:
        """Read the stream until the event is answered."""
        shown: list[Any] = []
        for message in self._messages():
            if message.get("event_id") != name:
                continue
            if message["msg"] == "process_generating":
                new = message["output"]["data"]
                shown = [apply_diff(old, diff) for old, diff in zip(shown, new, strict=True)] if shown else new
            elif message["msg"] == "process_completed":
                if not message["success"]:
                    raise ConnectionError(f"error: {message['output']}")
                return _by_name(shown or message["output"]["data"])
        raise ConnectionError("the stream ended without an answer")

    def _messages(self) -> Iterator[dict[str, Any]]:
        with self._client.stream("GET", "gradio_api/queue/data", params={"session_hash": self.name}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def leaves(self) -> None:
        """The page is closed."""
        self._heartbeat.close()
        self._client.close()


def _by_name(shown: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(OUTPUTS, shown, strict=True))


def data_of(settings: Settings) -> list[Any]:
    """What the browser sends: nothing for the visitor, and all settings."""
    values = {**asdict(settings), "methods": list(settings.methods)}
    values["compared"] = "" if settings.compared is None else settings.compared
    return [None, *(values[name] for name in SETTINGS)]


def picture_of(number: int) -> Image.Image:
    """The picture that only this visitor has."""
    return Image.fromarray(draw_scene(100 + number).image)


def png_of(picture: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def questions_of(number: int, networks: Networks, count: int) -> list[Question]:
    """What this visitor asks, in turn, with the answers that Python gives."""
    torch.set_num_threads(1)
    visitor = Visitor()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        path.write_bytes(png_of(picture_of(number)))
        visitor.show_file(path)
    first = replace(FIRST, seed=number, nt_samples=2 + number % 3)
    rising = replace(first, nt_samples=first.nt_samples + 2)
    asked = [
        (("run", "click"), first),
        (("run", "click"), rising),
        (("opacity", "release"), replace(rising, opacity=0.25)),
        (("feature-maps", "submit"), replace(rising, feature_maps=f"{number} {number + 7}")),
        (("neurons", "submit"), replace(rising, neurons="2:12,3:14")),
        (("methods", "input"), replace(rising, methods=("grad-cam++", "guided-smooth-grad-cam++"))),
    ]
    return [_question(visitor, networks, does, settings) for does, settings in asked[:count]]


def _question(visitor: Visitor, networks: Networks, does: tuple[str, str], settings: Settings) -> Question:
    settings = complete(visitor, networks, settings)
    for _ in sampled(visitor, networks, settings):
        pass
    return Question(does, settings, html.figures(explanation(visitor, networks, settings)))


def visit(address: str, number: int, questions: Sequence[Question], end: float) -> Report:
    """Ask in turn until the time is over, at least once each."""
    session, report = Session(address), Report()
    session.opens()
    session.uploads(png_of(picture_of(number)), questions[0].settings)
    while time.monotonic() < end or report.right + report.wrong + report.lost < len(questions):
        for question in questions:
            _ask(session, question, report)
    session.leaves()
    return report


def _ask(session: Session, question: Question, report: Report) -> None:
    start = time.monotonic()
    try:
        shown = session.answer(*question.does, data_of(question.settings))
    except Busy:
        report.refused += 1
    except (ConnectionError, httpx.HTTPError) as error:
        report.lost += 1
        print(f"lost: {error!r}", file=sys.stderr)
    else:
        report.seconds.append(time.monotonic() - start)
        is_right = shown["maps"] == question.figures
        report.right += is_right
        report.wrong += not is_right


def visits(address: str, visitors: int, seconds: float, questions: int = 6) -> Report:
    """All visitors at once, each with so many questions."""
    networks = Networks()
    asked = [questions_of(number, networks, questions) for number in range(visitors)]
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(visitors) as pool:
        found = list(pool.map(lambda number: visit(address, number, asked[number], end), range(visitors)))
    total = Report()
    for one in found:
        for name in ("right", "wrong", "lost", "refused", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
    return total


def crowd(address: str, count: int) -> tuple[Report, set[str]]:
    """So many ask at the same time and wait. Those who are refused are told why.

    Returns:
        **report**, whose `right` counts answers, and the **sentences** of the refusals.
    """
    report, sentences = Report(), set()
    with ThreadPoolExecutor(count) as pool:
        sessions = list(pool.map(lambda _: Session(address), range(count)))
        for answer in pool.map(_opened_or_refused, sessions):
            if isinstance(answer, str):
                report.refused += 1
                sentences.add(answer)
            else:
                report.right += "<figure>" in answer["maps"]
                report.lost += "<figure>" not in answer["maps"]
    return report, sentences


def _opened_or_refused(session: Session) -> dict[str, Any] | str:
    try:
        return session.opens()
    except Busy as error:
        return str(error)
    finally:
        session.leaves()


@contextmanager
def server(log: Path | None = None, **environment: str) -> Iterator[tuple[str, int]]:
    """The page, served by the command: its address and process.

    Args:
        log: where to write what it prints. None: to the terminal.
        environment: its variables besides those of this process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "captum_sgcampp", "demo", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with open(os.devnull if log is None else log, "w") as lines:
        output = {} if log is None else {"stdout": lines, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=environment, **output)
        address = f"http://127.0.0.1:{port}/"
        try:
            _wait_for(address, process)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            httpx.get(address, trust_env=False)
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RuntimeError("the page did not start")


def memory(pid: int) -> float:
    """MiB of the process that are in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measured(visitors: int, seconds: float) -> dict[str, Any]:
    """Visits of a server, and its memory every second."""
    with server() as (address, pid), ThreadPoolExecutor(1) as pool:
        running = pool.submit(visits, address, visitors, seconds)
        started, used = time.monotonic(), []
        while not running.done():
            used.append((time.monotonic() - started, memory(pid)))
            time.sleep(1)
        report = running.result()
        beyond, sentences = crowd(address, 2 * visitors)
    times, mebibytes = np.array(used)[len(used) // 2 :].T
    return {
        "right": report.right,
        "wrong": report.wrong,
        "lost": report.lost,
        "refused": report.refused,
        "seconds per answer, median": round(float(np.median(report.seconds)), 3),
        "seconds per answer, 95 %": round(float(np.quantile(report.seconds, 0.95)), 3),
        "MiB at the start": round(used[0][1]),
        "MiB in the middle": round(mebibytes[0]),
        "MiB at the end": round(mebibytes[-1]),
        "MiB per minute, second half": round(60 * float(np.polyfit(times, mebibytes, 1)[0]), 1),
        f"of {2 * visitors} at once": {"answered": beyond.right, "refused": beyond.refused, "lost": beyond.lost},
        "refusals say": sorted(sentences),
    }


def main() -> int:
    """Print what was found, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    found = measured(arguments.visitors, arguments.seconds)
    print(json.dumps(found, indent=2))
    return int(bool(found["wrong"] or found["lost"]))


if __name__ == "__main__":
    sys.exit(main())
