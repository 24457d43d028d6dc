"""Fill the table of targets in docs/performance.md on a GPU: ``python benchmarks/speed_table.py DIR``.

It times what is missing in DIR and prints the table; a second call continues, and ``--print`` only prints. A part that
fails stands as "-", the others follow. It needs only the package's Python requirements and runs for about 10 minutes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from dcae_bench.measurement.record import ThroughputRecord, load
from dcae_bench.tables.markdown import grid

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "results/reference/h100-2026-11-27"
LATENTS = {"sd-vae-f8c4 p2": "f8p2", "dc-ae-f64c128 p1": "f64p1"}
# Targets: images/s and MFU of UViT-H; diffusers' time over ours of DC-AE f32c32 at 512 px.
DENOISER_TARGETS = {
    ("train", "f8p2"): (130, 0.68),
    ("train", "f64p1"): (2350, 0.68),
    ("forward", "f8p2"): (420, 0.74),
    ("forward", "f64p1"): (7700, 0.74),
}
AUTOENCODER_TARGETS = {"encode": 1.5, "decode": 1.5, "training step": 1.3}
# Without checkpoints UViT-H fills 25 GiB at a sixteenth of the authors' batch, and the batches of both latent spaces
# must fit together.
SHARES = {"train": ("--share", "16"), "forward": ("--share", "4")}


def commands(output: Path) -> dict[str, tuple[Path, list[str]]]:
    """What is run, by its name: the file or folder that shows that it is done, and the command."""
    found: dict[str, tuple[Path, list[str]]] = {}
    for work, share in SHARES.items():
        folder = output / work
        words = ["-m", "dcae_bench", "measure", "--protocol", "tuned", "--denoiser", "uvit-h", "--work", work, *share]
        latents = [word for latent in LATENTS for word in ("--latent", latent.replace(" ", "-"))]
        found[work] = (folder, [*words, *latents, "--short", "--output", str(folder)])
    for mode in ("eager", "compiled"):
        file = output / f"autoencoders-{mode}.json"
        words = ["-m", "pytest", str(ROOT / "benchmarks/bench_autoencoders.py"), "--benchmark-only", "-k", mode]
        found[mode] = (file, [*words, f"--benchmark-json={file}"])
    return found


def table(output: Path) -> str:
    """The table of what lies in ``output``: targets, what the committed evidence has, and what was measured."""
    before, now = _denoisers(EVIDENCE / "records"), {}
    for work in SHARES:
        now |= _denoisers(output / work)
    rows = []
    for (work, latent), (rate, mfu) in DENOISER_TARGETS.items():
        cells = [_rate(found.get((work, latent))) for found in (before, now)]
        rows.append([f"UViT-H {work}, tuned, {latent}, images/s (MFU)", cells[0], f"{rate} ({mfu:.0%})", cells[1]])
    ratios, new = _ratios(EVIDENCE / "autoencoders.json"), {}
    for mode in ("eager", "compiled"):
        new |= _ratios(output / f"autoencoders-{mode}.json")
    for mode in ("eager", "compiled"):
        for what, target in AUTOENCODER_TARGETS.items():
            cells = [f"{found[what, mode]:.2f}" if (what, mode) in found else "-" for found in (ratios, new)]
            rows.append(
                [f"DC-AE f32c32 512 px bf16, diffusers / ours, {what}, {mode}", cells[0], f"{target}", cells[1]]
            )
    return grid(["work", EVIDENCE.name, "target", "measured"], rows, "lrrr")


def _denoisers(folder: Path) -> dict[tuple[str, str], ThroughputRecord]:
    """Records of UViT-H under a tuned protocol, by work and latent space."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".nvml.json")]
    records = [load(path) for path in paths if path.name != "plan.json"]
    return {
        (one.work, LATENTS[one.model.latent_space]): one
        for one in records
        if one.protocol.startswith("throughput/tuned") and one.model.latent_space in LATENTS
    }


def _rate(record: ThroughputRecord | None) -> str:
    if record is None or record.derived is None:
        return record.status if record else "-"
    mfu = record.derived.mfu
    return f"{record.derived.images_per_s.value:.4g}" + (f" ({mfu:.0%})" if mfu is not None else "")


def _ratios(path: Path) -> dict[tuple[str, str], float]:
    """diffusers' seconds over ours in bf16, by work and mode."""
    if not path.exists():
        return {}
    runs = [run["extra_info"] for run in json.loads(path.read_text())["benchmarks"]]
    return {
        (run["what"], run["mode"]): run["seconds"]["diffusers"] / run["seconds"]["ours"]
        for run in runs
        if run.get("precision") == "bf16" and "seconds" in run
    }


def main() -> int:
    """Time what is missing and print the table. Returns 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="DIR")
    parser.add_argument("--print", action="store_true", help="time nothing")
    options = parser.parse_args()
    failed = []
    if not options.print:
        import torch

        if not torch.cuda.is_available():
            print("speed_table.py: no CUDA GPU here; --print prints what lies in the folder", file=sys.stderr)
            return 2
        options.output.mkdir(parents=True, exist_ok=True)
        for name, (proof, words) in commands(options.output).items():
            if proof.is_file() or any(proof.glob("*.json")):
                continue
            if subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode:
                failed.append(name)
    print(table(options.output))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
