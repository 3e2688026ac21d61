"""What is refused before Gradio sees it: ways in which a request could make the server ask another host."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NoReturn
from urllib.parse import unquote

from captum_sgcampp.demo.quiet_gradio import gradio

MOST_BODY_BYTES = 16 * 2**20
# Gradio would fetch these addresses itself.
_OF_OTHERS = re.compile(r"/proxy=|/file=\s*[a-z][a-z0-9+.-]*:/|/file/\s*[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class LocalOnly:
    """ASGI middleware that refuses addresses of other hosts, foreign pages and large requests.

    Args:
        app: that answers the others.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass it on."""
        code = _refusal(scope) if scope["type"] == "http" else 0
        if not code:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": code, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"refused"})


def _refusal(scope: Message) -> int:
    """The status of a refusal, or 0."""
    raw = scope.get("raw_path") or scope["path"].encode()
    if any(_OF_OTHERS.search(path) for path in (scope["path"], unquote(unquote(raw.decode("latin-1"))))):
        return 403
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    length = headers.get(b"content-length", "0")
    if not length.isdigit() or int(length) > MOST_BODY_BYTES:
        return 413
    return 403 if scope["method"] != "GET" and _is_foreign(headers) else 0


def _is_foreign(headers: dict[bytes, str]) -> bool:
    """Whether a page of another origin sent it. Behind a proxy, that tells the host."""
    origin = headers.get(b"origin")
    hosts = {headers.get(b"host"), headers.get(b"x-forwarded-host")}
    return origin is not None and origin.partition("://")[2] not in hosts


def forbid_downloads() -> None:
    """Gradio downloads what a request calls a file and gives an address for. Here it raises."""
    gradio.processing_utils.async_ssrf_protected_download = _refuse
    gradio.processing_utils.ssrf_protected_download = _refuse
    gradio.processing_utils.save_url_to_cache = _refuse


def _refuse(url: str, cache_dir: str) -> NoReturn:
    raise gradio.exceptions.InvalidPathError("expected an uploaded file, found an address")


def blocked_paths(cache: str) -> list[str]:
    """Folders that are never served: the home, the working folder and the system's, but where they hold the cache."""
    places = [os.path.expanduser("~"), os.getcwd(), "/etc", "/proc", "/sys", "/dev", "/root", "/home", "/var", "/usr"]
    inside = os.path.realpath(cache)
    return [place for place in dict.fromkeys(places) if not _holds(os.path.realpath(place), inside)]


def _holds(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder
