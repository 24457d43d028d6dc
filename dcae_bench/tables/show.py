"""A record on the terminal: model, data and protocol, metrics, and provenance."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dcae_bench.records.provenance import Provenance
from dcae_bench.records.record import Metric, Record
from dcae_bench.records.score import ScoredSet, ScoreRecord


def render(record: Record | ScoreRecord) -> Group:
    """Render a record for rich: subject, data and protocol, metrics with units and notes, provenance."""
    if isinstance(record, ScoreRecord):
        return Group(
            Text(f"{record.kind} of {record.images.source}, profile {record.profile}", style="bold"),
            Text(""),
            _facts("Images", [*_scored("images", record.images), *(("note", note) for note in record.notes)]),
            _facts("Held against", [*_scored(record.against, record.reference), *_how(record)]),
            _metrics(record),
            Text(""),
            _facts("Provenance", made_facts(record)),
        )
    return Group(
        Text(f"{record.kind} of {record.subject.autoencoder}, profile {record.profile}", style="bold"),
        Text(""),
        _facts("Subject", subject_facts(record)),
        _facts("Measured on", measured_on(record)),
        _metrics(record),
        Text(""),
        _facts("Provenance", made_facts(record)),
    )


def _facts(title: str, facts: Iterable[tuple[str, str]]) -> Table:
    """A titled list of names and values. Values are ``Text``, so that rich does not read brackets as markup."""
    table = Table(
        box=None, show_header=False, title=title, title_justify="left", title_style="bold", padding=(0, 2, 0, 0)
    )
    table.add_column(style="dim", no_wrap=True, min_width=15)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    table.add_section()
    table.add_row("", "")
    return table


def subject_facts(record: Record) -> list[tuple[str, str]]:
    """Names and values of the network that a record is about."""
    subject, data = record.subject, record.data
    ratio = f" (f{subject.compression})" if subject.tokens is None else ", without a grid"
    phase = "" if subject.phase is None else f", after phase {subject.phase}"
    return [
        ("autoencoder", f"{subject.autoencoder} ({subject.family})"),
        ("latent", f"{record.latent_shape} at {data.resolution} px{ratio}"),
        ("weights", f"{subject.weights_source}{phase}"),
        *_variant(record),
        ("parameters", f"{subject.parameters:,}"),
        ("weights sha256", subject.weights_sha256),
        *(("note", note) for note in subject.notes),
        *_denoiser(record),
    ]


def _variant(record: Record) -> list[tuple[str, str]]:
    if (variant := record.subject.variant) is None:
        return []
    facts = [f"phases {'+'.join(map(str, variant.phases))}", f"seed {variant.seed}"]
    facts += [] if variant.shortcuts else ["without residual autoencoding"]
    facts += ["with a GAN in every phase"] if variant.gan_everywhere else []
    return [("variant of", f"{variant.of}: {', '.join(facts)}")]


def _denoiser(record: Record) -> list[tuple[str, str]]:
    if (denoiser := record.denoiser) is None:
        return []
    released = f" as {denoiser.released}" if denoiser.released else ""
    return [
        ("denoiser", f"{denoiser.name} ({denoiser.process}), row {denoiser.row}, {denoiser.tokens} tokens"),
        ("its weights", f"{denoiser.weights_source}{released}"),
        ("its sha256", denoiser.weights_sha256),
    ]


def measured_on(record: Record) -> list[tuple[str, str]]:
    """Names and values of the images, the protocol and the settings of a record."""
    data = record.data
    return [
        ("data set", f"{data.name}, {data.split} split"),
        ("images", f"{data.images:,} at {data.resolution} px"),
        ("data sha256", data.sha256),
        ("protocol", record.protocol),
        *((switch.replace("_", " "), value) for switch, value in record.settings.items()),
        *([("path", f"{record.path.described}: {record.path.how}")] if record.path is not None else []),
    ]


def _scored(what: str, side: ScoredSet) -> list[tuple[str, str]]:
    facts = [(what, side.source)]
    facts += [] if side.images is None else [("number", f"{side.images:,}")]
    facts += [("left out", f"{side.left_out:,} without a partner")] if side.left_out else []
    facts += [("cropped", f"{side.cropped:,}")] if side.cropped else []
    facts += [("statistics", f"mu and sigma of {side.statistics_of}")] if side.statistics_of else []
    return [*facts, ("sha256", side.sha256)]


def _how(record: ScoreRecord) -> list[tuple[str, str]]:
    settings = ((switch.replace("_", " "), value) for switch, value in record.settings.items())
    return [("measured at", f"{record.resolution} px"), ("protocol", record.protocol), *settings]


def _metrics(record: Record | ScoreRecord) -> Table:
    table = Table(title="Metrics", title_justify="left", title_style="bold", header_style="dim", padding=(0, 1))
    table.add_column("metric")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("notes", overflow="fold")
    for metric in record.metrics.values():
        table.add_row(*(Text(cell) for cell in metric_cells(metric)))
    return table


def metric_cells(metric: Metric) -> tuple[str, str, str, str]:
    """Label, value, unit and notes of a metric; the notes tell direction, interval and network."""
    better = {"higher": "higher is better", "lower": "lower is better", "neither": ""}
    notes = [better[metric.better], *metric.notes]
    if metric.interval:
        ends = f"{metric.interval.low:.6g} to {metric.interval.high:.6g}"
        notes.append(f"{metric.interval.level:.0%} interval {ends} ({metric.interval.method})")
    if metric.weights_sha256:
        notes.append(f"network {metric.weights_sha256[:12]}")
    return metric.label, f"{metric.value:.6g}", metric.unit or "", "; ".join(note for note in notes if note)


def made_facts(record: Record | ScoreRecord) -> list[tuple[str, str]]:
    """Names and values of how a record was made."""
    return [("record key", record.key), *provenance_facts(record.provenance, record.digest)]


def provenance_facts(made: Provenance, digest: str | None) -> list[tuple[str, str]]:
    """Names and values of a provenance, and of the digest of its record."""
    device = made.device
    commit = "none (outside a git checkout)" if made.commit is None else made.commit
    state = {True: " + uncommitted changes", False: ", clean", None: ""}[made.dirty]
    return [
        ("commit", commit + state),
        ("code sha256", made.code_sha256),
        ("config sha256", made.config_sha256),
        ("recipe sha256", made.recipe_sha256 or "none (not checked: the record is from before recipes were stated)"),
        ("digest", digest or "none (not checked: the record is from before digests)"),
        ("seed", str(made.seed)),
        ("device", f"{device.kind}: {device.machine}, {device.precision}"),
        ("command", made.command),
        ("started", f"{made.started:%Y-%m-%d %H:%M:%S %Z}"),
        ("finished", f"{made.finished:%Y-%m-%d %H:%M:%S %Z}"),
        ("took", f"{made.seconds:,.1f} s"),
        ("versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
    ]
