"""The device that training and evaluation run on."""

import torch

from dcae_bench.config import Profile
from dcae_bench.errors import ConfigError
from dcae_bench.provenance import Device, processor_name


def choose(profile: Profile) -> torch.device:
    """The profile's device; ``auto`` is the GPU where there is one. Raises :class:`ConfigError`."""
    torch.set_num_threads(profile.threads)
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"profile {profile.name}: device 'cuda' is not there; use a GPU machine or 'device: auto'")
    return torch.device("cuda" if profile.device != "cpu" and torch.cuda.is_available() else "cpu")


def describe(device: torch.device, profile: Profile, processes: int = 1) -> Device:
    """The device as records hold it, and how many processes shared the work."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return Device(
        kind=device.type,
        name=name,
        threads=torch.get_num_threads(),
        precision=profile.precision,
        processes=processes,
    )
