"""Requests and files that mean harm: none reads a file, reaches another host, runs code or stops the page."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import pickle
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from PIL import Image
from served import visitors

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.demo.local_only import MOST_BODY_BYTES, REASONS

pytestmark = pytest.mark.slow
SECRET = "what nobody may read"
SECONDS = 60  # for an answer of a machine with much else to do
JSON = {"content-type": "application/json"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


@dataclass(frozen=True)
class Hostile:
    """A request.

    Attributes:
        path: as it stands in the first line.
        is_chunked: whether it tells no length.
    """

    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    is_chunked: bool = False


def post(path: str, body: bytes, **headers: str) -> Hostile:
    return Hostile(path, body, {name.replace("_", "-"): value for name, value in headers.items()} or JSON, "POST")


@pytest.fixture(scope="module")
def canary() -> Iterator[tuple[str, list[str]]]:
    """Another server of this machine, which the page must not ask: its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@dataclass(frozen=True)
class Served:
    """The page, and places that belong to the machine."""

    address: str
    pid: int
    log: Path
    temporary: Path
    secret: Path
    canary: str

    def answer(self, request: Hostile) -> tuple[int, bytes]:
        """Status and the first bytes; status 0 where the server hung up."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=SECONDS)
        try:
            connection.putrequest(request.method, request.path, skip_host="host" in request.headers)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            if request.is_chunked:
                connection.putheader("transfer-encoding", "chunked")
            elif request.body is not None and "content-length" not in request.headers:
                connection.putheader("content-length", str(len(request.body)))
            connection.endheaders()
            _send(connection, request)
            response = connection.getresponse()
            return response.status, response.read(200_000)
        except (ConnectionError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def is_well(self) -> bool:
        """Whether a good request gets its maps, nothing was read, and the log is short."""
        session = visitors().Session(self.address)
        shown = session.opens()
        session.leaves()
        log = self.log.read_text(errors="replace")
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
        return "<figure>" in shown["maps"]


def _send(connection: http.client.HTTPConnection, request: Hostile) -> None:
    if request.is_chunked:
        for start in range(0, len(request.body or b""), 2**20):
            part = (request.body or b"")[start : start + 2**20]
            connection.send(b"%x\r\n%s\r\n" % (len(part), part))
        connection.send(b"0\r\n\r\n")
    elif request.body is not None:
        connection.send(request.body)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, canary: tuple[str, list[str]]) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hostile")
    temporary, secret = folder / "temporary", folder / "secret.txt"
    temporary.mkdir()
    secret.write_text(SECRET)
    with visitors().server(folder / "log", TMPDIR=str(temporary)) as (address, pid):
        yield Served(address, pid, folder / "log", temporary, secret, canary[0])


def reads_of_files(secret: Path) -> list[Hostile]:
    """Paths outside the page, on every route that serves files."""
    up = "../" * 12
    names = [
        str(secret),
        f"/{secret}",
        up + str(secret)[1:],
        (up + str(secret)[1:]).replace("/", "%2f"),
        (up + str(secret)[1:]).replace("../", "%2e%2e/"),
        (up + str(secret)[1:]).replace("../", "....//"),
        (up + str(secret)[1:]).replace("/", "%5c"),
        f"{secret}%00.png",
        f"file://{secret}",
        "/etc/passwd",
        "/proc/self/environ",
    ]
    routes = (
        *("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/"),
        *("/gradio_api/stream/x/y/1/", "/gradio_api/custom_component/x/client/component/", "/?deep_link="),
    )
    return [Hostile(route + name) for route, name in product(routes, names)]


def requests_to_others(canary: str) -> list[Hostile]:
    """Addresses of another server, wherever Gradio takes one."""
    addresses = (f"http://{canary}/x.png", f"HTTP:%2F%2F{canary}%2Fx", f"//{canary}/x", f"http:/{canary}/x")
    routes = ("/gradio_api/proxy=", "/gradio_api/file=", "/gradio_api/file/", "/gradio_api/file=/tmp/../")
    gets = [Hostile(route + address) for route, address in product(routes, addresses)]
    named = [Hostile("/", headers={name: canary}) for name in ("x-forwarded-host", "x-forwarded-server", "forwarded")]
    return [*gets, *named, Hostile(f"http://{canary}/gradio_api/proxy=http://{canary}/x")]


def foreign_pages() -> list[Hostile]:
    """Sent by the page of another origin, or under another name of this address (DNS rebinding)."""
    join = json.dumps({"fn_index": 0, "data": [], "session_hash": "x"}).encode()
    routes = (JOIN, UPLOAD, "/gradio_api/run/cancelled", "/gradio_api/cancel", "/login")
    origins = ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example")
    hosts = ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "2130706433", "0.0.0.0", "")
    return [
        *(post(path, join, origin=origin, content_type="text/plain") for path, origin in product(routes, origins)),
        *(Hostile(path, headers={"host": host}) for path, host in product(("/", "/config"), hosts)),
        *(post(JOIN, join, host=host, content_type="application/json") for host in hosts),
        *(Hostile("/", method=method) for method in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT")),
    ]


def routes_of_gradio() -> list[Hostile]:
    """What Gradio answers besides, and the page never asks for."""
    gets = ["monitoring/x", "gradio_api/deep_link?session_hash=x", "gradio_api/dev/reload", "gradio_api/openapi.json"]
    gets += ["gradio_api/mcp/sse", "gradio_api/vibe-code", "docs", "openapi.json", "gradio_api/info?all_endpoints=1"]
    gets += [
        "pwa_icon/100000",
        "gradio_api/runs",
        "gradio_api/call/opened/x",
        "gradio_api/custom_component/x/client/a/b",
    ]
    posts = [
        "gradio_api/component_server",
        "gradio_api/call/opened",
        "gradio_api/call/v2/opened",
        "gradio_api/api/opened",
    ]
    posts += ["gradio_api/stream/x", "gradio_api/stream/x/close", "gradio_api/run-history/connect", "queue/join"]
    return [
        *(Hostile(f"/{path}") for path in gets),
        *(post(f"/{path}", b'{"data": [], "fn_name": "x"}') for path in posts),
    ]


def bodies() -> list[Hostile]:
    """Huge, cut and false bodies."""
    large = b"x" * (MOST_BODY_BYTES + 2**20)
    file = b'--x\r\ncontent-disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
    texts = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'{"data": NaN}', b"1e999"]
    texts += [b'{"data": [], "fn_index": 1e400, "session_hash": "x"}', b'{"data": {}, "fn_index": "x"}']
    texts += [b'{"data": [], "fn_index": 99999999999999999999, "session_hash": "x"}']
    texts += [b'{"data": [], "fn_index": -1, "session_hash": "x"}', b'{"data": [], "session_hash": "x"}']
    parts = [b"", b"--x", b"--x--", file[:60], file % (b"a", b""), file % (b"", b"a"), file % (b"../../../../x", b"a")]
    parts += [file % (b"a\0b.png", b"a"), file % (b"a" * 5000, b"a"), file % (b"/etc/cron.d/x", b"a"), b"--y\r\n\r\n"]
    parts += [file % (b"big.png", b"x" * (11 * 2**20)), file.replace(b"files", b"other") % (b"a", b"a")]
    parts += [
        b'--x\r\ncontent-disposition: form-data; name="files"\r\n\r\nno file\r\n--x--\r\n',
        file.replace(b"\r", b""),
    ]
    parts += [
        b"".join(b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(2000)) + b"--x--\r\n"
    ]
    return [
        *(post(path, text) for path, text in product((JOIN, "/gradio_api/run/cancelled", "/gradio_api/cancel"), texts)),
        *(post(UPLOAD, part, **{"content_type": MULTIPART["content-type"]}) for part in parts),
        *(post(path, b"a=1", content_type=kind) for path in (JOIN, UPLOAD) for kind in ("", "text/xml", "image/png")),
        post(UPLOAD, b"x", content_type="multipart/form-data"),
        post(UPLOAD, b"x", content_type="multipart/form-data; boundary=" + "y" * 5000),
        post(JOIN, gzip.compress(b"0" * 2**24), content_type="application/json", content_encoding="gzip"),
        *(Hostile(path, large, kind, "POST") for path, kind in ((JOIN, JSON), (UPLOAD, MULTIPART))),
        *(Hostile(path, large, kind, "POST", is_chunked=True) for path, kind in ((JOIN, JSON), (UPLOAD, MULTIPART))),
        *(Hostile(JOIN, b"{}", {**JSON, "content-length": size}, "POST") for size in ("1" * 30, "-1", "1e3")),
        Hostile("/", headers={"cookie": "x" * 100_000}),
        Hostile("/?" + "x" * 60_000),
    ]


def streams() -> list[Hostile]:
    """Streams of sessions that there are not, and web sockets."""
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade["sec-websocket-key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    names = ("x", "", "../x", "%00", "x" * 20_000, "%27%20OR%201=1")
    return [
        *(Hostile(f"/gradio_api/queue/data?session_hash={name}") for name in names),
        Hostile("/gradio_api/queue/data"),
        Hostile("/gradio_api/upload_progress?upload_id=../x"),
        *(
            post("/gradio_api/cancel", json.dumps(dict.fromkeys(("session_hash", "event_id"), name)).encode())
            for name in names
        ),
        *(
            Hostile(path, headers=upgrade)
            for path in ("/", "/queue/join", "/gradio_api/queue/join", "/gradio_api/queue/data")
        ),
    ]


def test_no_request_reads_a_file_or_reaches_another_host(page: Served, canary: tuple[str, list[str]]) -> None:
    requests = [*reads_of_files(page.secret), *requests_to_others(page.canary), *routes_of_gradio()]
    requests += [*foreign_pages(), *bodies(), *streams()]
    assert len(requests) > 250
    for request in requests:
        status, answer = page.answer(request)
        what = request.method, request.path[:100], (request.body or b"")[:100]
        assert SECRET.encode() not in answer and b"root:" not in answer and b"PATH=" not in answer, what
        assert status < 500 or answer.decode() in (*REASONS.values(), '{"error":null}'), (status, answer[:300], what)
    assert not canary[1] and page.is_well()
    assert not list(page.temporary.rglob("*cron*")) and sizes(page.temporary) < 20 * 2**20


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "request_", [*foreign_pages(), *routes_of_gradio()], ids=lambda one: f"{one.method} {one.path[:40]}"
)
def test_what_the_page_never_asks_for_is_refused(page: Served, request_: Hostile) -> None:
    status, _ = page.answer(request_)
    assert status in (0, 400, 403)


def test_large_bodies_are_refused_with_and_without_their_length(page: Served) -> None:
    for request in bodies():
        if len(request.body or b"") > MOST_BODY_BYTES:
            status, _ = page.answer(request)
            assert status in (0, 400, 413), request.path


def events_of_others(page: Served) -> list[tuple[tuple[str, str], list[Any], Any]]:
    """Element and event, values, and what a click says."""
    file = {"path": str(page.secret), "meta": {"_type": "gradio.FileData"}}
    address = f"http://{page.canary}/x.png"
    url = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
    inside = {"path": "x.png", "url": f"data:image/png;base64,{'A' * 100}", "meta": {"_type": "gradio.FileData"}}
    good = visitors().data_of(visitors().FIRST)
    uploads = [(("image", "input"), [*good, bad], None) for bad in (file, url, inside, "/etc/passwd", 3, [file], {})]
    changed = [
        *({"network": name} for name in ("resnet50", "../../x", "__class__", str(page.secret), file, url, None, 7)),
        *({"layer": name} for name in ("", "../x", "forward", file, [url], 10**400)),
        *({"nt_samples": n} for n in (-1, 0, 65, 10**9, 2.5, "NaN", "Infinity", None, [8], "8" * 5000)),
        *({"noise_level": level} for level in (-1, 0, 1e308, "nan", "-inf", {})),
        *({"seed": seed} for seed in (-1, 2**32, 2**200, "x")),
        *({"opacity": value} for value in (-1, 2, "nan", [])),
        *({"target": value} for value in (-1, 7, 10**20, "star", file)),
        *({"compared": value} for value in (-1, 10**20, "x", True)),
        *({"methods": value} for value in ([], ["x"], "grad-cam", [file], [["grad-cam"]], None)),
        *({"cmap": value} for value in ("../jet", "", file, 3)),
        *({"feature_maps": value} for value in ("-1", "9" * 5000, "a" * 300_000, file, "<script>alert(1)</script>")),
        *({"neurons": value} for value in ("0:9999,0:9999", "1,2,3", "9" * 300_000, [file], "${alert(1)}")),
    ]
    names = visitors().SETTINGS
    runs = [
        (("run", "click"), [None, *(one.get(name, value) for name, value in zip(names, good[1:], strict=True))], None)
        for one in changed
    ]
    clicks = [(("tiles", "pick"), good, {"number": number}) for number in (-1, 10**9, "x", None, [1], 1.5, True)]
    clicks += [
        (("grid", "pick"), good, {"box": box}) for box in ([-1, 2, 3, 4], [9, 1, 9, 1], [0, 10**9, 0, 1], "x", [1])
    ]
    wrong = [(("run", "click"), values, None) for values in ([], [None], [{}] * 100, [*good, file])]
    return [
        *uploads,
        *runs,
        *clicks,
        *wrong,
        (("cancel", "click"), [file], None),
        (("prepare", "click"), [file] * 14, None),
    ]


def test_no_event_reads_a_file_or_reaches_another_host(page: Served, canary: tuple[str, list[str]]) -> None:
    session = visitors().Session(page.address)
    session.opens()
    for does, values, click in events_of_others(page):
        try:
            shown = session.answer(*does, values, click)
        except ConnectionError:
            continue
        assert SECRET not in str(shown) and "<script" not in str(shown) and "${" not in str(shown), (does, values)
    session.leaves()
    assert not canary[1] and page.is_well()


class Marks:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bad_files(marked: Path) -> dict[str, bytes]:
    """No pictures, or such as are refused."""
    picture = Image.fromarray(draw_scene(1).image)
    png, jpeg, gif = (saved(picture, kind) for kind in ("PNG", "JPEG", "GIF"))
    size = struct.pack(">II", 60_000, 60_000)
    pickled = pickle.dumps(Marks(marked))
    inflated = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**24))
    return {
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[:300],
        "bomb.png": saved(Image.new("1", (30_000, 30_000)), "PNG"),
        "said-huge.png": png[:16] + size + png[24:],
        "said-huge.gif": gif[:6] + struct.pack("<HH", 60_000, 60_000) + gif[10:],
        "said-huge.jpg": said_huge_jpeg(jpeg),
        "pickle.png": pickled,
        "model.pt": pickled,
        "text.png": b"hello",
        "empty.png": b"",
        "script.html": b"<script>alert(1)</script>",
        "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "entity.svg": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
        "zip.png": b"PK\x03\x04" + b"\0" * 100,
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n",
        "inflated-text.png": png[:33] + inflated + png[33:],
        "wrong.png": png[:20] + b"\xff" * 40 + png[60:],
        "no-pixels.png": png[:16] + b"\0" * 8 + png[24:],
    }


def said_huge_jpeg(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]


def good_files() -> dict[str, bytes]:
    """Pictures of unusual kinds, which are explained."""
    picture = Image.fromarray(draw_scene(1).image)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "<script>alert(1)</script>"
    return {
        "cmyk.jpg": saved(picture.convert("CMYK"), "JPEG"),
        "16-bit.png": saved(Image.new("I;16", (200, 200), 40_000), "PNG"),
        "animated.gif": saved(picture, "GIF", save_all=True, append_images=[picture.rotate(90)] * 20),
        "turned.jpg": saved(picture, "JPEG", exif=exif),
        "broken-exif.jpg": saved(picture, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "transparent.png": saved(picture.convert("RGBA"), "PNG"),
        "palette.png": saved(picture.quantize(16), "PNG"),
        "thin.png": saved(Image.new("L", (1, 16_000)), "PNG"),
        "one.png": saved(picture.resize((1, 1)), "PNG"),
        "picture.webp": saved(picture, "WEBP"),
        "<img src=x onerror=alert(1)>.png": saved(picture, "PNG"),
    }


def test_hostile_files_are_refused_in_a_sentence(page: Served, tmp_path: Path) -> None:
    session = visitors().Session(page.address)
    session.opens()
    for name, data in bad_files(tmp_path / "marked").items():
        shown = session.uploads(data, visitors().FIRST, name)
        assert 'class="error"' in shown["status"] and not shown["maps"], name
        assert str(page.temporary) not in shown["status"], shown["status"]
    session.leaves()
    assert not (tmp_path / "marked").exists() and page.is_well()


def test_unusual_pictures_are_explained(page: Served) -> None:
    session = visitors().Session(page.address)
    session.opens()
    for name, data in good_files().items():
        shown = session.uploads(data, visitors().FIRST, name)
        assert 'class="error"' not in shown["status"], (name, shown["status"])
        assert "<script" not in str(shown) and "onerror=alert(1)>" not in shown["maps"], name
    session.leaves()
    assert page.is_well()


def test_many_streams_are_bounded_and_freed(page: Served) -> None:
    netloc = urlsplit(page.address)
    held = []
    for number in range(600):
        one = socket.create_connection((netloc.hostname, netloc.port), timeout=SECONDS)
        one.sendall(b"GET /gradio_api/heartbeat/x%d HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % number)
        held.append(one)
    codes = [one.recv(12)[-3:] for one in held]
    assert set(codes) == {b"200", b"503"}
    for one in held:
        one.close()
    assert page.is_well()
