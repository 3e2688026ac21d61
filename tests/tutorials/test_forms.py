"""The search for forms measures the package's maps where a form is one of them, and goes on where it stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import form_tables
import pandas as pd
import pytest
import search_forms
import torch
from _asserts import close
from calls import seeded
from captum.attr import LayerGradCam
from form_samples import SETTINGS, Setting, derivatives
from forms import BASE, GRAD_CAM, GRAD_CAM_PLUS_PLUS, POOLED, SHORT, SPATIAL, Form, map_of
from networks import ConvNet, PooledNet, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp import metrics as m
from captum_sgcampp.scores.classes import LogOdds
from captum_sgcampp.vision.classifiers import Classifier

SEED, TARGET = 3, 2
PAGE = Path(search_forms.__file__).with_name("forms.md")


def stored(model: nn.Module, layer: str, x: Tensor) -> dict[str, Any]:
    return derivatives(Setting("", layer, samples=4), model, x, TARGET, SEED)


def unit(maps: Tensor) -> Tensor:
    return maps / maps.abs().amax()


@pytest.mark.parametrize("score", ["logit", "log-odds"])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_forms_of_the_package_are_its_maps(noisy: bool, two_sided: bool, score: str) -> None:
    """Up to a factor: the package keeps that of the scores."""
    model, x = ConvNet(channels=3).double(), images(1, channels=3).double()
    explained = LogOdds(model).eval() if score == "log-odds" else model
    options: dict[str, Any] = {"target": TARGET, "two_sided": two_sided}
    if noisy:
        method = LayerSmoothGradCamPlusPlus(explained, model.relu2)
        expected = method.attribute(x, nt_samples=4, noise_level=0.15, generator=seeded(SEED), **options)
    else:
        expected = LayerGradCamPlusPlus(explained, model.relu2).attribute(x, **options)
    form = Form(
        others=float(score == "log-odds"),
        noisy=noisy,
        negative=float(two_sided),
        alpha="two-sided" if two_sided else "papers",
        relu=False,
    )
    found = map_of(form, stored(model, "relu2", x))
    assert expected.any() and close(unit(found), unit(expected[0, 0]), 1e-6)


def test_half_as_alpha_is_grad_cam_and_pixelwise_it_is_hires_cam() -> None:
    model, x = ConvNet(channels=3).double(), images(1, channels=3).double()
    found = stored(model, "relu2", x)
    expected = LayerGradCam(model, model.relu2).attribute(x, TARGET, relu_attributions=True)[0, 0].detach()
    assert expected.any() and close(unit(map_of(BASE[GRAD_CAM], found)), unit(expected), 1e-9)
    pixelwise = (found["gc"][0] * found["a"]).sum(0).relu()
    assert pixelwise.any() and close(2 * map_of(SPATIAL["HiResCAM"], found), pixelwise, 1e-9)


def test_after_global_pooling_alone_pixelwise_and_smooth_forms_are_the_plain_one() -> None:
    model, x = PooledNet().double(), images(1, channels=3).double()
    found = stored(model, "features.4", x)
    assert found["gc"].shape[2:] == (1, 1)
    plain = map_of(Form(relu=False), found)
    assert plain.any()
    for options in ({"noisy": True}, {"pixelwise": True}, {"noisy": True, "average": "signs"}):
        assert close(unit(map_of(Form(relu=False, **options), found)), unit(plain), 1e-9)


@pytest.mark.parametrize("form", [*POOLED.values(), *SPATIAL.values()], ids=repr)
def test_every_form_gives_a_finite_map(form: Form) -> None:
    found = map_of(form, stored(ConvNet(channels=3), "relu2", images(1, channels=3)))
    assert found.shape == (8, 8) and found.isfinite().all() and (not form.relu or (found >= 0).all())


def test_weights_of_the_cells_give_the_shares_of_the_upsampled_map() -> None:
    maps = torch.rand(3, 14, 14, dtype=torch.float64)
    of_cells = torch.stack([(maps * cell).sum((1, 2)) for cell in search_forms.cell_weights(maps.shape[1:])], 1)
    shown = m.image_maps(maps[:, None], search_forms.MOSAIC)
    expected = m.instance_shares(shown, m.cell_masks(search_forms.MOSAIC))
    assert torch.allclose(of_cells / of_cells.sum(1, keepdim=True), expected, atol=1e-6)


def test_a_picture_is_measured_once_and_a_changed_form_again(tmp_path: Path) -> None:
    path, classifier = tmp_path / "mosaic-0-1.jpg.pt", Classifier.__new__(Classifier)
    torch.save(stored(ConvNet(channels=3), "relu2", images(1, channels=3)), path)
    asked: list[list[str]] = []

    def measure(*arguments: Any) -> search_forms.Values:
        asked.append(list(arguments[-1]))
        return {name: {"mosaic": float(one.sum())} for name, one in arguments[-1].items()}

    forms = {"one": Form(), "other": Form(noisy=True)}
    first = search_forms.once(path, classifier, measure, forms)
    assert search_forms.once(path, classifier, measure, forms) == first and asked == [["one", "other"]]
    search_forms.once(path, classifier, measure, {**forms, "other": Form(negative=0.5), "third": Form(pixelwise=True)})
    assert asked[1:] == [["other", "third"]]


@pytest.mark.parametrize("is_pooled", [True, False])
def test_forms_for_positions_are_for_layers_that_others_follow(
    is_pooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("mosaic-0", "mosaic-1", "boxed"):
        (tmp_path / f"{kind}-1.jpg.pt").touch()
    asked: dict[str, tuple[Any, Any]] = {}

    def once(path: Path, classifier: Any, measure: Any, forms: dict[str, Form]) -> search_forms.Values:
        asked[path.stem] = measure, forms
        return {GRAD_CAM: {"mosaic": 0.5}}

    monkeypatch.setattr(search_forms, "once", once)
    monkeypatch.setattr("trained_networks.load", lambda name: None)
    search_forms.measured(Setting("net-inner", "layer", is_pooled=is_pooled), tmp_path)
    expected, kept_of = (POOLED, SHORT) if is_pooled else (SPATIAL, SPATIAL)
    assert len(asked) == 3 and all(forms is expected for _, forms in asked.values())
    assert asked["boxed-1.jpg"][0].args == (kept_of,)


def test_tables_show_both_halves_and_differences_of_the_second_alone() -> None:
    """The want that is missed is bold."""
    rows = [
        (f"{half}{number}", half, form, "loc", 0.5 + shift * half + 0.001 * number)
        for half in (0, 1)
        for number in range(7)
        for form, shift in ((GRAD_CAM_PLUS_PLUS, 0.1), ("narrow", -0.2))
    ]
    text = form_tables.report("net", pd.DataFrame(rows, columns=["picture", "half", "form", "measure", "value"]))
    assert "Loc(0.5) 7 + 7" in text
    assert "| narrow | 0.503 / 0.303 |" in text and f"| {GRAD_CAM_PLUS_PLUS} | 0.503 / 0.603 |" in text
    assert "| narrow | **-0.300 [-0.300, -0.300]** |" in text


def test_confidence_is_kept_by_the_highest_quarter() -> None:
    """The class is bright pixels: a map of them keeps all, one of the others nothing of the difference."""
    x = torch.zeros(1, 3, 16, 16)
    x[:, :, :8, :8] = 1
    calls: list[int] = []

    class Bright(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            calls.append(len(rows))
            return torch.stack([8 * rows.mean((1, 2, 3)), torch.zeros(len(rows))], 1)

    shown = {"bright": x[:, 0], "same": 2 * x[:, 0], "dark": 1 - x[:, 0]}
    found = search_forms.kept(Bright().eval(), x, 0, shown, "zero")
    assert found["bright"] == found["same"] == 1 and found["dark"] < 0.6
    assert calls == [1, 2]  # equal masks are one row


def test_the_page_links_every_table_and_has_no_figure_that_none_of_them_has() -> None:
    text = PAGE.read_text(encoding="utf-8")
    tables = {setting.name: PAGE.parent / "forms" / f"{setting.name}.md" for setting in SETTINGS}
    assert re.findall(r"\]\(forms/([\w-]+)\.md\)", text) == list(tables)
    known = {figure for path in tables.values() for figure in figures_in(path.read_text(encoding="utf-8"))}
    assert len(figures_in(text)) > 100 and set(figures_in(text)) <= known
    told = [interval for path in tables.values() for interval in intervals_in(path.read_text(encoding="utf-8"))]
    assert len(intervals_in(text)) > 50 and set(intervals_in(text)) <= set(told)


def intervals_in(text: str) -> list[str]:
    """Differences with their intervals, also those that a line break divides."""
    return re.findall(r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]", " ".join(text.split()))


def figures_in(text: str) -> list[str]:
    return re.findall(r"\b\d\.\d{3}\b", text)
