"""The headline: what the paper claims, reported beside reproduced, with a verdict on each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dcae_bench.report.records import Panels
from dcae_bench.report.sources import Source
from dcae_bench.tables.answers import Answer, AnswersTable, ReportedResult
from dcae_bench.tables.generation.table import GenerationTable
from dcae_bench.tables.markdown import MINUS, decimals, number, spread
from dcae_bench.tables.reported.throughput import ReportedModel, load_throughput
from dcae_bench.tables.reported.verdict import Verdict
from dcae_bench.tables.throughput.judge import reported_pair
from dcae_bench.tables.throughput.table import BASELINE, ThroughputRow

MODEL, FEW_TOKENS, SIDE = "uvit-h", "dc-ae-f64c128 p1", 512
"""The paper's headline pair: this denoiser on this latent space, against :data:`BASELINE`."""
WORKS = {"train": "trains", "forward": "infers"}


@dataclass(frozen=True)
class Found:
    """What answers a claim: a value with its verdict, from one source."""

    text: str
    verdict: Verdict
    reason: str
    source: str
    records: Sequence[str] = ()


@dataclass(frozen=True)
class Claim:
    """One claim of the paper."""

    text: str
    where: str
    """Table or figure of the paper."""
    reported: str
    found: Sequence[Found]
    here: str | None = None
    """What this run shows of the claim at its own size, which is no reproduction."""
    section: str = ""
    """Id of the page's section with the tables."""


def claims(sources: Sequence[Source], panels: Panels) -> list[Claim]:
    """The paper's main claims, each with what the sources measured of it."""
    return [
        *_speed(sources, panels),
        *_reconstruction(sources, panels),
        *_generation(sources, panels),
        *_ablation(sources, panels),
    ]


def _speed(sources: Sequence[Source], panels: Panels) -> Iterator[Claim]:
    reported = load_throughput()
    fast, slow = reported.find(MODEL, FEW_TOKENS, SIDE), reported.find(MODEL, BASELINE, SIDE)
    for work, verb in WORKS.items():
        found, here = [], []
        for source in sources:
            for row in source.throughput.rows if source.throughput else ():
                if row.record.work != work or row.speed_up is None:
                    continue
                speed, how = f"{row.speed_up.value:.2f}×", _how(row)
                if (row.record.model.name, row.record.model.latent_space) == (MODEL, FEW_TOKENS) and row.reported:
                    ids = panels.ids(source, [[row.record.key]])[0]
                    found.append(Found(f"{speed} ({how})", *_judged(row), source.title, ids))
                elif row.record.model.latent_space == FEW_TOKENS and not source.committed:
                    here.append(f"{row.record.model.name}: {speed} ({how})")
        if not found:
            found = [Found("–", Verdict.NOT_RUN, "needs a GPU: `dcae-bench measure --plan h100`", "")]
        found.sort(key=lambda one: one.verdict is Verdict.NOT_COMPARABLE)  # the others keep their order
        yield Claim(
            f"UViT-H {verb} on latents of DC-AE f64p1 many times as fast as on those of SD-VAE f8p2",
            "Table 3",
            _ratio(fast, slow, work),
            found,
            "; ".join(here) or None,
            "throughput",
        )


def _how(row: ThroughputRow) -> str:
    gpu = row.record.environment.gpu
    device = (gpu.name or "GPU") if gpu else row.record.environment.processor
    return f"{row.record.protocol.removeprefix('throughput/')}, {device}"


def _judged(row: ThroughputRow) -> tuple[Verdict, str]:
    return row.judgement.verdict, row.judgement.reason


def _ratio(fast: ReportedModel | None, slow: ReportedModel | None, work: str) -> str:
    one, other = reported_pair(work, fast, slow)
    return f"{one.value / other.value:.2f}×" if one and other else "–"


def _reconstruction(sources: Sequence[Source], panels: Panels) -> Iterator[Claim]:
    held = [(source, source.reconstruction) for source in sources if source.reconstruction]
    if not held:
        return
    here = None
    for source, table in held:
        pairs = [pair for pair in table.pairs if not pair.obstacle]
        if not pairs:
            continue
        pair = max(pairs, key=lambda one: (one.dc_ae.record.subject.compression, one.dc_ae.record.data.resolution))
        parts = []
        for key, metric in table.columns.items():
            if (difference := pair.difference(key)) is not None:
                text = number(difference, decimals(key, [metric.value]), signed=True)
                better = metric.better != "neither" and pair.dc_ae in pair.winners(key)
                parts.append(f"{metric.label.split(' ')[0]} {text} ({'better' if better else 'worse'})")
        data = pair.dc_ae.record.data
        named = f"{pair.dc_ae.record.subject.autoencoder} {MINUS} {pair.sd_vae.record.subject.autoencoder}"
        here = f"{_whose(source, table)}, {named} on {data.name}, {data.resolution} px: {', '.join(parts)}"
        break
    text = "DC-AE reconstructs ImageNet 512 px at f64 where SD-VAE fails"
    results = [
        (source, table, {result.row.family: result for result in table.reported if _is_headline(result)})
        for source, table in held
    ]
    found = [one for source, _, rows in results if "dc-ae" in rows for one in _answers(source, rows["dc-ae"], panels)]
    first = next((rows for _, _, rows in results if rows), {})
    told = {family: result.row.metrics["rfid"].text for family, result in first.items() if "rfid" in result.row.metrics}
    reported = f"rFID {told.get('dc-ae', '–')} (SD-VAE {told.get('sd-vae', '–')})"
    yield Claim(text, "Table 2", reported, _measured_or_not(found), here, "reconstruction")


def _is_headline(result: ReportedResult) -> bool:
    row = result.row
    return (row.dataset, row.resolution, row.compression) == ("imagenet", SIDE, 64) and row.in_paper


def _generation(sources: Sequence[Source], panels: Panels) -> Iterator[Claim]:
    held = [(source, source.generation) for source in sources if source.generation]
    if not held:
        return
    found: list[Found] = []
    told: dict[str, str] = {}
    for source, table in held:
        for result in table.reported:
            row = result.row
            if row.denoiser != MODEL or row.label != "UViT-H" or row.resolution != SIDE:
                continue
            told.setdefault(row.latent_space, " / ".join(value.text for value in row.metrics.get("gfid_cfg", ())[:1]))
            if row.tokens == 64:
                found += _answers(source, result, panels)
    reported = "guided gFID " + ", ".join(f"{value} on {space}" for space, value in told.items() if value)
    text = "UViT-H generates ImageNet 512 px as well from few tokens of DC-AE as from many of SD-VAE"
    source, table = held[0]
    here = _lowest_distances(table)
    yield Claim(
        text, "Table 3", reported, _measured_or_not(found), here and f"{_whose(source, table)}, {here}", "generation"
    )


def _lowest_distances(table: GenerationTable) -> str | None:
    """The lowest Fréchet distance of each family; None if one of them has none."""
    key = next((key for key in table.columns if key.startswith("gf")), None)
    if key is None:
        return None
    parts = []
    for family in ("dc-ae", "sd-vae"):
        runs = [run for run in table.runs if run.record.subject.family == family and key in run.record.metrics]
        if not runs:
            return None
        run = min(runs, key=lambda one: one.record.metrics[key].value)
        value = run.record.metrics[key].value
        parts.append(f"{number(value, decimals(key, [value]))} on {run.latent_space} ({run.denoiser.tokens} tokens)")
    return f"lowest {table.columns[key].label}: {', '.join(parts)}"


def _ablation(sources: Sequence[Source], panels: Panels) -> Iterator[Claim]:
    held = [(source, source.ablation) for source in sources if source.ablation]
    if not held:
        return
    source, table = held[0]
    values = table.reported_effects.get(("residual", 64), {})
    found = [
        one
        for source, table in held
        for result in table.reported
        if (result.row.study, result.row.compression, result.row.arm) == ("residual", 64, "with")
        for one in _answers(source, result, panels)
    ]
    here = []
    for effect in table.effects:
        record = effect.with_it.first.record
        key = next((key for key in table.columns if key.startswith("psnr")), None)
        difference = effect.difference(key) if key else None
        if effect.idea == "residual" and difference and record.data.resolution == table.lowest and key:
            name = effect.with_it.first.variant.of
            here.append(f"{name} PSNR {number(difference.mean, 2, signed=True)} dB ({effect.verdict(key)})")
    yield Claim(
        "Residual autoencoding makes high compression possible",
        "Figure 3 (a)",
        f"rFID at f64 {values.get('without', '–')} without, {values.get('with', '–')} with",
        _measured_or_not(found),
        f"{_whose(source, table)}, with {MINUS} without: {'; '.join(here)}" if here else None,
        "ablation",
    )


def _whose(source: Source, table: AnswersTable) -> str:
    return f"profile {table.profile}{', committed evidence' if source.committed else ''}"


def _answers(source: Source, result: ReportedResult, panels: Panels) -> Iterator[Found]:
    """What each weights source of a source gives for a row of the paper, judged by its first metric."""
    for weights, answer in result.answers.items():
        yield _found(source, weights, answer, panels)


def _found(source: Source, weights: str, answer: Answer, panels: Panels) -> Found:
    metric, judgement = next(iter(answer.judgements.items()))
    run = answer.runs.get(metric)
    reason = "; ".join(answer.missing) or judgement.reason
    if run is None:
        return Found("–", judgement.verdict, reason, source.title)
    value = answer.measured.get(metric)
    text = f"{value.label} {number(value.value, 3)}{spread(value, 3)} ({weights})" if value else f"– ({weights})"
    ids = panels.ids(source, [[run.shown_path]])[0]
    return Found(text, judgement.verdict, reason, source.title, ids)


def _measured_or_not(found: Sequence[Found]) -> list[Found]:
    """What was measured, each once; if nothing was, one answer that says why, of the first source."""
    measured = [one for one in found if one.verdict is not Verdict.NOT_RUN]
    if measured:
        return measured
    return list(found[:1]) or [Found("–", Verdict.NOT_RUN, "no table of this run holds the paper's row", "")]
