"""Builds the image of the ``Dockerfile`` and tries it: the user is not root, the commit is known, a rule runs.

    python -m tests.image --base IMAGE

Needs podman, 25 GB of disk and the packages of the pinned files. ``--base`` names another image of Debian with
Python 3.11, 3.12 or 3.13 where the Dockerfile's own cannot be fetched. The image is removed afterwards.
"""

import argparse
import shutil
import subprocess
import sys

from dcae_bench.base.files import REPOSITORY

NAME = "localhost/dcae-bench-trial"
TARGET = "results/demo/data/photos-indoor/train.npy"
# A container of its own needs rights that a container, such as one of CI, has not; a changed root needs few.
ISOLATION = ("--isolation", "chroot", "--network", "host")
TRIAL = f"""
set -eu
[ "$(id -u)" -ne 0 ] || {{ echo 'error: the user is root' >&2; exit 1; }}
dcae-bench zoo >/dev/null
echo "commit $(git -C /app rev-parse HEAD)"
snakemake --snakefile /app/Snakefile --cores 1 {TARGET} >log 2>&1 || {{ cat log >&2; exit 1; }}
ls -l {TARGET}
"""


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.image", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", help="base image instead of the Dockerfile's")
    parser.add_argument("--volume", action="append", default=[], help="FOLDER:FOLDER to build with, as a cache of uv")
    asked = parser.parse_args()
    lacking = [name for name in ("podman", "buildah") if shutil.which(name) is None]
    if lacking:
        print(f"the image is not built, because this machine lacks {' and '.join(lacking)}")
        return 0
    options = [
        *(["--build-arg", f"BASE={asked.base}"] if asked.base else []),
        *(f"--volume={one}" for one in asked.volume),
    ]
    # Kept layers would be three copies of the packages.
    build = ["podman", "build", "--layers=false", *ISOLATION, *options, "--tag", NAME, str(REPOSITORY)]
    subprocess.run(build, check=True)
    container = run("buildah", "from", NAME)
    try:
        print(run("buildah", "run", *ISOLATION, container, "--", "sh", "-c", TRIAL))
    finally:
        run("buildah", "rm", container)
        run("podman", "rmi", "--force", NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
