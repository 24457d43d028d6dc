"""The linear control against numpy's exact decomposition."""

import numpy as np
import pytest
import torch

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.yaml_files import load_yaml
from dcae_bench.models.pca import PCA
from dcae_bench.models.zoo import build
from dcae_bench.planning.meaning import expected_reconstructions
from dcae_bench.planning.targets import needs_of
from dcae_bench.profile.profile import load_profile, parse_profile, profile_file
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.specs.autoencoders import PCASpec

F, C = 4, 6


@pytest.fixture
def patches() -> torch.Tensor:
    """Patches (300, 48) with a falling spectrum and a mean."""
    generator = torch.Generator().manual_seed(0)
    numbers = 3 * F * F
    scales = 0.8 ** torch.arange(numbers)
    axes = torch.linalg.qr(torch.randn(numbers, numbers, generator=generator)).Q
    return torch.randn(300, numbers, generator=generator) * scales @ axes.T + 0.1


def fitted(patches: torch.Tensor, seed: int = 0) -> tuple[PCA, float]:
    model = build(PCASpec(family="pca", compression=F, latent_channels=C))
    assert isinstance(model, PCA)
    return model, model.fit(patches.clone(), seed)


def test_the_fit_is_the_exact_decomposition(patches):
    model, explained = fitted(patches)
    exact = patches.double().numpy()
    exact = exact - exact.mean(0)
    _, lengths, rows = np.linalg.svd(exact, full_matrices=False)
    np.testing.assert_allclose(np.abs((model.components.detach().numpy() * rows[:C]).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(model.mean.detach().numpy(), patches.mean(0).numpy(), atol=1e-6)
    assert explained == pytest.approx((lengths[:C] ** 2).sum() / (lengths**2).sum(), rel=1e-5)
    largest = model.components.gather(1, model.components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_another_seed_finds_the_same_components(patches):
    one, other = (fitted(patches, seed)[0].components for seed in (0, 1))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_images_become_their_patches_projections(patches):
    model, _ = fitted(patches)
    image = torch.rand(2, 3, 2 * F, 3 * F, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = model.encode(image)
    assert z.shape == (2, C, 2, 3)
    patch = image[1, :, F : 2 * F, 2 * F : 3 * F].reshape(-1)
    components, mean = model.components.detach(), model.mean.detach()
    torch.testing.assert_close(z[1, :, 1, 2].detach(), components @ (patch - mean), atol=1e-5, rtol=1e-4)
    decoded = model(image)[1, :, F : 2 * F, 2 * F : 3 * F].reshape(-1).detach()
    torch.testing.assert_close(decoded, components.T @ (components @ (patch - mean)) + mean, atol=1e-5, rtol=1e-4)
    assert model.count_parameters() == 3 * F * F * (C + 1)


def test_a_patch_has_no_more_components_than_numbers():
    with pytest.raises(ValueError, match="a patch of 4 px has only 48 numbers"):
        PCASpec(family="pca", compression=4, latent_channels=49)


def test_a_profile_fits_a_control_in_the_place_of_phase_1():
    demo = load_profile("demo")
    assert demo.phases_of("pca-f64c128") == (1,) and demo.phases_of("dc-ae-f64c128") == (1, 2, 3)
    named = [name for name in expected_reconstructions(demo) if name.startswith("pca-f64c128")]
    assert len(named) == len(demo.evaluation.sets) and all("after phase 1" in name for name in named)
    needs = needs_of(demo, "results/table_rfid.md")
    assert [job for job in needs.trainings if job[0] == "pca-f64c128"] == [("pca-f64c128", 1)]
    # The optimiser, the losses and the later phases leave a control alone; the crops do not.
    content = load_yaml(profile_file("demo"))
    del content["ablations"]  # they need phases of two resolutions
    content["training"]["phases"][1]["optimizer"]["lr"] = 0.5
    content["training"]["loss"]["lpips"] = 0.7
    other = parse_profile(content, "other")
    assert training_recipe(other, "pca-f64c128", 1) == training_recipe(demo, "pca-f64c128", 1)
    assert training_recipe(other, "dc-ae-f64c128", 1) != training_recipe(demo, "dc-ae-f64c128", 1)
    content["training"]["phases"][1]["resolution"] = 128
    assert training_recipe(parse_profile(content, "other"), "pca-f64c128", 1) != training_recipe(demo, "pca-f64c128", 1)
    content["autoencoders"]["pca-f64c128"]["lr"] = {1: 0.1}
    with pytest.raises(ConfigError, match="a pca model is fitted in closed form"):
        parse_profile(content, "other")
