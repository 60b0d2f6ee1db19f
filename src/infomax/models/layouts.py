"""The names that libraries give to the weights of ResNets, vision transformers and ConvNeXts, and ours for the same.

Ours are those of timm, which for ResNets are torchvision's too. A layout says which names of another library an encoder
of a family always has, and how each of its names reads in ours. No weight is changed here but for what a comment says.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Family = Literal["ResNet", "vision transformer", "DINOv3 transformer", "ConvNeXt"]
Weights = dict[str, Tensor]
CIFAR_KERNEL = (3, 3)
"""The size of the first convolution of a stem for small images."""


@dataclass(frozen=True)
class Layout:
    """A frozen dataclass that says how one library names the weights of one family of encoders."""

    family: Family
    title: str
    """Who writes such names, for people."""
    names: tuple[str, ...]
    """Names that every encoder of the family has in this layout. More than half of them must be there."""
    required: tuple[str, ...] = ()
    """Those of ``names`` that must be there, because others have the rest of them."""
    rename: Callable[[Weights], Weights] = dict
    """Gives the weights below the common prefix our names."""
    fits: Callable[[Weights], bool] = lambda _: True
    """Says whether weights of these names are of this layout by their shapes."""


def substitute(*rules: tuple[str, str]) -> Callable[[Weights], Weights]:
    """Makes a function that renames weights by regular expressions, of which each applies to the result of the last."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(weights: Weights) -> Weights:
        renamed = {}
        for name, value in weights.items():
            for pattern, replacement in compiled:
                name = pattern.sub(replacement, name)
            renamed[name] = value
        return renamed

    return rename


def _starts_with_images(weights: Weights) -> bool:
    """Returns whether the first weight is a convolution of three channels."""
    first = weights["0.weight"]
    return first.ndim == 4 and first.shape[1] == 3


def _children(first_stage: int) -> Layout:
    """Makes the layout of a ResNet that was saved as ``nn.Sequential`` of its children, as lightly's tutorials do.

    Child 0 is the first convolution, 1 its BatchNorm, and four in a row are the stages: 4 to 7 behind an activation and
    max-pooling, 3 to 6 behind an activation alone, and 2 to 5 if neither is a child. A stem of 7x7 without a pooling
    among its children is left as it is, because no encoder here has such a stem.
    """
    stages = range(first_stage, first_stage + 4)
    names = ("0.weight", "1.running_mean", *(f"{child}.0.conv1.weight" for child in stages))

    def fits(weights: Weights) -> bool:
        pooled = first_stage == 4 or tuple(weights["0.weight"].shape[2:]) == CIFAR_KERNEL
        return _starts_with_images(weights) and pooled

    layers = {"0": "conv1", "1": "bn1", **{str(child): f"layer{i}" for i, child in enumerate(stages, start=1)}}
    rename = substitute(
        (r"^(\d+)\.", ".\\1."),  # a name of a child is renamed once
        *((rf"^\.{child}\.", f"{layer}.") for child, layer in layers.items()),
        (r"^\.", ""),
        SHORTCUT,
    )
    return Layout("ResNet", CHILDREN.format(first_stage), names, names, rename, fits)


SHORTCUT = (r"\.shortcut\.", ".downsample.")
"""lightly and most code for CIFAR call the convolution beside a block its shortcut."""
CHILDREN = "nn.Sequential of a ResNet's children, stages from child {}"
CHILDREN_WITHOUT_ACTIVATION = CHILDREN.format(2)
"""The title of the layout of a ResNet whose activation behind the stem was a function: such a sequence lacks it."""
CHUNK = (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.")
"""DINOv2 numbers its blocks within parts of the network too."""
DINO_V2 = (
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.gamma_([12])$", r".ls\1.gamma"),  # as BEiT, DeiT III and iBOT call them
)
DINO_V3 = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
TORCHVISION_TRANSFORMER = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)
OPENMMLAB_TRANSFORMER = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.", "blocks."),
    (r"^ln1\.", "norm."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
)
CONVNEXT = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"^norm\.", "head.norm."),
)


def _rename_convnext(weights: Weights) -> Weights:
    """Renames the weights of ConvNeXt's own code; V2's normalisation of responses has axes of length 1 there."""
    renamed = substitute(*CONVNEXT)(weights)
    return {name: value.reshape(-1) if ".grn." in name else value for name, value in renamed.items()}


def _rename_torchvision_convnext(weights: Weights) -> Weights:
    """Renames the weights of torchvision's ConvNeXt, whose stages and what stands before them are numbered as one."""
    renamed = substitute(
        (r"^features\.0\.", "stem."),
        (r"^features\.([1357])\.(\d+)\.block\.0\.", r"features.\1.blocks.\2.conv_dw."),
        (r"^features\.([1357])\.(\d+)\.block\.2\.", r"features.\1.blocks.\2.norm."),
        (r"^features\.([1357])\.(\d+)\.block\.3\.", r"features.\1.blocks.\2.mlp.fc1."),
        (r"^features\.([1357])\.(\d+)\.block\.5\.", r"features.\1.blocks.\2.mlp.fc2."),
        (r"^features\.([1357])\.(\d+)\.layer_scale$", r"features.\1.blocks.\2.gamma"),
        (r"^features\.([246])\.", r"features.\1.downsample."),
        *((rf"^features\.{2 * stage + 1}\.", f"stages.{stage}.") for stage in range(4)),
        *((rf"^features\.{2 * stage}\.", f"stages.{stage}.") for stage in range(1, 4)),
        (r"^classifier\.0\.", "head.norm."),
        (r"^classifier\.2\.", "head.fc."),
    )(weights)
    return {name: value.reshape(-1) if name.endswith(".gamma") else value for name, value in renamed.items()}


def merge_class_position(weights: Weights) -> Weights:
    """Adds the position of the class token to the token, if register tokens stand between it and the patches.

    timm's transformers with registers give positions to the patches alone; the sum is what DINOv2 computes each time.
    """
    token, positions = weights.get("cls_token"), weights.get("pos_embed")
    if "reg_token" not in weights or token is None or positions is None or positions.ndim != 3:
        return weights
    if not is_square(positions.shape[1] - 1):
        return weights
    return weights | {"cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:]}


def is_square(count: int) -> bool:
    """Returns whether so many patches make a square."""
    return count > 0 and round(count**0.5) ** 2 == count


def _is_dino_v3(weights: Mapping[str, Tensor]) -> bool:
    """Returns whether a transformer turns its tokens by their positions (RoPE), which it does not add then."""
    names = ("storage_tokens", "rope_embed.periods")
    return "pos_embed" not in weights and any(
        name in weights for name in (*names, "reg_token", "blocks.0.gamma_1", "blocks.0.ls1.gamma")
    )


def split_queries_and_values(weights: Weights) -> Weights:
    """Splits the biases of DINOv3's queries, keys and values as timm does; those of the keys are zeros by a mask."""
    changed = dict(weights)
    for name, bias in weights.items():
        if name.endswith(".attn.qkv.bias"):
            queries, _, values = bias.chunk(3)
            del changed[name]
            changed |= {name.replace("qkv.bias", "q_bias"): queries, name.replace("qkv.bias", "v_bias"): values}
    return changed


def drop_zero_biases(weights: Weights) -> Weights:
    """Leaves out the biases of DINOv3's queries and values if all of them are zeros, as in its published files."""
    biases = {name for name in weights if name.endswith((".attn.q_bias", ".attn.v_bias"))}
    if any(bool(weights[name].any()) for name in biases):
        return weights
    return {name: value for name, value in weights.items() if name not in biases}


def _rename_dino_v3(weights: Weights) -> Weights:
    return split_queries_and_values(substitute(*DINO_V3)(weights))


def _rename_transformer(weights: Weights) -> Weights:
    return merge_class_position(substitute(*DINO_V2)(weights))


PATCHES = "patch_embed.proj.weight"
BLOCK = tuple(f"blocks.0.{part}.weight" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"))
LAYOUTS = (
    Layout(
        "ResNet",
        "timm, torchvision, solo-learn, VISSL, OpenSelfSup",
        ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
        rename=substitute(SHORTCUT),
    ),
    _children(4),
    _children(3),
    _children(2),
    Layout(
        "DINOv3 transformer",
        "DINOv3",
        (PATCHES, *BLOCK[:4]),
        (PATCHES,),
        _rename_dino_v3,
        _is_dino_v3,
    ),
    Layout(
        "vision transformer",
        "timm, DINO, DINOv2, MAE, MoCo v3, I-JEPA, iBOT, lightly, solo-learn, VISSL",
        (PATCHES, *BLOCK[:4]),
        (PATCHES,),
        _rename_transformer,
        lambda weights: not _is_dino_v3(weights),
    ),
    Layout(
        "vision transformer",
        "DINOv2 in parts",
        (PATCHES, *(name.replace("blocks.0.", "blocks.0.0.") for name in BLOCK[:4])),
        (PATCHES, "blocks.0.0.attn.qkv.weight"),
        lambda weights: _rename_transformer(substitute(CHUNK)(weights)),
    ),
    Layout(
        "vision transformer",
        "torchvision",
        ("conv_proj.weight", *(f"encoder.layers.encoder_layer_0.{n}" for n in ("ln_1.weight", "ln_2.weight"))),
        ("conv_proj.weight",),
        substitute(*TORCHVISION_TRANSFORMER),
    ),
    Layout(
        "vision transformer",
        "mmselfsup, mmpretrain",
        ("patch_embed.projection.weight", *(f"layers.0.{n}.weight" for n in ("ln1", "attn.qkv", "ffn.layers.0.0"))),
        ("patch_embed.projection.weight", "layers.0.attn.qkv.weight"),
        substitute(*OPENMMLAB_TRANSFORMER),
    ),
    Layout(
        "ConvNeXt",
        "timm",
        ("stem.0.weight", *(f"stages.{stage}.blocks.0.conv_dw.weight" for stage in range(4))),
        ("stem.0.weight",),
    ),
    Layout(
        "ConvNeXt",
        "ConvNeXt, DINOv3",
        ("downsample_layers.0.0.weight", *(f"stages.{stage}.0.dwconv.weight" for stage in range(4))),
        ("downsample_layers.0.0.weight",),
        _rename_convnext,
    ),
    Layout(
        "ConvNeXt",
        "torchvision",
        ("features.0.0.weight", *(f"features.{stage}.0.block.0.weight" for stage in (1, 3, 5, 7))),
        ("features.0.0.weight", "features.7.0.block.0.weight"),
        _rename_torchvision_convnext,
        lambda weights: "features.1.0.layer_scale" in weights,
    ),
)
"""All layouts that a file may have; the first that fits is taken."""
HEADS = re.compile(r"(?!fc_norm\.)[^.]*(fc|linear|head|classif|proj|pred|prototyp|queue|mlp)")
"""Matches names beside an encoder's own layers that are no part of it: classifiers, projectors, predictors, queues."""
UNUSED = re.compile(
    r"mask_token$|masked_embed$|decoder_(embed|pos_embed|blocks|norm|pred)\b|(queue|queue_ptr)$"
    r"|local_cls_norm\.|rope_embed\.periods$|.*\.attn\.qkv\.bias_mask$"
)
"""Matches weights of pretraining that no model uses for inference: the mask tokens of masked-image methods, the decoder
of MAE, the queue of MoCo, and what DINOv3 keeps beside its weights."""
UNUSED_OF_CONVNEXT = re.compile(r"norms\.\d+\.")
"""Matches the norms of DINOv3's ConvNeXts that are for dense features; the last one is ``norm`` too."""


def is_no_encoder(family: Family, name: str) -> bool:
    """Returns whether a weight below an encoder's prefix, by our names, is no part of the encoder."""
    if family == "ConvNeXt" and name.startswith("head.norm."):
        return False
    convnext = family == "ConvNeXt" and UNUSED_OF_CONVNEXT.match(name) is not None
    return convnext or HEADS.match(name) is not None or UNUSED.match(name) is not None


def sine_positions(side: int, width: int) -> Tensor:
    """Returns the fixed positions of MAE and MoCo v3 [side * side, width]: sines and cosines of column and of row.

    MAE has those of the column in the first half of the width, MoCo v3 those of the row.
    """
    angles = torch.arange(side)[:, None] / 10000 ** (torch.arange(width // 4) / (width // 4))
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([waves.repeat(side, 1), waves.repeat_interleave(side, 0)], 1)
