"""Defines a recipe: frozen dataclasses that hold all that decides a result, and nothing about the machine.

Torch is not imported here, so that a command can print and check settings without waiting for it.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_type_hints

from infomax.data.augmentation.views import Preprocessing, ViewSet
from infomax.models.backbone_names import check_backbone, check_library_options
from infomax.runtime.json_values import parse_value, shorten

if TYPE_CHECKING:
    from infomax.methods.base import Method
    from infomax.models.encoders import Encoder


PATCH = 16  # side of a patch of ViT-S/16, in pixels
MAX_EPOCHS = 1_000_000
MAX_STEM_PADDING = 16  # pixels


@dataclass(frozen=True, kw_only=True)
class MethodSettings(ABC):
    """A frozen dataclass that holds the settings of one method; each method's subclass is in its own file."""

    name: ClassVar[str]
    """The method's name, as ``--method`` takes it."""

    @abstractmethod
    def build(self, encoder: "Encoder") -> "Method":
        """Builds the method around an encoder. Torch is imported here, not with the settings."""


ARCHITECTURE = (
    "backbone",
    "stem",
    "stem_padding",
    "zero_init_residual",
    "image_size",
    "pooling",
    "architecture_config",
    "channels",
)
"""The settings of an encoder that say how it is built; the others say what its weights are, and which are trained."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """A frozen dataclass that holds the architecture of the encoder."""

    backbone: str
    """``small`` suits a CPU; resnet18, resnet34, resnet50, resnet101 and vit_small need a GPU. A model of another
    library without its classifier is ``timm:NAME``, ``torchvision:NAME`` or ``hf:NAME``."""
    stem: Literal["imagenet", "cifar", "cifar_linear"]
    """``imagenet`` shrinks the image at once, ``cifar`` keeps its size for images of up to 64 pixels; ``cifar_linear``
    has no activation behind the first convolution, as some ResNets of others."""
    stem_padding: int = 1
    """Padding of the ResNets' CIFAR stem, in pixels."""
    zero_init_residual: bool = True
    """Whether each residual branch of a ResNet starts at zero (docs/decisions.md, zero-residual)."""
    image_size: int | None = None
    """Size in pixels that the positions of a vision transformer of timm or torchvision are made for; none for networks
    that have no positions."""
    pooling: Literal["token", "avg"] | None = None
    """What the features of a transformer of timm or transformers are: its class token, or the mean of its patches; none
    for the model's own."""
    architecture_config: str | None = None
    """Configuration of a model of transformers, or options of a model of timm that its name does not say, as JSON."""
    channels: int = 3
    """Channels of the images, which the first layer takes; those of the data, as ``--channels`` says."""
    init: str | None = None
    """Name of the encoder whose weights the training starts from, as ``--init`` takes it; none for random weights."""
    init_fingerprint: str | None = None
    """Hash of the architecture and the weights of that encoder."""
    freeze: int = 0
    """Number of stages, from the input on, that are not trained."""

    def __post_init__(self) -> None:
        check_backbone("encoder.backbone", self.backbone)
        if not 0 <= self.stem_padding <= MAX_STEM_PADDING:
            raise ValueError(f"encoder.stem_padding must be from 0 to {MAX_STEM_PADDING}, but is {self.stem_padding}")
        check_library_options(
            self.backbone,
            stem=self.stem,
            image_size=self.image_size,
            pooling=self.pooling,
            architecture_config=self.architecture_config,
        )
        _at_least("encoder.channels", self.channels, 1)
        _at_least("encoder.freeze", self.freeze, 0)
        if self.init is None and self.init_fingerprint is not None:
            raise ValueError(
                f"encoder.init_fingerprint must be none without encoder.init, but is {self.init_fingerprint}"
            )

    def architecture(self) -> dict[str, Any]:
        """Returns the arguments of :func:`infomax.models.encoders.build_encoder` but the seed."""
        return {name: getattr(self, name) for name in ARCHITECTURE}

    def with_architecture(self, arguments: Mapping[str, Any]) -> "EncoderSettings":
        """Returns the settings with the architecture that these arguments of ``build_encoder`` say."""
        return dataclasses.replace(self, **{name: arguments[name] for name in ARCHITECTURE})


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """A frozen dataclass that holds the optimizer and the schedule of its learning rate."""

    name: Literal["sgd", "lars", "larc", "adam", "adamw"]
    """``larc`` scales steps by norms as apex's LARC and solo-learn's LARS do, which differ from ``lars``."""
    learning_rate: float
    """Peak learning rate at this recipe's batch size: nothing rescales it."""
    momentum: float = 0.9
    """Momentum of SGD, LARS and LARC."""
    trust: float = 0.001
    """Trust coefficient of LARS and LARC."""
    clip_steps: bool = False
    """Whether no step of LARC is longer than SGD's."""
    weight_decay: float = 0.0
    """Weight decay, added to the gradient as an L2 penalty; that of AdamW is decoupled from the gradient."""
    decay_all: bool = False
    """Whether biases and normalisation layers have weight decay too."""
    warmup_epochs: int = 0
    warmup_start: float = 0.0
    """Learning rate at the start of the warm-up."""
    end: float = 0.0
    """Learning rate at the end of the cosine."""
    per_epoch: bool = False
    """Whether the learning rate changes between epochs instead of between steps."""
    clip_norm: float | None = None
    """Largest L2 norm of the gradient; a longer one is scaled down to it."""
    backbone_rate: float = 1.0
    """Factor of the learning rate of the encoder; what follows it has the whole rate."""
    layer_decay: float = 1.0
    """Further factor of the learning rate from each stage of the encoder to the one before it; the last stage has it
    once. Of a vision transformer each block is a stage."""
    vector_rate: float = 1.0
    """Factor of the learning rate of biases and normalisation layers."""
    constant_predictor: bool = False
    """Whether the predictor of a method that has one keeps the peak learning rate over the whole run."""

    def __post_init__(self) -> None:
        _at_least("learning_rate", self.learning_rate, 0, strictly=True)
        _at_least("backbone_rate", self.backbone_rate, 0, strictly=True)
        _at_least("trust", self.trust, 0, strictly=True)
        _at_least("vector_rate", self.vector_rate, 0, strictly=True)
        if self.clip_steps and self.name != "larc":
            raise ValueError(f"clip_steps is for larc, but optimizer.name is {self.name}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], but is {self.layer_decay}")
        for name in ("weight_decay", "warmup_epochs", "warmup_start", "end"):
            _at_least(name, getattr(self, name), 0)
        if self.clip_norm is not None:
            _at_least("clip_norm", self.clip_norm, 0, strictly=True)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), but is {self.momentum}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A frozen dataclass that holds everything that decides the result of a training."""

    name: str = ""
    """Name of the function that makes it; see :class:`infomax.recipes.experiment.Experiment`."""
    method: MethodSettings
    encoder: EncoderSettings
    views: ViewSet
    preprocessing: Preprocessing
    """Preprocessing of an image for evaluation."""
    optimizer: OptimizerSettings
    batch_size: int
    """Images of a step, over all devices."""
    epochs: int
    """Passes over the images."""
    seed: int = 0
    """Seed of the weights, the order of the images and the views."""
    precision: Literal["64", "32", "bf16", "16"] = "32"
    """Precision of the networks; the losses are computed in float32 or float64 in any case."""
    micro_batch_size: int | None = None
    """Images that go through the networks at once, if fewer than ``batch_size``. The gradient is that of the whole
    batch; BatchNorm has the statistics of each microbatch."""
    joint_forward: bool = False
    """Whether views of one size go through the networks together; this is faster, and BatchNorm has the statistics of
    all of them."""

    def __post_init__(self) -> None:
        _at_least("batch_size", self.batch_size, 2)
        _at_least("epochs", self.epochs, 1)
        if self.epochs > MAX_EPOCHS:
            raise ValueError(f"epochs must be at most {MAX_EPOCHS}, but is {self.epochs}")
        _at_least("seed", self.seed, 0)
        if len(self.views.global_crops) < 2:
            raise ValueError(f"views.global_crops must be two or more, but is {len(self.views.global_crops)}")
        if self.micro_batch_size is not None:
            _at_least("micro_batch_size", self.micro_batch_size, 2)
            if self.batch_size % self.micro_batch_size:
                raise ValueError(
                    f"batch_size must be a multiple of micro_batch_size, {self.micro_batch_size}, but is "
                    f"{self.batch_size}"
                )
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below epochs, {self.epochs}, but is {self.optimizer.warmup_epochs}"
            )
        channels = {len(self.views.mean), len(self.views.std), self.preprocessing.pixel_format.channels}
        if channels != {self.encoder.channels}:
            raise ValueError(
                f"encoder.channels must be those of views.mean, views.std and preprocessing.pixel_format, but is "
                f"{self.encoder.channels} beside {sorted(channels)}: --channels sets all of them"
            )
        if self.encoder.backbone == "vit_small":
            sides = [
                self.preprocessing.size,
                *(view.size for view in (*self.views.global_crops, *self.views.local_crops)),
            ]
            for side in sides:
                if side % PATCH:
                    raise ValueError(f"vit_small takes images whose sides are multiples of {PATCH} pixels, not {side}")

    def steps(self, images: int) -> int:
        """Returns the number of steps of the whole training; an epoch's last images are left out if they fill no batch.

        Args:
            images: Number of images in the data set.
        """
        return images // self.batch_size * self.epochs

    def left_out(self, images: int) -> int:
        """Returns the number of images that are left out of each epoch, because they fill no batch.

        Args:
            images: Number of images in the data set.
        """
        return images % self.batch_size

    def describe_left_out(self, images: int) -> str | None:
        """Returns one line on the images that are left out of each epoch; None if all are shown.

        Args:
            images: Number of images in the data set.
        """
        if not (count := self.left_out(images)):
            return None
        words = f"{count:,} of the {images:,} images, others each time"
        return f"each epoch leaves out {words}: a step takes {self.batch_size:,}"


def _at_least(name: str, value: float, low: float, *, strictly: bool = False) -> None:
    """Raises a ValueError unless the value is at least ``low``, or above it if ``strictly``."""
    if not (value > low if strictly else value >= low):
        raise ValueError(f"{name} must be {'above' if strictly else 'at least'} {low}, but is {value}")


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as plain values; the method's settings hold the method's name too."""
    plain = dataclasses.asdict(recipe)
    plain["method"] = {"name": recipe.method.name, **plain["method"]}
    return plain


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Returns all settings by the keys of ``--set``, as ``method.beta`` and ``views.global_crops.0.blur``."""

    def flat(value: Any, key: str) -> dict[str, Any]:
        if isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
            value = {str(i): item for i, item in enumerate(value)}
        if not isinstance(value, dict):
            return {key: value}
        return {k: v for name, item in value.items() for k, v in flat(item, f"{key}.{name}" if key else name).items()}

    plain = to_json(recipe)
    del plain["name"], plain["method"]["name"]
    if recipe.preprocessing.pixel_format.is_rgb:  # as all papers' images are
        del plain["preprocessing"]["pixel_format"], plain["encoder"]["channels"]
    return flat(plain, "")


def from_json(plain: Any, methods: Mapping[str, type[MethodSettings]], *, key: str = "") -> Recipe:
    """Returns the recipe that :func:`to_json` wrote.

    Args:
        plain: The recipe as plain values.
        methods: The settings classes of all methods by the methods' names.
        key: The key of the recipe, with a file's name before it, for messages.

    Raises:
        ValueError: naming the setting, if it is missing, unknown, of another type, not possible, or of a method that
            this version does not have.
    """
    dotted = f"{key}." if key else ""
    outer = parse_value(plain, dict[str, Any], key or "the recipe")
    settings = dict(parse_value(outer.get("method"), dict[str, Any], f"{dotted}method"))
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in methods:
        raise ValueError(f"{dotted}method.name must be one of {', '.join(methods)}, but is {shorten(name)}")
    method = parse_value(settings, methods[name], f"{dotted}method")
    # The class of the method's settings is known by its name alone.
    parts = {field.name: field for field in dataclasses.fields(Recipe)}
    hints = get_type_hints(Recipe) | {"method": Any}
    for part in outer:
        if part not in parts:
            raise ValueError(f"{dotted}{shorten(part)[1:-1]} is no setting of a recipe in this version")
    for part, field in parts.items():
        if part not in outer and field.default is dataclasses.MISSING:
            raise ValueError(f"{dotted}{part} is missing")
    values = {part: parse_value(item, hints[part], f"{dotted}{part}") for part, item in outer.items()}
    return Recipe(**{**values, "method": method})
