"""Records of timings as a GPU would have made them, from given rates."""

from datetime import UTC, datetime, timedelta

from dcae_bench.measurement.instruments.energy import Energy, no_energy
from dcae_bench.measurement.instruments.environment import Environment
from dcae_bench.measurement.instruments.gate import Gate, Reason
from dcae_bench.measurement.instruments.nvml import Identity
from dcae_bench.measurement.instruments.timing import Block, Series, TimingSchedule, WarmUp
from dcae_bench.measurement.record import Restart, ThroughputRecord, TimedModel, derive
from dcae_bench.records.provenance import Device, Provenance

START = datetime(2026, 1, 2, tzinfo=UTC)
GOOD = Gate(state="good")
HOT = Gate(state="degraded", reasons=(Reason(kind="thermal", text="thermal slowdown in 40 % of the samples"),))
GMACS = {"sd-vae-f8c4 p2": (1024, 582.3), "dc-ae-f64c128 p1": (64, 33.24), "dc-ae-f32c32 p1": (256, 133.2)}


def series(name: str, rates: list[float]) -> Series:
    blocks = [
        Block(
            round=number,
            started_s=number,
            iterations=10,
            host_s=10 / rate,
            device_s=10 / rate,
            wait_s=1 / rate,
            stride=10,
            iteration_s=(1 / rate,),
        )
        for number, rate in enumerate(rates)
    ]
    warm_up = WarmUp(setup_s=1, iterations=20, seconds=3, settled=True, iteration_s=(1 / rates[0],))
    return Series(name=name, plan=TimingSchedule(), clock="cuda", warm_up=warm_up, blocks=tuple(blocks), short_blocks=0)


def timing(
    latent: str = "sd-vae-f8c4 p2",
    rates: list[float] | None = None,
    *,
    work: str = "train",
    run: str = "one",
    batch: int = 8,
    gate: Gate = GOOD,
    energy_j: float | None = 600.0,
    gpu: str | None = "NVIDIA H100 80GB HBM3",
    status: str = "measured",
    model: str = "uvit-h",
    minutes: int = 0,
    code: str = "a" * 64,
) -> ThroughputRecord:
    tokens, gmacs = GMACS[latent]
    energy = no_energy("no counter") if energy_j is None else Energy(
        energy_j=energy_j, reason=None, seconds=10, iterations=100, start_s=0, counter_period_s=0.1
    )  # fmt: skip
    measured = status == "measured"
    restart = Restart(
        run=run,
        pid=1,
        started=START + timedelta(minutes=minutes),
        series=series(latent, rates or [1.0] * 10),
        ceiling=series("matmul", [100.0] * 10),
        ceiling_flops=6e12,
        energy=energy,
        host=None,
        gate=gate,
        peak_gib=54.1,
    )
    restarts = (restart,) if measured else ()
    return ThroughputRecord(
        protocol="throughput/paper-v1",
        model=TimedModel(
            name=model, latent_space=latent, resolution=512, tokens=tokens, parameters=501_716_752, gmacs=gmacs
        ),
        work=work,
        mode="eager",
        precision="fp16 autocast",
        batch=batch,
        images_per_iteration=batch,
        flops_per_image=6e9 * gmacs,
        settings={"batch": "the authors' map"},
        status=status,
        reason=None if measured else "CUDA out of memory",
        derived=derive(restarts, batch, 6e9 * gmacs) if measured else None,
        restarts=restarts,
        environment=Environment(
            processor="a processor",
            cpus=2,
            memory_gib=8,
            system="Linux",
            python="3.12",
            torch="2.15",
            cuda="13",
            cudnn="9",
            triton="3",
            tensorrt=None,
            threads=2,
            switches={},
            variables={},
            gpu=gpu and Identity(uuid="GPU-1", name=gpu, power_limit_w=700, sm_max_mhz=1980),
        ),
        provenance=Provenance(
            commit="c" * 40,
            dirty=False,
            code_sha256=code,
            config_sha256="b" * 64,
            seed=0,
            versions={},
            device=Device(kind="cuda", name="GPU", threads=2, precision="fp16"),
            command="dcae-bench measure",
            started=START,
            finished=START + timedelta(minutes=minutes + 1),
            seconds=60,
        ),
    )
