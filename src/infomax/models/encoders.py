"""Encoders: images to features. ResNets and a vision transformer through timm, and a small network for a CPU."""

import hashlib
import json
import math
import re
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.nn.blocks import Chain
from infomax.runtime.checks import choose
from infomax.runtime.files import write_atomic

# timm alone would take a name from the network.
BACKBONES = ("small", "resnet18", "resnet34", "resnet50", "resnet101", "vit_small")


class Encoder(nn.Module):
    """A backbone without its classifier: normalised images [B, 3, H, W] to features [B, width].

    Args:
        backbone: A module that maps images to features.
        width: Of the features.
    """

    architecture = ""
    """What its modules do not show of it, where it comes from another library."""
    preprocessing: Preprocessing
    """Says how an image becomes the encoder's input. Only an encoder that was loaded has this attribute."""

    def __init__(self, backbone: nn.Module, width: int):
        super().__init__()
        self.backbone = backbone
        self.width = width

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.backbone(images)


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x), inplace=True)


def _small(stem: str) -> tuple[nn.Module, int]:
    """A residual network for images of 8 to 64 pixels that a CPU trains in minutes: a stem and three blocks."""
    width = 32
    stride = 1 if stem == "cifar" else 2
    layers = [nn.Conv2d(3, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    layers += [_Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)]
    return Chain(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * width


def _resnet(name: str, stem: str, stem_padding: int, zero_init_residual: bool) -> tuple[nn.Module, int]:
    import timm  # with torchvision behind it, three times as long to import as torch

    network: Any = timm.create_model(name, num_classes=0, zero_init_last=zero_init_residual)
    if stem == "cifar":
        network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=stem_padding, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return network, network.num_features


def _vit_small() -> tuple[nn.Module, int]:
    """ViT-S/16 as MoCo v3 trains it (Chen, Xie, He 2021): 12 heads, positions as sines that stay as they are, and a
    projection of the patches that stays as it was drawn, which keeps the training stable."""
    import timm

    shape = {"num_heads": 12, "dynamic_img_size": True, "weight_init": "moco"}
    network: Any = timm.create_model("vit_small_patch16_224", num_classes=0, **shape)
    width, patches = network.embed_dim, network.patch_embed
    bound = math.sqrt(6 / (patches.proj.weight[0].numel() + width))
    nn.init.uniform_(patches.proj.weight, -bound, bound)
    nn.init.zeros_(patches.proj.bias)
    side = patches.grid_size[0]
    waves = torch.arange(side)[:, None] / 10000 ** (torch.arange(width // 4) / (width // 4))
    waves = torch.cat([waves.sin(), waves.cos()], 1)
    across, down = waves.repeat(side, 1), waves.repeat_interleave(side, 0)
    with torch.no_grad():  # the class token has no place
        network.pos_embed.copy_(F.pad(torch.cat([across, down], 1), (0, 0, 1, 0)))
    for frozen in (network.pos_embed, *patches.parameters()):
        frozen.requires_grad_(False)
    return network, network.num_features


def build_encoder(
    backbone: str, *, stem: str, stem_padding: int = 1, zero_init_residual: bool = True, seed: int
) -> Encoder:
    """An untrained encoder; the same arguments give the same weights, and the global random state is left alone.

    Args:
        backbone: ``small``; ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``, with timm's parameter names,
            which are torchvision's too; or ``vit_small``, with timm's.
        stem: ``imagenet`` shrinks the image at once (7x7 convolution of stride 2 and max-pooling; a stride of 2 in the
            small encoder); ``cifar`` keeps its size (3x3 convolution of stride 1, no pooling).
        stem_padding: Of the ResNets' CIFAR stem, in pixels; 2 in the official MIRA code, 1 elsewhere.
        zero_init_residual: Whether each residual branch of a ResNet starts at zero.
        seed: Of the initial weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs' generators too
        if choose("backbone", backbone, BACKBONES) == "small":
            return Encoder(*_small(stem))
        if backbone == "vit_small":
            return Encoder(*_vit_small())
        return Encoder(*_resnet(backbone, stem, stem_padding, zero_init_residual))


def save_encoder(
    encoder: Encoder, settings: dict[str, Any], preprocessing: Preprocessing, folder: Path, *, steps: int | None = None
) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json``: all that :func:`load_encoder` needs.

    Args:
        settings: The arguments of :func:`build_encoder`.
        preprocessing: How an image becomes the encoder's input.
        steps: That it was trained for.
    """
    about = {"encoder": settings, "preprocessing": asdict(preprocessing), **({} if steps is None else {"steps": steps})}
    weights = {name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    for name, content in (
        ("encoder.safetensors", safetensors.torch.save(weights)),
        ("encoder.json", json.dumps(about, indent=1).encode()),
    ):
        write_atomic(folder / name, content)


def untrained_encoder(folder: str | PathLike[str]) -> Encoder:
    """The encoder of a run folder as it was before the training, in evaluation mode on the CPU.

    Raises:
        ValueError: if ``folder`` holds no encoder.
    """
    try:
        description = json.loads((Path(folder) / "encoder.json").read_text())
        encoder = build_encoder(**description["encoder"])
        encoder.preprocessing = Preprocessing.from_json(description["preprocessing"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a run folder with an encoder: {error}") from error
    return encoder.eval()


def load_encoder(folder: str | PathLike[str]) -> Encoder:
    """The trained encoder of a run folder, in evaluation mode on the CPU; its ``preprocessing`` says what it takes.

    Raises:
        ValueError: if ``folder`` holds no encoder, or its weights do not fit it; never loads a part of them.
    """
    encoder = untrained_encoder(folder)
    file = Path(folder) / "encoder.safetensors"
    try:
        encoder.backbone.load_state_dict(safetensors.torch.load_file(file))
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file} does not fit the encoder.json beside it: {error}") from error
    return encoder


def fingerprint(encoder: Encoder) -> str:
    """12 hexadecimal digits of the encoder's architecture and of every bit of its weights; the same in any process."""
    modules = re.sub(r" at 0x[0-9a-f]+", "", repr(encoder))  # of functions, which lie elsewhere in each process
    told = hashlib.sha256(modules.encode() + encoder.architecture.encode())
    for name, value in encoder.state_dict().items():
        value = value.detach().cpu().contiguous()
        told.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        told.update(value.reshape(-1).view(torch.uint8).numpy())
    return told.hexdigest()[:12]
