"""Page of the throughput table in Markdown."""

from collections.abc import Iterable, Iterator

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.measurement.workloads.recipes import RECIPES, RETIRED
from dcae_bench.tables.markdown import Footnotes, Grid, bullets, harmless, millions, one_line
from dcae_bench.tables.reported.throughput import ReportedSpeed
from dcae_bench.tables.throughput.judge import degraded_because, is_degraded
from dcae_bench.tables.throughput.table import BASELINE, ThroughputRow, ThroughputTable, named_batch

HEADERS = [
    *("model", "latent space", "work", "tokens", "params", "GMAC", "batch", "img/s", "ms", "img/J", "GiB", "MFU"),
    *("speed-up", "MAC ratio", "reported img/s", "reported speed-up", "verdict", "state"),
]
LATENCY_BATCH, MEMORY_BATCH = 2, 256
"""Batches at which the paper measured latency and training memory."""
ALL_OF_OTHER_CODE = (
    "The code that measures has changed since these timings: they are of the commits named above, and a measurement "
    "of today may differ from them by that."
)
PAPER_HEADERS = [
    *("protocol", "model", "latent space", "train img/s", "measured", "forward img/s", "measured"),
    *("latency ms", "measured", "memory GB", "measured GiB"),
]
PAPER_TEXT = (
    "Each reported value of Tables 3 and 4, with its source, beside the measured one: training and one forward pass on "
    "an H100 (the paper's forward pass ran in TensorRT), latency of one forward pass at batch "
    f"{LATENCY_BATCH} (the paper's on an RTX 3090), and memory of training at batch {MEMORY_BATCH}. Measured latency "
    "and memory are of rows of these batches; - means that there is none."
)
SETTINGS = ("optimizer", "checkpointing", "attention", "built_on")
"""Settings of a record that the page prints above the rows."""


LEGEND = (
    "Intervals are at 95 %. GMAC: multiply-accumulates of matrix products of one forward pass for one image. "
    "MFU: operations (recomputation left out; a denoiser's training counts three passes, a phase of an autoencoder "
    "what its step computes) over those of a large matrix product in the same run. Speed-up and MAC ratio: over "
    f"the same model on {BASELINE}. Verdicts are on ratios, never on absolute numbers."
)


def markdown(table: ThroughputTable) -> str:
    """The whole page. It depends on the records alone, so that evidence can be compared with it byte by byte."""
    notes = Footnotes()
    every = [*table.rows, *table.left_out]
    lines = [
        f"Throughput. {one_line('; '.join(dict.fromkeys(hardware(row.record) for row in every)))}; "
        f"{'; '.join(dict.fromkeys(_code(row.record) for row in every))}.\n"
    ]
    if table.held < table.planned:
        lines.append(f"\nHolds {table.held} of the {table.planned} timings that its plan asks for.\n")
    if every and table.all_of_other_code:
        lines.append(f"\n{ALL_OF_OTHER_CODE}\n")
    for protocol in dict.fromkeys(row.record.protocol for row in every):
        rows = [row for row in table.rows if row.record.protocol == protocol]
        lines.append(f"\n## {protocol}\n\n{protocol_text(protocol)}\n\n")
        settings = bullets(_as_recorded(row.record for row in every if row.record.protocol == protocol))
        lines.append(f"{settings}\n" if settings else "")
        if rows:
            lines.append(measured(table, protocol, notes).text())
        else:
            lines.append("No row was measured in a good state.\n")
    if any(row.record.model.latent_space for row in table.rows):
        lines.append(f"\n## In the paper's columns\n\n{PAPER_TEXT}\n\n{paper_columns(table, notes).text()}")
    lines.append(f"\n{notes.text()}" if notes.text() else "")
    if table.left_out:
        lines.append("\n## Left out\n\nDegraded measurements; `dcae-bench table-throughput --degraded` shows them.\n\n")
        for row in table.left_out:
            record = row.record
            said = f"{record.protocol}, {_subject(record)}, {record.work}: {degraded_because(record)}"
            lines.append(bullets([said]))
    lines.append(f"\n{LEGEND}\n")
    return harmless("".join(lines))


def measured(table: ThroughputTable, protocol: str, notes: Footnotes) -> Grid:
    """A row for each timing of a protocol. The tables of a page share their footnotes ``notes``."""
    rows = [row for row in table.rows if row.record.protocol == protocol]
    cells = [_cells(row, notes, _marks(table, row)) for row in rows]
    return Grid(HEADERS, cells, "lll" + "r" * 13 + "ll", notes, [[row.record.key] for row in rows])


def _marks(table: ThroughputTable, row: ThroughputRow) -> list[str]:
    """Footnote of a row of other code, unless all are and the page says so once."""
    if table.all_of_other_code or not table.is_of_other_code(row):
        return []
    return [f"measured by other code than that of today: {_code(row.record)}; measure it again to compare it"]


def _cells(row: ThroughputRow, notes: Footnotes, marks: Iterable[str]) -> list[str]:
    record, found = row.record, row.record.derived
    model = record.model
    resolution = f" {model.resolution} px" if model.resolution != 512 else ""
    work = record.work + notes.mark([*_phase_notes(record), *marks])
    head = [model.name + resolution, model.latent_space or "-", work, str(model.tokens or "-")]
    head += [millions(model.parameters), f"{model.gmacs:.4g}", f"{record.batch}{notes.mark([_what_ran(record)])}"]
    theirs = row.reported_value
    reported = theirs.text + notes.mark([f"{theirs.confidence}: {theirs.source}"]) if theirs else "-"
    verdict = f"{row.judgement.verdict}{notes.mark([row.judgement.reason])}"
    answers = [*_ratio_cells(row, notes), reported, _reported_ratio(row), verdict]
    if found is None:
        return [*head, record.status + notes.mark([record.reason or ""]), *["-"] * 4, *answers, "-"]
    joules = found.energy_per_image_j
    if joules is None:
        energy = "null" + notes.mark([f"no energy: {found.energy_reason}"])
    else:
        energy = _interval(Estimate(**joules.model_dump() | _inverse(joules)))
    images = _interval(found.images_per_s) + notes.mark([f"interval: {found.images_per_s.method}"])
    if row.sampled_per_s is not None and row.reported is not None:
        also = f"one forward pass; reported is full sampling = forward / (2 x {row.reported.nfe} NFE), which here is "
        images += notes.mark([f"{also}{_digits(row.sampled_per_s)} img/s"])
    state = found.gate.state + notes.mark([*(reason.text for reason in found.gate.reasons), *found.gate.notes])
    return [
        *head,
        images,
        _interval(found.iteration_ms),
        energy,
        "-" if found.peak_gib is None else f"{found.peak_gib:.1f}",
        "-" if found.mfu is None else f"{100 * found.mfu:.0f} %",
        *answers,
        state,
    ]


def _what_ran(record: ThroughputRecord) -> str:
    """Where a row's batch comes from, and how many iterations its processes ran; a protocol may ask for others."""
    said = [f"batch: {record.settings['batch']}"] if "batch" in record.settings else []
    series = [restart.series for restart in record.restarts]
    if not series:
        return "; ".join([*said, "nothing was timed"])
    warm = _range(one.warm_up.iterations for one in series)
    timed, blocks = _range(one.timed_iterations for one in series), _range(len(one.blocks) for one in series)
    ran = f"{warm} warm-up and {timed} timed iterations in {blocks} blocks"
    return "; ".join([*said, f"{ran}, one process" if len(series) == 1 else f"{len(series)} processes, each {ran}"])


def _phase_notes(record: ThroughputRecord) -> Iterator[str]:
    """What one step of an autoencoder's training phase does; nothing for other work."""
    said = record.settings
    if "trains" in said and record.flops_per_image is not None:
        yield (
            f"one optimizer step as {said['plan']} has it: trains {said['trains']} "
            f"({millions(int(said['trained_parameters']))} parameters) for {said['loss']}; batch: {said['batch']}; the "
            f"GMAC are of one reconstruction, a step has {record.flops_per_image / 2e9:.4g} an image, those of its "
            "losses' networks among them"
        )


def _ratio_cells(row: ThroughputRow, notes: Footnotes) -> list[str]:
    ratio = f"{row.mac_ratio:.2f}" if row.mac_ratio else "-"
    baseline = row.baseline
    if row.speed_up is None or baseline is None:
        return ["1" if baseline is row.record else "-", ratio]
    degraded = is_degraded(baseline)
    doubt = [f"the measurement on {BASELINE} is degraded: {degraded_because(baseline)}"] if degraded else []
    return [_interval(row.speed_up) + notes.mark(doubt), ratio]


def _reported_ratio(row: ThroughputRow) -> str:
    value = row.reported_speed_up
    return "-" if value is None else f"{value:.2f}"


def _inverse(joules: Estimate) -> dict[str, float]:
    """Value and interval in images per joule; the upper end is the value if the lower end in joules is not positive."""
    high = 1 / joules.low if joules.low > 0 else 1 / joules.value
    return {"value": 1 / joules.value, "low": 1 / joules.high, "high": high}


def _interval(estimate: Estimate) -> str:
    return f"{_digits(estimate.value)} [{_digits(estimate.low)}, {_digits(estimate.high)}]"


def _digits(value: float) -> str:
    """A number with three or four digits, never with an exponent."""
    magnitude = abs(value)
    places = 0 if magnitude >= 1000 else 1 if magnitude >= 100 else 2 if magnitude >= 10 else 3
    return f"{value:.{places}f}"


def _subject(record: ThroughputRecord) -> str:
    return " ".join(filter(None, (record.model.name, record.model.latent_space, f"{record.model.resolution} px")))


def hardware(record: ThroughputRecord) -> str:
    """The device of a timing, with what limits it."""
    gpu, where = record.environment.gpu, record.environment
    if gpu is None:
        return f"CPU: {where.processor}, {where.threads} threads"
    limit = f", power limit {gpu.power_limit_w:.0f} W" if gpu.power_limit_w else ""
    return f"GPU: {gpu.name}{limit}, at most {gpu.sm_max_mhz} MHz"


def _code(record: ThroughputRecord) -> str:
    made = record.provenance
    commit = made.commit[:12] if made.commit else "none"
    return f"commit {commit}{' with changes' if made.dirty else ''}, torch {record.environment.torch}"


def protocol_text(protocol: str) -> str:
    """What a protocol is."""
    today = {recipe.protocol: recipe.what for recipe in RECIPES.values()}
    return (RETIRED | today).get(protocol, "A protocol of its own.")


def paper_columns(table: ThroughputTable, notes: Footnotes) -> Grid:
    """A row for each protocol, denoiser and latent space, with the columns of the paper's Tables 3 and 4."""
    groups: dict[tuple[str, ...], list[ThroughputRow]] = {}
    for row in table.rows:
        record, model = row.record, row.record.model
        if model.latent_space:
            protocol = record.protocol + (", trt" if record.mode == "trt" else "")
            name = model.name + ("" if model.resolution == 512 else f" {model.resolution} px")
            device = record.environment.gpu.uuid if record.environment.gpu else record.environment.processor
            groups.setdefault((protocol, name, model.latent_space, device), []).append(row)
    lines = []
    for (*names, _), alike in groups.items():
        paper = alike[0].reported
        cells: list[str] = []
        for work in ("train", "forward"):
            own = [row for row in alike if row.record.work == work and not named_batch(row.record)]
            printed = paper and (paper.train_images_per_s if work == "train" else paper.forward_images_per_s)
            # Of several parts of the protocol's batch, the largest is closest to what the paper did.
            found = max((one for row in own if (one := row.record).derived), key=lambda one: one.batch, default=None)
            cells += [_printed(printed or None, notes), _measured(found, notes)]
        # A batch of the protocol may happen to be as large; the one that was asked for comes first.
        timed = sorted((row.record for row in alike if row.record.derived), key=lambda one: not named_batch(one))
        latency = [one for one in timed if one.work == "forward" and one.batch == LATENCY_BATCH]
        memory = [one for one in timed if one.work == "train" and one.batch == MEMORY_BATCH]
        peak = next((one.derived.peak_gib for one in memory if one.derived and one.derived.peak_gib), None)
        milliseconds = next((one.derived.iteration_ms.value for one in latency if one.derived), None)
        cells += [_printed(paper.forward_latency_ms if paper else None, notes)]
        cells += ["-" if milliseconds is None else _digits(milliseconds)]
        cells += [_printed(paper.memory_gb if paper else None, notes), "-" if peak is None else f"{peak:.1f}"]
        lines.append([*names, *cells])
    records = [[row.record.key for row in alike] for alike in groups.values()]
    return Grid(PAPER_HEADERS, lines, "lll" + "r" * 8, notes, records)


def _measured(record: ThroughputRecord | None, notes: Footnotes) -> str:
    """Images/s with a note of what ran; - for a record that is not there."""
    if record is None or record.derived is None:
        return "-"
    return _digits(record.derived.images_per_s.value) + notes.mark([_what_ran(record)])


def _printed(speed: ReportedSpeed | None, notes: Footnotes) -> str:
    """A reported value with a note of its source."""
    return "-" if speed is None else speed.text + notes.mark([f"{speed.confidence}: {speed.source}"])


def _as_recorded(records: Iterable[ThroughputRecord]) -> Iterator[str]:
    """Settings that the rows of a protocol had, a line for each work; batches and iterations are notes of the rows."""
    works: dict[str, list[ThroughputRecord]] = {}
    for record in records:
        works.setdefault(record.work, []).append(record)
    for work, alike in works.items():
        said = [
            f"{name}: {_either(str(record.settings[name]) for record in alike if name in record.settings)}"
            for name in SETTINGS
            if any(name in record.settings for record in alike)
        ]
        if said:
            yield f"{work} as recorded: {'; '.join(said)}."


def _either(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(values))


def _range(values: Iterable[int]) -> str:
    """The smallest and the largest of some counts."""
    counts = sorted(values)
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
