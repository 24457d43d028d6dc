"""The one opener of autoencoders: build the chosen one, load its weights, and describe it for records."""

import hashlib

from safetensors.torch import save as to_safetensors

from dcae_bench.base.files import sha256_json
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.external import CustomAutoencoder
from dcae_bench.models.zoo import build
from dcae_bench.records.record import Subject
from dcae_bench.specs.autoencoders import CustomSpec, unfolded
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.subjects.trained import require_description


def open_autoencoder(chosen: ChosenAutoencoder) -> tuple[Autoencoder, Subject]:
    """Build the chosen autoencoder, load its weights and set evaluation mode; returns model and description.

    Without a weights file the autoencoder keeps the weights that its class builds it with. The recorded hash is that
    of the weights file. Two cases record :func:`state_sha256` instead: no weights file, and a user's class with own
    weights, because the code of such a class may change while the file stays the same. Raises :class:`ConfigError` and
    :class:`WeightsError`.
    """
    model = build(chosen.spec)
    sha256 = load_weights(model, chosen.weights) if chosen.weights is not None else None
    if chosen.weights is not None and chosen.source == "retrained":
        require_description(chosen.weights)
    if sha256 is None or (chosen.source == "own" and isinstance(unfolded(chosen.spec), CustomSpec)):
        sha256 = state_sha256(model)
    return model.eval(), describe_autoencoder(chosen, model.count_parameters(), sha256)


def describe_autoencoder(chosen: ChosenAutoencoder, parameters: int, weights_sha256: str) -> Subject:
    """Describe the chosen autoencoder as records hold it."""
    return Subject(
        autoencoder=chosen.name,
        family=chosen.spec.family,
        compression=chosen.spec.compression,
        latent_channels=chosen.spec.latent_channels,
        weights_source=chosen.source,
        phase=chosen.phase,
        parameters=parameters,
        weights_sha256=weights_sha256,
        variant=chosen.variant,
    )


def state_sha256(model: Autoencoder) -> str:
    """Hash in place of a weights file's: covers the model's spec, its state, and the source file of a user's class."""
    digest = hashlib.sha256(sha256_json(model.spec.model_dump(mode="json")).encode())
    for part in model.modules():
        if isinstance(part, CustomAutoencoder):  # the model itself, or the base model under a folded latent
            digest.update(part.source())
    for key, value in sorted(model.state_dict().items()):
        digest.update(to_safetensors({key: value.detach().cpu().contiguous()}))
    return digest.hexdigest()
