"""Names of backbones, ours and those of other libraries, and of files of weights. Torch is not imported here."""

import os
from os import PathLike

from infomax.runtime.json_values import shorten
from infomax.runtime.near_names import missing_path, nearest

BACKBONES = ("small", "resnet18", "resnet34", "resnet50", "resnet101", "vit_small")
"""The names of our own backbones."""
LIBRARIES = ("timm", "torchvision", "hf")
"""The libraries whose models may be backbones, as ``timm:convnext_tiny``; hf is the package transformers."""
POOLINGS = ("token", "avg")
"""How a vision transformer makes one vector of its tokens: by its class token, or by their mean."""
INITIAL_FILE = "initial.safetensors"
"""Name of the file in a run folder that keeps the encoder's weights before the training, if they were not random."""
ENCODER_FILES = ("encoder.json", "config.json")
"""Names of the files by which a folder is known for that of an encoder, or of a run that is to have one."""
LONGEST_NAME = 60  # characters of a name that a message repeats
MAX_IMAGE_SIZE = 4096  # pixels
STEMS = ("imagenet", "cifar", "cifar_linear")
"""What a ResNet does to an image first: shrinks it, keeps its size, or keeps it without an activation behind the first
convolution, as a ResNet that was saved as ``nn.Sequential`` of its children may lack it."""
ENCODER_NAMES = "a run folder, a checkpoint file, timm:NAME, torchvision:NAME or hf:NAME"
"""What names an encoder, in words."""
RESNETS_OF_TIMM = ("resnet", "resnext", "wide_resnet")
"""What the names of timm's models begin with that may have a stem for small images."""


def library_of(backbone: str) -> str | None:
    """Returns the library in a name like ``timm:convnext_tiny``; None for our own backbones."""
    library, colon, name = backbone.partition(":")
    return library if colon and name and library in LIBRARIES else None


def check_backbone(argument: str, backbone: str) -> str:
    """Returns the name of a backbone, if it is one of ours or has the form of another library's.

    Whether the library has a model of this name is not checked, because that takes an import of seconds.

    Args:
        argument: Name of the argument for the message, as ``--backbone``.
        backbone: What the user gave.

    Raises:
        ValueError: if it is neither; the message suggests a near name.
    """
    if backbone in BACKBONES:
        return backbone
    if library_of(backbone) is None:
        near = nearest(backbone, BACKBONES)
        hint = f"; did you mean {near}?" if near else ""
        if not hint and backbone.isidentifier() and len(backbone) <= LONGEST_NAME:
            hint = f"; timm:{backbone} and torchvision:{backbone} name models of those libraries"
        names = ", ".join((*BACKBONES, *(f"{library}:NAME" for library in LIBRARIES)))
        raise ValueError(f"{argument} must be one of {names}, but is {shorten(backbone)}{hint}")
    if "@" in backbone:
        name = backbone.partition("@")[0]
        raise ValueError(f"{argument} {backbone}: a backbone is {name} alone; --init {backbone} takes weights too")
    return backbone


def check_encoder_name(encoder: str | PathLike[str]) -> None:
    """Checks that a name can be that of a trained encoder, before torch is imported to open it.

    Raises:
        ValueError: if it is of no library, and no such file is there, nor a folder that a run has written.
    """
    name = os.fspath(encoder)
    kind, _, rest = name.partition(":")
    if kind in LIBRARIES and rest:
        return
    if not any(map(os.path.exists, (name, name.rpartition("#")[0]))):
        raise ValueError(f"{name} is no encoder: {missing_path(name)}; want {ENCODER_NAMES}")
    if os.path.isdir(name) and not any(map(os.path.exists, (f"{name}/{file}" for file in ENCODER_FILES))):
        raise ValueError(f"{name} is no encoder: the folder has no {ENCODER_FILES[0]}; want {ENCODER_NAMES}")


def check_library_options(
    backbone: str, *, stem: str, image_size: int | None, pooling: str | None, architecture_config: str | None
) -> None:
    """Checks the settings of an encoder that only some backbones have.

    Args:
        backbone: Name of the backbone.
        stem: One of :data:`STEMS`; other networks than ResNets have a stem of their own.
        image_size: Size that a transformer's positions are made for, in pixels.
        pooling: One of :data:`POOLINGS`.
        architecture_config: Configuration of a model of transformers, or options of a model of timm, as JSON.

    Raises:
        ValueError: naming the setting, if this backbone cannot have it.
    """
    library = library_of(backbone)
    resnet = backbone.removeprefix("timm:").startswith(RESNETS_OF_TIMM) and library in (None, "timm")
    if stem != "imagenet" and not resnet and (backbone != "small" or stem != "cifar"):
        raise ValueError(
            f"encoder.stem must be imagenet for {backbone}, whose stem is its own, not {stem}: --set "
            "encoder.stem=imagenet"
        )
    if image_size is not None and library not in ("timm", "torchvision"):
        raise ValueError(f"encoder.image_size must be none for {backbone}, but is {image_size}")
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise ValueError(f"encoder.image_size must be from 1 to {MAX_IMAGE_SIZE}, but is {image_size}")
    if pooling is not None and library not in ("timm", "hf"):
        raise ValueError(f"encoder.pooling must be none for {backbone}, but is {pooling}")
    if architecture_config is not None and library not in ("timm", "hf"):
        raise ValueError(f"encoder.architecture_config must be none for {backbone}: it is of timm:NAME and hf:NAME")
