"""The cost of a case: parameters, tokens and operations of its network, counted without running the network."""

from dcae_bench.costs.step import step_cost
from dcae_bench.measurement.record import TimedModel
from dcae_bench.measurement.workloads.cases import Case
from dcae_bench.measurement.workloads.denoisers import sampler_of
from dcae_bench.measurement.workloads.paper_phases import paper_phase, paper_training
from dcae_bench.models.cost import autoencoder_cost, denoiser_cost


def timed_model(case: Case) -> tuple[TimedModel, float]:
    """The case's network, and the operations of one image of its work, without the recomputation of checkpointing."""
    return _autoencoder(case) if case.denoiser is None else _denoiser(case)


def _denoiser(case: Case) -> tuple[TimedModel, float]:
    denoiser = denoiser_cost(case.spec)
    model = TimedModel(
        name=case.denoiser,
        latent_space=case.latent.name,
        resolution=case.resolution,
        tokens=denoiser.tokens,
        parameters=denoiser.parameters,
        gmacs=denoiser.gmacs,
    )
    passes = {"train": 3, "forward": 1}.get(case.work) or 2 * sampler_of(case)[1]
    flops = 2e9 * passes * denoiser.gmacs
    if case.work == "sample_decode":
        flops += 2e9 * autoencoder_cost(case.autoencoder, [case.resolution]).passes[case.resolution].decode_gmacs
    return model, flops


def _autoencoder(case: Case) -> tuple[TimedModel, float]:
    found = autoencoder_cost(case.autoencoder, [case.resolution])
    one = found.passes[case.resolution]
    gmacs = {"encode": one.encode_gmacs, "decode": one.decode_gmacs}.get(case.work, one.encode_gmacs + one.decode_gmacs)
    model = TimedModel(
        name=case.latent.autoencoder,
        latent_space=None,
        resolution=case.resolution,
        tokens=None,
        parameters=found.parameters,
        gmacs=gmacs,
    )
    if not case.trains:
        return model, 2e9 * gmacs
    # A training step is counted, not taken as a multiple of the forward pass: frozen layers need only a part of the
    # backward pass or none of it, and LPIPS and the discriminator run beside the autoencoder.
    phase = paper_phase(case.work).model_copy(update={"resolution": case.resolution})
    step = step_cost(case.autoencoder, phase, paper_training().loss, "fp32")
    return model, 2 * (step.forward_mac + step.backward_mac)
