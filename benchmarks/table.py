"""Print the table of docs/performance.md: ``table.py FILE``, where ``pytest --benchmark-json=FILE`` wrote the file."""

import json
import sys
from pathlib import Path

from dcae_bench.tables.markdown import grid

HEADERS = ["work", "precision", "ours", "diffusers", "ratio", "to diffusers fp32", "ours / ceiling"]
HEADERS += ["diffusers / ceiling", "error, ours", "error, diffusers", "peak GiB, ours / diffusers"]


def table(content: dict) -> str:
    """The table of the results of bench_autoencoders.py, and a line that names the machine and the versions."""
    found = [run["extra_info"] for run in content["benchmarks"] if run["group"] == "autoencoders"]
    if not found:
        raise SystemExit("no timings of autoencoders in this file; run benchmarks/bench_autoencoders.py")
    fp32 = {(run["what"], run["mode"]): run["seconds"]["diffusers"] for run in found if run["precision"] == "fp32"}
    machine, first = content["machine_info"], found[0]
    device = machine["cpu"].get("brand_raw", "CPU") if first["device"] == "cpu" else first["device"]
    footer = (
        f"{first['autoencoder']}, {device} ({machine.get('cpu_capability', '-')}, {first['threads']} CPU thread), "
        f"torch {machine['torch']}, diffusers {first['diffusers']}, Python {machine['python_version']}"
    )
    return grid(HEADERS, [_row(run, fp32) for run in found], "ll" + "r" * 9) + f"\n{footer}\n"


def _row(run: dict, fp32: dict) -> list[str]:
    ours, theirs = run["seconds"]["ours"], run["seconds"]["diffusers"]
    base = fp32.get((run["what"], run["mode"]))
    errors = run.get("error", {})
    peak = run["peak_gib"]
    return [
        f"{run['what']}, {run['batch']} x {run['side']} px, {run['mode']}",
        run["precision"],
        f"{ours:.3g} s",
        f"{theirs:.3g} s",
        f"{theirs / ours:.2f}",
        f"{base / ours:.2f}" if base else "-",
        *(f"{100 * run['of_ceiling'][name]:.0f} %" for name in ("ours", "diffusers")),
        *(f"{errors[name]:.1e}" if name in errors else "-" for name in ("ours", "diffusers")),
        f"{peak['ours']:.2f} / {peak['diffusers']:.2f}" if peak else "-",
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(table(json.loads(Path(sys.argv[1]).read_text())), end="")
