"""Finds the architecture of an encoder from the names and shapes of its weights, and says what they do not tell."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infomax.models.encoders import EncoderArguments
from infomax.models.layouts import CHILDREN_WITHOUT_ACTIVATION, CIFAR_KERNEL, Family, is_square, sine_positions
from infomax.models.library_backbones import build_timm, is_timm_model
from infomax.models.state_dicts import FoundWeights, Location

RESNETS: dict[tuple[tuple[int, ...], bool, int, int], str] = {
    ((2, 2, 2, 2), False, 1, 64): "resnet18",
    ((3, 4, 6, 3), False, 1, 64): "resnet34",
    ((2, 2, 2, 2), True, 1, 64): "timm:resnet26",
    ((3, 4, 6, 3), True, 1, 64): "resnet50",
    ((3, 4, 23, 3), True, 1, 64): "resnet101",
    ((3, 8, 36, 3), True, 1, 64): "timm:resnet152",
    ((3, 24, 36, 3), True, 1, 64): "timm:resnet200",
    ((3, 4, 6, 3), True, 1, 128): "timm:wide_resnet50_2",
    ((3, 4, 23, 3), True, 1, 128): "timm:wide_resnet101_2",
    ((3, 4, 6, 3), True, 32, 4): "timm:resnext50_32x4d",
    ((3, 4, 6, 3), True, 32, 8): "timm:resnext50_32x8d",
    ((3, 4, 23, 3), True, 32, 4): "timm:resnext101_32x4d",
    ((3, 4, 23, 3), True, 32, 8): "timm:resnext101_32x8d",
    ((3, 4, 23, 3), True, 64, 4): "timm:resnext101_64x4d",
}
"""The name of each ResNet by the number of blocks of each stage, whether these are bottlenecks, the number of groups of
their convolutions, and the width of a group."""
CONVNEXTS: dict[tuple[tuple[int, ...], int], str] = {
    ((2, 2, 6, 2), 40): "atto",
    ((2, 2, 6, 2), 48): "femto",
    ((2, 2, 6, 2), 64): "pico",
    ((2, 2, 8, 2), 80): "nano",
    ((3, 3, 9, 3), 96): "tiny",
    ((3, 3, 27, 3), 96): "small",
    ((3, 3, 27, 3), 128): "base",
    ((3, 3, 27, 3), 192): "large",
    ((3, 3, 27, 3), 256): "xlarge",
    ((3, 3, 27, 3), 352): "huge",
}
"""The size of a ConvNeXt by the number of blocks of each stage and the width of the first one."""
TRANSFORMER_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant", 1536: "giant"}
HEAD_WIDTH = 64
"""The usual width of an attention head."""
OTHER_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""The usual number of heads of transformers of these widths: ViT-So400m, ViT-H of MAE and I-JEPA, ViT-g, ViT-G."""
DINO_V3_HEAD_WIDTHS = {4096: 128}
HEADS_OF_SMALL_WITH_SINES = 12
"""MoCo v3's ViT-S has so many heads, and so have the ViT-S and ViT-Ti that solo-learn trains by MoCo v3 and by MAE."""
CROPPED_BELOW = 256  # pixels; larger images are not cropped
CROPPED_SHARE = 0.875
CIFAR_SIZE = 32  # pixels


@dataclass(frozen=True)
class FileArchitecture:
    """A frozen dataclass that holds what the weights in a file tell about their encoder."""

    settings: EncoderArguments
    """The arguments with which :func:`~infomax.models.encoders.build_encoder` builds it untrained."""
    title: str
    """Names it, as ``a resnet50``."""
    choices: str
    """Says in a line what no shape tells; may be empty."""
    size: int
    """The size of the images that it was probably trained on, in pixels."""


def describe(weights: Mapping[str, Tensor], found: FoundWeights, location: Location) -> FileArchitecture:
    """Finds the architecture of an encoder from its weights.

    Args:
        weights: The weights by our names, without those that are no part of the encoder.
        found: Where they were in the file.
        location: The file, with what the user said about the encoder in it.

    Raises:
        ValueError: If the shapes belong to no architecture that can be built here.
    """
    family, heads, padding = found.layout.family, location.heads, location.padding
    if heads is not None and "transformer" not in family:
        raise ValueError(f"heads={heads} is for transformers, and this is a {family}")
    if padding is not None and family != "ResNet":
        raise ValueError(f"padding={padding} is for ResNets, and this is a {family}")
    if family == "ResNet":
        return _describe_resnet(weights, found, padding)
    if family == "ConvNeXt":
        return _describe_convnext(weights)
    if family == "DINOv3 transformer":
        return _describe_dino_v3(weights, heads)
    return _describe_transformer(weights, found.prefix, heads)


def _arguments(backbone: str, options: Mapping[str, Any] | None = None, **settings: Any) -> EncoderArguments:
    """Returns the arguments of an encoder; ``options`` are what the model of timm is built with beside its name."""
    config = json.dumps(options) if options else None
    stem = settings.pop("stem", "imagenet")
    return EncoderArguments(backbone=backbone, architecture_config=config, stem=stem, seed=0, **settings)


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Returns how many numbered modules stand below a prefix."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})


def _matrix(weights: Mapping[str, Tensor], name: str, family: Family, dimensions: int = 2) -> tuple[int, ...]:
    """Returns the shape of a weight of which the architecture is read.

    Raises:
        ValueError: If it is missing, or has not so many dimensions.
    """
    if name not in weights:
        raise ValueError(f"the weights do not fit a {family}: 1 missing ({name})")
    shape = tuple(weights[name].shape)
    if len(shape) != dimensions or not all(shape):
        raise ValueError(f"the weights do not fit a {family}: {name} has the shape {shape}")
    return shape


def _describe_resnet(weights: Mapping[str, Tensor], found: FoundWeights, padding: int | None) -> FileArchitecture:
    blocks = tuple(_count(weights, f"layer{stage}.") for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in weights
    if "conv1.0.weight" in weights:
        raise ValueError(
            "is a ResNet with a stem of three convolutions, of which there are several kinds; timm:NAME@FILE names it, "
            "as timm:resnet50d"
        )
    stem_width, _, *kernel = weights["conv1.weight"].shape if "conv1.weight" in weights else (64, 3, 7, 7)
    grouped = _matrix(weights, "layer1.0.conv2.weight", "ResNet", 4)
    planes = grouped[0]
    groups, group_width = 1, 64
    if bottleneck:
        planes = _matrix(weights, "layer1.0.conv3.weight", "ResNet", 4)[0] // 4
        groups = grouped[0] // grouped[1]
        group_width = 64 * grouped[0] // max(1, planes * groups)
    if planes != 64 or stem_width != 64:
        raise ValueError(
            f"is a ResNet whose first stage has a width of {planes} behind a stem of {stem_width}, which neither timm "
            "nor torchvision has"
        )
    cifar = tuple(kernel) == CIFAR_KERNEL
    stem = "cifar" if cifar else "imagenet"
    if found.layout.title == CHILDREN_WITHOUT_ACTIVATION:
        stem = "cifar_linear"
    if padding is not None and not cifar:
        raise ValueError(f"padding={padding} is for stems of 3x3, and this one is of {kernel[0]}x{kernel[1]}")
    pixels, reason = (padding, "as given") if padding is not None else _stem_padding(found)
    name = RESNETS.get((blocks, bottleneck, groups, group_width))
    options: dict[str, Any] = {}
    if name is None:
        if not all(blocks) or sum(blocks) > 1000:
            raise ValueError(f"its stages have {_numbers(blocks)} blocks, which is no ResNet")
        name, options = "timm:resnet50" if bottleneck else "timm:resnet18", {"layers": list(blocks)}
        if bottleneck:
            options |= {"cardinality": groups, "base_width": group_width}
    size = CIFAR_SIZE if cifar else 224
    title = name.removeprefix("timm:") if not options else f"ResNet of {_numbers(blocks)} blocks"
    title = f"a {title} with the {stem.partition('_')[0]} stem"
    if not cifar:
        return FileArchitecture(_arguments(name, options), title, "", size)
    choices = f"its stem is taken not to pool and to pad by {pixels} pixel{'s' * (pixels != 1)} ({reason})"
    if stem == "cifar_linear":
        choices += "; no activation follows its stem, as the sequence has none"
    return FileArchitecture(_arguments(name, options, stem=stem, stem_padding=pixels), title, choices, size)


def _stem_padding(found: FoundWeights) -> tuple[int, str]:
    """Returns by how many pixels a CIFAR stem pads, and the reason for it."""
    hint = "no shape tells; FILE#padding=N says otherwise"
    if found.prefix.endswith("backbone.") and "classifier.weight" in found.beside:
        return 2, f"as solo-learn's, which has a classifier beside its backbone; {hint}"
    return 1, f"as is usual; {hint}"


def _numbers(values: Iterable[int]) -> str:
    return "-".join(str(value) for value in values)


def _describe_convnext(weights: Mapping[str, Tensor]) -> FileArchitecture:
    widths = tuple(_matrix(weights, f"stages.{stage}.blocks.0.conv_dw.weight", "ConvNeXt", 4)[0] for stage in range(4))
    depths = tuple(_count(weights, f"stages.{stage}.blocks.") for stage in range(4))
    patch = _matrix(weights, "stem.0.weight", "ConvNeXt", 4)[2]
    second = "stages.0.blocks.0.mlp.grn.weight" in weights
    options: dict[str, Any] = {
        "depths": list(depths),
        "dims": list(widths),
        "patch_size": patch,
        "conv_mlp": weights["stages.0.blocks.0.mlp.fc1.weight"].ndim == 4
        if "stages.0.blocks.0.mlp.fc1.weight" in weights
        else False,
        "use_grn": second,
        "ls_init_value": 1e-6 if "stages.0.blocks.0.gamma" in weights else None,
    }
    size = CONVNEXTS.get((depths, widths[0]), "tiny")
    name = f"timm:convnext{'v2' * second}_{size}"
    title = f"a ConvNeXt{' V2' * second} of {_numbers(depths)} blocks of the widths {_numbers(widths)}"
    return FileArchitecture(_arguments(name, _without_defaults(name, options)), title, "", 224)


def _describe_transformer(weights: Mapping[str, Tensor], prefix: str, heads: int | None) -> FileArchitecture:
    family = "vision transformer"
    width, channels, patch, other_side = _matrix(weights, "patch_embed.proj.weight", family, 4)
    if channels != 3 or patch != other_side:
        raise ValueError(f"takes patches of {channels} x {patch} x {other_side}; want 3 channels and a square")
    inner, _ = _matrix(weights, "blocks.0.mlp.fc1.weight", family)
    packed = _matrix(weights, "blocks.0.mlp.fc2.weight", family)[1] * 2 == inner
    if "pos_embed" not in weights:
        raise ValueError("is a vision transformer without positions of its own; timm:NAME@FILE names it")
    positions = _matrix(weights, "pos_embed", family, 3)[1]
    token = "cls_token" in weights
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    others = token + registers
    of_patches_alone = others > 0 and is_square(positions) and not is_square(positions - others)
    patches = positions if of_patches_alone else positions - others
    if not is_square(patches):
        raise ValueError(f"has {positions} positions, which are no square of patches{' and a class token' * token}")
    side = math.isqrt(patches)
    sines = token and others == 1 and not of_patches_alone and _has_sine_positions(weights["pos_embed"], side)
    count, reason = _choose_heads(width, heads, sines and not prefix.endswith("vit."))
    pooled_norm = "fc_norm.weight" in weights
    options = {
        "embed_dim": width,
        "depth": _count(weights, "blocks."),
        "num_heads": count,
        "patch_size": patch,
        "mlp_ratio": _ratio(inner, width),
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in weights else None,
        "reg_tokens": registers,
        "class_token": token,
        "no_embed_class": of_patches_alone,
        "pre_norm": "norm_pre.weight" in weights,
        "fc_norm": pooled_norm,
        "global_pool": "token" if token and not pooled_norm else "avg",
    }
    features = "the class token" if options["global_pool"] == "token" else "the mean of the patches"
    title = f"a vision transformer of {options['depth']} blocks of width {width} for patches of {patch}"
    title += f" and {registers} registers" if registers else ""
    choices = f"it is taken to have {count} heads ({reason}); its features are {features}"
    name = _transformer_name(options, packed)
    settings = _arguments(name, _without_defaults(name, options, side * patch), image_size=side * patch)
    return FileArchitecture(settings, title, choices, side * patch)


def _transformer_name(options: Mapping[str, Any], packed: bool) -> str:
    """Returns the name of the model of timm that is nearest to a vision transformer."""
    if packed:
        return f"timm:vit_giant_patch14_{'reg4_' * bool(options['reg_tokens'])}dinov2"
    size = TRANSFORMER_SIZES.get(options["embed_dim"], "base")
    patch, registers = options["patch_size"], options["reg_tokens"]
    names = [f"vit_{size}_patch{patch}_224"]
    if options["init_values"] is not None:
        names.insert(0, f"vit_{size}_patch{patch}_{f'reg{registers}_' if registers else ''}dinov2")
    if not options["class_token"]:
        names.insert(0, f"vit_{size}_patch{patch}_gap_224")
    known = [name for name in names if is_timm_model(name)]
    return f"timm:{known[0] if known else 'vit_base_patch16_224'}"


def _has_sine_positions(positions: Tensor, side: int) -> bool:
    """Returns whether positions of a class token and of patches are the fixed ones of MAE or MoCo v3."""
    width = positions.shape[2]
    if width % 4 or bool(positions[0, 0].any()):
        return False
    columns_first = sine_positions(side, width)
    rows_first = torch.cat([columns_first[:, width // 2 :], columns_first[:, : width // 2]], 1)
    given = positions[0, 1:].float()
    return any(torch.allclose(given, order, rtol=0, atol=1e-2) for order in (columns_first, rows_first))


def _choose_heads(width: int, heads: int | None, twelve: bool) -> tuple[int, str]:
    """Returns the number of heads of a transformer, and the reason for it.

    Args:
        width: The transformer's width.
        heads: The number that the user gave, or None.
        twelve: Whether the positions are those of MoCo v3's or solo-learn's small transformers.

    Raises:
        ValueError: If the width is no multiple of the heads.
    """
    if heads is not None:
        if not 0 < heads <= width or width % heads:
            raise ValueError(f"heads must divide the width {width}, but is {heads}")
        return heads, "as given"
    hint = "no shape tells; FILE#heads=N says otherwise"
    if twelve and width in (192, 384):
        return HEADS_OF_SMALL_WITH_SINES, f"as MoCo v3 and solo-learn have at this width with fixed positions; {hint}"
    if width in OTHER_HEADS:
        return OTHER_HEADS[width], f"as is usual at this width; {hint}"
    if width % HEAD_WIDTH:
        raise ValueError(
            f"is a transformer of width {width}, which is no multiple of the usual {HEAD_WIDTH} numbers a head: "
            "FILE#heads=N says how many heads it has"
        )
    return width // HEAD_WIDTH, f"of {HEAD_WIDTH} numbers, as is usual; {hint}"


def _ratio(inner: int, width: int) -> float:
    """Returns the ratio of widths from which timm computes the inner width of a transformer's block."""
    ratio = inner / width
    return ratio if int(width * ratio) == inner else math.nextafter(ratio, math.inf)


def _describe_dino_v3(weights: Mapping[str, Tensor], heads: int | None) -> FileArchitecture:
    family = "DINOv3 transformer"
    width, channels, patch, other_side = _matrix(weights, "patch_embed.proj.weight", family, 4)
    if channels != 3 or patch != other_side:
        raise ValueError(f"takes patches of {channels} x {patch} x {other_side}; want 3 channels and a square")
    gated = "blocks.0.mlp.fc1_g.weight" in weights
    inner, _ = _matrix(weights, f"blocks.0.mlp.fc1{'_g' * gated}.weight", family)
    depth = _count(weights, "blocks.")
    if heads is None:
        head_width = DINO_V3_HEAD_WIDTHS.get(width, HEAD_WIDTH)
        if width % head_width:
            raise ValueError(f"is a transformer of width {width}; FILE#heads=N says how many heads it has")
        heads = width // head_width
        reason = f"of {head_width} numbers, as all published ones; no shape tells; FILE#heads=N says otherwise"
    else:
        heads, reason = _choose_heads(width, heads, False)
    bias = "blocks.0.attn.q_bias" in weights
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    options = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "patch_size": patch,
        "qkv_bias": bias,
        "init_values": 1e-5 if "blocks.0.gamma_1" in weights else None,
        "num_reg_tokens": registers,
        "mlp_ratio": _ratio(inner, width),
        **({"swiglu_mlp": True, "swiglu_align_to": 8 if inner % 8 == 0 else 1} if gated else {}),
    }
    size = {384: "small", 768: "base", 1024: "large", 1280: "huge", 4096: "7b"}.get(width, "small")
    plus = gated and size in ("small", "huge")
    name = f"timm:vit_{size}{'_plus' * plus}_patch16_dinov3{'_qkvb' * bias}"
    title = f"a DINOv3 transformer of {depth} blocks of width {width} for patches of {patch} and {registers} registers"
    choices = f"it is taken to have {heads} heads ({reason}); its features are the class token"
    settings = _arguments(name, _without_defaults(name, options), pooling="token")
    return FileArchitecture(settings, title, choices, 256)


def _without_defaults(name: str, options: Mapping[str, Any], image_size: int | None = None) -> dict[str, Any]:
    """Returns the options of a model of timm, or none of them if the model of this name has them all anyway."""
    with torch.device("meta"):
        named, wanted = (
            build_timm(name.removeprefix("timm:"), image_size=image_size, pooling=None, options=chosen)
            for chosen in ({}, options)
        )
    if _structure(named) == _structure(wanted):
        return {}
    return dict(options)


def _structure(network: Any) -> tuple[Any, ...]:
    """Returns what two networks of timm have in common if they give the same features with the same weights."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    blocks = getattr(network, "blocks", None)
    heads = getattr(blocks[0].attn, "num_heads", None) if blocks else None
    tokens = [getattr(network, key, None) for key in ("num_prefix_tokens", "no_embed_class", "global_pool")]
    # The size of a stem's stride or of a gate is in the printed modules.
    return shapes, heads, tokens, repr(network)
