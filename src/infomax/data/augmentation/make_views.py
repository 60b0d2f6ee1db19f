"""Makes the views of a batch, each image with random parameters of its own; and the preprocessing for evaluation.

On a CPU, one image after another goes through all operations (``kernels.py``). On a GPU, each operation works on the
whole batch (``operations.py``). RandAugment, and what comes after it in a view, works on the whole batch everywhere.
"""

from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from infomax.data.augmentation.draws import (
    FLIP,
    ColourChoices,
    LastChoices,
    choose_colours,
    choose_last,
    crop_boxes,
    draw_uniform,
    has_randaugment,
    needed_columns,
)
from infomax.data.augmentation.last_operations import add_noise, normal_quantiles, turn_by_quarters
from infomax.data.augmentation.operations import (
    JITTER,
    JITTER_BY_CHANNEL,
    STAGES,
    Pixels,
    blur,
    grayscale,
    resize_boxes,
    solarize,
    to_device,
    to_float,
)
from infomax.data.augmentation.randaugment import from_bytes, randaugment_operations, to_bytes
from infomax.data.augmentation.randaugment_draws import RandAugmentChoices, choose_randaugment
from infomax.data.augmentation.views import Preprocessing, ViewSet

# A thread makes at least so many pixels: to start one takes as long as to make some thousands.
PIXELS_PER_THREAD = 2**14
# A function of images [r, c, s, s] and parameters [r, n, 1, 1]; whether it is done to each image; the parameters of all
# images [b] or [b, n].
Operation = tuple[Callable[..., Tensor], np.ndarray, np.ndarray]
MAX_ASPECT_RATIO = 10  # of an image that is evaluated; of a longer one the central part is


def crop(
    images: Float[Tensor, "b c h w"],
    boxes: Int[np.ndarray, "b 4"],
    size: int | tuple[int, int],
    *,
    bicubic: bool,
    flip: np.ndarray | None = None,
) -> Float[Tensor, "b c size size"]:
    """Cuts a box out of each image and resizes it.

    Args:
        images: Images in [0, 1].
        boxes: Top, left, height and width of each box, in pixels.
        size: Height and width of the result in pixels, or its side.
        bicubic: Whether to interpolate bicubically instead of bilinearly; both with antialiasing.
        flip: True for each image whose result is mirrored; None mirrors none.
    """
    out_height, out_width = (size, size) if isinstance(size, int) else size
    return resize_boxes(images, _upload(_mirrored(boxes, flip), images), out_height, out_width, bicubic)


def _mirrored(boxes: Int[np.ndarray, "b 4"], flip: np.ndarray | None) -> Float64[np.ndarray, "b 4"]:
    """Returns the boxes, with the width negated if the result is to be mirrored."""
    signed = boxes.astype(np.float64)
    if flip is not None:
        signed[flip, 3] *= -1
    return signed


def distort(images: Float[Tensor, "b c s s"], choices: ColourChoices) -> Float[Tensor, "b c s s"]:
    """Applies colour jitter, grayscale, blur and solarisation to images in [0, 1], in place.

    Each operation works only on the images that it was chosen for. The choices are known on the CPU, so nothing is read
    back from the device; all indices and all parameters reach it in one copy each.
    """
    parts = JITTER if choices.factors.ndim == 2 else JITTER_BY_CHANNEL
    operations: list[Operation] = [
        (parts[part], choices.jitter[:, turn, part], choices.factors[:, part])
        for turn in range(len(parts))
        for part in range(len(parts))
    ]
    operations += [
        (grayscale, choices.grayscale, choices.sigma),
        (partial(blur, reach=choices.reach), choices.blur, choices.sigma),
        (solarize, choices.solarize, choices.sigma),
    ]
    return _apply(images, operations, images.dtype)


def randaugment(
    images: Float[Tensor, "b 3 s s"], choices: RandAugmentChoices, fill: Sequence[float]
) -> Float[Tensor, "b 3 s s"]:
    """Rounds images in [0, 1] to 256 levels, and applies operations of RandAugment, as :func:`distort` does.

    Args:
        images: The images.
        choices: What is done to each of them.
        fill: Value of each channel for pixels that come from beyond an edge.
    """
    operations = randaugment_operations(choices, images.shape[-1], fill)
    return from_bytes(_apply(to_bytes(images), operations, torch.float64))


def _apply(images: Tensor, operations: Sequence[Operation], dtype: torch.dtype) -> Tensor:
    """Applies each operation to the images that it was chosen for, one operation after another.

    Args:
        images: The images, some of which are changed in place.
        operations: The operations.
        dtype: Type of the parameters that the operations take.
    """
    due = [(operation, mask.nonzero()[0], values) for operation, mask, values in operations if mask.any()]
    if not due:
        return images
    all_rows = _upload(np.concatenate([rows for _, rows, _ in due]), images, torch.int64)
    all_values = _upload(np.concatenate([values[rows].ravel() for _, rows, values in due]), images, dtype)
    row_counts, value_counts = [len(rows) for _, rows, _ in due], [values[rows].size for _, rows, values in due]
    split = all_rows.split(row_counts), all_values.split(value_counts)
    for (operation, _, _), rows, values in zip(due, *split, strict=True):
        values = values.view(len(rows), -1, 1, 1)
        if len(rows) == len(images):
            images = operation(images, values)
        else:
            images[rows] = operation(images[rows], values)
    return images


def _upload(values: np.ndarray, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Copies numbers to the device of ``like``, in its type or in ``dtype``."""
    return to_device(torch.from_numpy(values).to(dtype or like.dtype), like.device)


def normalize(
    images: Float[Tensor, "b c h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b c h w"]:
    """Subtracts the mean of each channel and divides by its standard deviation."""
    scale = 1 / np.array(std)
    shift_and_scale = _upload(np.stack([-np.array(mean) * scale, scale]), images).view(2, -1, 1, 1)
    return torch.addcmul(shift_and_scale[0], images, shift_and_scale[1])


def make_views(
    images: Tensor | list[Tensor],
    views: ViewSet,
    *,
    seed: int,
    epoch: int,
    index: Int[np.ndarray, " b"],
    dtype: torch.dtype = torch.float32,
    fused_views: Callable[..., Tensor] | None = None,
) -> list[Float[Tensor, "b c s s"]]:
    """Makes all views of a batch: normalised, channels last, on the device of ``images``, global crops first.

    Args:
        images: Images [B, H, W, C] of uint8 or uint16; or a list with, for each view, its crops [B, size, size, C], cut
            and flipped by workers.
        views: The views to make, and the mean and standard deviation to normalise by.
        seed: Seed of the run.
        epoch: Epoch, from 0.
        index: Key of each image; see :meth:`infomax.data.images.contract.Images.key`.
        dtype: Type of the views. Intermediate results are float64 for float64, otherwise float32. For float64, the
            operations for a GPU are used on a CPU too.
        fused_views: The compiled form of :func:`~infomax.data.augmentation.operations.make_views_fused`, used instead
            of the operations for a GPU. None applies each operation only to the images that it was chosen for.

    Raises:
        ValueError: if the images have not as many channels as the views' mean.
    """
    all_views, channels = (*views.global_crops, *views.local_crops), len(views.mean)
    check_channels(images if isinstance(images, Tensor) else images[0], channels)
    columns = needed_columns(channels, all_views)
    random = [draw_uniform(seed, epoch, index, number, columns) for number in range(len(all_views))]
    results: list[Tensor] = []
    working_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def form(number: int) -> tuple[int, bool, bool]:
        view = all_views[number]
        return view.size, view.bicubic, has_randaugment([view], channels)

    # Consecutive views of one size are made together: fewer and larger operations.
    for (size, bicubic, with_randaugment), numbers in groupby(range(len(all_views)), key=form):
        group = list(numbers)
        numbers_and_settings = [random[i] for i in group], [all_views[i] for i in group]
        choices = choose_colours(*numbers_and_settings, channels)
        last = choose_last(*numbers_and_settings, channels)
        source = _joined([images if isinstance(images, Tensor) else images[i] for i in group])
        boxes, flip = np.empty((0, 4), np.int64), np.empty(0, bool)  # empty if workers have cut and flipped the crops
        if isinstance(images, Tensor):
            height, width = source.shape[1:3]
            boxes = np.concatenate([crop_boxes(random[i], height, width, all_views[i]) for i in group])
            flip = np.concatenate([random[i][:, FLIP] < all_views[i].flip for i in group])
        by_kernels = source.device.type == "cpu" and dtype != torch.float64
        if with_randaugment:
            augmentation = choose_randaugment(*numbers_and_settings)
            assert augmentation is not None
            crops = source, boxes, flip, size, bicubic
            x = _make_with_randaugment(*crops, choices, augmentation, views, dtype=working_dtype, by_kernels=by_kernels)
            x = x if last is None else finish(x, last, views.std)
            x = x.to(dtype, memory_format=torch.channels_last)
        elif by_kernels:
            x = _make_on_cpu(source, boxes, flip, choices, last, views, size, bicubic).to(dtype)
        elif fused_views is not None:
            like = torch.empty(0, dtype=working_dtype, device=source.device)
            stages = {name for name in STAGES if any(getattr(all_views[i], name) for i in group)}
            table = _upload(_parameter_table(boxes, flip, choices, last, views, stages), like)
            x = fused_views(
                source,
                table,
                size=size if len(boxes) else None,
                bicubic=bicubic,
                stages=stages,
                reach=choices.reach,
                dtype=dtype,
                **({"quantiles": normal_quantiles(source.device, working_dtype)} if "noise" in stages else {}),
            )
        else:
            x = to_float(source, working_dtype)
            x = crop(x, boxes, size, bicubic=bicubic, flip=flip) if len(boxes) else x
            x = normalize(distort(x, choices), views.mean, views.std)
            x = x if last is None else finish(x, last, views.std)
            x = x.to(dtype, memory_format=torch.channels_last)
        results += x.split(len(index))
    return results


def _make_with_randaugment(
    source: Pixels,
    boxes: np.ndarray,
    flip: np.ndarray,
    size: int,
    bicubic: bool,
    choices: ColourChoices,
    augmentation: RandAugmentChoices,
    views: ViewSet,
    *,
    dtype: torch.dtype,
    by_kernels: bool,
) -> Float[Tensor, "b 3 s s"]:
    """Makes normalised views of one size that have RandAugment, which stands between blur and grayscale.

    Its operations are those of ``randaugment.py`` wherever views are made. So are grayscale and solarisation after it;
    what comes before is made as for other views.
    """
    never = np.zeros_like(choices.blur)
    before = replace(choices, grayscale=never, solarize=never)
    after = replace(choices, jitter=np.zeros_like(choices.jitter), blur=never)
    if by_kernels:
        plain = replace(views, mean=(0.0,) * 3, std=(1.0,) * 3)
        x = _make_on_cpu(source, boxes, flip, before, None, plain, size, bicubic)
    else:
        x = to_float(source, dtype)
        x = distort(crop(x, boxes, size, bicubic=bicubic, flip=flip) if len(boxes) else x, before)
    return normalize(distort(randaugment(x, augmentation, views.mean), after), views.mean, views.std)


def finish(images: Float[Tensor, "b c s s"], choices: LastChoices, std: Sequence[float]) -> Float[Tensor, "b c s s"]:
    """Adds noise to normalised views, sets dropped channels to 0 and turns the views, in place.

    Each operation works only on the views that it was chosen for, as in :func:`distort`.

    Args:
        images: The views.
        choices: What is done to each of them.
        std: Standard deviation of each channel, by which it was divided.
    """
    noisy = choices.noise_std.nonzero()[0]
    if len(noisy):
        rows, scale = _upload(noisy, images, torch.int64), _upload(1 / np.array(std), images).view(1, -1, 1, 1)
        parameters = _upload(np.column_stack([choices.noise_std, choices.noise_key])[noisy], images)
        deviation, key = parameters[:, 0].view(-1, 1, 1, 1), parameters[:, 1:]
        quantiles = normal_quantiles(images.device, images.dtype)
        images[rows] = add_noise(images[rows], deviation, scale, key, quantiles)
    if choices.dropped.any():
        dropped = _upload(choices.dropped, images, torch.bool)
        images = images.masked_fill_(dropped[:, :, None, None], 0)
    for quarters in (1, 2, 3):
        turned = (choices.turns == quarters).nonzero()[0]
        if len(turned):
            rows = _upload(turned, images, torch.int64)
            images[rows] = turn_by_quarters(images[rows], quarters)
    return images


def check_channels(images: Tensor, channels: int) -> None:
    """Raises a ValueError unless the last side of ``images`` is the number of channels that they are normalised by."""
    if images.shape[3] != channels:
        raise ValueError(
            f"images of {images.shape[3]} channels cannot be normalised by mean and std of {channels} channels"
        )


def _joined(images: list[Tensor]) -> Tensor:
    """Joins batches of images; those of uint16 as int16, because few operations of a GPU know uint16."""
    if images[0].dtype != torch.uint16:
        return torch.cat(images)
    return torch.cat([x.view(torch.int16) for x in images]).view(torch.uint16)


def _parameter_table(
    boxes: np.ndarray,
    flip: np.ndarray,
    choices: ColourChoices,
    last: LastChoices | None,
    views: ViewSet,
    stages: Set[str],
) -> Float64[np.ndarray, "b columns"]:
    """Returns all parameters of all images as one table, so that one copy takes them to the device.

    The columns are those that :func:`~infomax.data.augmentation.operations.make_views_fused` documents.
    """
    count = len(choices.blur)
    scale = 1 / np.array(views.std)
    shift_and_scale = np.concatenate([-np.array(views.mean) * scale, scale])
    signed_boxes = _mirrored(boxes, flip) if len(boxes) else np.zeros((count, 4))
    single = np.stack([choices.grayscale, choices.blur, choices.sigma, choices.solarize], axis=1)
    jitter, factors = choices.jitter.reshape(count, -1), choices.factors.reshape(count, -1)
    normal = np.tile(shift_and_scale, (count, 1))
    columns = [signed_boxes, jitter, factors, single, normal]
    if last is not None:
        normal[np.tile(last.dropped, 2)] = 0
        if stages & {"noise", "rotate90"}:
            columns.append(np.column_stack([last.noise_std, last.noise_key, last.turns]))
    return np.concatenate(columns, axis=1)


def _make_on_cpu(
    source: Pixels,
    boxes: np.ndarray,
    flip: np.ndarray,
    choices: ColourChoices,
    last: LastChoices | None,
    views: ViewSet,
    size: int,
    bicubic: bool,
) -> Float[Tensor, "b c size size"]:
    """Makes views of one size by the kernels, in threads that each take a range of the images."""
    channels = len(views.mean)
    images, out = source.numpy(), np.empty((len(source), size, size, channels), np.float32)
    c, mean, std = choices, np.array(views.mean), np.array(views.std)
    kernel = views_kernel(channels)

    def make(start: int, stop: int) -> None:
        rows = slice(start, stop)
        crops = images[rows], boxes[rows].astype(np.float64), flip[rows], bicubic
        jitter_and_gray = c.jitter[rows], c.factors[rows], *([c.grayscale[rows]] if channels == 3 else [])
        blur_and_solarize = c.blur[rows], c.sigma[rows], c.reach, c.solarize[rows]
        kernel(*crops, *jitter_and_gray, *blur_and_solarize, mean, std, out[rows])
        if last is not None:
            _finish_on_cpu(out[rows], last, rows, std)

    run_in_threads(make, len(source), min(torch.get_num_threads(), -(-len(source) * size * size // PIXELS_PER_THREAD)))
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _finish_on_cpu(out: np.ndarray, last: LastChoices, rows: slice, std: np.ndarray) -> None:
    """Does what is done last to some views of a batch, by the kernel, in place."""
    from infomax.data.augmentation.last_kernels import finish_views

    quantiles = normal_quantiles(torch.device("cpu"), torch.float32).numpy()
    finish_views(out, last.noise_std[rows], last.noise_key[rows], last.dropped[rows], last.turns[rows], std, quantiles)


def views_kernel(channels: int) -> Any:
    """Returns the compiled function that makes views of images of so many channels on a CPU."""
    from infomax.data.augmentation.channel_kernels import make_channel_views
    from infomax.data.augmentation.kernels import make_views as make_rgb_views

    return make_rgb_views if channels == 3 else make_channel_views


def run_in_threads(function: Callable[[int, int], None], count: int, threads: int) -> None:
    """Calls ``function`` with the ends of one range of ``count`` images in each thread."""
    if threads <= 1:
        function(0, count)
        return
    edges = np.linspace(0, count, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, edges, edges[1:]))


def cap_aspect_ratio(height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the central part of an image that is resized to be evaluated: of a very long image, not all.

    Resizing the shorter side to 256 pixels would make 768,000 columns of an image of 1 x 3,000 pixels, of which the
    centre crop takes 224. Images whose sides differ by less than :data:`MAX_ASPECT_RATIO` stay whole.

    Args:
        height: Height of the image.
        width: Its width.

    Returns:
        Top, left, height and width of the part, in pixels.
    """
    longest = MAX_ASPECT_RATIO * min(height, width)
    # What is left out is even, so that the centre stays where it is.
    new_height, new_width = (side if side <= longest else longest + (side - longest) % 2 for side in (height, width))
    return (height - new_height) // 2, (width - new_width) // 2, new_height, new_width


def resized_sides(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Returns the height and width of an image that is resized until its shorter side has ``shorter`` pixels.

    The longer side is rounded down, as torchvision's ``Resize`` does it, so that features are those of its transforms.
    """
    short, long = sorted((height, width))
    longer = int(shorter * long / short)
    return (shorter, longer) if height <= width else (longer, shorter)


def centre_offset(side: int, size: int) -> int:
    """Returns where the central ``size`` pixels of a side begin, as torchvision's ``CenterCrop`` has it.

    Half a pixel is rounded to an even number.
    """
    return round((side - size) / 2)


def preprocess(images: Pixels, preprocessing: Preprocessing) -> Float[Tensor, "b c size size"]:
    """Resizes images, crops their centres and normalises them, as an encoder sees them in evaluation.

    Raises:
        ValueError: if the images have not as many channels as the mean.
    """
    check_channels(images, len(preprocessing.mean))
    top, left, height, width = cap_aspect_ratio(*images.shape[1:3])
    images = images[:, top : top + height, left : left + width]
    size, resize = preprocessing.size, preprocessing.resize
    x = to_float(images)
    if min(height, width) != resize:
        resized_size = resized_sides(height, width, resize)
        x = crop(x, np.tile([0, 0, height, width], (len(x), 1)), resized_size, bicubic=preprocessing.bicubic)
    top, left = centre_offset(x.shape[2], size), centre_offset(x.shape[3], size)
    x = x[:, :, top : top + size, left : left + size]
    return normalize(x, preprocessing.mean, preprocessing.std).contiguous(memory_format=torch.channels_last)
