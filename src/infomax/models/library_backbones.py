"""Builds the networks of timm, torchvision and transformers as backbones, without their weights.

With ``architecture_config`` a model of transformers needs no network either; timm and torchvision never need one.
"""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from infomax.runtime.hub import hub_or_cache, is_unreached, was_reachable, why_unreached

USUAL_SIZE = 224  # pixels
AUXILIARY = {"inception_v3": True, "googlenet": False}
"""Models of torchvision with further classifiers during training, and whether those of its weights keep these."""


def one_line(error: Exception) -> str:
    """Returns a library's message, which may have many lines, as one line."""
    return " ".join(str(error).split())


def unknown_model(problem: str, name: str, names: Iterable[str]) -> ValueError:
    """Makes the error for an unknown name, which lists the nearest of ``names``."""
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    return ValueError(f"there is {problem} {name}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


TIMM_OPTIONS: dict[str, type | tuple[type, ...]] = {
    # of vision transformers
    "embed_dim": int, "depth": int, "num_heads": int, "patch_size": int, "mlp_ratio": (int, float), "qkv_bias": bool,
    "init_values": (float, type(None)), "reg_tokens": int, "class_token": bool, "no_embed_class": bool,
    "pre_norm": bool, "fc_norm": bool, "global_pool": str,
    # of DINOv3's
    "num_reg_tokens": int, "swiglu_mlp": bool, "swiglu_align_to": int,
    # of ResNets
    "layers": list, "cardinality": int, "base_width": int,
    # of ConvNeXts
    "depths": list, "dims": list, "conv_mlp": bool, "use_grn": bool, "ls_init_value": (float, type(None)),
}  # fmt: skip
"""The options of timm's models that a recipe may set, with the types of their values; a list is of integers. None of
them names a file or a function."""
MAX_OPTION = 65536


def timm_options(architecture_config: str | None) -> dict[str, Any]:
    """Reads the options of a model of timm from JSON.

    Raises:
        ValueError: If an option is unknown, or its value is of another type or too large.
    """
    if architecture_config is None:
        return {}
    try:
        options = json.loads(architecture_config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"encoder.architecture_config is no JSON: {one_line(error)[:100]}") from error
    if not isinstance(options, dict):
        raise ValueError("encoder.architecture_config must be a dictionary of a model's options")
    for key, value in options.items():
        kind = TIMM_OPTIONS.get(key)
        if kind is None:
            raise ValueError(f"encoder.architecture_config has {key}; want {', '.join(TIMM_OPTIONS)}")
        numbers = value if isinstance(value, list) else [value]
        exact = type(value) in (kind if isinstance(kind, tuple) else (kind,))
        whole = not isinstance(value, list) or (all(type(number) is int for number in numbers) and len(numbers) <= 4)
        small = all(not isinstance(number, int | float) or 0 <= number <= MAX_OPTION for number in numbers)
        if not (exact and whole and small):
            raise ValueError(f"encoder.architecture_config has {json.dumps(value)[:50]} for {key}")
    return options


def is_timm_model(name: str) -> bool:
    """Returns whether timm has a model of this name."""
    import timm

    return timm.is_model(name)


def build_timm(
    name: str,
    *,
    image_size: int | None,
    pooling: str | None,
    options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> Any:
    """Builds a model of timm without its classifier.

    A vision transformer takes images of other sizes than ``image_size`` too, if it can: its positions are interpolated.

    Args:
        name: The model's name, with or without the tag of its weights.
        image_size: The size that its positions are made for, in pixels; None for the model's own.
        pooling: ``token`` or ``avg``; None for the model's own. The layers are the same with either.
        options: What it is built with beside its name, as :func:`timm_options` reads it.
        pretrained: Whether to fetch its weights.

    Raises:
        ValueError: If there is no such model, or it has no such size or pooling.
    """
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown_model("no timm model", architecture, timm.list_models())
    arguments: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, **(options or {})}
    if image_size is not None:
        arguments["img_size"] = image_size
    try:
        network = _create_timm(name, arguments)
    except Exception as error:  # of many kinds, as models differ
        if image_size is None:
            raise
        if isinstance(error, TypeError) and "img_size" in str(error):
            reason = f"encoder.image_size must be none for timm:{name}, which takes images of any size"
        else:
            reason = f"timm:{name} cannot be built for images of {image_size} pixels: {one_line(error)[:200]}"
        raise ValueError(reason) from error
    if pooling is not None and pooling != getattr(network, "global_pool", None):
        try:
            if not isinstance(getattr(network, "global_pool", None), str):
                raise ValueError("it has no class token")
            network.reset_classifier(0, pooling)
        except Exception as error:  # of many kinds, as models differ
            raise ValueError(f"timm:{name} has no pooling {pooling}: {one_line(error)[:200]}") from error
    return network


def _create_timm(name: str, arguments: dict[str, Any]) -> Any:
    """Builds a model of timm, for images of any size if its class can do that."""
    import timm

    try:
        return timm.create_model(name, dynamic_img_size=True, **arguments)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(name, **arguments)


def timm_settings(network: Any) -> dict[str, Any]:
    """Returns the size and the pooling that a model of timm has, as :func:`build_timm` takes them.

    The size is None for a network that is built alike for any size.
    """
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    side = size[0] if isinstance(size, tuple) and len(set(size)) == 1 else None
    pooling = getattr(network, "global_pool", None)
    return {"image_size": side, "pooling": pooling if pooling in ("token", "avg") else None}


def build_torchvision(name: str, *, image_size: int | None, weights: Any = None) -> tuple[nn.Module, str]:
    """Builds a model of torchvision without its last layer.

    Args:
        name: The model's name.
        image_size: The size that a vision transformer's positions are made for, in pixels; None for the model's own.
        weights: Its weights; None leaves them random.

    Returns:
        The model, and the name of the layer that was cut off.

    Raises:
        ValueError: If there is no such model, or it has no such size.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise unknown_model("no torchvision model", name, names)
    arguments: dict[str, Any] = {}
    if name.startswith("vit_") and image_size is not None:
        arguments["image_size"] = image_size
    elif image_size is not None:
        raise ValueError(f"encoder.image_size must be none for torchvision:{name}, which takes images of any size")
    if weights is None and name in AUXILIARY:  # as the model is with its weights
        arguments |= {"transform_input": True, "aux_logits": AUXILIARY[name], "init_weights": True}
    network = models.get_model(name, weights=weights, **arguments)
    classifier = [n for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    network.set_submodule(classifier, nn.Identity())
    return network, classifier


class _Pooled(nn.Module):
    """A vision model of transformers that maps images [B, 3, H, W] to features [B, width].

    Args:
        model: The model.
        pooling: ``token`` or ``avg``, of the last hidden state; None for the model's own pooler, if it has one, and
            else the class token or, without one, the mean.
    """

    def __init__(self, model: Any, pooling: str | None = None):
        super().__init__()
        self.model = model
        self.class_token = any(n.endswith(("cls_token", "class_embedding")) for n, _ in model.named_parameters())
        if pooling == "token" and not self.class_token:
            raise ValueError("has no class token: encoder.pooling must be avg or none")
        self.pooling = pooling
        if pooling is not None and hasattr(model, "pooler"):
            model.pooler = None

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        outputs = self.model(pixel_values=images)
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is not None and self.pooling is None:
            return pooled.flatten(1)  # convolutional models give [B, width, 1, 1]
        hidden = outputs.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        if self.pooling == "avg":
            return hidden[:, int(self.class_token) :].mean(1)
        return hidden[:, 0] if self.class_token else hidden.mean(1)


def import_transformers(name: str) -> Any:
    """Imports the package transformers; it may ask the hub for a model unless ``name`` is a folder.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        with hub_or_cache(needed=not Path(name).exists() and find_spec("transformers") is not None):
            return import_module("transformers")
    except ImportError as error:
        raise ValueError("needs the package transformers; pip install transformers") from error


def read_architecture_config(name: str) -> str:
    """Returns the configuration of a model of transformers as JSON, from a folder, the local cache or the hub.

    Raises:
        ValueError: If there is none, or transformers is not installed.
    """
    transformers = import_transformers(name)
    try:
        with hub_or_cache(needed=not Path(name).exists()):
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of many kinds, and with many lines
        reason = (
            why_unreached()
            if is_unreached(error) or not was_reachable()
            else f"{type(error).__name__}: {one_line(error)[:300]}"
        )
        raise ValueError(
            f"hf:{name}: is the name right? Its config.json could not be fetched ({reason}); hf:./folder takes it from "
            "a folder"
        ) from error
    return getattr(config, "vision_config", config).to_json_string()


def build_hugging_face(architecture_config: str, *, pooling: str | None) -> nn.Module:
    """Builds a model of transformers from its configuration, without weights, network, or code of its own.

    Args:
        architecture_config: The configuration as JSON.
        pooling: ``token``, ``avg`` or None for the model's own.

    Raises:
        ValueError: If transformers is not installed, or has no such model of images.
    """
    transformers = import_transformers(".")
    try:
        values = dict(json.loads(architecture_config))
        config = transformers.CONFIG_MAPPING[values.pop("model_type")].from_dict(values)
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:  # of many kinds, as configurations differ
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise ValueError(f"encoder.architecture_config is of no model of transformers ({reason})") from error
    return pooled_hugging_face(model, pooling)


def pooled_hugging_face(model: Any, pooling: str | None) -> _Pooled:
    """Returns the part of a model of transformers that is for images, as a module that gives one vector an image.

    Raises:
        ValueError: If the model cannot be an encoder, or has no such pooling.
    """
    if model.config.model_type == "vit_mae":
        raise ValueError("hides random parts of its images; timm has MAE's encoders, as timm:vit_base_patch16_224.mae")
    return _Pooled(getattr(model, "vision_model", model).float(), pooling)
