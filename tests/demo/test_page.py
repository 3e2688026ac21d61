"""The page in a real browser: what a visitor does gives what Python gives, and nothing leaves the machine."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from visits import Visit, one_thread

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.demo.downloads import save_picture
from captum_sgcampp.demo.explaining import complete, explanation, sampled
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.settings import settings_of
from captum_sgcampp.demo.visitor import Visitor

pytestmark = pytest.mark.slow
Opened = Callable[..., Visit]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene_file(folder: Path, seed: int, name: str = "shapes.png") -> Path:
    path = folder / name
    Image.fromarray(draw_scene(seed).image).save(path)
    return path


def downloaded(visit: Visit, folder: Path) -> dict[str, Path]:
    """All files of the page, by name."""
    page = visit.page
    if not page.locator("#prepare").is_visible():
        page.locator("#more button").first.click()
    page.locator("#prepare").click()
    visit.waits_for_status("The files are ready.")
    found = {}
    for number in range(page.locator("#files a").count()):
        with page.expect_download() as download:
            page.locator("#files a").nth(number).click()
        found[download.value.suggested_filename] = folder / download.value.suggested_filename
        download.value.save_as(found[download.value.suggested_filename])
    return found


def drag(visit: Visit, start: float, end: float) -> None:
    """From one corner to another, in shares of the picture's sides."""
    grid = visit.page.locator("#grid .grid")
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    visit.page.mouse.move(box["x"] + start * box["width"], box["y"] + start * box["height"])
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + end * box["width"], box["y"] + end * box["height"], steps=4)
    visit.page.mouse.up()


def test_a_visit_gives_the_files_that_python_gives(visit: Opened, tmp_path: Path) -> None:
    one = visit()
    path = scene_file(tmp_path, seed=42)
    one.redraws(lambda: one.uploads(path))
    one.waits_for_status("8 noisy samples.")
    one.redraws(lambda: one.chooses("layer", "features.12"))
    one.waits_for_status("8 noisy samples.")
    one.redraws(lambda: one.chooses("target", "star"))
    one.waits_for_status("8 noisy samples.")
    one.redraws(lambda: one.page.locator("#tiles button").nth(0).click())
    one.redraws(lambda: one.page.locator("#tiles button").nth(1).click())
    assert len(one.value("feature-maps").split()) == 2
    one.redraws(lambda: drag(one, 0.03, 0.7))
    assert one.value("neurons").startswith("0:")
    one.page.locator("#n input[type=number]").fill("11")
    one.page.locator("#n input[type=number]").press("Tab")
    one.waits_for_status("11 noisy samples.")
    files = downloaded(one, tmp_path)

    assert len(files) == 3 + 3 and not one.foreign() and not one.complaints
    assert_python_gives(files, one.value("link"), path, tmp_path)


def assert_python_gives(files: dict[str, Path], link: str, picture: Path, folder: Path) -> None:
    """The downloaded code makes the downloaded maps to the bit; the settings of the link make the picture."""
    code = files["explain.py"].rename(folder / "copied.py")
    subprocess.run([sys.executable, code], cwd=folder, env=one_thread(), check=True, capture_output=True)
    manifest = json.loads(files["manifest.json"].read_text())
    names = {"Grad-CAM": "grad-cam", "Grad-CAM++": "grad-cam++", "Smooth Grad-CAM++": "smooth-grad-cam++"}
    assert {entry["method"] for entry in manifest["maps"]} == set(names.values())
    for entry in manifest["maps"]:
        made = np.load(folder / f"{entry['method']}_{entry['target']}.npy")
        assert made.any() and np.array_equal(np.load(files[entry["file"]]), made), entry["method"]
    visitor, networks = Visitor(), Networks()
    visitor.show_file(picture)
    settings = complete(visitor, networks, settings_of(dict(parse_qsl(urlsplit(link).query))))
    list(sampled(visitor, networks, settings))
    save_picture(folder / "own.png", explanation(visitor, networks, settings))
    assert (folder / "own.png").read_bytes() == files["picture.png"].read_bytes()
    assert manifest["neurons"] != "all" and len(manifest["feature_maps"]) == 2


def test_a_link_brings_the_settings_back(visit: Opened) -> None:
    one = visit("?scene=2&target=3&compared=5&nt_samples=5&feature_maps=3+26&neurons=0:9,0:16&opacity=0.8&cmap=gray")
    assert one.value("feature-maps") == "3 26" and one.value("neurons") == "0:9,0:16"
    assert "5 noisy samples." in one.status() and one.page.locator("#maps section").count() == 2
    assert one.page.locator("#maps h3").nth(1).inner_text().startswith("ring")


def test_a_link_that_does_not_fit_says_so(visit: Opened) -> None:
    one = visit("?layer=/etc/passwd", says="The link does not fit: layer: expected one of the list")
    assert one.page.locator("#maps figure").count() == 4


def test_the_keyboard_chooses_neurons_and_feature_maps(visit: Opened) -> None:
    one = visit()
    grid = one.page.locator("#grid .grid")
    grid.focus()
    for _ in range(5):
        grid.press("ArrowDown")
        grid.press("ArrowRight")
    one.redraws(lambda: grid.press(" "))
    assert one.value("neurons") == "5,5"
    one.redraws(lambda: one.page.keyboard.press("Escape"))
    assert one.value("neurons") == ""
    one.page.locator("#tiles button").first.focus()
    one.redraws(lambda: one.page.keyboard.press("Enter"))
    assert one.page.locator("#tiles button").first.get_attribute("aria-pressed") == "true"


def test_uploads_that_are_no_pictures_say_so_and_the_page_goes_on(visit: Opened, tmp_path: Path) -> None:
    one = visit()
    for name, data in hostile_files().items():
        path = tmp_path / name
        path.write_bytes(data)
        one.uploads(path)
        one.page.locator("#status .error").wait_for()
        assert str(tmp_path) not in one.status() and "/captum-sgcampp-demo-" not in one.status()
        assert not one.page.locator("#maps figure").count()
        one.page.locator("#scenes button").first.click()
        one.page.locator("#maps figure").first.wait_for()
        one.waits_for_status("noisy samples.")


def hostile_files() -> dict[str, bytes]:
    """Broken, huge and false pictures."""
    buffer = io.BytesIO()
    Image.fromarray(draw_scene(1).image).save(buffer, "PNG")
    png = buffer.getvalue()
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    return {
        "cut.png": png[: len(png) // 2],
        "bomb.png": bomb.getvalue(),
        "text.png": b"hello",
        "empty.png": b"",
        "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "wrong.png": png[:20] + b"\xff" * 40 + png[60:],
    }


def test_two_visitors_never_see_each_others_pictures(visit: Opened, tmp_path: Path) -> None:
    one, other = visit(), visit("?scene=1")
    paths = scene_file(tmp_path, 36, "mine.png"), scene_file(tmp_path, 53, "yours.png")
    one.redraws(lambda: one.uploads(paths[0]))
    other.redraws(lambda: other.uploads(paths[1]))
    for page, name in ((one, "star"), (other, "ring")):
        page.waits_for_status("noisy samples.")
        assert page.page.locator("#maps h3").first.inner_text().startswith(name)
    one.redraws(lambda: one.page.locator("#tiles button").first.click())
    assert one.page.locator("#maps h3").first.inner_text().startswith("star")


def test_a_running_explanation_can_be_cancelled(visit: Opened) -> None:
    one = visit("?noise_level=0.2")
    one.page.locator("#n input[type=number]").fill("64")
    one.page.locator("#n input[type=number]").press("Tab")
    one.page.locator("#status progress").wait_for()
    one.page.locator("#cancel").click()
    one.waits_for_status("Stopped")
    one.page.locator("#run").click()
    one.waits_for_status("64 noisy samples.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_axe_finds_no_serious_fault_and_nothing_overflows(visit: Opened, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe needs the extra 'browser'")
    one = visit(width=width, scheme=scheme)
    one.page.locator("#more button").first.click()
    one.page.locator("#prepare").wait_for()
    found = axe.Axe().run(one.page).response["violations"]
    serious = [
        (v["id"], node["target"], node["html"][:200])
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
    assert not serious, serious
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    assert not one.complaints and not one.foreign()


def hostile_requests() -> list[tuple[str, str, Any, dict[str, str]]]:
    """Method, path, JSON body and headers."""
    files = [
        "/etc/passwd",
        "../../etc/passwd",
        "..%2f..%2fetc/passwd",
        "/proc/self/environ",
        "%2Fetc%2Fpasswd",
        "~/.bashrc",
    ]
    gets = [f"gradio_api/{kind}{file}" for kind in ("file=", "file/", "stream/") for file in files]
    gets += [
        f"{folder}/{file}" for folder in ("static", "assets", "svelte", "custom_component/1/x/y") for file in files
    ]
    gets += [f"gradio_api/{kind}http://127.0.0.1:1/x" for kind in ("proxy=", "file=", "file/")]
    gets += ["monitoring/summary", "gradio_api/vibe-code", "gradio_api/upload_progress?upload_id=../x"]
    payload = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    address = {
        "path": "http://127.0.0.1:1/x.png",
        "url": "http://127.0.0.1:1/x.png",
        "meta": {"_type": "gradio.FileData"},
    }
    posts = [
        ("gradio_api/queue/join", {"data": [value] * 15, "fn_index": number, "session_hash": f"hostile{number}"})
        for number in range(-1, 24)
        for value in (payload, address, None, {"__type__": "update"}, "x" * 50_000)
    ]
    posts += [
        (f"gradio_api/{kind}/{name}", {"data": [payload]})
        for kind in ("run", "call")
        for name in ("run", "opened", "0")
    ]
    posts += [("gradio_api/component_server", {"session_hash": "x", "component_id": 1, "fn_name": "ls", "data": "/"})]
    evil = {"origin": "https://evil.example"}
    return [
        *(("GET", path, None, {}) for path in gets),
        *(("POST", path, body, {}) for path, body in posts),
        *(("POST", path, body, evil) for path, body in posts[:10]),
    ]


def test_hostile_requests_read_no_file_and_stop_nothing(visit: Opened, address: str) -> None:
    requests = hostile_requests()
    assert len(requests) > 180
    for method, path, body, headers in requests:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            address + path, data, {"content-type": "application/json", **headers}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read(100_000)
        except urllib.error.HTTPError as error:
            text = error.read(100_000)
            assert "origin" not in headers or error.code == 403
        assert b"root:" not in text and b"PATH=" not in text, path
    one = visit()
    one.redraws(lambda: one.page.locator("#tiles button").first.click())
