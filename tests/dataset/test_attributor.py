"""Batches of images become rows of maps: the maps of the classes, bit for bit the same in any company."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from PIL import Image

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.dataset import Attributor
from captum_sgcampp.dataset.options import METHODS
from captum_sgcampp.vision.model_factory import classifier_from_factory


def maps(rows: dict[str, Any]) -> list[np.ndarray]:
    return list(rows["map"])


def encoded(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    "options", [{"nt_samples": 5}, {"nt_samples": "auto"}, {"methods": ("grad-cam++", "grad-cam")}]
)
def test_maps_are_the_same_bits_alone_and_in_any_batch_and_order(
    options: dict[str, Any], factory: str, pictures: list[Image.Image]
) -> None:
    assert_the_same_bits(Attributor(model_factory=factory, **options), pictures)


def test_one_thread_gives_the_same_bits_in_filled_batches(
    one_thread: None, factory: str, pictures: list[Image.Image]
) -> None:
    assert_the_same_bits(Attributor(model_factory=factory, batch_size=5, nt_samples=5), pictures)


def assert_the_same_bits(attributor: Attributor, pictures: list[Image.Image]) -> None:
    together = maps(attributor({"image": pictures}))
    per_image = len(together) // len(pictures)
    alone = [values for picture in pictures for values in maps(attributor({"image": [picture]}))]
    backwards = maps(attributor({"image": pictures[::-1]}))
    for number, values in enumerate(together):
        image, row = divmod(number, per_image)
        np.testing.assert_array_equal(values, alone[number])
        np.testing.assert_array_equal(values, backwards[(len(pictures) - 1 - image) * per_image + row])


def test_rows_are_what_the_classes_give(factory: str, pictures: list[Image.Image]) -> None:
    methods, layers = METHODS, ("1", "3")
    attributor = Attributor(
        model_factory=factory, methods=methods, layers=layers, targets=("b", "4"), nt_samples=5, seed=7, batch_size=3
    )
    rows = attributor({"image": pictures[:3], "id": ["x", "y", "z"]})
    classifier = classifier_from_factory(factory)
    model, inputs = classifier.model, torch.cat([classifier.prepare(picture) for picture in pictures[:3]])
    number = 0
    for image in range(3):
        for target in (1, 4):
            for method in methods:
                for layer in layers:
                    assert rows["image"][number] == "xyz"[image] and rows["target"][number] == target
                    assert rows["method"][number] == method and rows["layer"][number] == layer
                    expected = explained(model, model.get_submodule(layer), method, inputs, target)[image, 0]
                    found = rows["map"][number].reshape(rows["height"][number], rows["width"][number])
                    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
                    number += 1
    assert number == len(rows["map"])
    with torch.no_grad():
        logits = model(inputs)
    of_image = 2 * len(methods) * len(layers)
    np.testing.assert_allclose(rows["score"][::of_image], logits[:, 1], rtol=1e-5)
    np.testing.assert_allclose(rows["probability"][::of_image], logits.softmax(1)[:, 1], rtol=1e-5)


def explained(model: torch.nn.Module, layer: torch.nn.Module, method: str, inputs: torch.Tensor, target: int) -> Any:
    if method == "grad-cam":
        return LayerGradCam(model, layer).attribute(inputs, target, relu_attributions=True).detach()
    if method in ("hires-cam", "layer-cam"):  # the activations of these layers are at least 0
        terms = LayerGradientXActivation(model, layer).attribute(inputs, target).detach()
        return (terms.relu() if method == "layer-cam" else terms).sum(1, keepdim=True).relu()
    options: Any = {"relu_attributions": True, "two_sided": method.startswith("two-sided")}
    if "smooth" not in method:
        return LayerGradCamPlusPlus(model, layer).attribute(inputs, target, **options)
    noise = {"nt_samples": 5, "generator": torch.Generator().manual_seed(7)}
    return LayerSmoothGradCamPlusPlus(model, layer).attribute(inputs, target, **options, **noise)


def test_the_most_probable_classes_come_from_the_pass_that_explains_them(
    factory: str, pictures: list[Image.Image]
) -> None:
    attributor = Attributor(model_factory=factory, targets=("top:2",), nt_samples=3, batch_size=4)
    model, rows_of_passes = attributor.classifier.model, []
    hook = model[0].register_forward_hook(lambda module, args, output: rows_of_passes.append(len(output)))
    rows = attributor({"image": pictures[:4]})
    hook.remove()
    assert sum(rows_of_passes) == 4 * (3 + 1)  # the noisy samples and the clean images, nothing more
    with torch.no_grad():
        expected = model(torch.cat([attributor.classifier.prepare(p) for p in pictures[:4]])).topk(2).indices
    assert rows["target"].tolist() == expected.flatten().tolist()


def test_statistics_are_those_of_each_image(factory: str, pictures: list[Image.Image]) -> None:
    rows = Attributor(model_factory=factory, nt_samples="auto", max_nt_samples=16)({"image": pictures})
    assert set(rows["nt_samples"]) <= {4, 8, 16} and (rows["standard_error"] > 0).all()
    assert ((rows["effective_sample_size"] >= 1) & (rows["effective_sample_size"] <= rows["nt_samples"] + 1e-3)).all()
    plain = Attributor(model_factory=factory, methods=("grad-cam++",))({"image": pictures[:1]})
    assert plain["nt_samples"][0] == -1 and np.isnan(plain["standard_error"][0])


@pytest.mark.parametrize(
    "bad, message",
    [
        (b"", "empty file"),
        (b"no image at all", "none of the formats"),
        ("nowhere.jpg", "FileNotFoundError"),
        (None, "TypeError: image: expected"),
        (np.zeros((4, 4, 7), np.uint8), r"\(4, 4, 7\)"),
        (torch.full((3, 32, 32), torch.nan), "NaN"),
        (torch.full((3, 32, 32), torch.inf), "infinity"),
    ],
)
def test_a_bad_image_is_a_row_and_changes_no_other(
    bad: Any, message: str, factory: str, pictures: list[Image.Image]
) -> None:
    attributor = Attributor(model_factory=factory, nt_samples=3, batch_size=3)
    expected = maps(attributor({"image": pictures[:4]}))
    rows = attributor({"image": [*pictures[:2], bad, *pictures[2:4]]})
    good = [number for number, error in enumerate(rows["error"]) if error is None]
    assert good == [0, 1, 3, 4]
    with pytest.raises(ValueError, match=message):
        raise ValueError(rows["error"][2])
    for number, values in zip(good, expected, strict=True):
        np.testing.assert_array_equal(rows["map"][number], values)


def test_an_image_that_the_model_refuses_is_a_row(factory: str, pictures: list[Image.Image]) -> None:
    attributor = Attributor(model_factory=factory, methods=("grad-cam++",), batch_size=4)
    expected = maps(attributor({"image": pictures[:3]}))
    signs = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)).sign()
    wrong_size, overflow = torch.zeros(3, 8, 8), 3e38 * signs
    rows = attributor({"image": [pictures[0], wrong_size, pictures[1], overflow, pictures[2]]})
    assert [error is None for error in rows["error"]] == [True, False, True, False, True]
    assert "RuntimeError" in rows["error"][1] and "finite" in rows["error"][3]
    for number, values in zip((0, 2, 4), expected, strict=True):
        np.testing.assert_array_equal(rows["map"][number], values)


def test_images_come_in_many_forms(factory: str, pictures: list[Image.Image], tmp_path: Path) -> None:
    attributor = Attributor(model_factory=factory, methods=("grad-cam++",))
    picture = pictures[0]
    picture.save(tmp_path / "one.png")
    forms = [
        picture,
        np.asarray(picture),
        encoded(picture),
        memoryview(encoded(picture)),
        str(tmp_path / "one.png"),
        {"bytes": encoded(picture), "path": None},
        {"bytes": None, "path": str(tmp_path / "one.png")},
        attributor.classifier.prepare(picture)[0],
    ]
    rows = attributor({"image": forms})
    assert set(rows["error"]) == {None}
    for values in rows["map"]:
        np.testing.assert_array_equal(values, rows["map"][0])


@pytest.mark.parametrize("asked, white", [(None, 4095), (8000, 8000)])
def test_gray_of_16_bits_is_the_same_in_every_form_and_its_rows_tell_how_it_was_scaled(
    asked: int | None, white: int, factory: str, pictures: list[Image.Image], tmp_path: Path
) -> None:
    attributor = Attributor(model_factory=factory, methods=("grad-cam++",), white=asked)
    wide = np.random.default_rng(0).integers(0, 4096, (40, 32), dtype=np.uint16)
    picture = Image.fromarray(wide)
    picture.save(tmp_path / "ray.png")
    eight = Image.fromarray(np.rint(wide * (255 / white)).astype(np.uint8)).convert("RGB")
    rows = attributor({"image": [eight, picture, wide, encoded(picture), str(tmp_path / "ray.png"), pictures[0]]})
    for number in range(1, 5):
        np.testing.assert_array_equal(rows["map"][number], rows["map"][0])
        assert f"0 became black and {white} white" in rows["note"][number]
    assert rows["map"][0].any() and rows["note"][0] is None and rows["note"][5] is None


def test_images_bring_their_classes(factory: str, pictures: list[Image.Image]) -> None:
    attributor = Attributor(model_factory=factory, targets=("column:label",), methods=("grad-cam++",))
    rows = attributor({"image": pictures[:4], "label": ["c", 1, None, "quagga"]})
    assert rows["target"].tolist() == [2, 1, -1, -1]
    assert "found none" in rows["error"][2] and "'quagga'" in rows["error"][3]


def test_maps_of_a_batch_of_another_size_differ_by_rounding_only(factory: str, pictures: list[Image.Image]) -> None:
    small, large = (
        maps(Attributor(model_factory=factory, nt_samples=5, batch_size=size)({"image": pictures})) for size in (1, 8)
    )
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * other.max())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"methods": ("lime",)}, "methods: .*'lime'"),
        ({"methods": ()}, "methods"),
        ({"targets": ()}, "targets"),
        ({"targets": ("top:9",)}, "targets: .*'top:9'"),
        ({"targets": ("top", "a")}, "targets"),
        ({"targets": ("quagga",)}, "'quagga'"),
        ({"layers": ("nine",)}, "layer: .*'nine'"),
        ({"noise_level": -1.0}, "noise_level"),
        ({"nt_samples": 0}, "nt_samples"),
        ({"nt_samples": "many"}, "nt_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str, factory: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Attributor(model_factory=factory, **arguments)


def test_inputs_of_another_type_are_the_same_row_in_any_company(factory: str) -> None:
    attributor = Attributor(model_factory=factory, methods=("grad-cam++",), batch_size=4)
    inputs = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    alone, (_, beside) = (
        attributor({"image": [inputs.half()]})["error"],
        attributor({"image": [inputs, inputs.half()]})["error"],
    )
    assert alone is not None and alone == beside


def test_messages_that_are_no_unicode_are_escaped(factory: str, pictures: list[Image.Image]) -> None:
    attributor = Attributor(model_factory=factory, methods=("grad-cam++",))

    def refuse(picture: Image.Image) -> torch.Tensor:
        raise OSError("caf\udce9.png")

    attributor.classifier = replace(attributor.classifier, prepare=refuse)
    assert attributor({"image": pictures[:1]})["error"][0] == "OSError: caf\\udce9.png"


def test_a_model_in_training_mode_is_refused(factory: str) -> None:
    classifier = Attributor(model_factory=factory).classifier
    classifier.model.train()
    with pytest.raises(ValueError, match="model: expected one in evaluation mode"):
        Attributor(classifier)


def test_a_class_may_be_named_as_a_word_for_others_begins(factory: str, pictures: list[Image.Image]) -> None:
    classifier = replace(Attributor(model_factory=factory).classifier, classes=["a", "folder:b", "stem-cell", "d", "e"])
    rows = Attributor(classifier, methods=("grad-cam++",), targets=("folder:b",))({"image": pictures[:1]})
    assert rows["target"].tolist() == [1]


def test_images_may_be_divided_by_their_own_deviation(factory: str, pictures: list[Image.Image]) -> None:
    classifier = Attributor(model_factory=factory).classifier

    def standardized(picture: Image.Image) -> torch.Tensor:
        inputs = classifier.prepare(picture)
        return (inputs - inputs.mean()) / inputs.std()

    attributor = Attributor(replace(classifier, prepare=standardized), methods=("grad-cam++",))
    black = Image.new("RGB", (40, 32))
    errors = attributor({"image": [pictures[0], black]})["error"]
    assert errors[0] is None and "NaN" in errors[1] and attributor.map_size()


@pytest.mark.parametrize("name, text", [("targets", "12"), ("layers", "02"), ("methods", "grad-cam++")])
def test_one_text_is_not_taken_letter_by_letter(name: str, text: str, factory: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}: expected a list or tuple, found the text '{re.escape(text)}'"):
        Attributor(model_factory=factory, **{name: text})


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_too_large_for_the_memory_ends_the_run(
    error: Exception, factory: str, pictures: list[Image.Image]
) -> None:
    attributor = Attributor(model_factory=factory, methods=("grad-cam++",), batch_size=3)

    def fail(module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) >= 3:
            raise error

    attributor.classifier.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="batch_size: expected images that fit into memory, found 3"):
        attributor({"image": pictures[:4]})
    large = torch.zeros(3, 64, 64)  # an image of unusual size fails alone
    assert "memory" in attributor({"image": [large]})["error"][0]
