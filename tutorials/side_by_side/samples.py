"""The networks, their layers, and the pictures: scenes that are drawn here, and photographs of your own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from packages import Case, make_case
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp.bundled import draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.model_factory import classifier_from_factory

SHOWN_SCENE = Image.fromarray(draw_scene(7, classes=(3, 3, 6, 5)).image)  # two stars, a heart and a ring
BUNDLED_LAYERS = ("features.14", "features.11", "features.9")
RANDOM_MODEL, RANDOM_LAYERS, RANDOM_SCENES = "resnet18", ("layer4", "layer3"), 8
# Built by `results/trained_networks.py`: layers, and the folder of the photographs in the assets.
TRAINED = {
    "squeezenet1_1": (("features.12", "features.9"), "imagenet"),
    "gtsrb": (("features.8", "features.3"), "samples/signs"),
    "mobilenet_v2": (("features.18", "features.14.conv.0", "features.13"), "imagenet"),
    "googlenet": (("inception_5b", "inception_4e"), "imagenet"),
}
FACTORY = Path(__file__).resolve().parents[1] / "results" / "trained_networks.py"
FIRST_SCENE = 5_000_000_000  # far from the scenes of the training and of the evaluation


@dataclass(frozen=True)
class Network:
    """A network with its layers and pictures.

    Attributes:
        name: short, and stem of the picture.
        title: what the page says of it.
        model: in evaluation mode, float32.
        layers: names.
        pictures: what is explained, by name.
        read: a picture as an input of the model, `(1, C, H, W)`.
        shown: what the maps at the end of the page are of; a photograph itself is not shown.
    """

    name: str
    title: str
    model: nn.Module
    layers: Sequence[str]
    pictures: Sequence[str]
    read: Callable[[str], Tensor]
    shown: str | Image.Image

    def case(self, layer: str, picture: str | Image.Image, copies: int, noise_level: float, seed: int) -> Case:
        """The most probable class of a picture at a layer."""
        x = self.read(picture) if isinstance(picture, str) else preprocess(picture)
        with torch.no_grad():
            target = int(self.model(x).argmax())
        return make_case(self.model, layer, x, target, n=copies, noise_level=noise_level, seed=seed)


def scene(number: str) -> Tensor:
    """A scene as an input."""
    return preprocess(Image.fromarray(draw_scene(FIRST_SCENE + int(number)).image))


def own_networks(scenes: int) -> Iterator[Network]:
    """The bundled network, and one with random weights."""
    numbers = [str(k) for k in range(scenes)]
    title = f"the bundled network on {scenes} scenes"
    yield Network("bundled", title, load_shapes_vgg(), BUNDLED_LAYERS, numbers, scene, SHOWN_SCENE)
    few = numbers[:RANDOM_SCENES]
    title = f"{RANDOM_MODEL} with random weights on the first {len(few)} scenes"
    yield Network(RANDOM_MODEL, title, _random_model(), RANDOM_LAYERS, few, scene, SHOWN_SCENE)


def _random_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = torchvision.models.get_model(RANDOM_MODEL, weights=None)
    return model.eval()


def trained_networks(assets: Path, count: int) -> Iterator[Network]:
    """Trained networks of the assets on so many photographs."""
    for name, (layers, folder) in TRAINED.items():
        yield given_network(f"{FACTORY}:load={name}", layers, assets / folder, count, " with trained weights")


def given_network(factory: str, layers: Sequence[str], folder: Path, count: int, description: str) -> Network:
    """A network of the user's on photographs that are spread evenly over a folder."""
    classifier = classifier_from_factory(factory)
    files = sorted(str(path) for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    if not files:
        raise ValueError(f"--images: expected a folder with .jpg or .png files, found {folder}")
    count = min(count, len(files))
    chosen = [files[k * len(files) // count] for k in range(count)]
    title = f"{classifier.name}{description} on {count} photographs"

    def read(path: str) -> Tensor:
        return classifier.prepare(read_image(Path(path)))

    return Network(classifier.name, title, classifier.model, layers, chosen, read, chosen[0])
