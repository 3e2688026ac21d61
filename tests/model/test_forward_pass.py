"""Models as they come, frozen, checkpointed, replicated, in half precision, give the right map."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from _asserts import alike, close
from calls import seeded, smooth
from networks import ConvNet, TwoInputs, Wrapper, images, tail
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus


def front_in_no_grad(net: ConvNet, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.relu1(net.conv1(x))
    return tail(net, x)


@torch.no_grad()
def all_in_no_grad(net: ConvNet, x: Tensor) -> Tensor:
    return net(x)


def layer_in_checkpoint(net: ConvNet, x: Tensor) -> Tensor:
    x = checkpoint(lambda y: net.conv2(net.relu1(net.conv1(y))), x, use_reentrant=False)
    x = net.pool(net.relu2(x))
    return net.fc2(net.relu3(net.fc1(x.flatten(1))))


def tail_in_checkpoint(net: ConvNet, x: Tensor) -> Tensor:
    return checkpoint(lambda y: tail(net, y), net.relu1(net.conv1(x)), use_reentrant=False)


def front_in_reentrant_checkpoint(net: ConvNet, x: Tensor) -> Tensor:
    return tail(net, net.relu1(checkpoint(net.conv1, x, use_reentrant=True)))


WAYS = [
    front_in_no_grad,
    all_in_no_grad,
    layer_in_checkpoint,
    tail_in_checkpoint,
    front_in_reentrant_checkpoint,
]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_way_a_model_runs_its_parts_does_not_change_the_map(way: Any, frozen: bool, expected: Tensor) -> None:
    model = Wrapper(way)
    model.requires_grad_(not frozen)
    for context in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with context():
            found = smooth(model, model.net.relu1, images())
        assert close(found, expected)
    for parameter in model.parameters():
        assert parameter.grad is None and parameter.requires_grad is not frozen


@pytest.mark.parametrize("where", ["layer", "tail"])
def test_reentrant_checkpoints_are_refused_by_name(where: str) -> None:
    def run(net: ConvNet, x: Tensor) -> Tensor:
        if where == "layer":
            return tail(net, checkpoint(lambda y: net.relu1(net.conv1(y)), x.requires_grad_(), use_reentrant=True))
        return checkpoint(lambda y: tail(net, y), net.relu1(net.conv1(x)), use_reentrant=True)

    model = Wrapper(run)
    with pytest.raises(RuntimeError, match=r"forward_func: .*use_reentrant=True"):
        smooth(model, model.net.relu1, images())
    assert not model.net.relu1._forward_hooks


def test_inputs_made_in_inference_mode_are_explained(expected: Tensor) -> None:
    model = ConvNet()
    with torch.inference_mode():
        x = images() + 0
        found = smooth(model, model.relu1, x)
        same = LayerGradCamPlusPlus(model, model.conv1).attribute(x, 1, attribute_to_layer_input=True)
    assert x.is_inference() and close(found, expected)
    assert close(same, LayerGradCamPlusPlus(model, model.conv1).attribute(images(), 1, attribute_to_layer_input=True))


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_other_dtypes_give_the_same_map_in_float32_or_wider(dtype: torch.dtype, bound: float) -> None:
    model, x = ConvNet().to(dtype), images().to(dtype)
    # the same rounded weights and rows in float64, so that only the arithmetic differs
    reference = ConvNet().to(dtype).double()
    rows: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda module, args: rows.append(args[0]))
    found = smooth(model, model.relu2, x, bound_alpha=True, nt_samples_batch_size=4)
    handle.remove()
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert rows[0].dtype == dtype
    maps = [LayerGradCamPlusPlus(reference, reference.relu2).attribute(row.double(), 1) for row in rows[0].split(1)]
    assert all(m.norm() > 0 for m in maps)
    plain = LayerGradCamPlusPlus(model, model.relu2).attribute(rows[0], 1)
    assert close(plain, torch.cat(maps), bound)


def test_data_parallel_and_functions_around_the_model(expected: Tensor) -> None:
    model = ConvNet()
    assert close(smooth(nn.DataParallel(model), model.relu1, images()), expected)
    found = LayerSmoothGradCamPlusPlus(model.forward, model.relu1, device_ids=[0]).attribute(
        images(), 1, nt_samples=3, generator=seeded()
    )
    assert close(found, expected)


class FakeReplicas(nn.DataParallel):
    """`DataParallel` over two 'devices' that are both the CPU: replicas in threads that inherit the caller's grad mode,
    outputs gathered on the caller's thread. Only the order of the devices cannot be shown without two of them."""

    def forward(self, x: Tensor) -> Tensor:
        replica = self._replica()
        enabled, result = torch.is_grad_enabled(), []

        def work() -> None:
            torch.set_grad_enabled(enabled)
            result.append(replica(x))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return torch.cat(result)  # the gather

    def _replica(self) -> nn.Module:
        replicas: dict[nn.Module, nn.Module] = {}
        for module in self.module.modules():
            replicas[module] = module._replicate_for_data_parallel()
        for module, replica in replicas.items():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    setattr(replica, name, parameter)
            for name, child in module._modules.items():
                assert child is not None
                setattr(replica, name, replicas[child])
        return replicas[self.module]


def test_replicas_of_data_parallel_run_in_threads_of_their_own(expected: Tensor) -> None:
    model = ConvNet()
    assert close(smooth(FakeReplicas(model), model.relu1, images()), expected)
    parallel = FakeReplicas(model)
    found = LayerSmoothGradCamPlusPlus(lambda x: parallel(x), model.relu1, device_ids=[0]).attribute(
        images(), 1, nt_samples=3, generator=seeded()
    )
    assert close(found, expected)


def test_several_inputs_and_additional_arguments() -> None:
    model, a, b = TwoInputs(), images(2, 1, size=6), images(2, 1, size=6, seed=2)
    gain = torch.tensor([1.0, 2.0])
    maps = LayerGradCamPlusPlus(model, model.both).attribute((a, b), 1, additional_forward_args=(gain, "name"))
    assert [tuple(m.shape) for m in maps] == [(2, 1, 6, 6), (2, 1, 3, 6)]
    single = [
        LayerGradCamPlusPlus(model, model.both).attribute((a[i : i + 1], b[i : i + 1]), 1, gain[i].item())
        for i in range(2)
    ]
    assert close(maps[0], torch.cat([m[0] for m in single]))
    noisy = smooth(model, model.both, (a, b), additional_forward_args=gain, nt_samples_batch_size=2)
    assert noisy[0].shape == (2, 1, 6, 6)
    from_input = LayerGradCamPlusPlus(model, model.both).attribute((a, b), 1, gain, attribute_to_layer_input=True)
    assert [tuple(m.shape) for m in from_input] == [(2, 1, 6, 6), (2, 1, 6, 6)]


def test_the_network_before_the_layer_keeps_nothing_for_a_backward_pass() -> None:
    model = ConvNet()
    kept: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []
    model.conv1.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))
    model.conv2.register_forward_hook(lambda module, args, output: alive.append(kept[0]() is not None))
    smooth(model, model.relu1, images())
    assert alive[0] is False


def test_buffers_that_the_model_computes_anew_have_no_graph_afterwards() -> None:
    net = ConvNet()
    net.register_buffer("last", torch.zeros(()))

    def forward(module: nn.Module, args: Any, output: Tensor) -> None:
        net.last = output.mean()

    net.conv1.register_forward_hook(forward)
    smooth(net, net.relu1, images())
    assert net.last != 0 and not net.last.requires_grad


def test_models_that_change_their_inputs_in_place_get_fresh_rows(expected: Tensor) -> None:
    net = ConvNet()

    def normalising(x: Tensor) -> Tensor:
        x.mul_(2).sub_(1)
        return net(x)

    def wanting_gradients(x: Tensor) -> Tensor:
        x.mul_(2).sub_(1)
        with torch.no_grad():
            y = net.relu1(net.conv1(x))
        return tail(net, y)

    x = (images() + 1) / 2
    for forward in (normalising, wanting_gradients):
        maps = [smooth(forward, net.relu1, x, nt_samples_batch_size=c, stdevs=0.2, nt_samples=6) for c in (1, 2, 9)]
        wanted = smooth(net, net.relu1, images(), stdevs=0.4, nt_samples=6)
        assert all(close(found, wanted) for found in maps)
        plain = LayerGradCamPlusPlus(forward, net.relu1).attribute(x, 1)
        assert close(plain, LayerGradCamPlusPlus(net, net.relu1).attribute(images(), 1))
    assert torch.equal(x, (images() + 1) / 2)


def test_models_that_differentiate_in_front_of_the_layer() -> None:
    net = ConvNet()

    def forward(x: Tensor) -> Tensor:
        h = net.conv1(x)
        (g,) = torch.autograd.grad((h**3).sum(), h, create_graph=True)
        return tail(net, net.relu1(g))

    def by_hand(x: Tensor) -> Tensor:
        return tail(net, net.relu1(3 * net.conv1(x) ** 2))

    assert close(smooth(forward, net.relu1, images()), smooth(by_hand, net.relu1, images()))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_attention_in_front_of_the_layer_takes_no_fast_path() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
        head = nn.Linear(8, 3)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    last = encoder.layers[1]

    def forward(x: Tensor) -> Tensor:
        return head(encoder(x, src_key_padding_mask=padding[: len(x)]).mean(1))

    x = torch.randn(2, 6, 8)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.enable_grad():
        kept: list[Tensor] = []
        handle = last.register_forward_hook(lambda module, args, output: kept.append(output))
        (gradient,) = torch.autograd.grad(forward(x)[:, 1].sum(), kept)
        handle.remove()
    a = kept[0].detach()
    alpha = 1 / (2 + gradient * a.sum(2, keepdim=True))
    wanted = ((alpha * gradient.relu()).sum(2, keepdim=True) * a).sum(1, keepdim=True)
    assert close(LayerGradCamPlusPlus(forward, last, reshape_transform=lambda a: a).attribute(x, 1), wanted)
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_training_under_autocast_after_an_explanation_has_all_its_gradients() -> None:
    model = ConvNet()
    with torch.autocast("cpu", torch.bfloat16):
        LayerGradCamPlusPlus(model, model.relu2).attribute(images(), 1)
        model(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_sequences_of_checkpoints_are_no_reentrant_ones(expected: Tensor) -> None:
    net = ConvNet()
    parts = nn.Sequential(net.conv1, net.relu1, net.conv2, net.relu2, net.pool, nn.Flatten(), net.fc1, net.relu3)

    def forward(x: Tensor) -> Tensor:
        return net.fc2(checkpoint_sequential(parts, 2, x, use_reentrant=False))

    assert close(smooth(forward, net.relu1, images()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["autocast", "autocast, channels_last", "bfloat16 model"])
@pytest.mark.parametrize("layer", ["features.9", "features.12"])
def test_bfloat16_gives_the_map_of_a_real_network_within_5_percent(zoo: Any, layer: str, way: str) -> None:
    model = zoo.load("squeezenet1_1")
    x = zoo.image(zoo.HERE / "imagenet" / "0292.jpg")
    # A bfloat16 model draws its noise in bfloat16, which is other noise.
    options: Any = {"stdevs": 0} if "model" in way else {"nt_samples": 4}
    wanted = smooth(model, model.get_submodule(layer), x, 292, **options)
    if "channels_last" in way:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if "model" in way:
        model, x = model.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in way):
        found = smooth(model, model.get_submodule(layer), x, 292, **options)
    assert found.dtype == torch.float32
    assert alike(found, wanted, 0.05)


class ReadsMemory(nn.Module):
    """Fails or gives something else for another memory format than the caller's, in front of the first convolution."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.read, self.net = read, ConvNet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.read(x))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.as_strided(x.shape, (128, 64, 8, 1)),
        lambda x: torch.from_numpy(x.numpy().ravel("K").copy()).view(x.shape),
        lambda x: x.view(torch.int32).view(torch.float32),
        lambda x: x.view(len(x), -1).view_as(x),
    ],
    ids=["as_strided", "order of memory", "view as another dtype", "view"],
)
def test_models_that_read_the_memory_of_their_inputs_get_the_callers_memory_format(read: Any) -> None:
    model, net, x = ReadsMemory(read).eval(), ConvNet().eval(), images()
    assert torch.equal(
        LayerGradCamPlusPlus(model, model.net.relu1).attribute(x, 1),
        LayerGradCamPlusPlus(net, net.relu1).attribute(x, 1),
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_model_works_in_the_memory_format_of_the_caller(memory_format: torch.memory_format) -> None:
    net, seen = ConvNet().to(memory_format=memory_format), []
    for layer in (net.conv1, net.conv2):
        layer.register_forward_hook(
            lambda module, args, output: seen.append(output.is_contiguous(memory_format=memory_format))
        )
    x = images().to(memory_format=memory_format)
    attributions = LayerSmoothGradCamPlusPlus(net, net.relu1).attribute(x, 1, nt_samples=3, nt_samples_batch_size=2)
    assert seen == [True] * 4 and attributions.is_contiguous()
