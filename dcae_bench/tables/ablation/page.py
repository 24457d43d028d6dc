"""Page of the table of ablations: the Markdown of ``table_ablation.md``."""

from collections.abc import Iterator

from dcae_bench.tables.ablation.judge import SeedMean
from dcae_bench.tables.ablation.table import IDEAS, REPORTED_LABELS, AblationRun, AblationTable, Effect
from dcae_bench.tables.answers_page import (
    beside_lines,
    column_decimals,
    column_notes,
    doubts_of,
    folder_line,
    holdings_text,
    paths_of,
    verdict_cell,
)
from dcae_bench.tables.markdown import (
    ARROWS,
    Footnotes,
    Grid,
    bullets,
    harmless,
    millions,
    number,
    one_line,
    spread,
)
from dcae_bench.tables.reported.ablation import ARMS, Study
from dcae_bench.tables.runs import DATA_SETS, unique

STUDIES: dict[Study, str] = {
    "residual": "(a) residual autoencoding",
    "high_resolution": "(b) high-resolution adaptation",
    "gan": "GAN",
}
ARM_NAMES = {
    "without": "without",
    "with": "with",
    "none": "no GAN",
    "all_layers": "GAN, all layers",
    "decoder_head": "GAN, decoder's head",
}
STUDY_OF_IDEA: dict[str, Study] = {"residual": "residual", "phase 2": "high_resolution"}
"""The paper's plot that shows an idea's effect."""


def markdown(table: AblationTable) -> str:
    """The whole page. Its first line names profile, commit and hardware."""
    parts = [f"{one_line(table.first_line)}\n", "# Ablations: what each of the paper's ideas adds (its Figure 3)\n"]
    if holdings := holdings_text(table):
        parts.append(holdings)
    if table.effects:
        parts += ["## Effects: with minus without\n", effects(table).with_notes()]
    parts += ["## Measured\n", measured(table).with_notes() if table.arms else "Nothing was measured yet.\n"]
    if table.reported:
        parts += ["## Reported by the paper (Figure 3)\n", reported(table).with_notes()]
    if table.not_measured:
        parts += [
            "## Not measured\n",
            bullets(f"{label}: {'; '.join(why)}" for label, why in table.not_measured.items()),
        ]
    parts += ["## How to read\n", bullets(legend(table))]
    return harmless("\n".join(parts))


def gan_cell(run: AblationRun) -> str:
    """Phases with a GAN; ``-`` if the trainings are not known."""
    if run.gan_phases is None:
        return "-"
    return f"phase {'+'.join(map(str, run.gan_phases))}" if run.gan_phases else "none"


def effects(table: AblationTable) -> Grid:
    """A row for each two arms that differ in one idea."""
    footnotes, places = Footnotes(), column_decimals(table)
    headers = ["idea", "data set", "resolution", "autoencoder", "without", "with", "seeds"]
    headers += [f"Δ {head.label}{ARROWS[head.better]}" for head in table.columns.values()]
    headers += ["training time", "the paper's rFID"]
    rows = []
    for effect in table.effects:
        record = effect.with_it.first.record
        cells = [IDEAS[effect.idea], record.data.name, str(record.data.resolution), effect.with_it.first.variant.of]
        cells += [_trained(effect.without.first), _trained(effect.with_it.first), str(len(effect.seeds))]
        cells[-1] += footnotes.mark([effect.obstacle] if effect.obstacle else [])
        cells += [_effect_cell(effect, key, places[key]) for key in table.columns]
        rows.append([*cells, _cost_cell(effect.cost), _reported_effect(table, effect)])
    align = "llrlllr" + "l" * len(table.columns) + "ll"
    records = [
        [run.shown_path for arm in (effect.with_it, effect.without) for run in arm.runs] for effect in table.effects
    ]
    return Grid(headers, rows, align, footnotes, records)


def _effect_cell(effect: Effect, key: str, places: int) -> str:
    found, verdict = effect.difference(key), effect.verdict(key)
    if found is None:
        return "-"
    cell = number(found.mean, places, signed=True) + _half(found, places)
    return f"{cell} **{verdict}**" if verdict in ("better", "worse") else f"{cell} {verdict or ''}".rstrip()


def _half(found: SeedMean, places: int) -> str:
    if found.interval is None:
        return ""
    half = found.interval.half_width
    return f" ± {half:.{places}f}" if half == 0 or half >= 0.5 * 10**-places else f" ± {half:.1g}"


def _cost_cell(cost: SeedMean | None) -> str:
    return "-" if cost is None else f"x {cost.mean:.2f}{_half(cost, 2)}"


def _reported_effect(table: AblationTable, effect: Effect) -> str:
    """The paper's pair of values for an effect at the same f: at low resolution for (a), above it for (b)."""
    record, study = effect.with_it.first.record, STUDY_OF_IDEA.get(effect.idea)
    if (
        study is None
        or (study == "residual") != (record.data.resolution == table.lowest)
        or not table.is_plotted(effect)
    ):
        return "-"
    values = table.reported_effects.get((study, record.subject.compression), {})
    return f"{values['without']} → {values['with']}" if {"without", "with"} <= set(values) else "-"


def measured(table: AblationTable) -> Grid:
    """A row for each arm: the means over its seeds."""
    footnotes, places, shared = Footnotes(), column_decimals(table), column_notes(table)
    headers = ["data set", "resolution", "autoencoder", "params", "shortcuts", "phases", "GAN", "training images"]
    headers += ["training time (s)", "seeds"]
    headers += [
        f"{head.label}{ARROWS[head.better]}{footnotes.mark(shared.get(key, ()))}" for key, head in table.columns.items()
    ]
    rows = []
    for arm in table.arms:
        run = arm.first
        subject, data, variant = run.record.subject, run.record.data, run.variant
        cells = [
            data.name,
            str(data.resolution),
            variant.of + footnotes.mark(doubts_of(run)),
            millions(subject.parameters),
        ]
        cells += ["yes" if variant.shortcuts else "no", _phases(run), gan_cell(run)]
        cells.append("-" if run.images is None else f"{run.images:,}")
        seconds = arm.seconds
        cells.append("-" if seconds is None else number(seconds.mean, 0 if seconds.mean >= 10 else 1))
        cells.append(", ".join(map(str, arm.seeds)))
        for key in table.columns:
            metric = arm.metric(key)
            notes = metric.notes if metric and key not in shared else ()
            cells.append(
                number(metric.value if metric else None, places[key])
                + spread(metric, places[key])
                + footnotes.mark(notes)
            )
        rows.append(cells)
    records = [[run.shown_path for run in arm.runs] for arm in table.arms]
    return Grid(headers, rows, "lrlrlllrrl" + "r" * len(table.columns), footnotes, records)


def reported(table: AblationTable) -> Grid:
    """A row for each of the paper's values, beside what was measured of it."""
    footnotes = Footnotes()
    headers = ["figure", "what", "arm", "f", "data set", "resolution", "rFID ↓", "retrained", "verdict"]
    rows = []
    results = sorted(table.reported, key=lambda one: (list(ARMS).index(one.row.study), one.row.compression or 0))
    for result in results:
        row, answer = result.row, result.answers["retrained"]
        cells = [row.table, STUDIES[row.study], ARM_NAMES[row.arm], str(row.compression or "-")]
        cells += [DATA_SETS.get(row.dataset or "", row.dataset or "not stated"), str(row.resolution or "-")]
        for metric, label in REPORTED_LABELS.items():
            value, found = row.metrics[metric], answer.measured.get(metric)
            cells.append(value.text + footnotes.mark([value.note] if value.note else []))
            places = value.decimals + 1
            cells.append(f"{label} {number(found.value, places)}{spread(found, places)}" if found else "-")
        rows.append([*cells, verdict_cell(result.answers, REPORTED_LABELS, footnotes)])
    return Grid(headers, rows, "lllrlrrll", footnotes, [paths_of(result) for result in results])


def _phases(run: AblationRun) -> str:
    return "+".join(map(str, run.variant.phases))


def _trained(run: AblationRun) -> str:
    """What sets a run apart from others of its autoencoder."""
    parts = [f"phases {_phases(run)}" if len(run.variant.phases) > 1 else f"phase {_phases(run)}"]
    parts += [] if run.variant.shortcuts else ["no shortcuts"]
    return ", ".join([*parts, *(["GAN in every phase"] if run.variant.gan_everywhere else [])])


def legend(table: AblationTable) -> Iterator[str]:
    """Lines of "How to read"."""
    yield (
        "An effect is the difference of two trainings that differ in one idea and share seed, images and everything "
        "else, averaged over the seeds. ± is the half-width of its 95 % interval by Student's t over seeds."
    )
    yield (
        "Verdicts: `better` and `worse`, the interval does not hold 0; `not there`, it does, so that at this scale and "
        "with these seeds no effect was shown; `not judged`, one seed has no interval. The intervals of single values "
        "are over seeds too; the choice of photographs is the same for all."
    )
    yield "↑ higher is better, ↓ lower is better."
    if table.runs:
        yield (
            "Phases: 1 low resolution, all parameters; 2 high resolution, the layers around the latent (Decoupled "
            "High-Resolution Adaptation); 3 low resolution with a GAN, the decoder's head. Shortcuts: the "
            "non-parametric ones of residual autoencoding; without them the networks are otherwise the same."
        )
        yield (
            "A GAN in every phase has the same weight and discriminator in each, which starts anew with the phase. "
            "Training time is the sum over the phases on the machine above, which may have done other work meanwhile."
        )
        protocols = unique(run.record.protocol for run in table.runs)
        yield f"Protocol: {', '.join(f'`{name}`' for name in protocols)}."
    yield from beside_lines(table)
    if table.runs:
        yield folder_line(table.runs)
