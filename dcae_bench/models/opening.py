"""An autoencoder with its weights, and the hash that tells it from others."""

import hashlib
from pathlib import Path

from safetensors.torch import save as to_safetensors

from dcae_bench.files import sha256_json
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.external import CustomAutoencoder
from dcae_bench.models.zoo import build
from dcae_bench.records import WeightsSource
from dcae_bench.specs import AutoencoderSpec, CustomSpec, core


def open_model(spec: AutoencoderSpec, weights: Path | None, source: WeightsSource) -> tuple[Autoencoder, str]:
    """Build an autoencoder in evaluation mode; returns also the hash of its weights.

    Without ``weights`` it is as its class builds it. The hash is the file's; of a class of the user's, whose code may
    change under the same file, that of :func:`state_sha256`, unless this harness trained it. Raises
    :class:`ConfigError` and :class:`WeightsError`.
    """
    model = build(spec)
    sha256 = load_weights(model, weights) if weights is not None else None
    if sha256 is None or (source == "own" and isinstance(core(spec), CustomSpec)):
        sha256 = state_sha256(model)
    return model.eval(), sha256


def state_sha256(model: Autoencoder) -> str:
    """What stands for the hash of a weights file where a class brings its own.

    Hash of its spec, of the module it is defined in, if it is a class of the user's, and of its state.
    """
    digest = hashlib.sha256(sha256_json(model.spec.model_dump(mode="json")).encode())
    for part in model.modules():
        if isinstance(part, CustomAutoencoder):  # the model itself, or the base of a folded latent
            digest.update(part.source())
    for key, value in sorted(model.state_dict().items()):
        digest.update(to_safetensors({key: value.detach().cpu().contiguous()}))
    return digest.hexdigest()
