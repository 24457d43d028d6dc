"""``make clean``: what it removes and what it leaves."""

import os
import shutil
import subprocess
import time

from dcae_bench.base.files import REPOSITORY


def test_leftovers_go_and_evidence_and_living_writers_stay(tmp_path):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    cache, day = tmp_path / "the cache", 24 * 3600
    part = ".file.0123456789abcdef.part"
    removed = [
        f"results/demo/{part}",
        f"results/{part}",
        f"results/reference/gpu/{part}",
        "results/reference/.gpu.part/x",
    ]
    kept = ["results/README.md", "results/reference/gpu/record.json", "the cache/reference/.new.part", "the cache/kept"]
    removed += [f"the cache/reference/{part}"]
    for name in [*removed, *kept]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        if ".new." not in name:
            os.utime(path, (time.time() - 2 * day,) * 2)
    environment = {**os.environ, "DCAE_BENCH_CACHE": str(cache)}
    subprocess.run(["make", "clean"], cwd=tmp_path, env=environment, check=True)
    assert [name for name in removed if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []
