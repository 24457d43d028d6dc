"""The autoencoder classes of diffusers: how each is used on one image, and why the others are refused."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DiffusersClass:
    """How a class is used on one image. The defaults are those of ``AutoencoderKL``."""

    time: Literal["none", "one frame", "one block"] = "none"
    """Whether images get a time axis: of one frame, or of the frames that become one frame of the latent."""
    posterior: bool = True
    """Whether the encoder gives a mean and a trained spread."""
    pixels: Literal["[-1, 1]", "[0, 1]", "v/128 - 1"] = "[-1, 1]"
    """Range of pixel values; the last is that of 8-bit values v."""
    scale: Literal["config", "weights", "batch norm", "own"] = "config"
    """Where the statistics of the latents stand; own: ``encode`` itself returns normalised latents."""
    planes: tuple[str, ...] = ("in_channels", "out_channels")
    """Arguments that state the planes of an image."""
    alpha: bool = False
    """Whether four planes are taken: an opaque alpha is added, and the decoded one is dropped."""
    singly: bool = False
    """Whether batches are computed image by image, because the class fails on larger ones."""
    counted: Literal["without values", "built with values", "with values"] = "without values"
    """How operations are counted: some classes read values of tensors as they are built, or as they compute."""
    inert: tuple[str, ...] = ()
    """Keys of published configs without effect: written from other arguments, or of an earlier release."""


VIDEO = DiffusersClass(time="one frame")
DERIVED = ("block_out_channels", "force_upcast")

CLASSES: dict[str, DiffusersClass] = {
    "AsymmetricAutoencoderKL": DiffusersClass(inert=DERIVED),
    "AutoencoderDC": DiffusersClass(posterior=False, planes=("in_channels",)),
    "AutoencoderKL": DiffusersClass(),
    "AutoencoderKLCogVideoX": VIDEO,
    "AutoencoderKLCosmos": DiffusersClass(time="one frame", posterior=False, counted="built with values"),
    "AutoencoderKLFlux2": DiffusersClass(scale="batch norm"),
    "AutoencoderKLHunyuanImage": DiffusersClass(),
    "AutoencoderKLHunyuanImageRefiner": VIDEO,
    "AutoencoderKLHunyuanVideo": VIDEO,
    "AutoencoderKLHunyuanVideo15": DiffusersClass(time="one frame", singly=True),
    "AutoencoderKLKVAE": DiffusersClass(planes=("in_channels",)),
    "AutoencoderKLKVAEVideo": DiffusersClass(time="one frame", posterior=False, planes=("in_channels", "out_ch")),
    "AutoencoderKLLTX2Video": DiffusersClass(time="one frame", scale="weights"),
    "AutoencoderKLLTXVideo": DiffusersClass(time="one frame", scale="weights"),
    "AutoencoderKLMagvit": VIDEO,
    "AutoencoderKLMochi": VIDEO,
    "AutoencoderKLQwenImage": DiffusersClass(time="one frame", planes=("input_channels",), alpha=True),
    "AutoencoderKLQwenImage21": DiffusersClass(time="one frame", alpha=True),
    "AutoencoderKLTemporalDecoder": DiffusersClass(),
    "AutoencoderKLWan": DiffusersClass(time="one frame", inert=("clip_output",)),
    "AutoencoderRAE": DiffusersClass(
        posterior=False, pixels="[0, 1]", scale="own", planes=("num_channels",), counted="built with values"
    ),
    "AutoencoderTiny": DiffusersClass(posterior=False, inert=("block_out_channels",)),
    "AutoencoderVidTok": DiffusersClass(time="one block", counted="built with values"),
    "ConsistencyDecoderVAE": DiffusersClass(planes=("encoder_in_channels",), counted="with values", inert=DERIVED),
    "Kandinsky6SRVAE": DiffusersClass(time="one frame", pixels="v/128 - 1"),
    "VQModel": DiffusersClass(posterior=False),
}
"""Classes that are taken, by name."""

AUDIO = "codes audio, not images"
REFUSED: dict[str, str] = {
    "AutoencoderKLAllegro": "codes tiles of 24 frames, and returns nothing for a single one",
    "AutoencoderKLKVAEAudio": AUDIO,
    "AutoencoderKLLTX2Audio": AUDIO,
    "AutoencoderKLMiniMaxH3": "decodes clips of several frames, and fails on the latent of a single one",
    "AutoencoderKLMiniMaxH3Audio": AUDIO,
    "AutoencoderOobleck": AUDIO,
    "AutoencoderSAME": AUDIO,
    "Cosmos3AVAEAudioTokenizer": AUDIO,
    "LTX2VideoDiffusionDecoderModel": "is a decoder without an encoder",
    "LongCatAudioDiTVae": AUDIO,
    "MMAudioVAE": AUDIO,
    "MMAudioVocoder": AUDIO,
    "MiniMaxMusic3Vocoder": AUDIO,
    "PaellaVQModel": "belongs to a pipeline that diffusers has given up",
    "RFD4ProteinaAutoencoder": "codes proteins, not images",
}
"""Classes that are refused, with the reason."""
CLASSES_PAGE = "docs/diffusers-classes.md"


def refusal(class_name: object) -> str:
    """One clause that says why a class is not taken."""
    if isinstance(class_name, str) and class_name in REFUSED:
        return f"{class_name} {REFUSED[class_name]}"
    return f"{class_name} is no autoencoder of images that is known here ({CLASSES_PAGE} lists them)"
