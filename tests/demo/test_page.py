"""The page in a real browser: what a visitor does gives what Python gives, and nothing leaves the machine.

Every visit is checked at its end: its browser asked no other host, and had nothing to complain of.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from made_by_python import assert_python_gives
from PIL import Image
from visits import Opened, scene_file

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.visitor import NO_PICTURE

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


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
    one.holds("feature-maps", r"\d+ \d+")
    one.redraws(lambda: one.drags(0.03, 0.7))
    one.holds("neurons", "0:.*")
    one.chooses("compared", "ring")
    one.page.locator("#maps section").nth(1).wait_for()
    one.waits_for_status("8 noisy samples.")
    one.takes_samples(11)
    one.waits_for_status("11 noisy samples.")
    files = one.downloads(tmp_path / "downloads", count=3 + 2 * 3)

    manifest = assert_python_gives(files, one.value("link"), Networks(), path)
    assert manifest["neurons"] != "all" and len(manifest["feature_maps"]) == 2
    assert one.value("code") == files["explain.py"].read_text()


def test_more_samples_go_on_from_those_that_there_are(visit: Opened) -> None:
    one = visit()
    one.page.evaluate(
        """() => {
          window.values = [];
          const bars = () => document.querySelectorAll('#status progress');
          const note = () => bars().forEach(bar => window.values.push(bar.value));
          new MutationObserver(note).observe(document.querySelector('#status'), {childList: true, subtree: true});
        }"""
    )
    one.takes_samples(24)
    one.waits_for_status("24 noisy samples.")
    values = one.page.evaluate("window.values")
    assert values and min(values) >= 9 and max(values) <= 24


def test_a_pasted_image_is_explained(visit: Opened, tmp_path: Path) -> None:
    one = visit()
    one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    png = base64.b64encode(scene_file(tmp_path, 36).read_bytes()).decode()
    one.page.evaluate(
        """async png => {
          const bytes = Uint8Array.from(atob(png), letter => letter.charCodeAt(0));
          await navigator.clipboard.write([new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})})]);
        }""",
        png,
    )
    one.takes_the_picture_away()
    one.has("#maps figure", 0)
    one.page.locator("#image").get_by_label("Paste from clipboard").first.click()
    one.page.locator("#maps h3", has_text="star").wait_for()
    one.waits_for_status("8 noisy samples.")


def test_a_map_of_zeros_says_so_in_a_sentence(visit: Opened) -> None:
    one = visit("?target=3&methods=grad-cam%2B%2B&feature_maps=1&neurons=15,15", says="No method with noise is chosen.")
    one.says("Grad-CAM++, star: the map shows nothing, its values are all zero")
    one.reads("#maps figcaption", "Grad-CAM++ (zero everywhere)", number=1)


def test_a_link_brings_the_settings_back(visit: Opened) -> None:
    one = visit("?scene=2&target=3&compared=5&nt_samples=5&feature_maps=3+26&neurons=0:9,0:16&opacity=0.8&cmap=gray")
    one.holds("feature-maps", "3 26")
    one.holds("neurons", "0:9,0:16")
    assert "5 noisy samples." in one.status()
    one.has("#maps section", 2)
    one.reads("#maps h3", "ring", number=1)


def test_a_link_that_does_not_fit_says_so(visit: Opened) -> None:
    one = visit("?layer=/etc/passwd", says="The link does not fit: layer: expected one of the list")
    one.has("#maps figure", 4)


def test_the_keyboard_chooses_neurons_and_feature_maps(visit: Opened) -> None:
    one = visit()
    grid = one.page.locator("#grid .grid")
    grid.focus()
    for _ in range(5):
        grid.press("ArrowDown")
        grid.press("ArrowRight")
    one.redraws(lambda: grid.press(" "))
    one.holds("neurons", "5,5")
    one.redraws(lambda: one.page.keyboard.press("Escape"))
    one.holds("neurons", "")
    one.page.locator("#tiles button").first.focus()
    one.redraws(lambda: one.page.keyboard.press("Enter"))
    one.page.locator("#tiles button[aria-pressed=true]").first.wait_for()


def test_uploads_that_are_no_pictures_say_so_and_the_page_goes_on(visit: Opened, tmp_path: Path) -> None:
    one = visit()
    for name, data in hostile_files().items():
        path = tmp_path / name
        path.write_bytes(data)
        one.uploads(path)
        one.page.locator("#status .error").filter(has_not_text=NO_PICTURE).wait_for()
        said = one.status()
        assert "expected" in said and "found" in said and len(said) < 200, said
        assert str(tmp_path) not in said and "/captum-sgcampp-demo-" not in said
        one.has("#maps figure", 0)
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
        page.reads("#maps h3", name)
    one.redraws(lambda: one.page.locator("#tiles button").first.click())
    one.reads("#maps h3", "star")


def test_a_running_explanation_can_be_cancelled(visit: Opened) -> None:
    one = visit("?noise_level=0.2")
    one.takes_samples(64)
    one.page.locator("#status progress").wait_for()
    one.page.locator("#cancel").click()
    one.waits_for_status("Stopped")
    one.page.locator("#run").click()
    one.waits_for_status("64 noisy samples.")


def test_a_layer_that_is_chosen_while_another_one_runs_is_shown(visit: Opened) -> None:
    one = visit("?nt_samples=32", says="32 noisy samples.")
    one.chooses("layer", "features.12")
    one.chooses("layer", "features.9,")
    one.page.locator("#maps img[alt$='at features.9']").first.wait_for()
    one.waits_for_status("32 noisy samples.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_axe_finds_no_serious_fault_and_nothing_overflows(visit: Opened, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe needs the extra 'test'")
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
