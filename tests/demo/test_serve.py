"""What the server refuses before a page sees it, and at which addresses it listens."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from captum_sgcampp.commands.main import main
from captum_sgcampp.demo import html, local_only
from captum_sgcampp.demo.local_only import MOST_BODY_BYTES, LocalOnly, blocked_paths
from captum_sgcampp.demo.picked import box_of, number_of
from captum_sgcampp.demo.quiet_gradio import complain
from captum_sgcampp.demo.quiet_gradio import gradio as gr

CACHE = "/tmp/captum-sgcampp-demo-x"


def run(answer: Coroutine[Any, Any, None]) -> None:
    """In a thread of its own: Playwright's loop runs in that of the tests, once a browser was started."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, answer).result()


def status(path: str, method: str = "GET", headers: dict[str, str] | None = None, body: Sequence[bytes] = ()) -> int:
    """What the middleware answers; 200 where it passes the request on."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    parts = list(body) or [b""]
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "path": path, "raw_path": path.encode(), "method": method, "headers": pairs}
    run(LocalOnly(app, CACHE)(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://example.com/x.png",
        "/gradio_api/file=HTTPS://example.com",
        "/gradio_api/file=http%3A%2F%2Fexample.com",
        "/gradio_api/file/http://example.com",
        "/gradio_api/proxy=https://x.hf.space/",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={CACHE}/../../etc/passwd",
        f"/gradio_api/file={CACHE}/..\\..\\x",
        "/static/../x",
        "/gradio_api/component_server",
        "/gradio_api/call/opened",
        "/gradio_api/run/x/y",
        "/monitoring/x",
        "/x",
    ],
)
def test_other_files_hosts_and_functions_are_refused(path: str) -> None:
    assert status(path) == 403


def test_own_addresses_pass() -> None:
    for path in ("/", "/theme.css", "/assets/x/y.js", f"/gradio_api/file={CACHE}/0a/my picture (1).png", "/login/"):
        assert status(path) == 200, path
    assert (
        status("/gradio_api/queue/join", "POST", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}) == 200
    )


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_other_origins_may_not_send(origin: str) -> None:
    assert status("/gradio_api/upload", "POST", {"host": "127.0.0.1:7860", "origin": origin}) == 403


def test_bodies_without_their_length_are_counted() -> None:
    half = b"x" * (MOST_BODY_BYTES // 2)
    assert status("/gradio_api/queue/join", "POST", body=[half, half]) == 200
    assert status("/gradio_api/queue/join", "POST", body=[half, half, b"x"]) == 413


def test_a_nearly_full_disk_takes_no_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_only, "LEAST_FREE_BYTES", 2**80)
    monkeypatch.setattr(local_only.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))
    assert status("/gradio_api/upload", "POST") == 507 and status("/gradio_api/queue/join", "POST") == 200


def test_what_fails_inside_is_an_answer_and_a_line_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    def answers(has_begun: bool) -> list[Any]:
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if has_begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            raise OSError("no such session\nforged line")

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
        run(LocalOnly(app, CACHE)(scope, None, send))  # type: ignore[arg-type]
        return sent

    assert [message.get("status") for message in answers(False)] == [500, None]
    assert [message.get("status") for message in answers(True)] == [200, None]
    assert capsys.readouterr().err == 2 * "a request failed: OSError: no such session\n"


def test_a_fault_of_this_package_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        html.text(None)  # type: ignore[arg-type]
    except Exception as error:
        complain(error)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("length", [str(MOST_BODY_BYTES + 1), "many"])
def test_large_requests_are_refused(length: str) -> None:
    assert status("/gradio_api/queue/join", "POST", {"content-length": length}) == 413


def test_the_cache_is_served_even_where_it_lies_in_a_blocked_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in blocked_paths("/elsewhere/cache")
    assert str(tmp_path) not in blocked_paths(str(tmp_path / "cache"))


@pytest.mark.parametrize("data", [None, {}, {"number": "1"}, {"number": True}, {"number": [1]}, {"number": -1}, []])
def test_clicks_may_hold_anything(data: Any) -> None:
    event = gr.EventData(None, data)
    with pytest.raises(ValueError, match="number: expected whole numbers"):
        number_of(event)
    with pytest.raises(ValueError, match="box: expected whole numbers"):
        box_of(event)


def test_a_box_and_a_number_are_read() -> None:
    event = gr.EventData(None, {"box": [1, 2, 3, 4], "number": 7})
    assert box_of(event) == (1, 2, 3, 4) and number_of(event) == 7


def test_an_open_address_needs_passwords(tmp_path: Path, capsys: Any) -> None:
    assert main(["demo", "--host", "0.0.0.0"]) == 2
    assert "--auth: expected a file of names and passwords, since others can reach 0.0.0.0" in capsys.readouterr().err
    users = tmp_path / "users"
    users.write_text("ada\n")
    assert main(["demo", "--host", "0.0.0.0", "--auth", str(users)]) == 2
    assert "--auth: expected lines of NAME:PASSWORD" in capsys.readouterr().err
