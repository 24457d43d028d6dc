"""Style that all figures share: colours, sizes, how an autoencoder is shown, and how a figure is saved."""

from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self, TypedDict

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from dcae_bench.base.files import write_with
from dcae_bench.records.subject import Subject
from dcae_bench.tables.runs import FAMILIES, family_rank

COLOURS = {"sd-vae": "#D55E00", "dc-ae": "#0072B2"}
"""Colours from Okabe and Ito's palette: readable with every common colour-vision deficiency, and in grey."""
OTHER_COLOUR = "#555555"
LINE_STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
TICK = "$\\mathdefault{"
"""How a label of a tick in matplotlib's scientific notation begins."""
WIDTH_IN, DPI = 10.0, 150
"""Width in inches and resolution. A figure is 1500 px wide: sharp in a README, which shows about 1000 px."""


class ShownProtocol(NamedTuple):
    """How figures show what was measured under a protocol, or what the paper reports: by colour, marker and place."""

    rank: int
    colour: str
    fill: str
    marker: str


PROTOCOLS = {
    "reported": ShownProtocol(0, "#555555", "#FFFFFF", "D"),
    "paper": ShownProtocol(1, "#0072B2", "#0072B2", "o"),
    "tuned": ShownProtocol(2, "#E69F00", "#E69F00", "s"),
    "cpu": ShownProtocol(3, "#009E73", "#009E73", "o"),
    "other": ShownProtocol(4, "#CC79A7", "#CC79A7", "^"),
}
"""Colours of the same palette. The reported value is hollow, so that grey prints tell it from ours."""


class Alignment(TypedDict):
    """Keyword arguments that align a text."""

    ha: Literal["center"]
    va: Literal["center"]


CENTRED: Alignment = {"ha": "center", "va": "center"}


class ShownAutoencoder(NamedTuple):
    """An autoencoder as figures show it. Sorts by latent shape, then SD-VAE before DC-AE."""

    compression: int
    latent_channels: int
    rank: int
    family: str
    autoencoder: str

    @classmethod
    def of(cls, subject: Subject) -> Self:
        """The autoencoder that is the subject of a record."""
        rank = family_rank(subject.family)
        return cls(subject.compression, subject.latent_channels, rank, subject.family, subject.autoencoder)

    @property
    def title(self) -> str:
        """Short name: family and latent shape, or the profile's own name if that says more."""
        shape = f"f{self.compression}c{self.latent_channels}"
        if self.autoencoder != f"{self.family}-{shape}":
            return self.autoencoder
        return f"{FAMILIES.get(self.family, self.family)} {shape}"

    @property
    def colour(self) -> str:
        """Colour of the family."""
        return COLOURS.get(self.family, OTHER_COLOUR)


def save_figure(figure: Figure, path: Path, *, vector: bool = True) -> None:
    """Write a figure as PNG, and beside it as SVG where ``vector`` says so, each atomically and the PNG last.

    Names are printed as they are: a dollar sign begins no formula. Only matplotlib's own labels of ticks hold formulas.
    Equal figures give equal bytes: the files name neither matplotlib's version nor a date.

    Raises:
        ResultsError: when the folder cannot be written.

    """
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text() and not text.get_text().startswith(TICK):
            text.set_parse_math(False)

    def save_vector(file: BinaryIO) -> None:
        with rc_context({"svg.hashsalt": "dcae-bench"}):
            figure.savefig(file, format="svg", dpi=DPI, metadata={"Creator": None, "Date": None})

    def save_bitmap(file: BinaryIO) -> None:
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})

    if vector:
        write_with(Path(path).with_suffix(".svg"), save_vector)
    write_with(Path(path), save_bitmap)
