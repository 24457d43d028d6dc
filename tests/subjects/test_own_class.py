"""Classes as people write them: their networks are found, evaluated, moved, counted and hashed, or that is said."""

import sys

import pytest
import torch
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.main import main
from dcae_bench.models.zoo import build
from dcae_bench.records.record import load
from dcae_bench.specs.autoencoders import CustomSpec, SpaceToChannelSpec
from dcae_bench.subjects.autoencoders import open_autoencoder, state_sha256
from dcae_bench.subjects.choose import ChosenAutoencoder, choose_autoencoder
from tests import tiny_diffusion as tiny

AE = "class AE(Base):\n def __init__(self, w): "
MODULE = "class AE(nn.Module, Base):\n def __init__(self, w): nn.Module.__init__(self);"
HEAD = """
import dataclasses, functools, numpy as np, torch
from torch import nn
import torch.nn.functional as F

def network(weights=None):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    if weights is not None:
        net[0].weight.data.fill_(float(torch.load(weights)))
    return net

def down(x): return F.avg_pool2d(x, 4)
def up(z): return F.interpolate(z, scale_factor=4)

class Base:
    def encode(self, x): return down(x)
    def decode(self, z): return up(self.net()(z))
"""
FORMS = {
    "attribute": f"{AE}self.model = network(w)\n def net(self): return self.model",
    "list": f"{AE}self.parts = [1, network(w)]\n def net(self): return self.parts[1]",
    "dict": f"{AE}self.d = {{'a': (network(w),)}}\n def net(self): return self.d['a'][0]",
    "object": f"class In: pass\n{AE}self.i = In(); self.i.m = network(w)\n def net(self): return self.i.m",
    "dataclass": "@dataclasses.dataclass\nclass D: m: nn.Module\nclass AE(Base):\n def __init__(self, w):"
    " self.d = D(network(w))\n def net(self): return self.d.m",
    "slots": "class AE(Base):\n __slots__ = ('m',)\n def __init__(self, w): self.m = network(w)\n"
    " def net(self): return self.m",
    "closure": f"def make(w):\n n = network(w)\n return lambda: n\n{AE}self.net = make(w)",
    "partial": f"{AE}self.f = functools.partial(lambda n: n, network(w))\n def net(self): return self.f()",
    "method": "class In:\n def __init__(self, w): self.m = network(w)\n def get(self): return self.m\n"
    f"{AE}self.net = In(w).get",
    "global": "NET = None\nclass AE(Base):\n def __init__(self, w):\n  global NET\n  NET = network(w)\n"
    " def net(self): return NET",
    "class": f"{AE}AE.shared = network(w)\n def net(self): return self.shared",
    "late": "class AE(Base):\n m = None\n def __init__(self, w): self.w = w\n def net(self):\n"
    "  if self.m is None: self.m = network(self.w)\n  return self.m",
    "half late": "class AE(Base):\n m = None\n def __init__(self, w): self.w, self.first = w, nn.Conv2d(3, 3, 1);"
    " self.first.weight.data.fill_(1); self.first.bias.data.fill_(0)\n def net(self):\n"
    "  if self.m is None: self.m = network(self.w)\n  return self.m",
    "method of a dict": f"{AE}self.get = {{'m': network(w)}}.get\n def net(self): return self.get('m')",
    "compiled program": f"{AE}self.m = torch.jit.trace(network(w).eval(), torch.zeros(1, 3, 4, 4))\n"
    " def net(self): return self.m",
    "cached function": "@functools.lru_cache\ndef get(w): return network(w)\n"
    f"{AE}self.w = w; get(w)\n def net(self): return get(self.w)",
    "decorated": f"{AE}self.m = network(w)\n def net(self): return self.m\n"
    " @torch.no_grad()\n def encode(self, x): return down(x)",
    "hidden in a module": f"{MODULE} self.parts = [network(w)]\n def net(self): return self.parts[0]",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module ``own_form`` with a class ``AE`` and two files of weights; returns the spec for one of them."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("a.pt", 2.0), ("b.pt", 3.0)):
        torch.save(torch.tensor(value), tmp_path / name)

    def write(code, **kwargs):
        monkeypatch.delitem(sys.modules, "own_form", raising=False)
        (tmp_path / "own_form.py").write_text(HEAD + code)
        return CustomSpec(family="custom", class_name="own_form:AE", kwargs=kwargs, compression=4, latent_channels=3)

    return write


def opened(spec, images=None):
    return open_autoencoder(ChosenAutoencoder("mine", spec, None, "own"), images)


def images():
    return 2 * torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("form", FORMS)
def test_a_network_is_found_wherever_it_hangs(write, form, monkeypatch):
    torch.manual_seed(0)
    found = {}
    for weights in ("a.pt", "b.pt", "a.pt"):
        write(FORMS[form], w="weights.pt")
        torch.save(torch.load(weights), "weights.pt")  # the same name and arguments, other content
        spec = write(FORMS[form], w="weights.pt")
        torch.manual_seed(0)
        model, subject = opened(spec)
        found.setdefault(weights, set()).add(subject.weights_sha256)
        assert subject.parameters >= 18 and not subject.unidentified and subject.notes == ()
        net = model.net.net()
        assert not any(part.training for part in net.modules()), "in evaluation mode"
        with torch.no_grad():
            together = model(images())
            assert torch.cat([model(one) for one in images().split(1)]).allclose(together, atol=1e-6)
        model.to("meta")
        assert {value.device.type for value in net.state_dict().values()} == {"meta"}
    assert [len(hashes) for hashes in found.values()] == [1, 1] and found["a.pt"] != found["b.pt"]


LOOSE = {
    "tensor": f"{AE}self.g = torch.load(w)\n def net(self): return lambda z: self.g * z",
    "parameter": f"{AE}self.g = [nn.Parameter(torch.load(w))]\n def net(self): return lambda z: self.g[0] * z",
    "array": f"{AE}self.g = torch.load(w).numpy().reshape(1)\n def net(self): return lambda z: float(self.g[0]) * z",
    "tensor of a module": f"{MODULE} self.g = torch.load(w)\n def net(self): return lambda z: self.g * z",
    "buffer that is not saved": f"{MODULE}"
    " self.register_buffer('g', torch.load(w), persistent=False)\n def net(self): return lambda z: self.g * z",
    "number beside a network": f"{AE}self.g, self.m = float(torch.load(w)),"
    " torch.ones(1)\n def net(self): return lambda z: self.g * self.m * z",
}


@pytest.mark.parametrize("form", LOOSE)
def test_a_tensor_or_number_is_found_wherever_it_hangs(write, form):
    hashes = {}
    for weights in ("a.pt", "b.pt"):
        torch.save(torch.load(weights), "weights.pt")
        model, subject = opened(write(LOOSE[form], w="weights.pt"))
        hashes[weights] = subject.weights_sha256
        assert not subject.unidentified and subject.parameters == (form != "buffer that is not saved")
    assert hashes["a.pt"] != hashes["b.pt"]
    model.to("meta")
    if form not in ("array", "number beside a network"):
        assert model.net.net()(torch.zeros(1, device="meta")).device.type == "meta"


def test_the_device_of_a_class_moves_with_it(write):
    code = (
        "class AE(Base):\n def __init__(self): self.device, self.dev, self.m = 'cpu', 'cpu', network()\n"
        " def net(self): return self.m\n def encode(self, x): return down(x.to(self.device))"
    )
    model, _ = opened(write(code))
    model.to("meta")
    assert (model.net.device, model.net.dev) == ("meta", "cpu")
    assert model.encode(images().to("meta")).device.type == "meta"


PURE = "class AE(Base):\n def net(self): return lambda z: z"
NOTHING = {
    "code of another package": "import secrets\nclass AE(Base):\n def net(self): return secrets.choice([lambda z: z])",
    "imports as it runs": "class AE(Base):\n def net(self):\n  import ctypes\n  return lambda z: z",
    "reads a file at each call": "class AE(Base):\n def net(self): return lambda z: torch.load('a.pt') * z",
}


@pytest.mark.parametrize("form", NOTHING)
def test_weights_that_are_not_found_are_told_and_never_taken_for_others(write, form, capsys):
    subjects = [opened(write(NOTHING[form]))[1] for _ in range(2)]
    assert subjects[0].weights_sha256 != subjects[1].weights_sha256 and all(one.unidentified for one in subjects)
    assert subjects[0].notes == ("weights not identified: no network and no tensor was found",)
    assert "mine: weights not identified: no network and no tensor was found" in capsys.readouterr().err
    said = NOTHING[form] + "\n identity = 'the mean of 16 pixels'"
    first, second = (opened(write(said))[1] for _ in range(2))
    assert first.parameters == 0
    assert first == second and first.notes == () and not first.unidentified
    other = opened(write(said.replace("16", "17")))[1]
    assert other.weights_sha256 != first.weights_sha256


def test_code_without_weights_is_told_by_its_source(write):
    """Nothing is found there because nothing can be: it computes from its arguments alone."""
    first, second = (opened(write(PURE), images)[1] for _ in range(2))
    assert first == second and not first.unidentified and first.notes == () and first.parameters == 0
    other = opened(write(PURE.replace("lambda z: z", "lambda z: 0.5 * z")))[1]
    assert other.weights_sha256 != first.weights_sha256


def test_objects_that_cannot_be_looked_into_are_named(write, monkeypatch):
    """Such as a session of another library: whatever it holds, it is not in the tensors that were found."""
    import pyarrow as pa

    assert pa.array([1]).__class__.__module__ == "pyarrow.lib"
    code = (
        "import pyarrow as pa\nclass AE(Base):\n def __init__(self):\n  self.m = network()\n"
        "  self.s = pa.default_memory_pool()\n def net(self): return self.m"
    )
    subject = opened(write(code))[1]
    assert subject.unidentified and subject.notes[0].startswith("weights not identified: pyarrow.lib.")
    assert subject.notes[0].endswith("cannot be looked into")


DEPENDENT = {
    "encode draws noise": "def encode(self, x): return down(x) + 0.01 * torch.randn(len(x), 3, 4, 4)",
    "encode depends on its batch": "def encode(self, x): return down(x) - x.mean()",
    "decode draws noise": "def decode(self, z): return up(z + 0.01 * torch.randn(z.shape))",
    "decode depends on its batch": "def decode(self, z): return up(z / z.std())",
}


@pytest.mark.parametrize("told", DEPENDENT)
def test_chance_and_the_batch_are_told(write, told, capsys):
    code = (
        f"class AE(Base):\n def __init__(self): self.m = network()\n def net(self): return self.m\n {DEPENDENT[told]}"
    )
    spec = write(code)
    torch.manual_seed(0)
    build(spec)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    _, subject = opened(spec, images)
    (note,) = subject.notes
    assert note.startswith(f"{told}: ") and f"mine: {told}" in capsys.readouterr().err
    assert torch.get_rng_state().equal(state)
    steady = "class AE(Base):\n def __init__(self): self.m = network()\n def net(self): return self.m"
    assert opened(write(steady), images)[1].notes == ()


@pytest.mark.parametrize(
    ("decoded", "told"),
    [
        ("(up(z) + 1) / 2", ["decode returned images from 0 to 1: black must be -1, and white 1"]),
        ("(up(z) + 1) * 127.5", ["decode returned images from 0 to 255: black must be -1, and white 1"]),
        ("up(z)", []),
        ("up(z) * 0.1", []),
        ("up(z) * 0", []),
    ],
)
def test_images_in_another_range_are_told(write, decoded, told):
    def smooth():
        return torch.nn.functional.avg_pool2d(images(), 4).repeat_interleave(4, 2).repeat_interleave(4, 3)

    spec = write(f"class AE(Base):\n def decode(self, z): return {decoded}")
    assert [*opened(spec, smooth)[1].notes] == told
    assert told or [*opened(spec, lambda: smooth() - 0.5)[1].notes] == told, "dark images are no sign"


def test_pixels_of_8_bits_are_refused(write):
    """They would all be taken for white."""
    spec = write("class AE(Base):\n def decode(self, z): return up((z + 1) * 127).to(torch.uint8)")
    with pytest.raises(ConfigError, match="decode returned uint8 numbers; return floats from -1 to 1"):
        opened(spec, images)


def test_code_that_writes_into_its_argument_changes_nobody_elses(write):
    spec = write(
        "class AE(Base):\n def encode(self, x): return down(x.mul_(0.5))\n def decode(self, z): return up(z.mul_(2))"
    )
    model, subject = opened(spec, images)
    assert subject.notes == (), "it is no noise"
    x = images()
    z = model.encode(x)
    assert x.equal(images()) and model.decode(z).equal(model.decode(z))


@pytest.mark.parametrize(
    "code",
    [
        "class AE:\n def __init__(self): self.net = Base(); self.encode, self.decode = self.net.encode, up",
        "class AE:\n def __init__(self): self.inner = Base()\n def __getattr__(self, name):\n"
        "  if name == 'inner': raise AttributeError(name)\n  return getattr(self.inner, name)",
        "def AE():\n made = Base(); made.net = lambda: lambda z: z\n return made",
    ],
)
def test_methods_of_an_object_alone_are_taken(write, code):
    spec = write(
        "class Base:\n m = network()\n def encode(self, x): return down(x)\n def decode(self, z): return up(z)\n" + code
    )
    model, subject = opened(spec, images)
    assert model(images()).shape == (4, 3, 16, 16) and subject.parameters >= 18 and not subject.unidentified


def test_a_network_that_comes_late_is_told(write):
    """It was not there when the grey image was encoded, so the hash does not hold it."""
    code = (
        "class AE(Base):\n def __init__(self): self.m, self.extra = network(), None\n def net(self): return self.m\n"
        " def encode(self, x):\n  if x.shape[-1] == 16: self.extra = network()\n  return down(x)"
    )
    subject = opened(write(code), images)[1]
    assert subject.unidentified
    assert subject.notes[0] == "weights not identified: extra was made only while images were measured"


def test_results_that_a_class_keeps_are_no_other_weights(write):
    code = (
        "class AE(Base):\n def __init__(self): self.m, self.last, self.calls = network(), None, 0\n"
        " def net(self): return self.m\n def encode(self, x): self.last = down(x); self.calls += 1; return self.last"
    )
    torch.manual_seed(0)
    first = opened(write(code), images)[1]
    torch.manual_seed(0)
    assert opened(write(code))[1] == first and not first.unidentified


def test_a_base_under_a_folded_latent_is_searched_too(write):
    base = write(FORMS["list"], w="a.pt")
    folded = build(SpaceToChannelSpec(family="space-to-channel", base=base, factor=2))
    before = state_sha256(folded)
    folded.base.net.parts[1][0].weight.data.fill_(7)
    assert state_sha256(folded) != before


def test_weights_are_loaded_into_the_networks_of_a_class(write, tmp_path):
    from safetensors.torch import save_file

    spec = write(FORMS["attribute"], w=None)
    state = {f"model.{key}": value + 1 for key, value in build(spec).net.model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model, _ = open_autoencoder(ChosenAutoencoder("mine", spec, tmp_path / "w.safetensors", "own"))
    assert all(value.equal(state[f"model.{key}"]) for key, value in model.net.model.state_dict().items())


def test_a_killed_evaluation_does_not_go_on_with_other_weights(write, tmp_path, monkeypatch, capsys):
    """One record of both was the result: the network of this class hung in a list."""
    from dcae_bench.evaluation.store import Store

    tiny.write_data(tmp_path / "data")
    spec = write(FORMS["list"], w="weights.pt")
    entry = {"model": spec.model_dump(mode="json"), "weights": "own"}
    profile = tiny.profile({("autoencoders", "mine"): entry, ("evaluation", "batch_size"): 1})
    from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction

    def evaluate(weights, output):
        torch.manual_seed(0)
        torch.save(torch.load(weights), "weights.pt")
        monkeypatch.delitem(sys.modules, "own_form", raising=False)
        chosen = choose_autoencoder(profile, "mine", None)
        evaluate_reconstruction(profile, chosen, data=tmp_path / "data", output=tmp_path / output)
        return load(tmp_path / output / "bright-32.json")

    whole, calls = Store.write, []

    def killed(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *arguments, **keywords)

    alone = evaluate("b.pt", "alone")
    monkeypatch.setattr(Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate("a.pt", "both")
    monkeypatch.setattr(Store, "write", whole)
    both = evaluate("b.pt", "both")
    assert both.metrics["psnr"].value == alone.metrics["psnr"].value and both.subject == alone.subject
    assert both.metrics["psnr"].value != evaluate("a.pt", "other").metrics["psnr"].value


def test_what_records_and_tables_say_of_unidentified_weights(write, tmp_path, monkeypatch, capsys):
    tiny.write_data(tmp_path / "data")
    spec = write(NOTHING["reads a file at each call"])
    entry = {"model": spec.model_dump(mode="json"), "weights": "own"}
    row = {**tiny.ROW, "latent": "mine@own"}
    changes = {("autoencoders", "mine"): entry, ("diffusion", "rows"): {"uvit": row}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
    options = ("--profile", "tiny.yaml", "--data", "data")

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        return capsys.readouterr()

    run("evaluate", "--autoencoder", "mine", *options, "--output", "out")
    record = load(tmp_path / "out" / "bright-32.json")
    assert record.subject.unidentified and record.subject.parameters == 0
    assert "weights not identified: no network and no tensor was found" in run("show", "out/bright-32.json").out
    run("table", *options, "--output", "rfid.md", "out/bright-32.json")
    assert "weights not identified: no network and no tensor was found" in (tmp_path / "rfid.md").read_text()
    encode = ("encode", "--latent", "mine@own", "--images", "two", *options, "--output", "cache")
    (line,) = [line for line in run(*encode, code=2).err.splitlines() if "error:" in line]
    assert "let the class say in `identity`" in line


RETURNS = {
    "tensor": ("z", "x"),
    "tuple": ("(None, z, x)", "(x, z)"),
    "list": ("[z]", "[x]"),
    "tuple that begins with a loss": ("(z.mean(), z)", "(x.mean(), x)"),
    "dict": ("{'loss': z.mean(), 'latent': z}", "{'sample': x}"),
    "dict with one tensor": ("{'code': z}", "{'out': x}"),
    "object": ("O(latent_dist=P(z))", "O(sample=x)"),
    "posterior": ("P(z)", "x"),
    "posterior in a tuple": ("(P(z), z + 1)", "x"),
    "posterior that only samples": ("S(z)", "x"),
    "distribution of torch": ("torch.distributions.Normal(z, torch.ones_like(z))", "x"),
    "dataclass": ("D(z, 1.0)", "D(x, 2.0)"),
    "named tuple": ("N(z, 0)", "N(x, 0)"),
    "array": ("z.numpy()", "x.numpy()"),
    "object with one of several names": ("O(quantized=z, loss=1.0, indices=z.long())", "O(reconstruction=x, z=z)"),
}
KINDS = """
import collections
N = collections.namedtuple("N", "value other")
class O:
    def __init__(self, **fields): vars(self).update(fields)
class P:
    def __init__(self, z): self.z, self.std = z, torch.ones_like(z)
    def mode(self): return self.z
    def sample(self): return self.z + torch.randn_like(self.z)
class S:
    def __init__(self, z): self.inner = (z,)
    def sample(self): return self.inner[0]
@dataclasses.dataclass
class D:
    tensor: torch.Tensor
    loss: float
class AE:
    m = network()
    def encode(self, x):
        z = down(x)
        return ENCODED
    def decode(self, z):
        x = up(z)
        return DECODED
"""


@pytest.mark.parametrize("form", RETURNS)
@torch.no_grad()
def test_the_usual_results_are_taken(write, form):
    encoded, decoded = RETURNS[form]
    model, _ = opened(write(KINDS.replace("ENCODED", encoded).replace("DECODED", decoded)))
    x = images()
    wanted = torch.nn.functional.avg_pool2d(x, 4)
    assert model.encode(x).equal(wanted)
    assert model.decode(wanted).equal(torch.nn.functional.interpolate(wanted, scale_factor=4))


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        ("None", "encode returned a NoneType; return a tensor (n, c, H/f, W/f), a posterior with mode() or sample()"),
        ("'codes'", "encode returned a str; return a tensor"),
        ("(1, 'a')", "encode returned a tuple of int, str; return a tensor"),
        ("{'a': z, 'b': z}", "encode returned a dict with a, b; return a tensor"),
        ("O(mu=z, logvar=z)", "encode returned a O with mu, logvar; return a tensor"),
        ("[*z]", "encode turned 1 image into (3, 64, 64); return the latents of a batch as one tensor"),
        ("z.flatten(1)", "which is no latent; return (n, c, H/f, W/f), or (n, tokens, c) for a latent without a grid"),
    ],
)
def test_other_results_are_told_what_to_be(write, encoded, words, tmp_path):
    """Without advice that ends in the same error: stating f and c would not help."""
    write(KINDS.replace("ENCODED", encoded).replace("DECODED", "x"))
    with pytest.raises(ConfigError) as caught:
        choose_autoencoder(tiny.profile(), "own_form:AE", None)
    assert words in str(caught.value) and "--f" not in str(caught.value)
    if "latent;" not in words and "1 image" not in words:
        spec = write(KINDS.replace("ENCODED", encoded).replace("DECODED", "x"))
        with pytest.raises(ConfigError) as caught:
            build(spec).encode(images())
        assert words in str(caught.value)
