"""Extra peak memory of one call, each in a fresh process (on Linux, or of the CUDA device). Prints a table in Markdown.

python memory.py --threads 2 --network resnet50:layer4
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import torch
from setting import Setting, parsed, parser
from tables import machine, markdown

RUNS = 3
COPIES = (8, 64)
MIB = 2**20

# The peak of the process before the call holds Python, torch and the model.
PROGRAM = """
import sys
import torch, torchvision
from captum.attr import LayerGradCam, NoiseTunnel
from captum_sgcampp import LayerSmoothGradCamPlusPlus

network, name, method, device = sys.argv[1:5]
copies, size, threads = map(int, sys.argv[5:])
torch.set_num_threads(threads)
model = torchvision.models.get_model(network, weights=None).eval().to(device)
layer, image = model.get_submodule(name), torch.randn(1, 3, size, size, device=device)


def peak():
    if image.is_cuda:
        return torch.cuda.max_memory_allocated()
    # Not getrusage's ru_maxrss, which a new program inherits from the one that started it.
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


before = peak()
if method == "ours":
    LayerSmoothGradCamPlusPlus(model, layer).attribute(image, 1, nt_samples=copies, stdevs=0.1)
else:
    NoiseTunnel(LayerGradCam(model, layer)).attribute(image, nt_samples=copies, stdevs=0.1, target=1)
print(peak() - before)
"""


def extra_peak(network: str, layer: str, method: str, copies: int, setting: Setting, threads: int) -> float:
    """MiB of one call in a fresh process.

    Args:
        network, layer: as for `measure`.
        method: `"ours"` or `"NoiseTunnel"`.
        copies: noisy copies.
        setting: size and device.
        threads: of torch.
    """
    arguments = [network, layer, method, setting.device, copies, setting.size, threads]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return int(done.stdout) / MIB


def memory_report(cases: Sequence[tuple[str, str]], setting: Setting, threads: int) -> str:
    """A table in Markdown: the least of three runs for 8 and 64 copies, and for `NoiseTunnel` around `LayerGradCam`."""
    heads = ["network", "layer", *(f"n = {n}: MiB" for n in COPIES), f"NoiseTunnel, n = {COPIES[-1]}: MiB"]
    rows = []
    for network, layer in cases:
        ours = [min(extra_peak(network, layer, "ours", n, setting, threads) for _ in range(RUNS)) for n in COPIES]
        tunnel = extra_peak(network, layer, "NoiseTunnel", COPIES[-1], setting, threads)
        rows.append([network, layer, *(f"{value:.0f}" for value in (*ours, tunnel))])
    head = f"Extra peak memory of one call in a fresh process, least of {RUNS} runs (NoiseTunnel: one run)."
    return "\n".join([machine(setting), "", head, "", *markdown(heads, rows)])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments, setting = parsed(parser(__doc__, "network", "size", "threads", "device"), argv)
    print(memory_report(arguments.network, setting, torch.get_num_threads()))


if __name__ == "__main__":
    main()
