"""Paths of everything below ``results/``. Workflow rules, targets and the search for records share this module.

Every method takes values, Snakemake's wildcards in braces (``"{row}"``) or ``*`` for a search. It returns a path as
text, relative to the folder in which the workflow runs.
"""

from dataclasses import dataclass
from pathlib import Path

RESULTS = "results"
REFERENCE = f"{RESULTS}/reference"
"""Committed evidence, which no rule writes."""
THROUGHPUT = f"{RESULTS}/throughput"
"""Timings, one folder for each measurement plan."""

ABLATIONS = "/ablations"
"""Folder of the variants of the ablations in the results of their profile."""
PER_IMAGE = ".images.parquet"
"""Ending of the file with the metrics of each image, beside a reconstruction record."""
BESIDE_RECONSTRUCTION = (PER_IMAGE, ".samples.npy", ".gallery.npz")
"""Endings of files beside a reconstruction record: metrics by image; first reconstructions; worst and median ones."""


def table(name: str, end: str = ".md") -> str:
    """A table: ``rfid``, ``diffusion``, ``ablation`` or ``throughput``; ``end`` is .md, .csv or .json."""
    return f"{RESULTS}/table_{name}{end}"


REPORT = f"{RESULTS}/report.html"
"""The report, one page of everything that was measured."""


def figure(name: str, end: str = ".png") -> str:
    """A figure: ``reconstructions``, ``losses``, ``samples``, ``diffusion_loss``, ``ablation`` or ``throughput``."""
    return f"{RESULTS}/figures/{name}{end}"


@dataclass(frozen=True)
class Places:
    """The folders and files of one profile, below ``root``."""

    root: str

    @classmethod
    def of(cls, profile: str) -> "Places":
        """The places of a profile by its name."""
        return cls(f"{RESULTS}/{profile}")

    @classmethod
    def around(cls, record: Path) -> "Places | None":
        """The places of the results that a record lies in, by its path; None for a record outside any results."""
        stages = ("reconstruction", "generation", "diffusion", "training", "latents")
        stage = next((folder for folder in Path(record).absolute().parents if folder.name in stages), None)
        return None if stage is None else cls(str(stage.parent))

    @property
    def ablations(self) -> "Places":
        """Places of the variants of the ablations, apart from the profile's own trainings and measurements."""
        return self if self.root.endswith(ABLATIONS) else Places(f"{self.root}{ABLATIONS}")

    @property
    def own(self) -> "Places":
        """Places of the profile's own trainings and measurements, whose variants may be here."""
        return Places(self.root.removesuffix(ABLATIONS))

    @property
    def owner(self) -> str:
        """Note that names the profile file whose results these are."""
        return f"{self.root}/profile.json"

    @property
    def data(self) -> str:
        """Folder of the prepared data sets."""
        return f"{self.root}/data"

    def split(self, dataset: str, split: str, end: str = "") -> str:
        """A prepared split: packed (``end`` .npy and .json) or listed (.parquet and .json)."""
        return f"{self.data}/{dataset}/{split}{end}"

    def log(self, name: str) -> str:
        """Log of a job."""
        return f"{self.root}/logs/{name}.log"

    def run(self, name: str) -> str:
        """Folder of an unfinished training. No rule declares it, because Snakemake deletes outputs of failed jobs."""
        return f"{self.root}/runs/{name}"

    def training(self, autoencoder: str, phase: int | str, file: str = "") -> str:
        """A finished phase's folder, or a ``file`` in it: model.safetensors, record.json or log.jsonl."""
        return _join(f"{self.root}/training/{autoencoder}@retrained/phase{phase}", file)

    def weights(self, autoencoder: str, phase: int | str) -> str:
        """Weights after a phase."""
        return self.training(autoencoder, phase, "model.safetensors")

    def reconstruction(self, subject: str, label: str, phase: int | str | None = None, end: str = ".json") -> str:
        """Record of a ``subject`` (``autoencoder@weights``) on an evaluation set; another ``end``: a file beside it."""
        return self._measured("reconstruction", subject, label, phase, end)

    def beside_reconstruction(self, subject: str, label: str, phase: int | str | None = None) -> list[str]:
        """Files beside a reconstruction record."""
        return [self.reconstruction(subject, label, phase, end) for end in BESIDE_RECONSTRUCTION]

    def latent_statistics(self, subject: str, label: str, phase: int | str | None = None, end: str = ".json") -> str:
        """Record of a subject's latents on an evaluation set; another ``end``: a file beside it."""
        return self._measured("latents", subject, label, phase, end)

    def check(self, subject: str, label: str) -> str:
        """Outcome of the comparison of a reconstruction record with the authors' own measurement."""
        return self._measured("check", subject, label, None, ".json")

    def check_samples(self, row: str, scale: str) -> str:
        """Outcome of the comparison of a generation record with the authors' own measurement."""
        return f"{self.root}/check/generation/{row}/s{scale}.json"

    def sanity(self, label: str) -> str:
        """Page with the evaluator's self-checks on an evaluation set."""
        return f"{self.root}/sanity/{label}.md"

    def latents(self, latent: str, images: str, file: str = "") -> str:
        """Folder of the latents of ``autoencoder@weights``, or a ``file`` in it, as latents.npy or manifest.json."""
        return _join(f"{self.root}/latent-cache/{latent}/{images}", file)

    def denoiser(self, row: str, file: str = "") -> str:
        """A trained denoiser's folder, or a ``file`` in it: model.safetensors, record.json or log.jsonl."""
        return _join(f"{self.root}/diffusion/{row}", file)

    def samples(self, row: str, scale: str, file: str = "") -> str:
        """Folder of a row's samples at one guidance scale, or a ``file`` in it, as samples.npy or samples.json."""
        return _join(f"{self.root}/samples/{row}/s{scale}", file)

    def generation(self, row: str, scale: str) -> str:
        """Record of a row's samples at one guidance scale."""
        return f"{self.root}/generation/{row}/s{scale}.json"

    def guidance_sweep(self, row: str) -> str:
        """Figure of a row's distances by guidance scale."""
        return f"{self.root}/guidance-sweep/{row}.png"

    def find_reconstructions(self) -> list[Path]:
        """Existing reconstruction records, sorted."""
        return self._find(self.reconstruction("*@*", "*"), self.reconstruction("*@*", "*", "*"))

    def find_ablations(self) -> list[Path]:
        """Existing records behind a table of ablations, sorted: trainings and reconstructions, variants or not."""
        found = [self, self.ablations]
        return [
            path
            for places in found
            for path in (*places.find_reconstructions(), *places._find(places.training("*", "*", "record.json")))
        ]

    def find_generations(self) -> list[Path]:
        """Existing records of samples and of denoisers' trainings, sorted."""
        return self._find(self.generation("*", "*"), self.denoiser("*", "record.json"))

    def _measured(self, stage: str, subject: str, label: str, phase: int | str | None, end: str) -> str:
        after = "" if phase is None else f"phase{phase}/"
        return f"{self.root}/{stage}/{subject}/{after}{label}{end}"

    def _find(self, *patterns: str) -> list[Path]:
        """Files by patterns. A hidden file is left over from an interrupted write and is no record."""
        below = (pattern.removeprefix(f"{self.root}/") for pattern in patterns)
        found = (path for pattern in below for path in Path(self.root).glob(pattern))
        return sorted(path for path in found if not path.name.startswith("."))


def _join(folder: str, file: str) -> str:
    return f"{folder}/{file}" if file else folder
