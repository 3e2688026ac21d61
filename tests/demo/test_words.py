"""What a page says of its maps, and when."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from torch import Tensor, nn

from captum_sgcampp.demo import html
from captum_sgcampp.demo.explaining import Explanation, complete, explanation, sampled
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Visitor
from captum_sgcampp.demo.words import sentences
from captum_sgcampp.vision.explained_classes import Subject
from captum_sgcampp.vision.explained_classes import explained as command_explained
from captum_sgcampp.vision.methods import Noise


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks()


def explained(networks: Networks, **changed: object) -> Explanation:
    visitor = Visitor()
    visitor.show_scene(0)
    settings = complete(visitor, networks, replace(Settings(target=3), **changed))  # type: ignore[arg-type]
    for _ in sampled(visitor, networks, settings):
        pass
    return explanation(visitor, networks, settings)


def test_samples_error_and_poles_are_told(networks: Networks) -> None:
    first = sentences(explained(networks))[0]
    assert first.startswith("Smooth Grad-CAM++, star: 8 samples, ") and "standard error" in first
    assert "effective sample size" in first and "poles" in first


def test_the_page_and_the_commands_say_the_same_of_the_same_statistics(networks: Networks) -> None:
    found = explained(networks, methods=("smooth-grad-cam++",), nt_samples=6, seed=2)
    layer, noise = found.layer.layer, Noise(6, found.settings.noise_level, seed=2)
    subject = Subject("", None, found.seen.inputs, 3, "")
    ((_, one),) = command_explained(
        found.network.classifier.model, [layer], "smooth-grad-cam++", [subject], noise
    ).items()
    said = sentences(found)[0].removeprefix("Smooth Grad-CAM++, star: ").removesuffix(".")
    assert said == one.note.partition(", ")[2]


def test_a_map_of_zeros_says_why(networks: Networks) -> None:
    corner = explained(networks, methods=("grad-cam++",), neurons="15,15", feature_maps="1")
    assert "Grad-CAM++, star: the map shows nothing, its values are all zero (no positive gradient)." in sentences(
        corner
    )
    assert "(zero everywhere)" in html.figures(corner)


def test_two_classes_have_a_row_each(networks: Networks) -> None:
    found = explained(networks, compared=0, methods=("grad-cam",))
    assert found.targets == (3, 0) and html.figures(found).count("<section>") == 2


def test_one_sample_knows_no_error(networks: Networks) -> None:
    assert "1 sample, standard error unknown" in sentences(explained(networks, nt_samples=1))[0]


def test_the_number_of_samples_can_choose_itself(networks: Networks) -> None:
    found = explained(networks, auto=True)
    assert 4 <= found.kept[0].count <= 64


def test_changes_that_need_no_network_do_not_run_it(networks: Networks) -> None:
    visitor = Visitor()
    visitor.show_scene(0)
    settings = complete(visitor, networks, Settings(target=3))
    for _ in sampled(visitor, networks, settings):
        pass
    passes = []
    model = networks["shapes"].classifier.model
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    for changed in ({"feature_maps": "3"}, {"neurons": "2,3"}, {"cmap": "gray"}, {"methods": ("guided-grad-cam++",)}):
        explanation(visitor, networks, replace(settings, **changed))  # type: ignore[arg-type]
    assert not passes
    list(sampled(visitor, networks, replace(settings, nt_samples=10)))
    hook.remove()
    assert len(passes) == 2  # the ninth and tenth sample


def test_names_are_no_markup() -> None:
    assert html.text("<b>${x}{{y}}\x1b") == "&lt;b&gt;&#36;&#123;x}&#123;&#123;y}}\\x1b"


@pytest.mark.parametrize("end", [nn.ReLU(), nn.GELU(), nn.Sequential(nn.ReLU(), nn.Softplus())])
def test_a_closed_form_that_is_off_is_told_with_a_layer_where_it_is_not(
    end: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ending", lambda: Ending(end), raising=False)
    networks = Networks([], [f"{__name__}:ending"])
    is_off = not isinstance(end, nn.ReLU)
    for layer, off in (("first", is_off), ("end", False)):
        found = explained(networks, layer=layer, methods=("grad-cam++",))
        advice = [line for line in sentences(found) if "not piecewise linear" in line]
        assert len(advice) == off
        assert not off or ("Choose end, or in Python take derivatives='exact'" in advice[0])
    assert not any("piecewise" in line for line in sentences(explained(networks, layer="first", methods=("grad-cam",))))


def test_without_a_better_layer_the_advice_is_exact_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ending", lambda: Ending(nn.Identity(), nn.Tanh()), raising=False)
    found = explained(Networks([], [f"{__name__}:ending"]), layer="first", methods=("grad-cam++",))
    assert any(". In Python take derivatives='exact'" in line for line in sentences(found))


@pytest.mark.parametrize("end", [nn.ReLU(), nn.Tanh()])
def test_a_layer_after_a_relu_is_advised_only_where_there_is_one(
    end: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ending", lambda: Ending(end), raising=False)
    said = sentences(explained(Networks([], [f"{__name__}:ending"]), layer="first", methods=("grad-cam++",)))
    (signs,) = [line for line in said if "both signs" in line]
    assert signs.endswith("A layer after a ReLU has none.") == isinstance(end, nn.ReLU)


class Ending(nn.Module):
    """Two convolutions, and what is given between them and the scores."""

    def __init__(self, end: nn.Module, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.end = nn.Conv2d(3, 4, 3, stride=16), end
        self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000), last or nn.Identity())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.end(self.first(x)))
        return scores
