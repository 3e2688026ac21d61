"""Extra peak memory of one call, each in a fresh process (on Linux, or of the CUDA device). Prints a table in Markdown.

python memory.py --threads 2 --network resnet50:layer4
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import torch
from captum.attr import LayerGradCam, NoiseTunnel
from setting import Setting, model_and_images, parsed, parser
from tables import machine, markdown
from timing import mode

from captum_sgcampp import LayerSmoothGradCamPlusPlus

RUNS = 3
SAMPLES = (8, 64)
OURS, NOISE_TUNNEL = "ours", "NoiseTunnel"
MODES = ("float32", "channels_last", "bfloat16")
MIB = 2**20


def one_call(network: str, name: str, method: str, setting: Setting) -> int:
    """Bytes by which one call raises this process's peak, which before it holds Python, torch and the model."""
    model, images = model_and_images(network, setting)
    layer, options = model.get_submodule(name), {"nt_samples": setting.nt_samples, "stdevs": 0.1}
    before = _peak(setting.device)
    with mode(setting):
        if method == OURS:
            LayerSmoothGradCamPlusPlus(model, layer).attribute(images, 1, **options)
        else:
            NoiseTunnel(LayerGradCam(model, layer)).attribute(images, target=1, **options)
    return _peak(setting.device) - before


def _peak(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not getrusage's ru_maxrss, which a new program inherits from the one that started it.
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def extra_peak(network: str, layer: str, method: str, samples: int, setting: Setting) -> float:
    """MiB of one call in a fresh process.

    Args:
        network, layer: as in `--network`.
        method: `OURS` or `NOISE_TUNNEL`.
        samples: noisy samples.
        setting: size, device and mode.
    """
    options = {
        "once": method,
        "network": f"{network}:{layer}",
        "nt-samples": samples,
        "threads": torch.get_num_threads(),
        **{name: getattr(setting, name) for name in ("size", "device", "mode")},
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return int(done.stdout) / MIB


def memory_report(cases: Sequence[tuple[str, str]], setting: Setting) -> str:
    """A table in Markdown: the least of three runs for few and many noisy samples, and `NoiseTunnel` for many."""
    heads = ["network", "layer", *(f"n = {n}: MiB" for n in SAMPLES), f"NoiseTunnel, n = {SAMPLES[-1]}: MiB"]
    rows = []
    for network, layer in cases:
        ours = [min(extra_peak(network, layer, OURS, n, setting) for _ in range(RUNS)) for n in SAMPLES]
        tunnel = extra_peak(network, layer, NOISE_TUNNEL, SAMPLES[-1], setting)
        rows.append([network, layer, *(f"{value:.0f}" for value in (*ours, tunnel))])
    head = f"Extra peak memory of one call in a fresh process, least of {RUNS} runs (NoiseTunnel: one run)."
    lines = [f"{machine(setting.device)} {setting.size} x {setting.size}, {setting.mode}.", "", head, ""]
    return "\n".join([*lines, *markdown(heads, rows)])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__, "network", "nt-samples", "size", "threads", "device")
    made.add_argument("--mode", choices=MODES, default="float32", help="float32 is contiguous")
    made.add_argument("--once", choices=(OURS, NOISE_TUNNEL), help="only bytes of one call with --nt-samples, here")
    arguments, setting = parsed(made, argv)
    if arguments.once:
        [(network, layer)] = arguments.network
        print(one_call(network, layer, arguments.once, setting))
    else:
        print(memory_report(arguments.network, setting))


if __name__ == "__main__":
    main()
