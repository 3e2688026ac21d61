"""The parameter randomization test (Adebayo et al., *Sanity checks for saliency maps*, https://arxiv.org/abs/1810.03292):
a map that explains the model changes when the model's parameters are re-initialized. An edge detector does not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from captum_sgcampp.checks import check_count
from captum_sgcampp.metrics.ranks import spearman

ORDERS = ("cascading", "independent")


def randomized_models(
    model: nn.Module, *, order: str = "cascading", steps: int | None = None, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    r"""
    Copies of a model with re-initialized parameters, from the top (the module defined last) to the bottom. The model
    itself stays as it was.

    Modules are re-initialized by their own `reset_parameters`. Those without it get normal values with the mean and the
    standard deviation of the old ones.

    Args:

        model (nn.Module): The trained model.
        order (str, optional): `"cascading"` re-initializes one more layer in every copy, `"independent"` only one.
                    Default: `"cascading"`
        steps (int, optional): Number of copies, spread evenly over the layers, the last one with the lowest layer.
                    Default: None, one per layer with parameters
        seed (int, optional): Seed of the parameters.
                    Default: 0

    Returns:
        *iterator* of (str, nn.Module): Name of the layer that was re-initialized last, and the copy.

    Examples::

        >>> [name for name, _ in randomized_models(net)]
        ['head.3', 'head.1', 'conv.0']
        >>> [name for name, _ in randomized_models(net, steps=2)]
        ['head.1', 'conv.0']
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {ORDERS}, found {order!r}")
    names = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    if not names:
        raise ValueError("model: expected a model with parameters, found none")
    names.reverse()
    shown = {
        names[index] for index in _spread(len(names), len(names) if steps is None else check_count("steps", steps))
    }
    return _randomized(model, names, shown, order, seed)


def _spread(count: int, steps: int) -> list[int]:
    """`steps` indices below `count`, evenly spread, the last one included."""
    return [round((step + 1) * count / min(steps, count)) - 1 for step in range(min(steps, count))]


def _randomized(
    model: nn.Module, names: Sequence[str], shown: set[str], order: str, seed: int
) -> Iterator[tuple[str, nn.Module]]:
    current = copy.deepcopy(model)
    for number, name in enumerate(names):
        if order == "cascading" or name in shown:
            _draw(current.get_submodule(name), seed * len(names) + number)
        if name in shown:
            yield name, copy.deepcopy(current)
        if order == "independent":
            current = copy.deepcopy(model)


def _draw(module: nn.Module, seed: int) -> None:
    """Re-initialize the module's own parameters. The global random state stays as it was."""
    devices = {p.device.index for p in module.parameters(recurse=False) if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[index for index in devices if index is not None]), torch.no_grad():
        torch.manual_seed(seed)
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        else:
            for parameter in module.parameters(recurse=False):
                mean, std = parameter.mean(), parameter.std(unbiased=False)
                parameter.copy_(mean + std * torch.randn_like(parameter))


def parameter_randomization(
    explain: Callable[[nn.Module], Tensor],
    model: nn.Module,
    *,
    order: str = "cascading",
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""
    Rank correlation of a model's maps with those of its randomized copies. Near 0 for a faithful method, near 1 for
    one that does not depend on the re-initialized parameters.

    Args:

        explain (Callable): From a model to maps `(N, ...)`. It must look up the layer by name in the model it gets.
        model (nn.Module): The trained model, which stays as it was.
        order, steps, seed: As in :func:`randomized_models`.

    Returns:
        *dict* of str to *Tensor*: For every layer the correlation `(N,)`; NaN where a map has one value only.

    Examples::

        >>> def explain(model):
        ...     return LayerGradCamPlusPlus(model, model.conv).attribute(images, 3)
        >>> similarity = parameter_randomization(explain, net)
        >>> list(similarity), similarity["head.3"].shape
        (['head.3', 'head.1', 'conv.0'], torch.Size([2]))
    """
    maps = explain(model).detach()
    copies = randomized_models(model, order=order, steps=steps, seed=seed)
    return {name: spearman(maps, explain(other).detach()) for name, other in copies}
