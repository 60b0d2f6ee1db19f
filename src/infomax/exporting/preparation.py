"""The Python by which a model card prepares an image for an export: by Pillow, by torchvision, or of numbers by numpy.

In: the preprocessing of an encoder. Out: text, which the model card prints and :mod:`infomax.exporting.check` executes.
"""

from typing import TYPE_CHECKING

from infomax.data.pixel_format import PixelFormat
from infomax.exporting.export_format import READ_RGB, written_out

if TYPE_CHECKING:
    from infomax.data.augmentation.views import Preprocessing
    from infomax.models.encoders import Encoder


def reading_code(encoder: "Encoder") -> str:
    """Returns the statement by which a model card reads ``image``: a PIL image in RGB, or an array [H, W, C]."""
    pixel_format = encoder.preprocessing.pixel_format
    if pixel_format.is_rgb:
        return READ_RGB
    numbers = "the numbers of its file" if pixel_format.is_deep else "bytes"
    return f'image = np.load("image.npy")  # an array [H, W, {pixel_format.channels}] of {numbers}'


def prepare_numbers(preprocessing: "Preprocessing", normalise_inside: bool) -> str:
    """Returns the Python of a function ``prepare``, which makes a batch [1, C, size, size] of an array [H, W, C].

    It needs numpy and Pillow alone, which resizes one channel of floating-point numbers at a time. It does what
    :func:`infomax.data.numbers.to_pixels` and :func:`infomax.data.augmentation.make_views.preprocess` do.

    Args:
        preprocessing: The preprocessing of an encoder.
        normalise_inside: Whether the model normalises itself, and takes pixels from 0 to 1.
    """
    size, resize = preprocessing.size, preprocessing.resize
    resample = "BICUBIC" if preprocessing.bicubic else "BILINEAR"
    lines = [
        *_scaling_lines(preprocessing),
        f"scale = {resize} / min(pixels.shape[:2])",
        f"height, width = (max({resize}, int(side * scale)) for side in pixels.shape[:2])",
        f"top, left = round((height - {size}) / 2), round((width - {size}) / 2)",
        "channels = [Image.fromarray(channel) for channel in pixels.astype(np.float32).transpose(2, 0, 1)]",
        f"channels = [channel.resize((width, height), Image.Resampling.{resample}) for channel in channels]",
        f"pixels = np.stack(channels, axis=2)[top : top + {size}, left : left + {size}].clip(0, 1)",
    ]
    if not normalise_inside:
        mean, std = written_out(preprocessing.mean), written_out(preprocessing.std)
        lines.append(f"pixels = (pixels - np.float32({mean})) / np.float32({std})")
    body = "\n    ".join(lines)
    return f"""def prepare(values):
    {body}
    return pixels.transpose(2, 0, 1)[None]
"""


def _scaling_lines(preprocessing: "Preprocessing") -> list[str]:
    """Returns the statements that make ``pixels`` from 0 to 1 of the numbers ``values`` [H, W, C]."""
    pixel_format = preprocessing.pixel_format
    if not pixel_format.is_deep:
        return ["pixels = values / 255"]
    low, span = shortest(pixel_format.low), _spans(pixel_format)
    shifted = "values" if low == "0.0" else f"(values - {low})"
    missing = "~np.isfinite(values)"
    if pixel_format.no_data is not None:
        missing += f" | (values == {pixel_format.no_data!r})"
    fill = shortest(pixel_format.fill) if pixel_format.fill else "0.0"
    return [
        f"missing = {missing}",
        f"pixels = ({shifted} / {span}).clip(0, 1)",
        f"pixels = np.where(missing, {fill}, pixels)",
    ]


def _spans(pixel_format: PixelFormat) -> str:
    """Returns how far the ends of each channel's range are apart, as Python."""
    return shortest(tuple(high - low for low, high in zip(pixel_format.low, pixel_format.high, strict=True)))


def shortest(values: tuple[float, ...]) -> str:
    """Returns numbers of channels as Python writes them, and one number if all are the same.

    Examples:
        >>> shortest((0.5, 0.5)), shortest((0.0, 0.5))
        ('0.5', '(0.0, 0.5)')
    """
    return written_out(values[0]) if len(set(values)) == 1 else written_out(values)


def prepare_by_pillow(encoder: "Encoder", normalise_inside: bool) -> str:
    """Returns the Python of a function ``prepare``, which makes a batch [1, C, size, size] of a PIL image.

    It needs numpy and Pillow alone. Of an encoder of other images than 8-bit RGB, it takes an array [H, W, C].

    Args:
        encoder: The encoder whose preprocessing it is.
        normalise_inside: Whether the model normalises itself, and takes pixels from 0 to 1.
    """
    shown = encoder.preprocessing
    if not shown.pixel_format.is_rgb:
        return prepare_numbers(shown, normalise_inside)
    resample = "BICUBIC" if shown.bicubic else "BILINEAR"
    pixels = "pixels = np.asarray(image, np.float32) / 255"
    if not normalise_inside:
        mean, std = written_out(shown.mean), written_out(shown.std)
        pixels += f"\n    pixels = (pixels - np.float32({mean})) / np.float32({std})"
    return f"""def prepare(image):
    scale = {shown.resize} / min(image.size)
    width, height = (max({shown.resize}, round(side * scale)) for side in image.size)
    left, top = (width - {shown.size}) // 2, (height - {shown.size}) // 2
    image = image.resize((width, height), Image.Resampling.{resample})
    image = image.crop((left, top, left + {shown.size}, top + {shown.size}))
    {pixels}
    return pixels.transpose(2, 0, 1)[None]
"""


def prepare_by_torchvision(encoder: "Encoder") -> str:
    """Returns the Python of torchvision's transform ``prepare``, which makes [3, size, size] of a PIL image."""
    shown = encoder.preprocessing
    mode = "BICUBIC" if shown.bicubic else "BILINEAR"
    return f"""prepare = v2.Compose(
    [
        v2.Resize({shown.resize}, interpolation=v2.InterpolationMode.{mode}),
        v2.CenterCrop({shown.size}),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize({written_out(shown.mean)}, {written_out(shown.std)}),
    ]
)
"""
