"""Files of weights: what training scripts write is read, and what cannot be weights is refused by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from captum_sgcampp.vision import weights_files
from captum_sgcampp.vision.classifiers import load_classifier
from captum_sgcampp.vision.weights_files import fitted_model, read_state

NAME = "squeezenet1_1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.pt"


def model(name: str = NAME, classes: int = 5, **options: Any) -> nn.Module:
    built: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return built


def same(found: nn.Module, expected: nn.Module) -> bool:
    pairs = zip(found.state_dict().items(), expected.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def states(model: nn.Module) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items())


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "checkpoint",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}},
        lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
        lambda state: {"model_state_dict": prefixed(state, "module.")},
        lambda state: {"model_ema": {"n_averaged": torch.tensor(9), **prefixed(state, "module.")}},
        lambda state: prefixed(state, "_orig_mod."),
        lambda state: prefixed(state, "module._orig_mod.model."),
    ],
    ids=["plain", "model", "lightning", "model_state_dict", "averaged", "compiled", "wrapped three times"],
)
def test_the_checkpoints_of_well_known_scripts_are_opened(path: Path, checkpoint: Callable[..., Any]) -> None:
    expected = model()
    torch.save(checkpoint(expected.state_dict()), path)
    assert same(fitted_model(NAME, path)[0], expected)


@pytest.mark.parametrize("name", ["mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_families_that_are_built_or_read_in_other_ways_load(path: Path, name: str) -> None:
    expected = model(name)
    torch.save(OrderedDict(expected.state_dict()), path)
    assert same(fitted_model(name, path)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_auxiliary_classifiers_may_be_there_or_not(path: Path, name: str, auxiliary: bool) -> None:
    expected = model(name, aux_logits=auxiliary, init_weights=False)
    torch.save(expected.state_dict(), path)
    found = fitted_model(name, path)[0]
    assert same(found, expected) and not found.transform_input


@pytest.mark.slow
def test_older_names_of_densenets_and_vits_load(path: Path) -> None:
    dense = model("densenet121")
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for name, t in dense.state_dict().items()
    }
    assert set(old) != set(dense.state_dict())
    torch.save(dict(old), path)
    assert same(fitted_model("densenet121", path)[0], dense)
    vit = model("vit_b_32")
    old = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t
        for name, t in vit.state_dict().items()
    }
    torch.save(dict(old), path)
    assert same(fitted_model("vit_b_32", path)[0], vit)


@pytest.mark.slow
def test_a_vit_of_another_image_size_gets_its_own_preprocessing(path: Path) -> None:
    torch.save(model("vit_b_16", image_size=384).state_dict(), path)
    classifier = load_classifier("vit_b_16", path)
    picture = classifier.show(torchvision.transforms.functional.to_pil_image(torch.rand(3, 400, 500)))
    assert picture.size == (384, 384) and classifier.prepare(picture).shape == (1, 3, 384, 384)
    torch.save(model("vit_b_16", image_size=320).state_dict(), path)
    with pytest.raises(ValueError, match=r"^weights: expected vit_b_16 for .* \[224, 384\] pixels, found .* 320$"):
        load_classifier("vit_b_16", path)


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"scale": 3}


def quantized() -> Tensor:
    with torch.no_grad():
        return torch.quantize_per_tensor(torch.rand(5), 0.1, 0, torch.qint8)


DAMAGED: dict[str, tuple[Any, str]] = {
    "empty": (b"", "a state dict in .*found an empty file$"),
    "random": (bytes(range(256)) * 20, "a state dict in .*found no file of tensors that torch reads safely$"),
    "whole model": (model, "found a pickled torchvision.models.squeezenet.SqueezeNet; save model.state_dict"),
    "cut off": ("cut off", "a state dict in .*found ."),
    "integer keys": ({0: torch.zeros(2), 1: torch.zeros(2)}, "by name .* found Tensor at 0"),
    "number": (3, "found int"),
    "nothing in it": ({}, "found an empty one"),
    "extra state": (lambda: Extra(2, 2).state_dict(), "found dict at '_extra_state'"),
    "quantized": (lambda: {**model().state_dict(), "classifier.1.bias": quantized()}, "1.bias of torch.qint8"),
    "sparse": ({"a": torch.eye(3).to_sparse()}, "dense tensors .* found a of"),
    "complex": ({"a": torch.zeros(2, dtype=torch.complex64)}, "real, dense"),
    "expanded": ({"a": torch.zeros(1).expand(10**9)}, "dense tensors .* found a of"),
    "NaN": (lambda: {**model().state_dict(), "features.0.bias": torch.full((64,), torch.nan)}, "in features.0.bias"),
    "infinity": (lambda: {"a": torch.zeros(2), "b": torch.tensor([0, -torch.inf]).half()}, "NaN or infinity in b"),
    "no dimensions": (lambda: {**model().state_dict(), "classifier.1.bias": torch.tensor(3.0)}, r"found shape \(\)"),
    "no classes": (lambda: {**model().state_dict(), "classifier.1.bias": torch.zeros(0)}, r"found shape \(0,\)"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("case", DAMAGED)
def test_what_cannot_be_weights_is_refused_in_one_line(path: Path, case: str) -> None:
    content, message = DAMAGED[case]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut off":
        torch.save(model().state_dict(), path)
        path.write_bytes(path.read_bytes()[: 10**5])
    else:
        torch.save(content() if callable(content) else content, path)
    with pytest.raises(ValueError, match=f"^weights: expected .*{message}") as caught:
        fitted_model(NAME, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(range(256))])
def test_damaged_safetensors_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"^weights: expected a state dict in .*found .") as caught:
        read_state(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


def test_a_small_file_cannot_ask_for_a_large_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bias says 5 million classes, the weights 5."""
    torch.save({**model().state_dict(), "classifier.1.bias": torch.zeros(5_000_000)}, path)
    built: list[torch.device] = []
    get_model = torchvision.models.get_model

    def watched(*arguments: Any, **options: Any) -> nn.Module:
        found: nn.Module = get_model(*arguments, **options)
        built.append(next(found.parameters()).device)
        return found

    monkeypatch.setattr(weights_files.torchvision.models, "get_model", watched)
    with pytest.raises(ValueError, match=r"^weights: expected weights of squeezenet1_1 .* mismatch for classifier.1"):
        fitted_model(NAME, path)
    assert built and all(device.type == "meta" for device in built)


def test_another_models_weights_name_what_is_near(tmp_path: Path) -> None:
    save_file({"fc.biases": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"found none for fc.bias \(did you mean fc.biases\?\)$"):
        fitted_model("resnet18", tmp_path / "x.safetensors")
