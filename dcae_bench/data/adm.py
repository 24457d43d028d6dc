"""The evaluation's crop: the centre crop of ADM (guided diffusion), which the authors call DMCrop."""

from PIL import Image

from dcae_bench.data.decode import to_rgb

VERSION = "dm-crop/1"
"""Name of the definition; another one gives other pixels and other results."""


def dm_crop(image: Image.Image, size: int, *, upscale: bool = False) -> Image.Image:
    """Resize so that the shorter side is ``size``, and cut the square in the middle, as RGB.

    An image of that size stays as it is. Others are halved with a box filter while the shorter side is at least twice
    ``size``, then resized bicubically; odd rests of the crop go to the right and the bottom. The pixels depend on
    Pillow's version in the last bit. Raises ValueError for an image that would be enlarged without ``upscale``; who has
    its name checks the size before.
    """
    image = to_rgb(image)
    if min(image.size) < size and not upscale:
        raise ValueError(f"{image.width}x{image.height} would be enlarged to {size} px")
    if image.size == (size, size):
        return image
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
