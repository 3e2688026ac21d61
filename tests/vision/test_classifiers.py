"""Classifiers: every network of torchvision gets the pixels that its published weights were trained for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from captum_sgcampp.bundled import CLASSES
from captum_sgcampp.vision.classifiers import Classifier, load_classifier, torchvision_names
from captum_sgcampp.vision.images import ImageError


def preset(name: str) -> Any:
    """What torchvision says that the default weights of the network want."""
    return torchvision.models.get_model_weights(name).DEFAULT.transforms()


def noise(width: int, height: int) -> Image.Image:
    samples = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


@pytest.fixture
def without_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in place of each of torchvision's."""
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights=None: nn.Linear(2, 1000))


@pytest.mark.parametrize("name", torchvision_names())
@pytest.mark.parametrize("size", [(300, 260), (700, 610)])
def test_the_input_is_what_the_published_weights_want(name: str, size: tuple[int, int], without_download: None) -> None:
    picture = noise(*size)
    assert torch.equal(load_classifier(name).prepare(picture)[0], preset(name)(picture))


@pytest.mark.parametrize("name", ["resnet50", "swin_t", "regnet_y_16gf", "vit_b_16", "inception_v3"])
def test_what_is_shown_is_what_the_network_gets(name: str, without_download: None) -> None:
    classifier, picture = load_classifier(name), noise(640, 600)
    mean, std = (Tensor(values).view(3, 1, 1) for values in (preset(name).mean, preset(name).std))
    samples = (classifier.prepare(picture)[0] * std + mean) * 255
    shown = torch.from_numpy(np.array(classifier.show(picture))).permute(2, 0, 1)
    assert torch.equal(samples.round().to(torch.uint8), shown)


def test_torchvisions_networks_want_two_interpolations() -> None:
    counts = Counter(preset(name).interpolation for name in torchvision_names())
    assert set(counts) == {InterpolationMode.BILINEAR, InterpolationMode.BICUBIC}
    assert counts[InterpolationMode.BICUBIC] >= 17


def test_pictures_in_other_colors_are_converted(without_download: None) -> None:
    classifier, gray = load_classifier("swin_t"), noise(300, 260).convert("L")
    assert torch.equal(classifier.prepare(gray), classifier.prepare(gray.convert("RGB")))


def test_elongated_pictures_are_refused(without_download: None) -> None:
    classifier = load_classifier("resnet18")
    for function in (classifier.prepare, classifier.show):
        with pytest.raises(ImageError, match=r"once the shorter side is resized .* from 1 x 5000: cut out the part"):
            function(Image.new("RGB", (1, 5000)))


def test_weights_of_ones_own_bring_their_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    state = torchvision.models.squeezenet1_1(weights=None, num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{key}": value.half() for key, value in state.items()}}, path)
    classifier = load_classifier("squeezenet1_1", path)
    assert list(classifier.classes) == [f"class {number}" for number in range(5)]
    assert not classifier.model.training and not classifier.independent
    assert classifier.probabilities(
        classifier.model(classifier.prepare(noise(300, 260)))
    ).sum().item() == pytest.approx(1)


def test_classes_are_named_or_numbered() -> None:
    classifier = load_classifier()
    assert classifier.class_index("2") == 2 and classifier.class_index(CLASSES[3].upper()) == 3
    for target, message in (("8", "0 to 7, found 8"), ("-1", "0 to 7, found -1"), ("sta", "did you mean star")):
        with pytest.raises(ValueError, match=f"^target: expected .*{message}"):
            classifier.class_index(target)


def test_classes_of_the_bundled_network_do_not_exclude_each_other() -> None:
    classifier: Classifier = load_classifier()
    assert torch.equal(classifier.probabilities(torch.zeros(1, 8)), torch.full((1, 8), 0.5))
    assert classifier.prepare(noise(300, 260)).shape == (1, 3, 128, 128)
    assert classifier.show(noise(300, 260)).size == (128, 128)


@pytest.mark.parametrize(("target", "near"), [("hart", "heart"), ("trianglle", "triangle")])
def test_a_misspelled_class_gets_the_nearest_names(target: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"^target: expected .*found {target!r} \(did you mean .*{near}.*\?\)$"):
        load_classifier().class_index(target)


def test_a_name_of_two_classes_is_refused_unless_its_case_tells(without_download: None) -> None:
    """ImageNet has the dog Cardigan and the garment cardigan."""
    classifier = load_classifier("resnet18")
    assert classifier.class_index("Cardigan") == 264 and classifier.class_index("cardigan") == 474
    with pytest.raises(ValueError, match=r"^target: expected the name of one class, found 'CARDIGAN' for \[264, 474\]"):
        classifier.class_index("CARDIGAN")


def test_a_misspelled_model_gets_the_nearest_names() -> None:
    with pytest.raises(
        ValueError, match=r"found 'resnet51' \(did you mean .*resnet50.*\?\); `.*--list-models"
    ) as error:
        load_classifier("resnet51")
    assert len(str(error.value)) < 350  # not all the 80 names


def test_a_number_that_is_another_class_s_name_is_refused() -> None:
    classifier = replace(load_classifier(), classes=["1", "10", "2", *"abcdefgh"])
    with pytest.raises(ValueError, match=r"found '1', .*'10'; write 01"):
        classifier.class_index("1")
    assert [classifier.class_index(text) for text in ("01", "2", "a", "0")] == [1, 2, 3, 0]
