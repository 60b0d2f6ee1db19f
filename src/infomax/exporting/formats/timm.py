"""A folder that timm opens: its configuration and weights as timm keeps them on the hub."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.data.pixel_format import RGB
from infomax.exporting.export_format import Format, LoadingCode, quoted
from infomax.exporting.head import classes_of, head_tensors
from infomax.exporting.preparation import prepare_numbers, reading_code
from infomax.models.backbone_names import library_of

if TYPE_CHECKING:
    from torch import nn

    from infomax.models.encoders import Encoder

VIT_SMALL = {"num_heads": 12, "dynamic_img_size": True}
"""The arguments by which timm builds MoCo v3's ViT-S/16."""


def timm_arguments(encoder: "Encoder") -> tuple[str, dict[str, Any]] | None:
    """Returns the name and the arguments by which timm builds an encoder's network; None if timm has none such."""
    settings = encoder.settings
    library, _, name = settings.backbone.partition(":")
    channels = _channel_arguments(encoder)
    if settings.backbone == "vit_small":
        return "vit_small_patch16_224", VIT_SMALL | channels
    if library_of(settings.backbone) is None:
        is_timms = settings.backbone.startswith("resnet") and settings.stem == "imagenet"
        return (settings.backbone, channels) if is_timms else None
    if library == "hf":
        return None
    from timm import is_model

    architecture = name.partition(".")[0]
    if not is_model(architecture):
        return None
    expected = shapes(encoder.backbone)
    arguments = (tried for tried in _candidates(encoder) if _is_built_by(architecture, tried, expected))
    return next(((architecture, tried) for tried in arguments), None)


def _channel_arguments(encoder: "Encoder") -> dict[str, Any]:
    """Returns the argument by which timm builds a network for other channels than RGB's."""
    channels = encoder.settings.channels
    return {} if channels == RGB.channels else {"in_chans": channels}


def _candidates(encoder: "Encoder") -> list[dict[str, Any]]:
    """Returns the arguments by which timm may build an encoder's network, the fewest first."""
    from infomax.models.library_backbones import timm_options

    settings, network = encoder.settings, encoder.backbone
    # Of a checkpoint of others: what its shapes say, and the number of heads, which they do not.
    always = timm_options(settings.architecture_config) | _channel_arguments(encoder)
    if settings.image_size is not None:
        always["img_size"] = settings.image_size
    if getattr(network, "dynamic_img_size", False):
        always["dynamic_img_size"] = True
    if settings.pooling is None:
        return [always]
    # A transformer that is built for means has its last norm after the mean, unless it is told otherwise.
    pooled = {**always, "global_pool": settings.pooling}
    return [pooled, {**pooled, "fc_norm": False}, {**pooled, "fc_norm": True}]


def _is_built_by(architecture: str, arguments: dict[str, Any], expected: dict[str, tuple[int, ...]]) -> bool:
    """Returns whether timm builds a network of these weights by these arguments."""
    import timm

    try:
        return shapes(timm.create_model(architecture, num_classes=0, **arguments)) == expected
    except (TypeError, ValueError, AssertionError, RuntimeError):  # as models refuse arguments that are not theirs
        return False


def shapes(network: "nn.Module") -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter and buffer that is saved, by its name."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def misfit(encoder: "Encoder") -> str:
    """Returns why timm cannot build an encoder's network; empty if it can."""
    settings = encoder.settings
    arguments = timm_arguments(encoder)
    if arguments is not None:
        return "" if not classes_of(encoder) or _takes_head(encoder, *arguments) else _NO_HEAD
    if settings.stem != "imagenet" and "resnet" in settings.backbone:
        return f"timm's {settings.backbone} has no stem for small images (encoder.stem={settings.stem})"
    return f"timm has no network {settings.backbone}"


_NO_HEAD = "timm's network does not have a classifier that is one linear layer on these features"


def _takes_head(encoder: "Encoder", architecture: str, arguments: dict[str, Any]) -> bool:
    """Returns whether timm's network is the encoder's, with the linear layer in the classifier's place."""
    import timm

    head = head_tensors(encoder, _classifier_name(encoder))
    network = timm.create_model(architecture, num_classes=len(classes_of(encoder)), **arguments)
    return shapes(network) == shapes(encoder.backbone) | {name: tuple(value.shape) for name, value in head.items()}


def _classifier_name(encoder: "Encoder") -> str:
    """Returns timm's name for the last layer of an encoder's network; empty if it has several."""
    network: Any = encoder.backbone
    name = getattr(network, "pretrained_cfg", {}).get("classifier")
    return name if isinstance(name, str) else ""


def crop_share(resize: int, size: int) -> float:
    """Returns the share ``crop_pct`` for which timm resizes to exactly ``resize`` pixels before it crops ``size``."""
    share = size / resize
    return share if math.floor(size / share) == resize else math.nextafter(share, 0)


def timm_config(encoder: "Encoder") -> dict[str, Any]:
    """Returns the content of timm's ``config.json``: architecture, arguments and preprocessing."""
    arguments = timm_arguments(encoder)
    assert arguments is not None
    architecture, model_args = arguments
    shown = encoder.preprocessing
    network: Any = encoder.backbone
    registered = getattr(network, "pretrained_cfg", {})
    return {
        "architecture": architecture,
        "num_classes": len(classes_of(encoder)),
        **({"label_names": list(classes)} if (classes := classes_of(encoder)) else {}),
        "num_features": encoder.width,
        **({"model_args": model_args} if model_args else {}),
        "pretrained_cfg": {
            "num_classes": len(classes_of(encoder)),
            "input_size": [encoder.settings.channels, shown.size, shown.size],
            "fixed_input_size": bool(registered.get("fixed_input_size", False)),
            "pool_size": None,
            "interpolation": "bicubic" if shown.bicubic else "bilinear",
            "crop_pct": crop_share(shown.resize, shown.size),
            "crop_mode": "center",
            "mean": list(shown.mean),
            "std": list(shown.std),
            # timm adapts the weights of a first convolution that is named here from RGB's to other channels.
            "first_conv": registered.get("first_conv") if encoder.settings.channels == RGB.channels else None,
            "classifier": registered.get("classifier"),
        },
    }


def write(encoder: "Encoder", path: Path, normalise_inside: bool) -> dict[str, str]:
    """Writes ``config.json`` and ``model.safetensors``, which transformers opens too."""
    from safetensors.torch import save_file

    tensors = {**encoder.backbone.state_dict(), **head_tensors(encoder, _classifier_name(encoder))}
    weights = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config = timm_config(encoder)
    (path / "config.json").write_text(json.dumps(config, indent=2))
    return {"architecture": f"timm's {config['architecture']}"}


def code(encoder: "Encoder", path: str, normalise_inside: bool) -> LoadingCode:
    """Returns the code by which timm opens the folder."""
    load = f"model = timm.create_model({quoted(f'local-dir:{path}')}, pretrained=True).eval()"
    if not encoder.preprocessing.pixel_format.is_rgb:  # timm's transforms take PIL images
        setup = f"""import numpy as np
import timm
import torch
from PIL import Image

{load}


{prepare_numbers(encoder.preprocessing, False)}
"""
        return LoadingCode(setup, "torch.from_numpy(prepare(image))", "model(batch)", reading_code(encoder))
    setup = f"""import timm

{load}
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
"""
    return LoadingCode(setup, "prepare(image).unsqueeze(0)", "model(batch)")


TIMM = Format(
    name="timm",
    library="timm",
    description="a folder for timm.create_model",
    packages=("timm",),
    install="pip install timm",
    misfit=misfit,
    write=write,
    code=code,
)
