"""What is refused before Gradio sees it: all that the page itself never asks for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NoReturn

from captum_sgcampp.demo.quiet_gradio import complain, gradio

MOST_BODY_BYTES = 16 * 2**20
MOST_REQUESTS = 512  # at the same time; an open page holds two
LEAST_FREE_BYTES = 2**30  # of the disk, for uploads
# What the scripts of the page ask for. Gradio answers more, some of it by asking another host.
_FOLDERS = r"/(assets|static|svelte)/.+"
_PAGES = r"/((theme\.css|favicon\.ico|manifest\.json|robots\.txt|config|login|logout)/?)?"
_CALLS = r"/gradio_api/(queue/(join|data)|upload|upload_progress|heartbeat/[^/]+|cancel|reset|run/\w+|app_id|user|token"
_CALLS += r"|login_check|startup-events|theme\.css)/?"
REASONS = {
    403: "Refused: the page itself asks for nothing like this.",
    413: f"Refused: expected a request of at most {MOST_BODY_BYTES / 2**20:g} MiB.",
    500: "This request cannot be answered.",
    503: "Too many requests at the same time. Please try again.",
    507: "The disk is nearly full. Please try again later.",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class TooLargeError(Exception):
    """A request that goes on after the bytes that are allowed."""


class LocalOnly:
    """ASGI middleware that refuses what the page never asks for, foreign pages, and large or too many requests.

    Args:
        app: that answers the others.
        cache: the folder from which files are served.
    """

    def __init__(self, app: App, cache: str) -> None:
        self._app, self._cache, self._open = app, cache, 0
        self._own = re.compile(rf"{_PAGES}|{_FOLDERS}|{_CALLS}|/gradio_api/file={re.escape(cache)}.+", re.DOTALL)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close"})
        elif code := self._refusal(scope):
            await _refuse(code, send)
        else:
            self._open += 1
            try:
                await self._pass_on(scope, receive, send)
            finally:
                self._open -= 1

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        """What goes wrong inside Gradio is a line in the log, and ends this answer only."""
        is_begun = False

        async def noting(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, _bounded(receive), noting)
        except Exception as error:
            if not isinstance(error, TooLargeError):
                complain(error)
            if is_begun:  # Gradio raises in the middle of a stream when it knows no such session
                await send({"type": "http.response.body", "body": b""})
            else:
                await _refuse(413 if isinstance(error, TooLargeError) else 500, send)

    def _refusal(self, scope: Message) -> int:
        """The status of a refusal, or 0."""
        if not self._own.fullmatch(scope["path"]) or ".." in scope["path"].replace("\\", "/").split("/"):
            return 403
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            return 413
        if scope["method"] not in ("GET", "HEAD", "OPTIONS", "POST") or _is_foreign(headers):
            return 403
        if scope["path"].rstrip("/").endswith("/upload") and shutil.disk_usage(self._cache).free < LEAST_FREE_BYTES:
            return 507
        return 503 if self._open >= MOST_REQUESTS else 0


async def _refuse(code: int, send: Send) -> None:
    start = {"type": "http.response.start", "status": code, "headers": [(b"content-type", b"text/plain")]}
    await send(start)
    await send({"type": "http.response.body", "body": REASONS[code].encode()})


def _bounded(receive: Receive) -> Receive:
    """Counts the bytes of a request that does not tell its length, or a wrong one."""
    left = MOST_BODY_BYTES

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise TooLargeError
        return message

    return bounded


def _is_foreign(headers: dict[bytes, str]) -> bool:
    """Whether a page of another origin sent it. Behind a proxy, that tells the host."""
    origin = headers.get(b"origin")
    hosts = {headers.get(b"host"), headers.get(b"x-forwarded-host")}
    return origin is not None and origin.partition("://")[2] not in hosts


def forbid_downloads() -> None:
    """Gradio downloads what a request calls a file and gives an address for. Here it raises."""
    gradio.processing_utils.async_ssrf_protected_download = _refuse_download
    gradio.processing_utils.ssrf_protected_download = _refuse_download
    gradio.processing_utils.save_url_to_cache = _refuse_download


def _refuse_download(url: str, cache_dir: str) -> NoReturn:
    raise gradio.exceptions.InvalidPathError("expected an uploaded file, found an address")


def blocked_paths(cache: str) -> list[str]:
    """Folders that are never served: the home, the working folder and the system's, but where they hold the cache."""
    places = [os.path.expanduser("~"), os.getcwd(), "/etc", "/proc", "/sys", "/dev", "/root", "/home", "/var", "/usr"]
    inside = os.path.realpath(cache)
    return [place for place in dict.fromkeys(places) if not _holds(os.path.realpath(place), inside)]


def _holds(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder
