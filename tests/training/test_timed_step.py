"""The step that is timed is the step that the trainer takes."""

import pytest
import torch

from dcae_bench.measurement.workloads import paper_phases
from dcae_bench.measurement.workloads.cases import Case, Latent
from dcae_bench.measurement.workloads.job import Job
from dcae_bench.measurement.workloads.phase_step import PhaseStep
from dcae_bench.measurement.workloads.recipes import CPU
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import parse_profile

CHANGES = {
    ("training", "loss", "lpips"): 0.1,  # of images that are large enough for its network
    **{("training", "phases", phase, "resolution"): 32 for phase in (1, 2, 3)},
    # The rate of a long training: a timed step has no warm-up.
    **{("training", "phases", phase, "optimizer"): {"lr": 0.01, "weight_decay": 0.1} for phase in (1, 2, 3)},
}


@pytest.mark.parametrize("autoencoder", ["dc-ae", "sd-vae"])
@pytest.mark.parametrize("phase", [1, 2, 3])
def test_a_timed_step_moves_every_net_as_the_trainer_does(start, tiny, tmp_path, monkeypatch, autoencoder, phase):
    profile = parse_profile(tiny(CHANGES), "tiny")
    monkeypatch.setattr(paper_phases, "paper_profile", lambda: profile)
    trainer = start(tmp_path, autoencoder, phase, CHANGES)
    # As the trainer lays its tensors out; another layout gives other last bits.
    model = build(profile.autoencoders[autoencoder].model, seed=0).to(memory_format=torch.contiguous_format)
    model.load_state_dict(trainer.autoencoder.state_dict())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    case = Case(denoiser=None, latent=Latent(autoencoder=autoencoder, patch=1), resolution=32, work=f"phase{phase}")
    timed = PhaseStep(model, Job(case, CPU, 4, torch.device("cpu"), seed=profile.seed))
    images = [2 * torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(n)) - 1 for n in range(2)]
    for one in images:
        monkeypatch.setattr(trainer, "batch", lambda part, one=one: one)
        logged, losses = trainer.step(), timed.step(one)
        assert losses.tolist() == pytest.approx([logged[name] for name in ("loss", "disc") if name in logged], rel=1e-6)
    found, wanted = model.state_dict(), trainer.autoencoder.state_dict()
    assert not [key for key in wanted if not found[key].equal(wanted[key])]
    assert any(not found[key].equal(before[key]) for key in before)
    if phase == 3:
        found, wanted = timed.objective.discriminator.state_dict(), trainer.discriminator.state_dict()
        assert not [key for key in wanted if not found[key].equal(wanted[key])]
    trainer.close()
