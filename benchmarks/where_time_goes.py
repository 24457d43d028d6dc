"""Print where a forward pass of UViT-S spends its time on a CPU, for two latent spaces and equally many tokens a batch.

``python benchmarks/where_time_goes.py`` prints the table of docs/measuring.md: each kind of operation's share of the
processor time, and the multiply-accumulates per second that the operation reaches.
"""

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.measurement.workloads.cases import Case, Latent
from dcae_bench.measurement.workloads.denoisers import forward_inputs, random_denoiser
from dcae_bench.measurement.workloads.job import Job
from dcae_bench.measurement.workloads.recipes import CPU
from dcae_bench.tables.markdown import grid

ITERATIONS = 4
KINDS = {
    "linear layers": ("addmm", "mm"),
    "attention": ("_scaled_dot_product", "bmm", "baddbmm"),
    "GELU": ("gelu",),
    "layer norm": ("native_layer_norm",),
    "residuals, concatenations, copies": ("add", "cat", "copy_"),
}


def kind(name: str) -> str:
    """The kind of operation that an operator belongs to, by the operator's name."""
    name = name.removeprefix("aten::")
    for found, names in KINDS.items():
        if name in names or any(name.startswith(one) for one in names if one.startswith("_")):
            return found
    return "other"


def measure(latent: str) -> tuple[dict[str, float], dict[str, float], int]:
    """Seconds per image by kind, multiply-accumulates per image by kind, and the batch size."""
    case = Case(denoiser="uvit-s", latent=Latent.parse(latent), resolution=512, work="forward")
    job = Job(case, CPU, CPU.first_batch(case)[0], torch.device("cpu"))
    model, inputs = random_denoiser(case, job.device, 0).eval(), forward_inputs(job)[0]
    with torch.inference_mode():
        model(*inputs)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for _ in range(ITERATIONS):
                model(*inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    seconds: dict[str, float] = {}
    for event in profiled.key_averages():
        seconds[kind(event.key)] = seconds.get(kind(event.key), 0) + event.self_cpu_time_total / 1e6
    macs: dict[str, float] = {}
    for operator, flops in counter.get_flop_counts()["Global"].items():
        name = kind(str(operator).removeprefix("aten."))
        macs[name] = macs.get(name, 0) + flops / 2
    images = ITERATIONS * job.batch
    return {k: v / images for k, v in seconds.items()}, {k: v / job.batch for k, v in macs.items()}, job.batch


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    latents = ("sd-vae-f8c4-p2", "dc-ae-f64c128-p1")
    found = [measure(latent) for latent in latents]
    rows = []
    for name in [*KINDS, "other", "all"]:
        cells = [name]
        for seconds, macs, _ in found:
            time = sum(seconds.values()) if name == "all" else seconds.get(name, 0)
            work = sum(macs.values()) if name == "all" else macs.get(name, 0)
            cells += [f"{1000 * time:.1f}", f"{100 * time / sum(seconds.values()):.1f} %"]
            cells += [f"{100 * work / sum(macs.values()):.1f} %", f"{work / time / 1e9:.0f}" if work else "-"]
        rows.append(cells)
    headers = ["forward, UViT-S"]
    headers += [f"{latent}, {what}" for latent in latents for what in ("ms/image", "time", "MAC", "GMAC/s")]
    print(grid(headers, rows, "l" + "r" * 8))
    ratio = [sum(found[0][i].values()) / sum(found[1][i].values()) for i in (0, 1)]
    print(f"batches {found[0][2]} and {found[1][2]}; time ratio {ratio[0]:.2f}, MAC ratio {ratio[1]:.2f}")


if __name__ == "__main__":
    main()
