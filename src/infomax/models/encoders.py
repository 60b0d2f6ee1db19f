"""Encoders map images to features: ResNets and a vision transformer by timm, and a small network for a CPU."""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.pixel_format import MAX_CHANNELS
from infomax.models.backbone_names import (
    INITIAL_FILE,
    POOLINGS,
    STEMS,
    check_backbone,
    check_library_options,
    library_of,
)
from infomax.models.foreign_files import read_tensors
from infomax.models.input_channels import set_input_channels
from infomax.nn.blocks import Chain
from infomax.runtime.checks import choose
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.near_names import missing_path

MAX_STEM_PADDING = 16  # pixels


class Encoder(nn.Module):
    """A module that maps normalised images [B, C, H, W] to features [B, width]: a backbone without its classifier.

    Args:
        backbone: The module that maps images to features.
        width: The width of the features.
    """

    architecture = ""
    """The name or configuration that tells apart encoders of another library whose modules look the same."""
    preprocessing: Preprocessing
    """Says how an image becomes the encoder's input. Only an encoder that was loaded has this attribute."""
    settings: "EncoderArguments"
    """The arguments with which :func:`build_encoder` builds the same architecture, untrained and without a network."""
    frozen_modules: tuple[str, ...] = ()
    """The names of the backbone's modules that stay in evaluation mode, because
    :func:`infomax.models.stages.freeze_stages` has frozen them."""

    def __init__(self, backbone: nn.Module, width: int):
        super().__init__()
        self.backbone = backbone
        self.width = width

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        return self.backbone(images)

    def train(self, mode: bool = True) -> "Encoder":
        """Sets training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for name in self.frozen_modules:
            self.backbone.get_submodule(name).eval()
        return self


class _Block(nn.Module):
    """A residual block: two 3x3 convolutions, and a shortcut beside them."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x), inplace=True)


def _small(stem: str, channels: int) -> tuple[nn.Module, int]:
    """Builds a residual network for images of 8 to 64 pixels, which a CPU trains in minutes: a stem and three blocks.

    Args:
        stem: ``cifar`` keeps the size of the images in the first convolution; any other halves it.
        channels: Channels of the images.

    Returns:
        The network, and the width of its features.
    """
    width = 32
    stride = 1 if stem == "cifar" else 2
    first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    layers = [first, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    layers += [_Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)]
    return Chain(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * width


def _resnet(name: str, stem: str, stem_padding: int, zero_init_residual: bool, channels: int) -> tuple[nn.Module, int]:
    """Builds a ResNet by timm, with its arguments as in :func:`build_encoder`; returns it and its features' width."""
    import timm  # with the torchvision that it imports, it takes three times as long to import as torch

    network: Any = timm.create_model(name, num_classes=0, zero_init_last=zero_init_residual, in_chans=channels)
    _set_stem(network, stem, stem_padding, channels)
    return network, network.num_features


def _set_stem(network: Any, stem: str, padding: int, channels: int) -> None:
    """Gives a ResNet of timm a stem for small images, unless the stem is to be ``imagenet``."""
    if stem == "imagenet":
        return
    network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=padding, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    if stem == "cifar_linear":
        network.act1 = nn.Identity()


def _vit_small(channels: int) -> tuple[nn.Module, int]:
    """Builds ViT-S/16 as MoCo v3 trains it (Chen, Xie, He 2021); returns it and its features' width.

    It has 12 heads, and fixed positions of sines and cosines. The projection of the patches keeps its initial weights,
    which makes training stable.
    """
    import timm

    options = {"num_heads": 12, "dynamic_img_size": True, "weight_init": "moco", "in_chans": channels}
    network: Any = timm.create_model("vit_small_patch16_224", num_classes=0, **options)
    width, patches = network.embed_dim, network.patch_embed
    bound = math.sqrt(6 / (patches.proj.weight[0].numel() + width))
    nn.init.uniform_(patches.proj.weight, -bound, bound)
    nn.init.zeros_(patches.proj.bias)
    side = patches.grid_size[0]
    angles = torch.arange(side)[:, None] / 10000 ** (torch.arange(width // 4) / (width // 4))
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, 0)
    with torch.no_grad():  # the class token, which comes first, has no position
        network.pos_embed.copy_(F.pad(torch.cat([columns, rows], 1), (0, 0, 1, 0)))
    for frozen in (network.pos_embed, *patches.parameters()):
        frozen.requires_grad_(False)
    return network, network.num_features


@dataclass(frozen=True, kw_only=True)
class EncoderArguments:
    """A frozen dataclass that holds the arguments of :func:`build_encoder`."""

    backbone: str
    stem: Literal["imagenet", "cifar", "cifar_linear"]
    stem_padding: int = 1
    zero_init_residual: bool = True
    image_size: int | None = None
    pooling: Literal["token", "avg"] | None = None
    architecture_config: str | None = None
    channels: int = 3
    seed: int

    def __post_init__(self) -> None:
        check_backbone("encoder.backbone", self.backbone)
        choose("encoder.stem", self.stem, STEMS)
        if self.pooling is not None:
            choose("encoder.pooling", self.pooling, POOLINGS)
        if not 0 <= self.stem_padding <= MAX_STEM_PADDING:
            raise ValueError(f"encoder.stem_padding must be from 0 to {MAX_STEM_PADDING}, but is {self.stem_padding}")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"encoder.channels must be from 1 to {MAX_CHANNELS}, but is {self.channels}")
        if self.seed < 0:
            raise ValueError(f"encoder.seed must not be negative, but is {self.seed}")
        check_library_options(
            self.backbone,
            stem=self.stem,
            image_size=self.image_size,
            pooling=self.pooling,
            architecture_config=self.architecture_config,
        )


def build_encoder(
    backbone: str,
    *,
    stem: Literal["imagenet", "cifar", "cifar_linear"] = "imagenet",
    stem_padding: int = 1,
    zero_init_residual: bool = True,
    image_size: int | None = None,
    pooling: Literal["token", "avg"] | None = None,
    architecture_config: str | None = None,
    channels: int = 3,
    seed: int,
) -> Encoder:
    """Builds an untrained encoder.

    The same arguments give the same weights. The global random state stays as it is.

    Args:
        backbone: ``small``; ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``, with timm's parameter names,
            which are torchvision's too; ``vit_small``, with timm's; or a model of another library without its
            classifier: ``timm:NAME``, ``torchvision:NAME`` or ``hf:NAME``.
        stem: ``imagenet`` shrinks the image at once, by a 7x7 convolution of stride 2 and max-pooling, or by a stride
            of 2 in the small encoder. ``cifar`` keeps its size, by a 3x3 convolution of stride 1 and no pooling;
            ``cifar_linear`` is the same without an activation behind it, for ResNets that were saved as
            ``nn.Sequential`` without it. Models of other libraries take ``imagenet`` alone, but for timm's ResNets.
        stem_padding: The padding of the ResNets' CIFAR stem in pixels; 2 in the official MIRA code, 1 elsewhere.
        zero_init_residual: Whether each residual branch of a ResNet starts at zero.
        image_size: The size that the positions of a vision transformer of timm or torchvision are made for, in pixels;
            None for the model's own.
        pooling: What the features of a transformer of timm or transformers are: ``token`` for its class token, ``avg``
            for the mean of its patches; None for the model's own.
        architecture_config: The configuration of a model of transformers, as JSON; None reads it from the folder, the
            local cache or the hub that ``hf:NAME`` names. With it, ``hf:NAME`` is a name alone. Of a model of timm, the
            options in which it differs from the model of that name, as ``{"num_heads": 12}``.
        channels: The channels of the images, which the first layer takes.
        seed: The seed of the initial weights.

    Returns:
        The encoder, in training mode on the CPU, with its ``settings``.

    Raises:
        ValueError: If there is no such backbone, or it has no such size or pooling.
    """
    settings = EncoderArguments(
        backbone=backbone,
        stem=stem,
        stem_padding=stem_padding,
        zero_init_residual=zero_init_residual,
        image_size=image_size,
        pooling=pooling,
        architecture_config=architecture_config,
        channels=channels,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs' generators too
        if library_of(backbone) is not None:
            encoder = _library_encoder(settings)
        elif backbone == "small":
            encoder = Encoder(*_small(stem, channels))
        elif backbone == "vit_small":
            encoder = Encoder(*_vit_small(channels))
        else:
            encoder = Encoder(*_resnet(backbone, stem, stem_padding, zero_init_residual, channels))
    if library_of(backbone) is None:
        encoder.settings = settings
    return encoder


def _library_encoder(settings: EncoderArguments) -> Encoder:
    """Builds an untrained encoder of another library."""
    from infomax.models import library_backbones

    library, _, name = settings.backbone.partition(":")
    size = settings.image_size or library_backbones.USUAL_SIZE
    if library == "timm":
        options = library_backbones.timm_options(settings.architecture_config)
        network = library_backbones.build_timm(
            name, image_size=settings.image_size, pooling=settings.pooling, options=options
        )
        if settings.channels != 3:
            set_input_channels(network, settings.channels)
        _set_stem(network, settings.stem, settings.stem_padding, settings.channels)
        size = settings.image_size or network.pretrained_cfg.get("input_size", (3, size))[-1]
    elif library == "torchvision":
        network, _ = library_backbones.build_torchvision(name, image_size=settings.image_size)
        if settings.channels != 3:
            set_input_channels(network, settings.channels)
    else:
        config = settings.architecture_config or library_backbones.read_architecture_config(name)
        if settings.channels != 3:
            config = json.dumps({**json.loads(config), "num_channels": settings.channels})
        settings = replace(settings, architecture_config=config)
        network = library_backbones.build_hugging_face(config, pooling=settings.pooling)
        size = json.loads(config).get("image_size") or size
    return library_encoder(network, settings, size=size if isinstance(size, int) else library_backbones.USUAL_SIZE)


@torch.no_grad()
def library_encoder(network: nn.Module, settings: EncoderArguments, *, size: int) -> Encoder:
    """Makes an encoder of a network of another library, whose width it finds by passing one image.

    Args:
        network: The network, which is left in training mode.
        settings: The arguments with which :func:`build_encoder` builds the same network. What they leave to the network
            is filled in.
        size: A size of images that the network takes, in pixels.

    Raises:
        ValueError: If the network does not take images of this size, or does not return vectors.
    """
    from infomax.models.library_backbones import one_line, timm_settings

    library, _, name = settings.backbone.partition(":")
    device = next((p.device for p in network.parameters()), None)
    try:
        features = network.eval()(torch.zeros(1, settings.channels, size, size, device=device))
    except Exception as error:  # a model for something else may raise anything
        raise ValueError(f"{settings.backbone} takes no image of {size} pixels: {one_line(error)[:300]}") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(f"{settings.backbone} gives no vector for an image, and cannot be an encoder")
    encoder = Encoder(network, features.shape[1]).train()
    encoder.architecture = settings.architecture_config or name.partition(".")[0]
    encoder.settings = replace(settings, **timm_settings(network)) if library == "timm" else settings
    return encoder


def save_encoder(
    encoder: Encoder, settings: dict[str, Any], preprocessing: Preprocessing, folder: Path, *, steps: int | None = None
) -> None:
    """Writes ``encoder.safetensors`` and ``encoder.json``, which are all that :func:`load_encoder` needs.

    Args:
        encoder: The encoder to save.
        settings: The arguments of :func:`build_encoder` that it was built with.
        preprocessing: The preprocessing that makes an image the encoder's input.
        folder: The folder to write to, which must exist.
        steps: The number of steps that it was trained for; None leaves it out.
    """
    description = {
        "encoder": settings,
        "preprocessing": asdict(preprocessing),
        **({} if steps is None else {"steps": steps}),
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    for name, content in (
        ("encoder.safetensors", safetensors.torch.save(weights)),
        ("encoder.json", json.dumps(description, indent=1).encode()),
    ):
        write_atomic(folder / name, content)


def untrained_encoder(folder: str | PathLike[str]) -> Encoder:
    """Builds the encoder of a run folder as it was before the training.

    Args:
        folder: A folder with an ``encoder.json``.

    Returns:
        The encoder, in evaluation mode on the CPU, with its ``preprocessing``.

    Raises:
        ValueError: If ``folder`` holds no encoder.
    """
    description = read_description(folder)
    encoder = build_encoder(**asdict(description.encoder))
    encoder.preprocessing = description.preprocessing
    return encoder.eval()


@dataclass(frozen=True, kw_only=True)
class EncoderDescription:
    """A frozen dataclass that holds the content of ``encoder.json``."""

    encoder: EncoderArguments
    preprocessing: Preprocessing
    """Says how an image becomes the encoder's input."""
    steps: int | None = None
    """Number of steps that the encoder was trained for; None if it is not known."""


def read_description(folder: str | PathLike[str]) -> EncoderDescription:
    """Reads the ``encoder.json`` of a folder.

    Raises:
        ValueError: naming the file and the key, if it is missing or not what :func:`save_encoder` writes.
    """
    if not isinstance(folder, str | PathLike):
        raise ValueError(f"want the path of a run folder, not a value of type {type(folder).__name__}")
    file = Path(folder) / "encoder.json"
    if not file.exists():
        reason = f"it has no {file.name}" if Path(folder).is_dir() else missing_path(folder)
        if Path(folder).is_file() or re.match("(timm|torchvision|hf):.", str(folder)):
            reason = "infomax.models.pretrained.open_encoder opens checkpoint files and timm:, torchvision: or hf:NAME"
        raise ValueError(f"{folder} is not a run folder with an encoder: {reason}")
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a run folder with an encoder: {error}") from error
    try:
        return parse_value(values, EncoderDescription, "")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def load_encoder(folder: str | PathLike[str]) -> Encoder:
    """Loads the trained encoder of a run folder, with all of its weights.

    Args:
        folder: A folder with an ``encoder.json`` and an ``encoder.safetensors``.

    Returns:
        The encoder, in evaluation mode on the CPU, with its ``preprocessing``.

    Raises:
        ValueError: If ``folder`` holds no encoder, or the weights do not fit it.
    """
    return _load_weights(folder, "encoder.safetensors")


def initial_encoder(folder: str | PathLike[str]) -> Encoder | None:
    """Loads the encoder that a run started from, as its ``init`` option named it.

    Args:
        folder: A run folder.

    Returns:
        The encoder, in evaluation mode on the CPU, with the ``preprocessing`` of the run; None if the run started from
        random weights.

    Raises:
        ValueError: If ``folder`` holds no encoder, or the weights do not fit it.
    """
    return _load_weights(folder, INITIAL_FILE) if (Path(folder) / INITIAL_FILE).is_file() else None


def _load_weights(folder: str | PathLike[str], name: str) -> Encoder:
    """Loads an encoder of a run folder with the weights in a file there."""
    encoder = untrained_encoder(folder)
    file = Path(folder) / name
    weights = read_tensors(file)
    try:
        encoder.backbone.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        message = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} does not fit the encoder.json beside it: {message}") from error
    return encoder


def fingerprint(encoder: Encoder) -> str:
    """Returns 12 hexadecimal digits that identify the encoder's architecture and every bit of its weights.

    They are the same in every process.
    """
    # The repr of a function holds its address, which differs from process to process.
    modules = re.sub(r" at 0x[0-9a-f]+", "", repr(encoder))
    digest = hashlib.sha256(modules.encode() + encoder.architecture.encode())
    for name, value in encoder.state_dict().items():
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]
