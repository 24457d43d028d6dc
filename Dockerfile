# The project with its pinned packages, for CPUs and NVIDIA GPUs alike: PyTorch's packages bring CUDA, the host brings the driver.
#
#   docker build --tag dcae-bench:0.1.0 .
#
# docs/cluster.md says how to run it. The image holds the checkout in /app and its environment in /venv; commands run in /data.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
ENV VIRTUAL_ENV=/venv PATH=/venv/bin:$PATH UV_LINK_MODE=copy
COPY requirements.txt requirements-build.txt requirements-cluster.txt ./
RUN python3 -m venv /venv \
 && python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.txt
RUN python -m uv pip install --no-deps --require-hashes --no-build-isolation -r requirements.txt -r requirements-cluster.txt
# Snakemake installs its plugin for storage again in each pod; there it finds this file and nothing else.
RUN sed -n '/^snakemake-storage-plugin-fs==/,/[^\\]$/p' requirements-cluster.txt > plugin.txt \
 && python -m pip download --no-cache-dir --no-deps --require-hashes --dest /plugins -r plugin.txt

FROM ${BASE}
# git tells records the commit, rsync is what the plugin for storage calls.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git rsync \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --home-dir /data --create-home dcae
COPY --from=build /plugins /plugins
COPY --from=build /venv /venv
COPY . /app
ENV VIRTUAL_ENV=/venv PATH=/venv/bin:$PATH UV_LINK_MODE=copy PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_FIND_LINKS=/plugins
RUN python -m uv pip install --offline --no-deps --no-build-isolation --editable /app \
 && git config --system --add safe.directory /app
USER dcae
WORKDIR /data
CMD ["dcae-bench", "--help"]
