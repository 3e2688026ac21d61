"""The one call: the maps of the classes, for networks and images of any origin, with what was assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from _asserts import left_as_it_was
from captum.attr import LayerGradCam
from networks import ConvNet, PooledNet
from PIL import Image, ImageShow
from torch import Tensor, nn
from torchvision import transforms

import captum_sgcampp
from captum_sgcampp import (
    Explanation,
    LayerGradCamPlusPlus,
    LayerSmoothGradCamPlusPlus,
    box_to_neurons,
    chosen_layer,
    explain,
)
from captum_sgcampp.bundled import CLASSES, draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.vision.classifiers import Classifier, load_classifier
from captum_sgcampp.vision.images import classifier_input

ALL = ("grad-cam", "grad-cam++", "smooth-grad-cam++")
FIVE = ["cat", "dog", "owl", "fox", "ant"]
TO_TENSOR = transforms.ToTensor()


def picture(size: tuple[int, int] = (8, 8), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def small(**options: Any) -> Explanation:
    """Of a network for 8 x 8 pixels, by Grad-CAM++ unless another method is named."""
    given = {"transform": TO_TENSOR, "classes": FIVE, "method": "grad-cam++", "layer": "relu1", **options}
    model = given.pop("model", None) or ConvNet(channels=3)
    return explain(model, given.pop("image", picture()), given.pop("target", None), **given)


SMOOTH: dict[str, Any] = {"relu_attributions": True, "return_statistics": True}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_maps_are_those_of_the_classes_bit_for_bit(dtype: torch.dtype) -> None:
    model = ConvNet(channels=3).to(dtype)
    with left_as_it_was(model):
        found = small(model=model, target="owl", method=ALL, nt_samples=6, noise_level=0.2, seed=3)
    inputs = TO_TENSOR(picture())[None].to(dtype)
    assert torch.equal(found.inputs, inputs) and found.inputs.dtype == dtype
    plain = LayerGradCamPlusPlus(model, model.relu1).attribute(inputs, 2, relu_attributions=True)
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        inputs, 2, nt_samples=6, noise_level=0.2, generator=generator(3), relu_attributions=True
    )
    assert torch.equal(found.map("grad-cam++").values, plain) and plain.any()
    assert torch.equal(found.map("smooth-grad-cam++").values, smooth) and smooth.any()


def test_grad_cam_is_captums() -> None:
    model = ConvNet(channels=3)
    found = small(model=model, target=2, method="grad-cam").map("grad-cam").values
    expected = LayerGradCam(model, model.relu1).attribute(TO_TENSOR(picture())[None], 2, relu_attributions=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.detach().max()))


def test_several_classes_and_layers_are_those_of_attribute_targets() -> None:
    model = ConvNet(channels=3)
    found = small(model=model, target=["dog", 3], layer=["relu1", model.relu2], method="smooth-grad-cam++")
    method = LayerSmoothGradCamPlusPlus(model, [model.relu1, model.relu2])
    pairs = method.attribute_targets(TO_TENSOR(picture())[None], [1, 3], nt_samples=25, generator=generator(), **SMOOTH)
    expected = [maps for maps, _ in pairs]
    for row, target in zip(expected, ("dog", "fox"), strict=True):
        for maps, layer in zip(row, ("relu1", "relu2"), strict=True):
            assert torch.equal(found.map(layer=layer, target=target).values, maps)
    assert [layer.name for layer in found.layers] == ["relu1", "relu2"]


def test_statistics_are_those_of_the_classes() -> None:
    found = small(method="smooth-grad-cam++", target=1, nt_samples=5).map()
    model = ConvNet(channels=3)
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        TO_TENSOR(picture())[None], 1, nt_samples=5, generator=generator(), **SMOOTH
    )
    assert found.statistics is not None and found.nt_samples == 5 and "5 samples, standard error" in found.note
    assert torch.equal(found.statistics.standard_error, statistics.standard_error)


def test_without_arguments_the_stars_of_the_bundled_scene_are_explained() -> None:
    found = explain(method="grad-cam")
    assert (found.name, found.subjects[0].target, found.image.size) == (
        "bundled scene",
        CLASSES.index("star"),
        (128, 128),
    )
    assert {one.name for one in found.top[:3]} == {"star", "heart", "ring"}


def test_the_bundled_network_is_known_and_photographs_get_a_note() -> None:
    scene = draw_scene(3).image
    by_module = explain(load_shapes_vgg(), scene, method="grad-cam++")
    assert torch.equal(by_module.inputs, preprocess(Image.fromarray(scene))) and by_module.notes == ()
    assert torch.equal(by_module.maps[0].values, explain("shapes", scene, method="grad-cam++").maps[0].values)
    (note,) = explain(None, scene, method="grad-cam++").notes
    assert "bundled network, which knows 8 shapes" in note and "`model` names another one" in note
    given = explain(load_classifier(), scene, method="grad-cam++")
    assert given.classifier.name == "shapes" and given.notes == ()


@pytest.fixture(scope="module")
def tiny_resnet() -> nn.Module:
    """A network of torchvision with its 1000 classes, and few feature maps."""
    torch.manual_seed(0)
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], width_per_group=64).eval()


def test_a_network_of_torchvision_is_assumed_to_take_imagenet(tiny_resnet: nn.Module) -> None:
    found = explain(tiny_resnet, picture((80, 60)), "tabby", method="grad-cam")
    assert torch.equal(found.inputs, classifier_input(picture((80, 60)))) and found.subjects[0].target == 281
    assert [layer.name for layer in found.layers] == ["layer4"] and "512 of 7 x 7" in found.layers[0].reason
    text = repr(found)
    assert (
        "preprocessing: assumed to be ImageNet's, as this network does not tell: resized to 256, cropped to 224 x 224, "
        "normalized with ImageNet's mean and standard deviation; give yours as `transform`, or in a Classifier"
    ) in text
    assert "classes: assumed to be those of ImageNet" in text and "layer: layer4 (the deepest layer with maps" in text


def test_weights_tell_preprocessing_and_classes(tiny_resnet: nn.Module) -> None:
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    found = explain(tiny_resnet, picture((80, 60)), "top:2", weights=weights, method="grad-cam", layer="layer4")
    assert torch.equal(found.inputs[0], weights.transforms()(picture((80, 60))))
    assert found.notes == (
        "preprocessing: that of ResNet50_Weights.IMAGENET1K_V2: resized to 232, cropped to 224 x 224, normalized with "
        "ImageNet's mean and standard deviation",
    )
    assert found.classifier.classes == weights.meta["categories"] and len(found.subjects) == 2
    assert [one.target for one in found.top[:2]] == [subject.target for subject in found.subjects]
    assert found.image.size == (224, 224)


def test_at_the_last_layer_of_a_pooled_network_an_inner_one_is_shown_too() -> None:
    found = explain(PooledNet(), picture((16, 16)), transform=TO_TENSOR, nt_samples=2)
    assert [layer.name for layer in found.layers] == ["features", "features.1"] and len(found.maps) == 6
    assert "Smooth Grad-CAM++ equals Grad-CAM++ there" in found.reasons[1] and "features.1 is shown" in found.reasons[1]
    assert len(found.figure().axes) == 2 * 4 + 1  # a row for each layer, and the color bar
    assert found.subjects[0].label.startswith("class ")
    assert "classes: numbers; `classes` or a Classifier names them" in found.notes


@pytest.mark.slow
def test_timm_tells_its_own_preprocessing() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet10t", pretrained=False, num_classes=3).eval()
    found = explain(model, picture((90, 70)), method="grad-cam", layer="layer4")
    config = timm.data.resolve_model_data_config(model)
    assert torch.equal(found.inputs[0], timm.data.create_transform(**config)(picture((90, 70))))
    assert found.classifier.name == "resnet10t"
    assert any(note.startswith("preprocessing: timm's for this network: resized to ") for note in found.notes)
    mine = explain(model, picture((90, 70)), method="grad-cam", layer="layer4", transform=TO_TENSOR)
    assert torch.equal(mine.inputs[0], TO_TENSOR(picture((90, 70))))
    assert [note for note in mine.notes if "preprocessing" in note] == ["preprocessing: yours (`transform`)"]


@pytest.mark.slow
def test_hugging_faces_logits_labels_and_processor() -> None:
    transformers = pytest.importorskip("transformers")
    labels = {0: "tabby, tabby cat", 1: "beagle", 2: "tiger cat"}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, id2label=labels)
    model = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    found = explain(model, picture((50, 40)), ["tabby", "beagle"], transform=processor, nt_samples=2)
    expected = processor(images=picture((50, 40)), return_tensors="pt")["pixel_values"]
    assert torch.equal(found.inputs, expected)
    assert [subject.target for subject in found.subjects] == [0, 1]
    assert found.layers[0].name == "vit.layers.1.layernorm_before" and found.maps[0].values.shape == (1, 1, 4, 4)
    assert all(one.values.isfinite().all() for one in found.maps) and found.maps[0].values.any()
    undone = (expected[0] * 0.5 + 0.5).mul(255).round().permute(1, 2, 0).byte().numpy()
    np.testing.assert_array_equal(np.asarray(found.image), undone)
    assert explain(model, picture((50, 40)), method="grad-cam").inputs.shape == (1, 3, 32, 32)
    assert chosen_layer(model, expected).name == "vit.layers.1.layernorm_before"


SAME = [
    ("a path", lambda path, image: path),
    ("its text", lambda path, image: str(path)),
    ("an array", lambda path, image: np.asarray(image)),
    ("RGBA", lambda path, image: np.asarray(image.convert("RGBA"))),
    ("floats", lambda path, image: np.asarray(image) / 255),
    ("a tensor", lambda path, image: torch.tensor(np.asarray(image)).permute(2, 0, 1)),
    ("float tensor", lambda path, image: TO_TENSOR(image)),
    ("a batch of one", lambda path, image: TO_TENSOR(image)[None]),
]


@pytest.mark.parametrize("form", [form for _, form in SAME], ids=[name for name, _ in SAME])
def test_every_form_of_an_image_gives_the_same_input(tmp_path: Path, form: Any) -> None:
    path = tmp_path / "own name.png"
    picture().save(path)
    found = small(image=form(path, picture()))
    assert torch.equal(found.inputs, TO_TENSOR(picture())[None])
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(picture()))


def test_a_file_gives_its_name(tmp_path: Path) -> None:
    picture().save(tmp_path / "own name.png")
    assert small(image=tmp_path / "own name.png").name == "own name.png"
    with Image.open(tmp_path / "own name.png") as opened:
        assert small(image=opened).name == "own name.png"


def test_gray_images_are_pictures() -> None:
    gray = np.asarray(picture().convert("L"))
    expected = TO_TENSOR(Image.fromarray(gray).convert("RGB"))[None]
    for image in (gray, gray[..., None], torch.tensor(gray), torch.tensor(gray)[None], Image.fromarray(gray)):
        assert torch.equal(small(image=image).inputs, expected)


@pytest.mark.parametrize("asked, white", [(None, 4095), (8000, 8000)])
def test_gray_of_16_bits_is_neither_black_nor_white_and_a_note_tells_how_it_was_scaled(
    asked: int | None, white: int, tmp_path: Path
) -> None:
    wide = np.random.default_rng(0).integers(0, 4096, (8, 8), dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "ray.png")
    Image.fromarray(wide).save(tmp_path / "ray.tif")
    expected = TO_TENSOR(Image.fromarray(np.rint(wide * (255 / white)).astype(np.uint8)).convert("RGB"))[None]
    files = [tmp_path / "ray.png", tmp_path / "ray.tif", Image.open(tmp_path / "ray.png")]
    for image in (*files, Image.fromarray(wide), wide, wide[..., None], torch.tensor(wide)[None]):
        found = small(image=image, white=asked)
        assert torch.equal(found.inputs, expected)
        assert any(f"0 became black and {white} white" in note for note in found.notes)
    assert not any("became black" in note for note in small().notes)


NORMALIZE = transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.mark.parametrize("dims", [3, 4])
def test_normalized_tensors_are_the_input_and_are_drawn_as_the_picture(dims: int) -> None:
    normalized = NORMALIZE(TO_TENSOR(picture()))
    transform = transforms.Compose([TO_TENSOR, NORMALIZE])
    found = small(image=normalized if dims == 3 else normalized[None], transform=transform)
    assert torch.equal(found.inputs[0], normalized)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(picture()))
    assert ("taken as the model's input" in repr(found)) == (dims == 3)


def test_inputs_of_unknown_normalization_keep_the_order_of_all_values() -> None:
    inputs = 7 * torch.randn(1, 3, 8, 8)
    shown = torch.tensor(np.asarray(small(image=inputs).image)).permute(2, 0, 1).float()
    stretched = 255 * (inputs[0] - inputs.min()) / (inputs.max() - inputs.min())
    torch.testing.assert_close(shown, stretched, rtol=0, atol=0.51)


def test_inputs_of_one_channel_are_drawn_gray() -> None:
    found = small(model=ConvNet(channels=1), image=torch.randn(1, 1, 8, 8))
    shown = np.asarray(found.image)
    assert (shown == shown[..., :1]).all() and shown.min() == 0 and shown.max() == 255


def test_the_chosen_layer_can_be_passed_on() -> None:
    model = ConvNet(channels=3)
    layer = chosen_layer(model, TO_TENSOR(picture())[None])
    assert layer.name == "relu2" and layer.reason.startswith("the deepest layer with maps larger than 1 x 1, here 6 of")
    assert torch.equal(small(layer=layer).maps[0].values, small(layer=model.relu2, model=model).maps[0].values)
    assert small(layer=None).layers == (layer,) and small(layer="relu1").reasons == ()


def test_selections_are_those_of_the_classes() -> None:
    model = ConvNet(channels=3)
    method, inputs = LayerGradCamPlusPlus(model, model.relu1), TO_TENSOR(picture())[None]
    _, top = method.top_feature_maps(inputs, 1, k=2)
    for options, keywords in (
        ({"feature_maps": 3}, {"feature_maps": [3]}),
        ({"feature_maps": "top:2"}, {"feature_maps": top[0].tolist()}),
        ({"neurons": np.s_[0:4, 2:8]}, {"neurons": np.s_[0:4, 2:8]}),
    ):
        found = small(target=1, **options)
        expected = method.attribute(inputs, 1, relu_attributions=True, **keywords)
        assert torch.equal(found.maps[0].values, expected) and expected.any()
    double = picture().resize((16, 16), Image.Resampling.NEAREST)
    half = transforms.Compose([transforms.Resize((8, 8), transforms.InterpolationMode.NEAREST), TO_TENSOR])
    found = small(target=1, image=double, transform=half, box=(4, 0, 16, 8))
    neurons = box_to_neurons((2, 0, 8, 4), (8, 8), (8, 8))
    assert torch.equal(found.maps[0].values, method.attribute(inputs, 1, relu_attributions=True, neurons=neurons))
    assert "feature maps with the largest Grad-CAM++ weights" in repr(small(feature_maps="top:2"))


def test_a_map_of_zeros_tells_why() -> None:
    model = ConvNet(channels=3)
    with torch.no_grad():
        model.fc2.weight.zero_()
    assert "all zero (no positive gradient)" in repr(small(model=model))


def test_words_name_model_classes_layer_and_maps() -> None:
    found = small(method=ALL, nt_samples=3, target="fox")
    lines = repr(found).splitlines()
    assert lines[0] == "Explanation of image by ConvNet" and lines[1].startswith("most probable: ")
    assert lines[-4].startswith("image: fox: 0.") and lines[-2] == "  Grad-CAM++, relu1: 8 x 8"
    assert "Smooth Grad-CAM++, relu1: 8 x 8, 3 samples" in lines[-1]
    assert repr(found.map("grad-cam++")) == "ExplainedMap('fox', Grad-CAM++, relu1: 8 x 8)"
    assert found.top[0].probability == max(one.probability for one in found.top) and len(found.top) == 5


def test_saved_files_are_the_picture_the_maps_and_a_manifest(tmp_path: Path) -> None:
    found = small(method=ALL, nt_samples=3, target="top:2", feature_maps=[0, 2])
    folder = found.save(tmp_path / "new" / "folder")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["maps"]) == len(found.maps) == 6 and manifest["feature_maps"] == [0, 2]
    assert {entry["class"] for entry in manifest["maps"]} == {one.name for one in found.top[:2]}
    one = next(entry for entry in manifest["maps"] if entry["method"] == "Grad-CAM++")
    values = found.map("grad-cam++", target=one["target"]).values
    np.testing.assert_array_equal(np.load(folder / one["file"]), values[0, 0].numpy())
    assert Image.open(folder / "explanation.png").width > 1000
    with pytest.raises(FileExistsError, match=r"^folder: expected one without an explanation, found 'explanation.png'"):
        found.save(folder)
    found.save(folder, overwrite=True)


def test_notebooks_show_the_picture_and_the_words() -> None:
    found = small(classes=["<b>", *FIVE[1:]], target="<b>")
    page = found._repr_html_()
    assert 'src="data:image/png;base64,' in page and "&lt;b&gt;" in page and "<b>" not in page
    assert found._repr_png_().startswith(b"\x89PNG")


def test_show_uses_the_systems_viewer_or_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr(ImageShow, "show", lambda image: shown.append(image) or True)
    small().show()
    assert shown[0].width > 300
    monkeypatch.setattr(ImageShow, "show", lambda image: False)
    with pytest.warns(UserWarning, match=r"^show: expected a notebook or a viewer of pictures, found none; use save"):
        small().show()


def test_multi_label_networks_of_hugging_face_get_sigmoids() -> None:
    class Config:
        id2label: ClassVar = dict(enumerate(FIVE))
        problem_type = "multi_label_classification"

    class WithLogits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.config = ConvNet(channels=3), Config()
            self.eval()

        def forward(self, pixel_values: Tensor) -> Any:
            return type("Output", (), {"logits": self.net(pixel_values)})

    found = small(model=WithLogits(), classes=None, layer="net.relu1")
    logits = ConvNet(channels=3)(TO_TENSOR(picture())[None])
    assert found.top[0].probability == pytest.approx(float(logits.sigmoid().max()), rel=1e-6)


class NoScores(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": 3}, TypeError, "model: expected a torch.nn.Module, a name or a Classifier, found int"),
    ({"model": nn.Linear(1, 1).state_dict()}, TypeError, "model: expected .*found OrderedDict; .*with load_state_dict"),
    ({"model": "resnet999"}, ValueError, "model: expected 'shapes' or a classifier of torchvision.*did you mean"),
    ({"model": ConvNet(channels=3).train()}, ValueError, "model: expected one in evaluation mode, .*model.eval"),
    ({"model": NoScores().eval(), "classes": None}, ValueError, r"model: expected scores \(N, classes\), found shape"),
    ({"model": ConvNet(channels=3), "transform": None}, ValueError, "image: expected an input that the model takes, f"),
    (
        {"model": ConvNet(channels=1), "transform": None},
        ValueError,
        "transform: expected one for a network of 1 channel,",
    ),
    (
        {"transform": lambda image: image},
        TypeError,
        r"transform: expected one that gives a tensor \(C, H, W\), found I",
    ),
    ({"transform": 3}, TypeError, "transform: expected a function of a picture, found int"),
    ({"weights": "resnet.pt"}, TypeError, "weights: expected those of torchvision beside a module"),
    ({"classes": FIVE[:3]}, ValueError, "classes: expected 5 names, one for each score of the model, found 3"),
    ({"classes": "cats"}, TypeError, "classes: expected a list or tuple, found the text"),
    ({"target": "cow"}, ValueError, "target: expected a class of ConvNet, found 'cow'"),
    ({"target": 5}, ValueError, "target: expected a class from 0 to 4, found 5"),
    ({"target": "top:9"}, ValueError, "target: expected a number from 1 to 5, found '9'"),
    ({"target": 1.5}, TypeError, "target: expected a whole number or a text, found float"),
    ({"target": []}, ValueError, "target: expected at least one, found none"),
    ({"method": "gradcam"}, ValueError, r"method: expected one of grad-cam, .*found 'gradcam' \(did you mean grad-cam"),
    ({"layer": "relu9"}, ValueError, "layer: expected a module of the model .*found 'relu9'"),
    ({"layer": nn.ReLU()}, ValueError, "layer: expected a module of the model, found another ReLU"),
    ({"layer": 3}, TypeError, "layer: expected the name of a module, as 'layer4', found int"),
    ({"layer": "fc1"}, ValueError, "layer: expected a layer with feature maps of two spatial dimensions, found Linear"),
    ({"nt_samples": 0}, ValueError, "nt_samples: expected at least 1, found 0"),
    ({"noise_level": -1}, ValueError, "noise_level: expected a finite number above 0, found -1"),
    ({"seed": -1}, ValueError, "seed: expected at least 0, found -1"),
    ({"device": "quantum"}, ValueError, "device: expected a device that torch can use"),
    ({"feature_maps": "best"}, TypeError, 'feature_maps: expected a whole number or "top:3", found str'),
    ({"feature_maps": "top:99"}, ValueError, "feature_maps: expected a number from 1 to 4, found '99'"),
    ({"neurons": [0, 1]}, TypeError, "neurons: expected slices of rows and columns"),
    ({"box": (5, 5, 3, 9)}, ValueError, r"box: expected \(x0, y0, x1, y1\)"),
    ({"box": (0, 0, 99, 9)}, ValueError, "box: expected a box in the picture of 8 x 8 pixels"),
    ({"image": [picture(), picture()]}, TypeError, "image: expected one image, found a list of 2; .*attribute_dataset"),
    (
        {"image": torch.rand(2, 3, 8, 8)},
        ValueError,
        "image: expected one image, found a batch of 2; .*attribute_dataset",
    ),
    (
        {"image": "brain.nii.gz"},
        ValueError,
        "image: expected an image file, .*volume.*command `captum-sgcampp explain`",
    ),
    ({"image": "clip.npy"}, ValueError, r"image: expected an image file, found 'clip.npy' \(array\)"),
    ({"image": 7}, TypeError, "image: expected a path, a PIL image, .*found int"),
    (
        {"image": np.zeros((3, 8, 8), np.uint8)},
        ValueError,
        r"image: expected a path, .*found ndarray of uint8 and shape",
    ),
    ({"image": np.full((8, 8), 255.0)}, ValueError, "image: expected a path, .*floats from 0 to 1.* from 255 to 255"),
    ({"image": np.full((8, 8), 4095, np.int32)}, ValueError, "image: expected a path, .*int32.* from 4095 to 4095"),
    (
        {"image": np.zeros((8, 8, 3), np.uint16)},
        ValueError,
        "image: expected a path, .*gray of uint16.*found ndarray of uint16 and shape",
    ),
    ({"image": "."}, IsADirectoryError, "image: expected an image file, found the folder '.'; .*sgcampp attribute`"),
    ({"image": torch.tensor([[float("nan")]])}, ValueError, "image: expected a path, .*found Tensor of float32"),
]


@pytest.mark.parametrize(
    "options, kind, message", WRONG, ids=[f"{number}-{next(iter(case[0]))}" for number, case in enumerate(WRONG)]
)
def test_mistakes_name_the_argument(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        small(**options)


def test_a_missing_file_and_a_missing_image_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        small(image="nowhere.png")
    with pytest.raises(ValueError, match=r"^image: expected one for ConvNet, found none"):
        explain(ConvNet(channels=3))


def test_near_a_missing_file_others_of_its_folder_are_named(tmp_path: Path) -> None:
    picture().save(tmp_path / "tabby.png")
    with pytest.raises(FileNotFoundError, match=r"^image: expected .*taby\.png' \(did you mean tabby\.png\?\)$"):
        small(image=tmp_path / "taby.png")
    with pytest.raises(FileNotFoundError, match=r"nowhere.taby\.png'$"):
        small(image=tmp_path / "nowhere" / "taby.png")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_device_is_to_be_left_out() -> None:
    with pytest.raises(ValueError, match=r"^device: expected .*found 'cuda' .*no such GPU: leave it out"):
        small(device="cuda")


def test_a_map_that_there_is_not_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"^method, layer, target: expected one of \('grad-cam\+\+', 'relu1', '\w+'\), fo"
    ):
        small().map("grad-cam")


def test_a_classifier_of_ones_own_is_taken_as_it_is() -> None:
    own = Classifier("mine", ConvNet(channels=3), FIVE, lambda p: TO_TENSOR(p)[None], lambda p: p, independent=True)
    found = explain(own, picture(), "ant", method="grad-cam++", layer="relu1")
    assert found.classifier.name == "mine" and found.notes == () and found.map(target="ant").target == 4
    assert captum_sgcampp.Explanation is Explanation and isinstance(found, Explanation)
