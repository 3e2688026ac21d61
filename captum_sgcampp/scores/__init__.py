r"""
Scores of all kinds, in the form that `forward_func` takes: one number, or one row of numbers, per example.

What is explained need not be the logit of a classifier. Everything that a network says of an example can be, as long as
it is computed from the layer by differentiable operations. The recipe:

1. Wrap the model in a module (or a function) that returns scores `(N,)` or `(N, m)`. The wrappers below do that for
   common cases, and take each other: `Contrast(OutputEntry(model, "logits"), other=5)`.
2. Give the wrapper as `forward_func`, and the model's own layer as `layer`: it is the same module.
3. `target` picks one of `m` scores, and is None for scores `(N,)`.

What belongs to each example (a question, a mask, a box) follows the inputs through `additional_forward_args`, as
a tensor with one entry per example. It is then repeated for the noisy samples, which are further rows to the model.
What a wrapper or a function holds itself is not repeated, and must suit any number of rows. Hence the convention: what
the constructor gets is shared by all examples; where it gets None, the last additional argument has it per example. A
shared tensor does not belong into `additional_forward_args`: if it happens to have as many entries as there are
examples, it is taken for one entry per example.

    >>> embedder = torch.nn.Sequential(net.conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> references = embedder(images).detach()  # one per example, (2, 8)
    >>> method = LayerGradCamPlusPlus(Similarity(embedder), net.conv)
    >>> method.attribute(images, additional_forward_args=references).shape
    torch.Size([2, 1, 16, 16])

Hugging Face's models return objects: `OutputEntry(model, "logits")` has the logits of a classifier.
`OutputEntry(partial(clip, token_ids), "logits_per_image")` has what an image says of each text, and `target` picks a
text. That is a scaled cosine, and the scale (100 in CLIP) counts: `Similarity` of an image encoder has none, and gives
another map. Models of timm return their logits, and need no wrapper.

Of a video network with one logit per frame, `(N, T)`, the frame is the `target`. If it returns several outputs, the
logits `(N, T, 1)` first, `OutputEntry(model, 0)` has these, and `(frame, 0)` is the target.

    >>> frame_logits = lambda images: (net(images)[:, :, None], {})
    >>> attr = LayerGradCamPlusPlus(OutputEntry(frame_logits, 0), net.conv).attribute(images, target=(3, 0))

A score that no wrapper below computes is a function of a few lines: one of two classes; what speaks against a class
(the counterfactual explanation of Selvaraju et al., *Grad-CAM*, https://arxiv.org/abs/1610.02391); a model that takes
its arguments by name.

    >>> def class_3_or_class_5(images):
    ...     logits = net(images)
    ...     return torch.logaddexp(logits[:, 3], logits[:, 5])
    >>> attr = LayerGradCamPlusPlus(class_3_or_class_5, net.conv).attribute(images)
    >>> attr = LayerGradCamPlusPlus(lambda images: -net(images), net.conv).attribute(images, target=3)
    >>> by_name = lambda *, question, pixels: net(pixels) * question[:, None]
    >>> method = LayerGradCamPlusPlus(lambda x, q: by_name(pixels=x, question=q), net.conv)
    >>> attr = method.attribute(images, 3, additional_forward_args=torch.tensor([1.0, 2.0]))

The score function `exp` explains `Y = exp(S)`: for the logarithm of a probability that is the probability itself.
Scores should be of the order of logits; those in the hundreds let a single noisy sample decide the map (see
`SamplingStatistics.effective_sample_size`).
"""

from captum_sgcampp.scores.classes import Contrast, LogOdds
from captum_sgcampp.scores.detection import DetectedBox
from captum_sgcampp.scores.outputs import OutputEntry
from captum_sgcampp.scores.predictions import Predictions, detr_predictions, yolo_predictions
from captum_sgcampp.scores.segmentation import RegionScores, predicted_region
from captum_sgcampp.scores.sequences import CaptionLogProbability, WordLogProbabilities
from captum_sgcampp.scores.similarity import Similarity

__all__ = [
    "CaptionLogProbability",
    "Contrast",
    "DetectedBox",
    "LogOdds",
    "OutputEntry",
    "Predictions",
    "RegionScores",
    "Similarity",
    "WordLogProbabilities",
    "detr_predictions",
    "predicted_region",
    "yolo_predictions",
]
