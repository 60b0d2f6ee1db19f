"""What is done to an image: typed descriptions of views, and the papers' sets of them. How is in augment.py."""

from dataclasses import dataclass, replace
from typing import Any, Self

from infomax.runtime.checks import choose

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
STL10_MEAN, STL10_STD = (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)


@dataclass(frozen=True, kw_only=True)
class View:
    """One random view: crop and resize, flip, colour jitter, grayscale, blur, solarise, one after another."""

    size: int
    """Side of the result, in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width over its height."""
    bicubic: bool = True
    """Cubic interpolation; otherwise linear. Both with antialiasing."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter, its four parts in random order."""
    brightness: float = 0.4
    """Factors are drawn from 1 - x to 1 + x; likewise contrast and saturation."""
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    """Shifts are drawn from -x to x turns."""
    grayscale: float = 0.2
    """Probability of grayscale."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation, in pixels of the result."""
    solarize: float = 0.0
    """Probability that values from 128 up are inverted."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, but is {self.size}")
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], but is {value}")
        for name in ("brightness", "contrast", "saturation", "hue"):
            if not 0 <= (value := getattr(self, name)) <= (0.5 if name == "hue" else float("inf")):
                raise ValueError(f"{name} must not be negative, nor hue above 0.5, but is {value}")
        for name in ("scale", "ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a rising pair of positive numbers, but is {(low, high)}")


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """The views of one image in one step: full ones, any number of local ones, and how they are normalised.

    Full views have one size. What they are compared with is theirs to say; see :class:`infomax.methods.base.Views`.
    """

    global_crops: tuple[View, ...]
    local_crops: tuple[View, ...] = ()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of each channel, for images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _check_std(self.std)
        if len({view.size for view in self.global_crops}) != 1:
            raise ValueError(
                f"views.global_crops must be of one size, but is {[view.size for view in self.global_crops]}"
            )


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image is shown to an encoder that is evaluated: resize, crop the centre, normalise."""

    resize: int
    """Length of the shorter side, in pixels, before the crop."""
    size: int
    """Side of the crop, in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    bicubic: bool = True
    """Cubic interpolation; otherwise linear. Both with antialiasing."""

    def __post_init__(self) -> None:
        _check_std(self.std)
        if not 1 <= self.size <= self.resize:
            raise ValueError(f"preprocessing.size must be from 1 to resize, {self.resize}, but is {self.size}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Returns the preprocessing that :func:`dataclasses.asdict` and JSON turned into ``values``.

        Raises:
            TypeError: if a field is missing, unknown or of the wrong type.
            ValueError: if a value is out of its range.
        """
        fields = dict(values)
        for name in ("mean", "std"):
            if name in fields:
                fields[name] = tuple(fields[name])  # JSON knows lists alone
        return cls(**fields)


def _check_std(std: tuple[float, float, float]) -> None:
    if not min(std) > 0:
        raise ValueError(f"std must be above 0 in every channel, but is {std}")


def crops_alone(how: Preprocessing, *, bicubic: bool = True) -> ViewSet:
    """One view for training with labels: a random crop of 8 to 100 % of the image, and a flip."""
    view = View(size=how.size, jitter=0.0, grayscale=0.0, bicubic=bicubic)
    return ViewSet(global_crops=(view,), mean=how.mean, std=how.std)


def byol(size: int) -> tuple[View, View]:
    """BYOL's asymmetric pair, as CorInfoMax uses it at every size (its Table 3)."""
    first = View(size=size, blur=1.0)
    return first, replace(first, blur=0.1, solarize=0.2)


def simclr(size: int) -> tuple[View, View]:
    """SimCLR's pair; up to 32 pixels its CIFAR form, with half the colour distortion and no blur. CARL's views."""
    if size <= 32:
        view = View(size=size, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    else:
        view = View(size=size, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
    return view, view


def moco(size: int) -> tuple[View, View]:
    """MoCo-v2's pair, the same for both views; MVEB's batch-size study."""
    view = View(size=size, scale=(0.2, 1.0), bicubic=False, saturation=0.4, blur=0.5)
    return view, view


def mira_cifar(size: int) -> tuple[View, View]:
    """MIRA's pair for CIFAR (appendix A.4): BYOL's without blur, from a fifth of the area up, linear interpolation."""
    first = View(size=size, scale=(0.2, 1.0), bicubic=False)
    return first, replace(first, solarize=0.2)


def dino(
    size: int, *, global_scale: tuple[float, float], local_scale: tuple[float, float], crops: int = 6
) -> tuple[tuple[View, View], tuple[View, ...]]:
    """DINO's multi-crop: BYOL's pair, and local crops of 96 pixels for full ones of 224, in proportion for others."""
    first, second = byol(size)
    full = replace(first, scale=global_scale), replace(second, scale=global_scale)
    local = View(size=max(1, round(size * 96 / 224)), scale=local_scale, blur=0.5)
    return full, (local,) * crops


VIEW_SETS = {
    "byol": lambda size: (byol(size), ()),
    "simclr": lambda size: (simclr(size), ()),
    "moco": lambda size: (moco(size), ()),
    "mira-cifar": lambda size: (mira_cifar(size), ()),
    "dino": lambda size: dino(size, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14)),
    "dino-wide": lambda size: dino(size, global_scale=(0.4, 1.0), local_scale=(0.05, 0.4)),
}
"""NamedDataset sets, by the side of the full views. ``dino`` has the scales of MIRA, ``dino-wide`` those of MVEB."""


def view_set(name: str, size: int) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """The full and the local views of a set, with full ones of this side.

    Args:
        name: Of a set; or ``NAME:G+L`` for G full views, which have the set's two forms in turn, and L local ones, of
            ``dino``'s form where the set has none.
    """
    name, _, counts = name.partition(":")
    full, local = VIEW_SETS[choose("--views", name, VIEW_SETS)](size)
    if not counts:
        return full, local
    numbers = counts.split("+")
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers) or int(numbers[0]) < 2:
        raise ValueError(f"--views {name}:{counts} must name at least 2 full views and any local ones, as {name}:2+8")
    form = (local or VIEW_SETS["dino"](size)[1])[0]
    return tuple(full[i % 2] for i in range(int(numbers[0]))), (form,) * int(numbers[1])
