"""The errors and warnings that the package can raise, read from its sources, with advice on each argument.

Messages begin with the argument that is wrong. `python error_messages.py` prints the list as the site shows it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PLACEHOLDER = "…"

# What to do, by the beginning of a message. Arguments that say it all themselves need none.
ADVICE = {
    "forward_func": "What the model returns, or its state. Call `model.eval()`, give logits, and wrap outputs that "
    "are no tensor with `captum_sgcampp.scores` ([how to](how_to/README.md)).",
    "layer": "The module whose output is explained, or its name. `captum-sgcampp explain --list-layers` shows those "
    "that fit. Layers of tokens need a `reshape_transform` ([Hugging Face](how_to/hugging_face.md), "
    "[timm](how_to/timm.md)).",
    "reshape_transform": "Use `TokenGrid(...)` for tokens and `channels_last_to_first` for grids. One of your own may "
    "only move or drop entries.",
    "grid": "Tokens before the patches are counted by `TokenGrid(leading=...)`: 1 class token in ViT, more with "
    "registers, 0 without. The rest must be `h * w` patches.",
    "target": "As in Captum: an int for all examples, a list or tensor with one per example, tuples for outputs "
    "of more dimensions, None where each example has one score. For `explain`, in Python and on the command line: a "
    "class name, a number, `top` or `top:K`.",
    "targets": "A list, each entry as `target`: several classes of each example.",
    "inputs": "Floating-point tensors with the examples along dimension 0: add it with `image[None]`. Normalize as the "
    "model was trained.",
    "additional_forward_args": "What belongs to each example follows as a tensor with one entry per example.",
    "score": "`'exp'` for logits of any kind. `'identity'` and functions need `derivatives='exact'`.",
    "score.classes": "Indices of the classes that the softmax runs over.",
    "derivatives": "`'closed_form'` always runs. `'exact'` needs operations that PyTorch differentiates three "
    "times, in "
    "float32 or float64, on one device.",
    "grad_kwargs": "As for `torch.autograd.grad`. `create_graph=True` needs the closed form and a fixed number "
    "of samples.",
    "nt_samples": "A number of noisy samples, or `'auto'`.",
    "nt_samples_batch_size": "Leave it at None: it is then chosen by memory.",
    "feature_maps": "An int, a sequence of ints, a slice, or a bool tensor `(K,)` or `(N, K)`.",
    "neurons": "A tuple of slices as `np.s_[2:5, 3:7]`, a list of coordinates, or a bool tensor. For pixels see "
    "`box_to_neurons`.",
    "box": "Pixels, low before high: of the input, for `explain` of the image as it stands upright. For detectors a "
    "prediction must lie there: take the box from the detector's own output.",
    "model": "A classifier in evaluation mode that gives logits `(N, classes)`, or its name: `captum-sgcampp explain "
    "--list-models` prints all.",
    "weights": "A state dict that fits the network, as `torch.save(model.state_dict(), path)` writes it.",
    "image": "A picture that can be opened: a path, a PIL image, or an array. `explain` takes one at a time; for many "
    "see [a folder of pictures](how_to/own_network.md#a-folder). Metrics and pictures take `(3, H, W)` or `(H, W, 3)`.",
    "transform": "From a PIL image to a tensor `(C, H, W)`, as the model was trained. An image processor of Hugging "
    "Face serves as well.",
    "device": "As in `torch.device`: `'cpu'`, `'cuda'`, `'cuda:1'`. Left out, the model stays where it is.",
    "method": "One of the names that the message lists, or several.",
    "maps": "What `attribute` returned: `(N, 1, *space)`.",
    "attributions": "What `attribute` returned, with the sizes of the other tensors.",
    "region": "A bool tensor of the size of the network's output, which `predicted_region` makes.",
    "predictions": "A function of the model's output and its images that gives `Predictions`.",
    "tokens": "The caption as ints `(N, L)`, from the token before the first word on.",
    "entry": "A key, position or attribute of the output: the message lists those that there are.",
    "SOURCE": "The images that `captum-sgcampp attribute` reads, which must stay where they are until the run is over.",
    "FOLDER": "The folder of images that `captum-sgcampp evaluate` reads.",
    "IMAGE": "The files that `captum-sgcampp explain` reads.",
    "--out": "Results are never replaced unless `--overwrite` is given. The same command on the same folder goes on "
    "where it stopped. Other settings need another folder.",
    "--model-factory": "`file.py:function` or `module:function`. The function returns a network of RGB pictures, or a "
    "`Classifier` with its own preprocessing ([your own network](how_to/own_network.md)).",
    "--workers": "Fewer processes need less memory. The same command goes on with what is missing.",
    "--engine ray": "Install the extra `ray`. All nodes must see the same folders.",
}


def found_in(package: Path) -> Iterator[str]:
    """The text of each error and warning, with `…` for what is filled in when it is raised."""
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = named_texts(tree)
        for message in messages_of(tree):
            text = template(message, texts)
            if len(text.replace(PLACEHOLDER, "")) > 8:  # less is made of other messages
                yield text


def messages_of(tree: ast.Module) -> Iterator[ast.expr]:
    """What is raised or warned of, and messages that functions return or the module names, to be used elsewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith(("Error", "warnings.warn")):
            yield node.args[0]
        is_used_elsewhere = node in tree.body if isinstance(node, ast.Assign) else isinstance(node, ast.Return)
        value = getattr(node, "value", None)
        if is_used_elsewhere and isinstance(value, ast.expr) and is_expectation(value):
            yield value


def is_expectation(expression: ast.expr) -> bool:
    """Whether it is a text of the form of messages, or begins with a named one."""
    is_text = isinstance(expression, ast.JoinedStr) or (
        isinstance(expression, ast.Constant) and isinstance(expression.value, str)
    )
    return is_text and re.match(r"""f?['"](\w+: expected|\{_[A-Z]+\})""", ast.unparse(expression)) is not None


def named_texts(tree: ast.AST) -> dict[str, ast.expr]:
    """The strings that a module gives a name, whose messages may begin with it."""
    return {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.JoinedStr | ast.Constant)
        and ": expected" in ast.unparse(node.value)
    }


def template(expression: ast.expr, texts: dict[str, ast.expr]) -> str:
    """A string as it is written, with `…` for expressions."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    if isinstance(expression, ast.JoinedStr):
        return "".join(template(part, texts) for part in expression.values)
    inner = expression.value if isinstance(expression, ast.FormattedValue) else expression
    if isinstance(inner, ast.Name) and inner.id in texts:
        return template(texts[inner.id], texts)
    return PLACEHOLDER


def first_words(message: str) -> str:
    """A message up to what differs from case to case; where it begins with that, up to the next such place."""
    return message.lstrip(PLACEHOLDER).partition(PLACEHOLDER)[0].strip()


def by_argument(messages: Iterator[str]) -> dict[str, list[str]]:
    """The different messages, sorted, under what stands before their first colon; under "" where that is filled in."""
    groups: dict[str, set[str]] = defaultdict(set)
    for message in messages:
        argument, colon, _ = message.partition(": ")
        is_named = colon and len(argument) < 40 and PLACEHOLDER not in argument
        groups[argument if is_named else ""].add(message)
    return {argument: sorted(groups[argument]) for argument in sorted(groups, key=str.lower)}


def as_markdown(package: Path) -> str:
    """A section for each argument: advice, and its messages."""
    groups = by_argument(found_in(package))
    lines = []
    for argument in [*filter(None, groups), ""]:
        lines += [f"### `{argument}`" if argument else "### Any other argument or file", ""]
        lines += [ADVICE[argument], ""] if argument in ADVICE else []
        lines += [f"- {code(message)}" for message in groups.get(argument, [])] + [""]
    return "\n".join(lines)


def code(text: str) -> str:
    """Inline code of Markdown, also of texts with backticks."""
    text = " ".join(text.split())
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    print(as_markdown(Path(__file__).resolve().parents[2] / "captum_sgcampp"))
