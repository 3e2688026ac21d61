"""The page of other networks than the bundled one, behind a password, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from made_by_python import assert_python_gives
from page_server import served
from visits import Visit

from captum_sgcampp.demo.networks import Networks

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, bend, detaches):
        super().__init__()
        self.first, self.bend, self.detaches = nn.Sequential(nn.Conv2d(3, 6, 8, stride=16), nn.ReLU()), bend, detaches
        self.second, self.last = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x):
        maps = self.first(x)
        maps = self.second(self.bend(maps.detach() if self.detaches else maps))
        return self.last(maps.mean((2, 3)))

def made(bend, detaches=False):
    torch.manual_seed(1)
    return Net(bend, detaches)

def bent():
    return made(nn.GELU())

def detached():
    return made(nn.ReLU(), True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With code, weights and passwords."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets.py").write_text(FACTORY)
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "squeezenet.pt")
    (folder / "users").write_text("ada:secret\n")
    return folder


@pytest.fixture(scope="module")
def own_address(folder: Path) -> Iterator[str]:
    models = ["--model", "shapes", "squeezenet1_1=squeezenet.pt"]
    factories = ["--model-factory", "nets.py:bent", "nets.py:detached"]
    with served(folder, *models, *factories, "--auth", "users") as url:
        yield url


@pytest.fixture
def entered(own_address: str, browse: Callable[..., Visit]) -> Callable[[str], Visit]:
    """`entered("?network=bent")`: the page, after its password."""

    def opened(query: str) -> Visit:
        one = browse(own_address + query)
        logs_in(one, "secret")
        return one

    return opened


def logs_in(one: Visit, password: str) -> None:
    one.page.get_by_label("username", exact=False).fill("ada")
    one.page.get_by_label("password", exact=False).fill(password)
    one.page.get_by_role("button", name="Login").click()


def test_only_the_password_opens_the_page(own_address: str, browse: Callable[..., Visit]) -> None:
    one = browse(own_address)
    logs_in(one, "guess")
    one.page.get_by_text("Incorrect Credentials").first.wait_for()
    assert not one.page.locator("#maps").count()
    refused = [text for text in one.complaints if "400 (Bad Request)" in text]
    assert refused == one.complaints  # Chromium's word on the refused password
    one.complaints.clear()
    logs_in(one, "secret")
    one.waits_for_status("8 noisy samples.")


def test_a_torchvision_network_gives_the_files_that_python_gives(
    entered: Callable[[str], Visit], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entered("?scene=1&nt_samples=2")
    one.waits_for_status("2 noisy samples.")
    one.redraws(lambda: one.chooses("network", "squeezenet1_1"))
    one.waits_for_status("2 noisy samples.")
    one.redraws(lambda: one.chooses("layer", "features.10, 384 maps of 13 x 13"))
    one.waits_for_status("2 noisy samples.")
    files = one.downloads(tmp_path / "downloads", count=3 + 3)
    monkeypatch.chdir(folder)
    networks = Networks(["squeezenet1_1=squeezenet.pt"])
    assert_python_gives(files, one.value("link"), networks, beside=[folder / "squeezenet.pt"])


def test_a_closed_form_that_is_off_is_told(entered: Callable[[str], Visit]) -> None:
    one = entered("?network=bent&layer=first&nt_samples=2")
    one.says("After this layer the network is not piecewise linear")
    one.says("Choose second, or in Python take derivatives='exact'")
    one.redraws(lambda: one.chooses("layer", "second,"))
    one.waits_for_status("2 noisy samples.")
    one.has("#words li:has-text('piecewise')", 0)


def test_a_layer_that_is_refused_says_why_and_shows_no_old_map(entered: Callable[[str], Visit]) -> None:
    one = entered("?network=detached&nt_samples=2")
    one.waits_for_status("2 noisy samples.")
    one.chooses("layer", "first,")
    one.page.locator("#status .error", has_text="layer: expected a layer that the score depends on").wait_for()
    one.has("#maps figure", 0)
    one.chooses("layer", "second,")
    one.waits_for_status("2 noisy samples.")
    one.has("#maps figure", 4)
    one.page.get_by_label("Guided Grad-CAM++").check()
    one.page.locator("#status .error", has_text="a network that guided backpropagation goes through").wait_for()
