"""The one opener of autoencoders: build the chosen one, load its weights, and describe it for records."""

import os
from collections.abc import Callable

from torch import Tensor

from dcae_bench.base.files import sha256_json
from dcae_bench.base.terminal import Console
from dcae_bench.models.autoencoder import Autoencoder, part_of
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.external import CustomAutoencoder
from dcae_bench.models.zoo import build
from dcae_bench.records.subject import Subject
from dcae_bench.specs.autoencoders import CustomSpec, unfolded
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.subjects.own_class import (
    NOT_IDENTIFIED,
    count_made,
    digest_of_values,
    try_class,
    unidentified_sha256,
    use_once,
)
from dcae_bench.subjects.trained import require_description
from dcae_bench.weights.released import commit_of


def open_autoencoder(
    chosen: ChosenAutoencoder, images: Callable[[], Tensor] | None = None
) -> tuple[Autoencoder, Subject]:
    """Build the chosen autoencoder, load its weights and set evaluation mode; returns model and description.

    Without a weights file the autoencoder keeps the weights that its class builds it with. The recorded hash is that
    of the weights file. Two cases record :func:`state_sha256` instead: no weights file, and a user's class with own
    weights, because the code of such a class may change while the file stays the same.

    A user's class is used on a grey image first, because it may make its networks late. ``images`` gives a batch on
    which it is tried (:func:`~dcae_bench.subjects.own_class.try_class`); what the trial shows stands in the
    description's notes, and on the terminal. Weights that cannot be told from others get a hash that no other opening
    has, so that nothing of them is resumed, cached or merged.

    Raises :class:`ConfigError` and :class:`WeightsError`.
    """
    model = build(chosen.spec)
    custom = part_of(model, CustomAutoencoder)
    if custom is not None and not (custom.found.numeric or custom.found.pure):
        use_once(custom)
    sha256 = load_weights(model, chosen.weights) if chosen.weights is not None else None
    if chosen.weights is not None and chosen.source == "retrained":
        require_description(chosen.weights)
    model.eval()
    trained_here = sha256 if chosen.source == "retrained" else None  # its file says all that was trained
    if sha256 is None or (chosen.source == "own" and isinstance(unfolded(chosen.spec), CustomSpec)):
        sha256 = state_sha256(model)
    parameters = model.count_parameters()
    notes = model.notes
    if custom is not None:
        if made := use_once(custom.eval()):
            sha256 = digest_of_values(made, sha256.encode())
            parameters += count_made(made)
        if images is not None:
            notes = (*notes, *try_class(model, custom, images()))
        if (reason := custom.unidentified) is not None:
            notes = (f"{NOT_IDENTIFIED}: {reason}", *notes)
        if notes and notes[0].startswith(NOT_IDENTIFIED):
            sha256 = unidentified_sha256()
        sha256 = trained_here or sha256
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
    for note in notes:
        console.print(f"{chosen.name}: {note}", soft_wrap=True, markup=False)
    return model, describe_autoencoder(chosen, parameters, sha256, notes)


def describe_autoencoder(
    chosen: ChosenAutoencoder, parameters: int, weights_sha256: str, notes: tuple[str, ...] = ()
) -> Subject:
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
        notes=notes,
        weights_commit=commit_of(chosen.name, weights_sha256) if chosen.source == "released" else None,
        files_sha256=chosen.files_sha256,
        trained=chosen.trained,
    )


def state_sha256(model: Autoencoder) -> str:
    """Hash in place of a weights file's: covers the model's spec, its state, and what a user's class computes with.

    That is the class's source, what it says in ``identity``, and all networks, tensors and numbers that hang on it.
    """
    start, values = sha256_json(model.spec.model_dump(mode="json")).encode(), [*model.state_dict().items()]
    if (custom := part_of(model, CustomAutoencoder)) is not None:
        start += custom.source() + (custom.identity or "").encode()
        values += custom.weights()
    return digest_of_values(values, start)
