"""Autoencoder classes of diffusers, each used on images as its own pipelines use it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError
from dcae_bench.models.autoencoder import ran_out_of_memory
from dcae_bench.models.diffusers_config import IRRELEVANT, constructor_defaults
from dcae_bench.models.external import External
from dcae_bench.models.outputs import image_of, latent_of
from dcae_bench.specs.autoencoders import DiffusersSpec
from dcae_bench.specs.diffusers_classes import CLASSES
from dcae_bench.weights.diffusers_folder import read_config

FIXED_SEED = 0
"""Seed of the noise of a decoder that draws some; it begins anew for every image."""
EIGHT_BITS = 127.5 / 128
"""Levels of [-1, 1] beside levels of v/128 - 1."""


class DiffusersAutoencoder(External):
    """An autoencoder class of diffusers, built from its config. Weights are loaded as for any other autoencoder.

    A class of videos is given a single frame. The result of an image never depends on others of its batch.
    """

    family = "diffusers"
    spec: DiffusersSpec

    def __init__(self, spec: DiffusersSpec):
        super().__init__()
        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        self.how = CLASSES[spec.class_name]
        self.net = self._build(read_config(spec) if spec.config is None else spec.config)
        self.config: dict[str, Any] = dict(self.net.config)
        self._require_images()
        self.has_posterior = self.how.posterior and self.config.get("regularizer", "kl") == "kl"
        self.side = self.net.decoder_image_size if spec.class_name == "AutoencoderRAE" else None
        if self.how.singly:
            self.net.use_slicing = True
        self.notes = self._remarks()
        self.ignored_keys = tuple(getattr(self.net, "_keys_to_ignore_on_load_unexpected", None) or ())

    def _build(self, config: dict[str, Any]) -> Any:
        import diffusers  # slow import

        name, source = self.spec.class_name, self.spec.source
        found = config.get("_class_name", name)
        if found != name:
            raise ConfigError(f"{source}: is a {found}, not the stated {name}; correct class_name")
        if name == "AutoencoderRAE":
            if not diffusers.utils.is_transformers_available():
                raise ConfigError(
                    f"{source}: {name} needs the package transformers; install it (pip install transformers)"
                )
            config = {**config, "reshape_to_2d": True}  # the same numbers, as a grid
        if not hasattr(diffusers, name):
            raise ConfigError(f"{source}: diffusers {diffusers.__version__} has no {name}; install a later release")
        known = constructor_defaults(name)
        # Keys of earlier releases that change neither encode nor decode; the scale of latents is read elsewhere.
        inert = {*self.how.inert, *(IRRELEVANT if name != "AutoencoderRAE" else ())} - known.keys()
        config = {key: value for key, value in config.items() if key not in inert}
        for key in sorted(config.keys() - known.keys()):
            if not key.startswith("_"):  # diffusers would only warn, and leave the key's effect out
                raise ConfigError(
                    f"{source}: its config has {key}, which the installed {name} does not know; "
                    "install the release of diffusers that wrote it, or remove a key without effect"
                )
        try:
            return getattr(diffusers, name).from_config(dict(config))
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"{source}: its config does not build a {name} ({reason})") from error

    def _require_images(self) -> None:
        """Refuse what takes no RGB images, or no single ones. Raises :class:`ConfigError`."""
        name, config = self.spec.class_name, self.config
        patch = (config.get("patch_size") or 1) if name in ("AutoencoderKLWan", "AutoencoderKLQwenImage21") else 1
        for key in self.how.planes:
            # Mochi's encoder adds the features of four frequencies to the three planes that it takes.
            wanted = 15 if (name, key) == ("AutoencoderKLMochi", "in_channels") else 3 * patch**2
            taken = (wanted, 4 * patch**2) if self.how.alpha else (wanted,)
            if config[key] not in taken:
                raise ConfigError(
                    f"{self.spec.source}: {key} is {config[key]}, so this {name} codes no RGB images (which need "
                    f"{' or '.join(map(str, taken))}); take another autoencoder"
                )
        self.planes = config[self.how.planes[0]] // patch**2 if self.how.alpha else 3
        if name == "AutoencoderVidTok" and not self.net.is_causal:
            raise ConfigError(
                f"{self.spec.source}: is_causal is false, and such a {name} needs 16 frames; take a causal one"
            )

    def _remarks(self) -> tuple[str, ...]:
        found = []
        if self.spec.class_name == "ConsistencyDecoderVAE" or self._injects_noise:
            found.append(f"decode draws noise: the same numbers (seed {FIXED_SEED}) for every image")
        if self.config.get("timestep_conditioning"):
            found.append("decode takes a time step: 0, the default of its pipeline")
        if self.planes == 4:
            found.append("codes four planes: an opaque alpha is added, and the decoded one is dropped")
        return tuple(found)

    def statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and deviation of the latents that the weights hold, for each channel; None where they hold none.

        Those of ``AutoencoderKLFlux2`` are of latents whose 2 x 2 cells were packed into channels, in the order of
        torch's pixel_unshuffle. Values that a class has before any weights count as none.
        """
        if self.how.scale == "weights":
            mean, std = self.net.latents_mean, self.net.latents_std
        elif self.how.scale == "batch norm":
            mean, std = self.net.bn.running_mean, self.net.bn.running_var
        else:
            return None
        if not mean.any() and bool((std == 1).all()):
            return None
        if self.how.scale == "batch norm":
            std = torch.sqrt(std.double() + self.config["batch_norm_eps"])
        return mean.double().tolist(), std.double().tolist()

    @property
    def normalises(self) -> bool:
        """Whether ``encode`` already returns latents that are scaled for a denoiser."""
        if self.how.scale != "own":
            return False
        plain = not self.net._latents_mean.any() and bool((self.net._latents_std == 1).all())
        return not plain or self.config["scaling_factor"] != 1

    @property
    def _injects_noise(self) -> bool:
        given = self.config.get("decoder_inject_noise", False)
        return given if isinstance(given, bool) else any(given)

    def raw_latent(self, x: Tensor) -> Tensor:
        """Latent of images, of whatever shape, without the time axis. Raises :class:`ConfigError`."""
        return self._without_time(self._take(latent_of(self._encoded(x)), "encode"), "encode")

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        if not self.has_posterior:
            return self._encode(x)
        posterior = self._encoded(x).latent_dist
        mean, std = (self._without_time(part, "encode") for part in (posterior.mean, posterior.std))
        return mean + std * noise(mean.shape[1:])

    def raw_image(self, z: Tensor) -> Tensor:
        """Images of latents, in [-1, 1]. Raises :class:`ConfigError`."""
        with self._fixed_noise(z.device):
            output = self._called(self.net.decode, z if self.how.time == "none" else z[:, :, None], **self._options(z))
        y = self._without_time(self._take(image_of(output), "decode"), "decode")
        if self.planes == 4:
            y = y[:, :3]
        if self.how.pixels == "[0, 1]":
            return 2 * y - 1
        return (y + 1) / EIGHT_BITS - 1 if self.how.pixels == "v/128 - 1" else y

    def _encoded(self, x: Tensor) -> Any:
        if self.how.pixels == "[0, 1]":
            x = (x + 1) / 2
        elif self.how.pixels == "v/128 - 1":
            x = (x + 1) * EIGHT_BITS - 1
        if self.planes == 4:
            x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        if self.how.time != "none":
            frames = self.net.temporal_compression_ratio if self.how.time == "one block" else 1
            x = x[:, :, None].expand(-1, -1, frames, -1, -1)
        return self._called(self.net.encode, x)

    def _options(self, z: Tensor) -> dict[str, Any]:
        """Arguments of ``decode`` beside the latents."""
        if self.spec.class_name == "AutoencoderKLTemporalDecoder":
            return {"num_frames": 1}
        if self.spec.class_name == "ConsistencyDecoderVAE":
            return {"generator": [torch.Generator().manual_seed(FIXED_SEED) for _ in z]}
        return {"temb": z.new_zeros(len(z))} if self.config.get("timestep_conditioning") else {}

    @contextmanager
    def _fixed_noise(self, device: torch.device) -> Iterator[None]:
        """Seed torch's own generators where the decoder draws from them. Each image of a batch gets the same noise."""
        if not self._injects_noise:
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(FIXED_SEED)
            yield

    def _called(self, method: Callable[..., Any], given: Tensor, **options: Any) -> Any:
        """Call the class. An error that is its own becomes one line; a full memory stays what it is."""
        try:
            return method(given, **options)
        except torch.AcceleratorError:
            raise
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError, IndexError) as error:
            if ran_out_of_memory(error) or given.dtype != torch.float32:  # the caller knows about other types
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"{self.spec.source}: {method.__name__} of {self.spec.class_name} fails on {tuple(given.shape)} "
                f"({reason}); take images of another side, or correct its config"
            ) from error

    def _take(self, found: Tensor | None, verb: str) -> Tensor:
        if found is None:
            raise ConfigError(f"{self.spec.source}: {verb} of {self.spec.class_name} returned no tensor")
        return found

    def _without_time(self, found: Tensor, verb: str) -> Tensor:
        if self.how.time == "none":
            return found
        if found.ndim != 5 or found.shape[2] != 1:
            raise ConfigError(
                f"{self.spec.source}: {verb} of {self.spec.class_name} made {tuple(found.shape)} of a single image; "
                "its config is not one for single frames"
            )
        return found[:, :, 0]
