"""What a page says of its maps, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from captum_sgcampp.demo import html
from captum_sgcampp.demo.explaining import Explanation, complete, explanation, sampled
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Visitor
from captum_sgcampp.demo.words import sentences


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
    assert first.startswith("Smooth Grad-CAM++, star: 8 noisy samples, which count as ") and "poles" in first


def test_a_map_of_zeros_says_why(networks: Networks) -> None:
    corner = explained(networks, methods=("grad-cam++",), neurons="15,15", feature_maps="1")
    assert any("the map is zero everywhere, because" in line for line in sentences(corner))
    assert "(zero everywhere)" in html.figures(corner)


def test_two_classes_have_a_row_each(networks: Networks) -> None:
    found = explained(networks, compared=0, methods=("grad-cam",))
    assert found.targets == (3, 0) and html.figures(found).count("<section>") == 2


def test_one_sample_knows_no_error(networks: Networks) -> None:
    assert "one sample tells no error" in sentences(explained(networks, nt_samples=1))[0]


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
