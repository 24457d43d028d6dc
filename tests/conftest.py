"""Fixtures and settings that all tests share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A shell starts commands in the background with Ctrl-C ignored, and every process that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine or a slow disk makes an example slow, not wrong.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

LONGEST = [
    "workflow/test_ablations.py",
    "workflow/test_kubernetes.py",
    "measurement/test_rehearsal.py",
    "project/test_crashes.py",
    "workflow/test_workflow.py",
    "workflow/test_killed.py",
    "training/test_loop.py",
    "workflow/test_paper.py",
    "workflow/test_files.py",
    "evaluation/test_reconstruction_run.py",
    "evaluation/test_sanity.py",
]
"""Test files that take longest, in order: they start many processes or run networks."""


def pytest_ignore_collect(collection_path, config):
    """Collect no tests in a benchmark run."""
    return True if config.getoption("benchmark_only") else None


def pytest_collection_modifyitems(items):
    """Run the longest files first, so that parallel workers finish together (`make test` keeps this order)."""

    def place(item):
        name = item.path.as_posix().removeprefix(f"{Path(__file__).parent.as_posix()}/")  # benchmarks lie elsewhere
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def inception_state():
    """Random weights for FID's network, scaled so that features differ between images as with trained weights."""
    import torch
    import torchvision

    rng = torch.Generator().manual_seed(0)
    model = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    state = model.state_dict()
    for name, values in state.items():
        if name.endswith("conv.weight"):
            values.normal_(0, (2 / values[0].numel()) ** 0.5, generator=rng)
        elif name.endswith(("bn.weight", "running_var")):
            values.uniform_(0.5, 1.5, generator=rng)
        elif name.endswith(("bn.bias", "running_mean")):
            values.normal_(0, 0.3, generator=rng)
    return state


@pytest.fixture(scope="session")
def inception_file(inception_state, tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(inception_state, path)
    return path
