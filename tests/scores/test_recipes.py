"""Models of Hugging Face, of timm, and pairs of encoders: the recipes of `captum_sgcampp.scores` explain what they say.

Stand-ins return outputs of the same form as Hugging Face's models. Small models of transformers with random weights are
explained too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from _asserts import close
from networks import ConvNet, images
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, TokenGrid
from captum_sgcampp.scores import LogOdds, OutputEntry, Similarity


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As `transformers.utils.ModelOutput`: an ordered dict without its None values, whose keys are attributes too."""

    def __init__(self, **entries: Any) -> None:
        super().__init__({name: value for name, value in entries.items() if value is not None})
        self.__dict__.update(entries)


class ImageClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ModelOutput:
        return ModelOutput(loss=None, logits=self.net(pixel_values), hidden_states=None)


class DualEncoder(nn.Module):
    """As CLIP: token ids first, an image encoder, a text encoder, and scaled cosines of all pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder = ConvNet(), nn.EmbeddingBag(30, 5)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> ModelOutput:
        of_images, of_texts = self.image_encoder(pixel_values), self.text_encoder(input_ids)
        cosines = cosine_similarity(of_images[:, None], of_texts[None], dim=2)
        return ModelOutput(logits_per_image=cosines * self.logit_scale.exp(), image_embeds=of_images)


def smooth(forward: Any, layer: nn.Module, x: Tensor, target: Any = None, **arguments: Any) -> Tensor:
    method = LayerSmoothGradCamPlusPlus(forward, layer, **arguments)
    seed = torch.Generator().manual_seed(0)
    found: Tensor = method.attribute(x, target, nt_samples=3, stdevs=0.3, generator=seed)
    return found


def test_a_classifier_with_an_output_object_is_explained_as_its_logits() -> None:
    model, x = ImageClassifier(), images()
    found = smooth(OutputEntry(model, "logits"), model.net.relu1, x, [1, 3])
    assert found.any() and torch.equal(found, smooth(model.net, model.net.relu1, x, [1, 3]))
    odds = smooth(LogOdds(OutputEntry(model, "logits")), model.net.relu1, x, 1)
    assert torch.equal(odds, smooth(LogOdds(model.net), model.net.relu1, x, 1))


def test_a_text_in_an_image_is_explained_by_its_column_or_by_the_cosine() -> None:
    model, x, texts = DualEncoder(), images(3), torch.tensor([[1, 4], [5, 8], [2, 2]])  # as many texts as images
    layer = model.image_encoder.relu1
    column = smooth(OutputEntry(partial(model, texts), "logits_per_image"), layer, x, 1)
    embedding = model.text_encoder(texts)[1]
    scaled = smooth(lambda x: Similarity(model.image_encoder, embedding)(x) * model.logit_scale.exp(), layer, x)
    assert column.any() and close(column, scaled)
    assert not close(smooth(Similarity(model.image_encoder, embedding), layer, x), column, 0.05)  # the scale counts


def by_hand(logits_of: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor, target: int) -> Tensor:
    """The map of Grad-CAM++, as in the paper."""
    features: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: features.append(output))
    logits = logits_of(x)
    handle.remove()
    (g,) = torch.autograd.grad(logits[:, target].sum(), features[0])
    a = features[0].detach()
    alpha = torch.where(g != 0, 1 / (2 + g * a.sum((2, 3), keepdim=True)), 0)
    return ((alpha * g.clamp_min(0)).sum((2, 3), keepdim=True) * a).sum(1, keepdim=True)


@pytest.mark.slow
def test_models_of_timm_need_no_wrapper() -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    model, x = timm.create_model("test_resnet.r160_in1k", num_classes=5).eval(), torch.rand(2, 3, 64, 64)
    found = LayerGradCamPlusPlus(model, model.layer3).attribute(x, 2)
    assert close(found, by_hand(model, model.layer3, x, 2), 1e-4)


@pytest.mark.parametrize(
    "output, wrapper",
    [
        (lambda z: ModelOutput(loss=None, logits=z), r"OutputEntry\(model, 'logits'\)"),
        (lambda z: {"out": z, "aux": z}, r"OutputEntry\(model, 'out'\) gives one of its tensors \['out', 'aux'\]"),
        (lambda z: {"embeds": z, "logits_per_image": z}, r"OutputEntry\(model, 'logits_per_image'\)"),
        (lambda z: (None, z), r"OutputEntry\(model, 1\)"),
        (lambda z: {"logits": z, "pred_boxes": z}, r"DetectedBox\(model\)"),
        (lambda z: [{"boxes": z, "scores": z}], r"DetectedBox\(model\)"),
        (lambda z: {"loss": None}, "wrap the model in a function"),
        (lambda z: [], "wrap the model in a function"),
    ],
)
def test_the_refusal_of_an_output_that_is_no_tensor_names_the_wrapper(output: Any, wrapper: str) -> None:
    net = ConvNet()
    with pytest.raises(TypeError, match=rf"^forward_func: expected a tensor as output, found \w+; .*{wrapper}"):
        LayerGradCamPlusPlus(lambda x: output(net(x)), net.relu1).attribute(images(), 1)


@pytest.mark.slow
def test_convolutional_classifiers_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=5)).eval()
    x, layer = torch.rand(2, 3, 32, 32), model.resnet.encoder.stages[0]
    found = LayerGradCamPlusPlus(OutputEntry(model, "logits"), layer).attribute(x, 3)
    assert close(found, by_hand(lambda x: model(pixel_values=x).logits, layer, x, 3), 1e-4)
    with pytest.raises(TypeError, match=r"found ImageClassifierOutput\w*; .*OutputEntry\(model, 'logits'\)"):
        LayerGradCamPlusPlus(model, layer).attribute(x, 3)


@pytest.mark.slow
def test_classifiers_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(**size, image_size=32, patch_size=8, num_labels=5)
    ).eval()
    x = torch.rand(2, 3, 32, 32)
    layer = next(module for name, module in vit.named_modules() if name.endswith("1.layernorm_before"))
    found = smooth(OutputEntry(vit, "logits"), layer, x, 3, reshape_transform=TokenGrid())
    assert found.any()
    assert torch.equal(found, smooth(lambda x: vit(x).logits, layer, x, 3, reshape_transform=TokenGrid()))
    with pytest.raises(TypeError, match=r"found ImageClassifierOutput; .*OutputEntry\(model, 'logits'\)"):
        LayerGradCamPlusPlus(vit, layer, reshape_transform=TokenGrid()).attribute(x, 3)


@pytest.mark.slow
def test_clip_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 30, "bos_token_id": 1, "eos_token_id": 29, "pad_token_id": 0},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    clip, x = transformers.CLIPModel(config).eval(), torch.rand(2, 3, 32, 32)
    texts = torch.tensor([[1, 4, 5, 29], [1, 7, 8, 29]])
    layer = clip.vision_model.encoder.layers[-1].layer_norm1
    both = lambda pixels: clip(input_ids=texts, pixel_values=pixels)  # noqa: E731
    column, encoder = OutputEntry(both, "logits_per_image"), OutputEntry(both, "image_embeds")
    embedding = both(x).text_embeds[1]
    scaled = lambda x: Similarity(encoder, embedding)(x) * clip.logit_scale.exp()  # noqa: E731
    found = smooth(column, layer, x, 1, reshape_transform=TokenGrid())
    assert found.any() and close(found, smooth(scaled, layer, x, reshape_transform=TokenGrid()), 1e-3)
    with pytest.raises(TypeError, match=r"found CLIPOutput; .*OutputEntry\(model, 'logits_per_image'\)"):
        LayerGradCamPlusPlus(both, layer, reshape_transform=TokenGrid()).attribute(x, 1)
