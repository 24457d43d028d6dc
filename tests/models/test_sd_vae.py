import pytest
import torch
from pydantic import ValidationError

from dcae_bench.models.autoencoder import LAYER_SETS
from dcae_bench.models.cost import autoencoder_cost
from dcae_bench.models.sd_vae import SDVAE
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from dcae_bench.specs.autoencoders import SDVAESpec

LDM = (128, 256, 512, 512)


def spec(latent_channels: int, widths: tuple[int, ...], **fields) -> SDVAESpec:
    return SDVAESpec(family="sd-vae", latent_channels=latent_channels, widths=widths, **fields)


def tiny() -> SDVAE:
    return build(spec(4, (8, 8, 16), layers_per_block=1, norm_groups=4), seed=0)


def test_the_f8_network_has_ldms_parameter_count():
    with torch.device("meta"):
        model = SDVAE(spec(4, LDM))
    assert model.count_parameters() == 83_653_863
    assert model.compression == 8


@pytest.mark.parametrize(
    ("latent_channels", "stacked", "compression", "millions"),
    [(32, 2, 32, "140.70"), (128, 3, 64, "170.43"), (512, 4, 128, "205.30")],
)
def test_stacked_networks_have_the_paper_latents_and_known_sizes(latent_channels, stacked, compression, millions):
    with torch.device("meta"):
        model = SDVAE(spec(latent_channels, LDM + (512,) * stacked))
    assert f"{model.count_parameters() / 1e6:.2f}" == millions
    assert (model.compression, model.latent_channels) == (compression, latent_channels)


def test_the_f8_network_is_part_of_the_stacked_one():
    """Stacking leaves every convolution of the finer levels as it is (paper, section 3.1)."""
    with torch.device("meta"):
        shallow, deep = (dict(SDVAE(spec(4, LDM + (512,) * n)).named_parameters()) for n in (0, 1))
    for key, value in shallow.items():
        if key.startswith("net.encoder.down_blocks") or key.startswith("net.encoder.conv_in"):
            assert deep[key].shape == value.shape


@pytest.mark.parametrize(("widths", "f"), [((8, 8), 2), ((8, 8, 16), 4), ((8, 8, 8, 8, 16), 16)])
def test_latent_shape(widths, f):
    model = build(spec(6, widths, layers_per_block=1, norm_groups=4), seed=0)
    z = model.encode(torch.zeros(2, 3, 2 * f, 3 * f))
    assert z.shape == (2, 6, 2, 3)
    assert model.decode(z).shape == (2, 3, 2 * f, 3 * f)


def test_encoding_is_the_posteriors_mean():
    model = tiny()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    first = model.encode(x)
    torch.manual_seed(1)
    assert model.encode(x).equal(first)
    moments = model.net.quant_conv(model.net.encoder(x))
    assert first.equal(moments[:, :4])


def test_layer_sets_are_disjoint_and_named_as_for_dc_ae():
    model = tiny()
    dc_ae = build(load_profile("demo").autoencoders["dc-ae-f32c32"].model)
    for autoencoder in (model, dc_ae):
        sets = autoencoder.layer_sets()
        assert tuple(sets) == LAYER_SETS
        owned = {name: {id(p) for layer in layers for p in layer.parameters()} for name, layers in sets.items()}
        everything = owned.pop("all")
        assert everything == {id(p) for p in autoencoder.parameters()}
        for name, ids in owned.items():
            assert ids and ids < everything
            for other, others in owned.items():
                assert name == other or not ids & others, (name, other)


def test_heads_and_inputs_touch_the_latent_and_the_image():
    model = tiny()
    sets = model.layer_sets()
    assert [layer.in_channels for layer in sets["encoder_head"][1:]] == [16, 8]
    assert [layer.out_channels for layer in sets["decoder_input"]] == [4, 16]
    assert sets["decoder_head"][-1].weight is model.last_layer
    model.last_layer.data.zero_()
    sets["decoder_head"][-1].bias.data.zero_()
    assert not model.decode(torch.ones(1, 4, 2, 2)).any()


def test_in_the_demo_each_latent_has_a_baseline_that_costs_no_less_and_a_control():
    costs: dict[tuple[int, int], dict[str, float]] = {}
    for entry in load_profile("demo").autoencoders.values():
        one = autoencoder_cost(entry.model, [64]).passes[64]
        latent = entry.model.compression, entry.model.latent_channels
        costs.setdefault(latent, {})[entry.model.family] = one.encode_gmacs + one.decode_gmacs
    assert len(costs) == 2
    for latent, of in costs.items():
        assert set(of) == {"sd-vae", "dc-ae", "pca"} and of["sd-vae"] >= of["dc-ae"], latent


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = tiny(), tiny()
    assert torch.random.get_rng_state().equal(before)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_width_that_does_not_divide_into_groups_is_refused():
    with pytest.raises(ValidationError, match="width 24 is not a multiple of norm_groups 16"):
        spec(4, (16, 24), norm_groups=16)
