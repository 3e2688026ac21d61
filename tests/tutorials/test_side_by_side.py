"""What the page about other packages says of their formulas, on the bundled network."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reference import reference_map, relative_error
from torch import Tensor

from captum_sgcampp.bundled import load_shapes_vgg, preprocess

pytest.importorskip("torchcam", reason="the comparison needs torchcam")
pytest.importorskip("pytorch_grad_cam", reason="the comparison needs grad-cam")

FOLDER = Path(__file__).resolve().parents[2] / "tutorials" / "side_by_side"
LAYERS = ("features.14", "features.9")


@pytest.fixture(scope="module")
def compare() -> Any:
    """What measures, which needs the other packages."""
    return importlib.import_module("measuring")


@pytest.fixture(scope="module")
def script() -> Any:
    """The command."""
    return importlib.import_module("compare")


@pytest.fixture(scope="module")
def pages() -> Any:
    """The tables."""
    return importlib.import_module("page")


def make_case(compare: ModuleType, layer: str, copies: int = 4) -> Any:
    x = preprocess(importlib.import_module("samples").SHOWN_SCENE)
    return compare.packages.make_case(load_shapes_vgg(), layer, x, 3, n=copies, noise_level=0.15, seed=0)


@pytest.fixture(scope="module", params=LAYERS)
def result(request: pytest.FixtureRequest, compare: ModuleType) -> Any:
    return request.param, compare.compare(make_case(compare, request.param))


def test_transcriptions_reproduce_the_packages_and_ours_is_the_truth(compare: ModuleType, result: Any) -> None:
    ours = [entry for entry in compare.ENTRIES if entry.name.startswith("captum_sgcampp")]
    assert len(ours) == 2 and all(entry.transcription is compare.class_map for entry in ours)
    for entry, far in zip(compare.ENTRIES, result[1].agreements, strict=True):
        assert far < 1e-9, (entry.name, far)


def test_ours_equals_the_truth_in_float32_and_the_others_do_not(compare: ModuleType, result: Any) -> None:
    # At features.9 the denominator of alpha nearly vanishes at a few of 65,536 positions, which enlarges the rounding
    # errors of the network; the test above compares in float64.
    layer, found = result
    limit = 1e-4 if layer == "features.14" else 2e-2
    for entry, far in zip(compare.ENTRIES, found.of(compare.distance), strict=True):
        assert far < limit if entry.name.startswith("captum_sgcampp") else far > 5e-4, (entry.name, far)
    assert not found.signed  # both layers are ReLUs


def test_mending_the_named_expressions_leads_to_the_truth(compare: ModuleType, result: Any) -> None:
    for name, (variant, _, steps) in compare.MENDS.items():
        assert sorted(name for _, name in steps) == sorted(variant.departures()), name
        assert result[1].mended[name][0] > 1e-4 and result[1].mended[name][-1] == 0, name
    assert result[1].tunnel[-1] == 0


def test_truth_is_that_of_the_nested_loops(compare: ModuleType) -> None:
    case = make_case(compare, "features.14", copies=2)
    copies: list[tuple[Tensor, ...]] = [(copy[None],) for copy in case.copies.double()]
    wide = case.in_float64()
    expected = reference_map(wide.model, wide.layer, (wide.clean,), copies, 3)[0].relu()
    observed = compare.formulas.observe(wide.model, wide.layer, wide.clean, torch.cat([c[0] for c in copies]), 3)
    for found in (compare.class_map(observed), compare.formulas.transcribed_slowly(observed)):
        assert relative_error(found / found.norm(), expected / expected.norm()) < 1e-6


def test_both_transcriptions_agree_where_third_derivatives_are_negative(compare: ModuleType) -> None:
    """There a positive first derivative meets a negative third one, as it seldom does in the bundled network."""
    scores, gradients = torch.randn(4).double(), torch.randn(4, 5, 3, 2).double()
    activations = torch.rand(4, 5, 3, 2).double()
    observed = compare.formulas.Observed(scores, gradients, activations, activations[0])
    slow = compare.formulas.transcribed_slowly(observed)
    assert compare.distance(compare.class_map(observed), slow) < 1e-9
    assert slow.any()


def test_quoted_expressions_stand_in_the_installed_packages() -> None:
    known = {"torchcam": "0.5.0", "grad-cam": "1.5.7", "captum": "0.9.0"}
    reasons = importlib.import_module("reasons")
    for reason in reasons.REASONS:
        if version(reason.distribution) == known[reason.distribution]:
            assert "not found" not in reasons.quoted(reason), reason.title


def small_run(script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two scenes, two seeds, one layer."""
    samples = importlib.import_module("samples")
    network = replace(next(samples.own_networks(2)), layers=["features.14"])
    monkeypatch.setattr(script, "networks", lambda arguments: iter([network]))
    options = ["--work", str(folder), "--out", str(folder), "--seeds", "2", "--nt-samples", "2"]
    script.main(options)
    return list(map(json.loads, (folder / "bundled.jsonl").read_text().splitlines()))


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_measures_only_what_is_missing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = small_run(script, tmp_path, monkeypatch)
    keys = [(row["picture"], row["repeat"]) for row in rows]
    assert keys == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    page = (tmp_path / "README.md").read_text()
    file = tmp_path / "bundled.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    measured = []
    compare = script.measuring.compare
    monkeypatch.setattr(script.measuring, "compare", lambda *a, **k: measured.append(a[0].seed) or compare(*a, **k))
    again = small_run(script, tmp_path, monkeypatch)
    assert len(measured) == 2  # the row that was lost, and the maps that are drawn
    assert again == rows and (tmp_path / "README.md").read_text() == page


@pytest.mark.slow
def test_every_picture_and_seed_has_noise_of_its_own(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    compare = script.measuring.compare
    monkeypatch.setattr(script.measuring, "compare", lambda *a, **k: seeds.append(a[0].seed) or compare(*a, **k))
    rows = small_run(script, tmp_path, monkeypatch)
    assert len(set(seeds[:4])) == 4
    smooth, plain = ([row["distances"][place] for row in rows] for place in (4, 1))
    assert len(set(smooth)) == 4
    assert plain[0] == plain[1] != plain[2] == plain[3]


def test_tables_give_median_smallest_and_largest(pages: ModuleType) -> None:
    def row(picture: str, repeat: int, distances: list[float]) -> dict[str, Any]:
        return {"network": "a", "layer": "b", "picture": picture, "repeat": repeat, "distances": distances}

    rows = [row("x", 0, [1.0, 1, 1, 5, 1, 1, 1]), row("x", 1, [1.0, 1, 1, 7, 1, 1, 1])]
    rows += [row("y", 0, [2.0, 1, 1, 6, 1, 1, 1]), row("y", 1, [2.0, 1, 1, 9, 1, 1, 1])]
    rows += [row("z", 0, [4.0, 1, 1, 8, 1, 1, 1]), row("z", 1, [4.0, 1, 1, 8, 1, 1, 1])]
    (layer,) = pages.by_layers(rows)
    plain, smooth = pages.ENTRIES[0].name, pages.ENTRIES[3].name
    assert pages.spread(layer.measured("distances", plain)) == "2.000 (1.000 to 4.000)"
    assert pages.spread(layer.measured("distances", smooth)) == "7.500 (5.000 to 9.000)"
    assert pages._seeded(layer)[0] == "2.000"  # ranges 2, 3 and 0
    near = pages.by_layers([{**row("x", 0, [3.0, 99, 1, 3, 1, 1, 1]), "layer": "near"}])
    assert pages._largest([layer, *near]) == "9.000, of a at `b`"  # not of torchcam, 99


def test_page_and_pictures_are_there_and_name_no_place_of_a_machine() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    assert "/tmp/" not in text and "/home/" not in text and "/root/" not in text and "site-packages" not in text
    pictures = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) > 1 and all((FOLDER / name).is_file() for name in pictures)


@pytest.mark.slow
def test_trained_networks_have_their_layers_and_photographs(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = importlib.import_module("samples")
    monkeypatch.setenv("SGCAMPP_ASSETS", str(assets))
    found = {network.name: network for network in samples.trained_networks(assets, 2)}
    assert list(found) == list(samples.TRAINED)
    for network in found.values():
        assert len(network.pictures) == 2 and network.read(network.pictures[0]).shape[:2] == (1, 3)
        assert set(network.layers) <= {name for name, _ in network.model.named_modules()}
    text = (FOLDER / "README.md").read_text("utf-8")
    titles = [network.title.replace("on 2 ", "on 24 ") for network in found.values()]
    assert all(f"`{name}`: {title}" in text for name, title in zip(found, titles, strict=True))


def test_trained_networks_need_their_folder(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SGCAMPP_ASSETS", raising=False)
    with pytest.raises(SystemExit):
        script.main(["--trained"])
    assert "--trained: expected SGCAMPP_ASSETS to name a folder" in capsys.readouterr().err
