"""The device of training and evaluation: chosen for a profile, described for a record."""

import torch

from dcae_bench.base.errors import ConfigError
from dcae_bench.profile.profile import Profile
from dcae_bench.records.provenance import Device, processor_name
from dcae_bench.specs.protocols import Precision


def choose(profile: Profile) -> torch.device:
    """Device of the profile, with torch's CPU threads set; ``auto`` takes the GPU if there is one.

    Raises :class:`ConfigError` if the profile wants a GPU and there is none.
    """
    torch.set_num_threads(profile.threads)
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"profile {profile.name}: device 'cuda' is not there; use a GPU machine or 'device: auto'")
    return torch.device("cuda" if profile.device != "cpu" and torch.cuda.is_available() else "cpu")


def describe(device: torch.device, profile: Profile, processes: int = 1, precision: Precision | None = None) -> Device:
    """Device as records hold it; ``processes`` is the number of processes that shared the work.

    ``precision`` is that of the work, by default the profile's.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return Device(
        kind=device.type,
        name=name,
        threads=torch.get_num_threads(),
        precision=precision or profile.precision,
        processes=processes,
    )
