"""The evaluation's crop: the centre crop of ADM (guided diffusion), which the paper's authors call DMCrop."""

from PIL import Image

from dcae_bench.data.decode import MAX_PIXELS, to_rgb

VERSION = "dm-crop/1"
"""Version of the crop's definition. Hashes of crops include it, because another definition gives other pixels."""


def dm_crop(image: Image.Image, size: int, *, upscale: bool = False) -> Image.Image:
    """Resize an image so that its shorter side is ``size``, and cut out the square in the middle, as RGB.

    An image of ``size`` x ``size`` stays unchanged. Any other image is halved with a box filter while its shorter side
    is at least twice ``size``, then resized bicubically. An odd margin loses one pixel more on the right or at the
    bottom. Pillow's version may change the last bit of a pixel. Raises ValueError for an image that is too small,
    unless ``upscale`` is true. A caller that knows the file's name checks the size first, to name the file.
    """
    image = to_rgb(image)
    if min(image.size) < size and not upscale:
        raise ValueError(f"{image.width}x{image.height} would be enlarged to {size} px")
    if image.size == (size, size):
        return image
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > MAX_PIXELS:
        # A long and thin image that is enlarged, as one of 20,000 x 1 px. Only its middle is computed; the filter still
        # reads the pixels around it. Other images take the authors' way, to the last bit.
        across, along = image.width / width, image.height / height
        box = (left * across, top * along, (left + size) * across, (top + size) * along)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))
