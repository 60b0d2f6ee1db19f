"""Settings of random views, the papers' sets of views, and the preprocessing for evaluation; no operation is here."""

from dataclasses import dataclass, replace

from infomax.data.pixel_format import RGB, PixelFormat
from infomax.runtime.checks import choose

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
GRAY = (0.2989, 0.587, 0.114)  # weights of red, green and blue in the luma
MAX_SIDE = 16384  # pixels; one image of this side takes 3 GB
LARGEST_MAGNITUDE = 10  # of RandAugment
MOST_OPERATIONS = 16  # of RandAugment in one view
STL10_MEAN, STL10_STD = (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)
# The settings of a view that are probabilities.
PROBABILITIES = (
    "flip",
    "jitter",
    "grayscale",
    "blur",
    "randaugment_probability",
    "solarize",
    "rotate90",
    "noise",
    "drop_channels",
)


@dataclass(frozen=True, kw_only=True)
class View:
    """The settings of one random view.

    An image is cropped and resized, flipped, jittered in colour, blurred, changed by RandAugment, made gray and
    solarised; then it gets noise, loses channels and is turned by quarters, in this order.

    Raises:
        ValueError: naming the setting, if it is out of its range.
    """

    size: int
    """Side of the view, in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area that the crop takes."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest ratio of the crop's width to its height."""
    bicubic: bool = True
    """Whether to interpolate bicubically instead of bilinearly; both with antialiasing."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter, whose four parts are applied in random order."""
    brightness: float = 0.4
    """Strength x of the brightness jitter: its factor is drawn from 1 - x (at least 0) to 1 + x."""
    contrast: float = 0.4
    """Strength of the contrast jitter, likewise."""
    saturation: float = 0.2
    """Strength of the saturation jitter, likewise."""
    hue: float = 0.1
    """Strength x of the hue jitter: its shift is drawn from -x to x turns."""
    grayscale: float = 0.2
    """Probability of grayscale."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view."""
    randaugment: int = 0
    """Number of operations of RandAugment that are drawn, which may be the same; 0 for none. A view with them is
    rounded to 256 levels before them. They are done to images of red, green and blue alone."""
    randaugment_magnitude: float = 10.0
    """Mean of the magnitude of RandAugment's operations, from 0 to 10."""
    randaugment_std: float = 0.5
    """Standard deviation of the magnitude, which is normal and then clipped to the range from 0 to 10."""
    randaugment_probability: float = 0.5
    """Probability with which each operation that was drawn is done."""
    randaugment_increasing: bool = False
    """Whether a larger magnitude also changes more in posterisation, solarisation, colour, contrast, brightness and
    sharpness. Otherwise it keeps more bits, inverts fewer values and raises the factors from 0.1 to 1.9."""
    solarize: float = 0.0
    """Probability of solarisation: values from 128 of 255 up are inverted."""
    rotate90: float = 0.0
    """Probability of a turn by 0, 90, 180 or 270 degrees, of which each is as likely."""
    noise: float = 0.0
    """Probability of Gaussian noise, independent in each pixel and channel; the sum is not clipped to [0, 1]."""
    noise_std: tuple[float, float] = (0.01, 0.05)
    """Smallest and largest standard deviation of the noise, for images in [0, 1]; it is drawn for each view."""
    drop_channels: float = 0.0
    """Probability with which each channel is set to its mean, which is 0 after the normalisation. If that would be all
    channels of a view, one of them stays."""

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            if isinstance(value := getattr(self, name), bool):
                object.__setattr__(self, name, float(value))  # True is always
        if not 1 <= self.size <= MAX_SIDE:
            raise ValueError(f"size must be from 1 to {MAX_SIDE} pixels, but is {self.size}")
        for name in PROBABILITIES:
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], but is {value}")
        for name in ("brightness", "contrast", "saturation", "hue"):
            if not 0 <= (value := getattr(self, name)) <= (0.5 if name == "hue" else float("inf")):
                raise ValueError(f"{name} must not be negative, nor hue above 0.5, but is {value}")
        if not 0 <= self.randaugment <= MOST_OPERATIONS:
            raise ValueError(
                f"randaugment must be a number of operations from 0 to {MOST_OPERATIONS}, but is {self.randaugment}"
            )
        if not 0 <= self.randaugment_magnitude <= LARGEST_MAGNITUDE:
            raise ValueError(
                f"randaugment_magnitude must be from 0 to {LARGEST_MAGNITUDE}, but is {self.randaugment_magnitude}"
            )
        if not 0 <= self.randaugment_std < float("inf"):
            raise ValueError(f"randaugment_std must not be negative, but is {self.randaugment_std}")
        for name in ("scale", "ratio", "blur_sigma", "noise_std"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a rising pair of positive numbers, but is {(low, high)}")


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """The views that a step makes of each image: global crops, any number of local crops, and their normalisation.

    Which views a loss compares is up to the method; see :class:`infomax.methods.base.Views`.

    Raises:
        ValueError: if the global crops differ in size, a standard deviation is not positive, or there are not as many
            means as standard deviations.
    """

    global_crops: tuple[View, ...]
    """Settings of the global crops, which all have one size."""
    local_crops: tuple[View, ...] = ()
    """Settings of the local crops, which are usually smaller."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, for images in [0, 1]; it is subtracted."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, for images in [0, 1]; the result is divided by it."""

    def __post_init__(self) -> None:
        _check_channels(self.mean, self.std)
        if len({view.size for view in self.global_crops}) != 1:
            raise ValueError(
                f"views.global_crops must be of one size, but is {[view.size for view in self.global_crops]}"
            )


COLOUR_OPERATIONS = ("saturation", "hue", "grayscale", "randaugment")
"""The settings of :class:`View` that need red, green and blue."""


def colour_operations_switched_off(views: ViewSet) -> tuple[str, ...]:
    """Returns the settings of colour operations that the views ask for and that do nothing to their channels.

    Three channels are red, green and blue. If there are more or fewer, as one number for each in ``views.mean`` says,
    nothing mixes them: saturation, hue, grayscale and RandAugment are not done, and each channel has a brightness and a
    contrast of its own.

    Args:
        views: The settings of the views.

    >>> colour_operations_switched_off(ViewSet(global_crops=byol(32), mean=(0.5,), std=(0.2,)))
    ('saturation', 'hue', 'grayscale')
    >>> colour_operations_switched_off(ViewSet(global_crops=byol(32)))
    ()
    """
    if len(views.mean) == 3:
        return ()
    all_views = (*views.global_crops, *views.local_crops)

    def is_asked_for(name: str) -> bool:
        is_jitter = name in ("saturation", "hue")
        return any(getattr(view, name) > 0 and (view.jitter > 0 or not is_jitter) for view in all_views)

    return tuple(name for name in COLOUR_OPERATIONS if is_asked_for(name))


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of an image for an encoder that is evaluated: resize, crop the centre, normalise.

    Raises:
        ValueError: if the crop is larger than the resized image, a standard deviation is not positive, or there are not
            as many means as standard deviations.
    """

    resize: int
    """Length of the shorter side, in pixels, before the crop."""
    size: int
    """Side of the crop, in pixels."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, for images in [0, 1]; it is subtracted."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, for images in [0, 1]; the result is divided by it."""
    bicubic: bool = True
    """Whether to interpolate bicubically instead of bilinearly; both with antialiasing."""
    pixel_format: PixelFormat = RGB
    """The channels and the range of the images' numbers, before the normalisation."""

    def __post_init__(self) -> None:
        _check_channels(self.mean, self.std)
        if len(self.mean) != self.pixel_format.channels:
            raise ValueError(
                f"preprocessing.mean must have a number for each of {self.pixel_format.channels} channels, but has "
                f"{len(self.mean)}"
            )
        if not 1 <= self.size <= self.resize:
            raise ValueError(f"preprocessing.size must be from 1 to resize, {self.resize}, but is {self.size}")
        if self.resize > MAX_SIDE:
            raise ValueError(f"preprocessing.resize must be at most {MAX_SIDE} pixels, but is {self.resize}")


def _check_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not len(mean) == len(std) > 0:
        raise ValueError(f"mean and std must have a number for each channel, but have {len(mean)} and {len(std)}")
    if not min(std) > 0:
        raise ValueError(f"std must be above 0 in every channel, but is {std}")


def supervised_crops(preprocessing: Preprocessing, *, bicubic: bool = True) -> ViewSet:
    """Returns the one view for training with labels: a random crop of 8 to 100 % of the area, and a random flip.

    Args:
        preprocessing: Gives the size of the crop and the normalisation.
        bicubic: Whether to interpolate bicubically instead of bilinearly.
    """
    view = View(size=preprocessing.size, jitter=0.0, grayscale=0.0, bicubic=bicubic)
    return ViewSet(global_crops=(view,), mean=preprocessing.mean, std=preprocessing.std)


def byol(size: int) -> tuple[View, View]:
    """Returns BYOL's asymmetric pair of views, which CorInfoMax uses at every size (its Table 3)."""
    first = View(size=size, blur=1.0)
    return first, replace(first, blur=0.1, solarize=0.2)


def simclr(size: int) -> tuple[View, View]:
    """Returns SimCLR's pair of views, which CARL uses.

    Up to 32 pixels it is SimCLR's form for CIFAR, with half the colour distortion and no blur (docs/decisions.md,
    carl-views).
    """
    if size <= 32:
        view = View(size=size, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    else:
        view = View(size=size, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
    return view, view


def moco(size: int) -> tuple[View, View]:
    """Returns MoCo v2's pair of views, which are alike; MVEB's study of batch sizes uses it."""
    view = View(size=size, scale=(0.2, 1.0), bicubic=False, saturation=0.4, blur=0.5)
    return view, view


def infomin(size: int) -> tuple[View, View]:
    """Returns InfoMin's pair of views, which are alike: MoCo's with SimCLR's strong colours and RandAugment.

    They are those of its code (docs/decisions.md, infomin).
    """
    strong = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    view = replace(moco(size)[0], **strong, randaugment=2)
    return view, view


def mira_cifar(size: int) -> tuple[View, View]:
    """Returns MIRA's pair of views for CIFAR (appendix A.4).

    It is BYOL's without blur, with crops of at least a fifth of the area and linear interpolation.
    """
    first = View(size=size, scale=(0.2, 1.0), bicubic=False)
    return first, replace(first, solarize=0.2)


def dino(
    size: int, *, global_scale: tuple[float, float], local_scale: tuple[float, float], crops: int = 6
) -> tuple[tuple[View, View], tuple[View, ...]]:
    """Returns DINO's multi-crop: BYOL's pair as global crops, and smaller local crops.

    Args:
        size: Side of a global crop in pixels. A local crop has 96 pixels for 224, in proportion for other sizes.
        global_scale: Smallest and largest share of the area that a global crop takes.
        local_scale: Smallest and largest share of the area that a local crop takes.
        crops: Number of local crops.
    """
    first, second = byol(size)
    global_crops = replace(first, scale=global_scale), replace(second, scale=global_scale)
    local = View(size=max(1, round(size * 96 / 224)), scale=local_scale, blur=0.5)
    return global_crops, (local,) * crops


def swav(size: int) -> tuple[tuple[View, View], tuple[View, ...]]:
    """Returns SwAV's multi-crop: SimCLR's strong colours in all crops, linear interpolation, and 6 local crops.

    Args:
        size: Side of a global crop in pixels. A local crop has 96 pixels for 224, in proportion for other sizes.
    """
    global_crop = replace(simclr(224)[0], size=size, scale=(0.14, 1.0), bicubic=False)
    local_crop = replace(global_crop, size=max(1, round(size * 96 / 224)), scale=(0.05, 0.14))
    return (global_crop, global_crop), (local_crop,) * 6


VIEW_SETS = {
    "byol": lambda size: (byol(size), ()),
    "simclr": lambda size: (simclr(size), ()),
    "moco": lambda size: (moco(size), ()),
    "infomin": lambda size: (infomin(size), ()),
    "mira-cifar": lambda size: (mira_cifar(size), ()),
    "dino": lambda size: dino(size, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14)),
    "dino-wide": lambda size: dino(size, global_scale=(0.4, 1.0), local_scale=(0.05, 0.4)),
    "swav": swav,
}
"""The sets of views by name: functions from the side of a global crop in pixels to the global and the local crops.

``dino`` has the scales of MIRA, ``dino-wide`` those of MVEB."""


def view_set(name: str, size: int) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """Returns the global and the local crops of a set of views.

    Args:
        name: A key of ``VIEW_SETS``; or ``NAME:G+L`` for G global crops, alternately of the set's two forms, and L
            local crops. The local crops have the form of ``dino``'s if the set has none.
        size: Side of the global crops, in pixels.

    Raises:
        ValueError: if there is no such set, or ``G+L`` is not two numbers with G at least 2.
    """
    name, _, counts = name.partition(":")
    global_crops, local_crops = VIEW_SETS[choose("--views", name, VIEW_SETS)](size)
    if not counts:
        return global_crops, local_crops
    numbers = counts.split("+")
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers) or int(numbers[0]) < 2:
        raise ValueError(f"--views {name}:{counts} must name at least 2 global crops and any local ones, as {name}:2+8")
    local_view = (local_crops or VIEW_SETS["dino"](size)[1])[0]
    return tuple(global_crops[i % 2] for i in range(int(numbers[0]))), (local_view,) * int(numbers[1])
