"""Tiles of a reconstruction, as records hold them: their size, and how far the result is from the untiled one."""

from pydantic import Field

from dcae_bench.base.typed import Strict


class Tiling(Strict):
    """How images were computed in tiles, and the difference to computing them whole, on the first images of the set."""

    size: int = Field(description="side of a tile in px")
    overlap: int = Field(description="px that neighbours share, where they are blended linearly")
    encode: bool = Field(description="whether images were encoded in tiles too; false: only latents were decoded so")
    images: int = Field(ge=0, description="first images of the set that were computed whole too")
    psnr: float | None = Field(
        description="PSNR in dB of the tiled reconstructions against the untiled ones, over all pixels of these images "
        "at 8 bits; null: they are equal, or none was computed whole"
    )
    max_difference: int | None = Field(
        ge=0, le=255, description="largest difference of an 8-bit value; null: none was computed whole"
    )
    reason: str | None = Field(
        default=None, description="why fewer images were computed whole than asked for; null: none"
    )

    @property
    def described(self) -> str:
        """Tiles and their error in a few words, as commands and tables print them."""
        what = f"tiles of {self.size} px, overlap {self.overlap} px{'' if self.encode else ', decoder only'}"
        if self.max_difference is None:
            return f"{what}; not compared with the untiled result: {self.reason}"
        if self.psnr is None:
            return f"{what}: equal to the untiled result on the first {self.images} images"
        return (
            f"{what}: PSNR {self.psnr:.2f} dB and largest difference {self.max_difference} of 255 to the untiled "
            f"result, on the first {self.images} images"
        )
