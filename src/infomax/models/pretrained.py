"""Opens any encoder by its name: of a run, of timm, torchvision or Hugging Face, or a ResNet in a checkpoint file."""

import math
import os
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.data.augmentation.views import CIFAR10_MEAN, CIFAR10_STD, Preprocessing
from infomax.models.encoders import Encoder, load_encoder
from infomax.models.state_dicts import UNUSED, leave_out, load_all_weights, load_resnet, read_weights
from infomax.runtime.hub import hub_or_cache, why_not_fetched
from infomax.runtime.near_names import missing_path
from infomax.runtime.stages import Stage

PIL_BILINEAR = 2
ENCODER_NAMES = "a run folder, a checkpoint file of a ResNet, timm:NAME, torchvision:NAME or hf:NAME"


def open_encoder(name: str | PathLike[str]) -> Encoder:
    """Opens a trained encoder by its name, with all of its weights.

    If a model was trained on images that were squeezed into a square, its preprocessing crops their centre instead.

    Args:
        name: One of these:

            - a run folder;
            - ``timm:resnet50`` or ``timm:resnet50.a1_in1k``: timm's model without its classifier; features are pooled;
            - ``torchvision:resnet50``: torchvision's model with its best weights; features are the input of its last
              layer;
            - ``timm:NAME@FILE`` or ``torchvision:NAME@FILE``: the same model with weights from a file, whose names are
              those of the library below any prefix;
            - ``hf:facebook/dinov2-small`` or ``hf:./folder``: a model of the package transformers, from its safetensors
              file alone and without code of its own. Features are the ``pooler_output``: in DINOv2 and CLIP the class
              token, in Swin, ConvNeXt and ResNet the mean, in ViT what was trained on top of the class token. If the
              checkpoint has no weights for it, features are the class token, as DINO's documentation has it, or without
              one the mean of the patches, as I-JEPA's has it. If the model takes images and text, only its part for
              images is used, before the projection;
            - ``FILE`` or ``FILE#PREFIX``: a checkpoint of a ResNet-18, 34, 50 or 101 with torchvision's names below any
              prefix; the prefix chooses one of several encoders in a file. Its images are taken to be ImageNet's of 224
              pixels, or CIFAR's of 32 pixels if it has a CIFAR stem.

    Returns:
        The encoder, in evaluation mode on the CPU, with its ``preprocessing``.

    Raises:
        ValueError: If there is no such encoder, or its weights cannot be fetched or do not fit.
    """
    text = os.fspath(name)
    kind, _, rest = text.partition(":")
    try:
        # Models get random weights before they get their own.
        with Stage(f"opening {text}", slow_only=True), torch.random.fork_rng(devices=[]):
            if kind in OPENERS and rest:
                return OPENERS[kind](rest).eval()
            if Path(text).is_dir():
                return load_encoder(text)
            if Path(text).is_file() or Path(text.rpartition("#")[0]).is_file():
                return _open_checkpoint(text).eval()
    except ValueError as error:
        message = _one_line(error)
        raise ValueError(message if text in message else f"{text}: {message}") from error
    raise ValueError(f"{text} is no encoder: {missing_path(text)}; want {ENCODER_NAMES}")


def _one_line(error: Exception) -> str:
    """Returns a library's message, which may have many lines, as one line."""
    return " ".join(str(error).split())


@torch.no_grad()
def _make_encoder(backbone: nn.Module, preprocessing: Preprocessing, architecture: str) -> Encoder:
    """Makes an encoder of a backbone, whose width it finds by passing one image.

    Raises:
        ValueError: If the backbone does not take images of the preprocessing's size, or does not return vectors.
    """
    side = preprocessing.size
    try:
        features = backbone.eval()(torch.zeros(1, 3, side, side))
    except Exception as error:  # a model for something else may raise anything
        raise ValueError(f"takes no image of {side} pixels: {_one_line(error)[:300]}") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError("gives no vector for an image, and so cannot be evaluated")
    encoder = Encoder(backbone, features.shape[1])
    encoder.preprocessing, encoder.architecture = preprocessing, architecture
    return encoder


def _open_checkpoint(location: str) -> Encoder:
    """Opens ``FILE`` or ``FILE#PREFIX``."""
    encoder, stem = load_resnet(location)
    if stem == "cifar":
        encoder.preprocessing = Preprocessing(resize=32, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    else:
        encoder.preprocessing = Preprocessing(resize=256, size=224)
    return encoder


def _unknown_model(problem: str, name: str, names: Iterable[str]) -> ValueError:
    """Makes the error for an unknown name, which lists the nearest of ``names``."""
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    return ValueError(f"there is {problem} {name}{'; near are ' * bool(near)}{', '.join(near)}")


def _not_fetched(name: str, error: Exception) -> ValueError:
    """Makes the error for weights that could not be fetched."""
    reason = why_not_fetched() or f"{type(error).__name__}: {_one_line(error)[:300]}"
    return ValueError(f"the weights could not be fetched ({reason}); {name}@FILE takes them from a file")


def _load_weights_from(location: str, backbone: nn.Module, heads: Iterable[str], title: str) -> None:
    """Loads weights from a file into a model without its classifiers.

    Args:
        location: The file, and a prefix if it holds several encoders.
        backbone: The model to load into.
        heads: The names of the classifiers that were cut off, whose weights are left out.
        title: The words for the model in a message.
    """
    head_prefixes = tuple(f"{head}." for head in heads)
    expected = backbone.state_dict()
    weights = read_weights(location, list(expected))
    weights = {name: value for name, value in weights.items() if not name.startswith(head_prefixes)}
    weights = leave_out(weights, lambda name: name not in expected and UNUSED.match(name) is not None, location)
    load_all_weights(backbone, weights, title)


def _open_timm(name: str) -> Encoder:
    """Opens ``NAME`` or ``NAME@FILE`` by timm."""
    name, at, location = name.partition("@")
    with hub_or_cache(needed=not at):
        import timm
        from timm.data import resolve_model_data_config

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown_model("no timm model", architecture, timm.list_models())
    with_weights = timm.list_pretrained(f"{architecture}.*")
    if (tag and name not in with_weights) or not (at or with_weights):
        raise _unknown_model("no file of timm's weights for", name, with_weights)
    try:
        network: Any = timm.create_model(name, pretrained=not at, num_classes=0)
    except Exception as error:  # of many kinds: from the hub, from the network, from files
        raise _not_fetched(f"timm:{name}", error) from error
    if at:
        heads = network.pretrained_cfg.get("classifier") or ()
        _load_weights_from(location, network, (heads,) if isinstance(heads, str) else heads, name)
    config: Any = resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise ValueError(f"takes images of {channels} x {height} x {width}; want 3 channels and a square")
    preprocessing = Preprocessing(
        resize=height if config["crop_mode"] == "squash" else math.floor(height / config["crop_pct"]),
        size=height,
        mean=config["mean"],
        std=config["std"],
        bicubic=config["interpolation"] != "bilinear",
    )
    return _make_encoder(network, preprocessing, name.partition(".")[0])


def _open_torchvision(name: str) -> Encoder:
    """Opens ``NAME`` or ``NAME@FILE`` by torchvision."""
    from torchvision import models

    name, at, location = name.partition("@")
    names = models.list_models(module=models)
    if name not in names:
        raise _unknown_model("no torchvision model", name, names)
    weights: Any = models.get_model_weights(name)["DEFAULT"]
    transforms = weights.transforms()
    (resize,), (size,) = transforms.resize_size, transforms.crop_size
    if at and name in ("googlenet", "inception_v3"):
        raise ValueError("takes no weights from a file: what its images must be like depends on who trained them")
    try:
        image_size = {"image_size": size} if at and name.startswith("vit_") else {}  # as its DEFAULT weights have it
        network = models.get_model(name, weights=None if at else weights, **image_size)
    except Exception as error:  # of many kinds, as above
        raise _not_fetched(f"torchvision:{name}", error) from error
    classifier = [n for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    network.set_submodule(classifier, nn.Identity())
    if at:
        _load_weights_from(location, network, [classifier], name)
    preprocessing = Preprocessing(
        resize=resize,
        size=size,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        bicubic=transforms.interpolation.value != "bilinear",
    )
    return _make_encoder(network, preprocessing, name)


class _Pooled(nn.Module):
    """A vision model of transformers that maps images [B, 3, H, W] to features [B, width]; see :func:`open_encoder`."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.class_token = any(n.endswith(("cls_token", "class_embedding")) for n, _ in model.named_parameters())

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        outputs = self.model(pixel_values=images)
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)  # convolutional models give [B, width, 1, 1]
        hidden = outputs.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self.class_token else hidden.mean(1)


def _open_hugging_face(name: str) -> Encoder:
    """Opens a model of the package transformers."""
    try:
        with hub_or_cache(needed=not Path(name).exists() and find_spec("transformers") is not None):
            transformers = import_module("transformers")
    except ImportError as error:
        raise ValueError("needs the package transformers; pip install transformers") from error
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
        model, loading_info = transformers.AutoModel.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of many kinds, and with many lines
        reason = why_not_fetched() or f"{type(error).__name__}: {_one_line(error)[:300]}"
        raise ValueError(
            f"is no local model, and could not be fetched ({reason}); hf:./folder "
            "takes config.json, preprocessor_config.json and model.safetensors from a folder"
        ) from error
    if model.config.model_type == "vit_mae":
        raise ValueError("hides random parts of its images; timm has MAE's encoders, as timm:vit_base_patch16_224.mae")
    # Nothing here uses the mask token.
    missing = [key for key in loading_info["missing_keys"] if not key.endswith("mask_token")]
    if any(key.startswith("pooler.") for key in missing):
        model.pooler = None  # it is untrained: the checkpoint's model has none
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise ValueError(f"{len(missing)} weights are missing from its file: {', '.join(sorted(missing)[:3])}, ...")
    pooled = _Pooled(getattr(model, "vision_model", model).float())
    return _make_encoder(pooled, _hugging_face_preprocessing(processor), pooled.model.config.to_json_string())


def _hugging_face_preprocessing(config: dict[str, Any]) -> Preprocessing:
    """Translates the configuration of an image processor of transformers.

    Raises:
        ValueError: If the processor does something that our preprocessing cannot do.
    """
    size, crop = config.get("size") or {}, config.get("crop_size") or {}
    resize = size.get("shortest_edge") or size.get("height")
    side = crop.get("height") if config.get("do_center_crop") else resize
    crop_share = config.get("crop_pct")  # ConvNeXt's: only small images are enlarged for a crop
    if resize and crop_share and resize < 384:
        resize = int(resize / crop_share)
    scale = 255 * config.get("rescale_factor", 1 / 255)
    plain = config.get("do_resize", True) and config.get("do_rescale", True) and abs(scale - 1) < 1e-6
    does_more = any(config.get(key) for key in ("do_pad", "rescale_offset", "include_top"))  # two are EfficientNet's
    square = size.get("width") == size.get("height") and crop.get("width") == crop.get("height")
    if does_more or not (plain and square and resize and side):
        raise ValueError("its image processor does more or less than resize, crop the centre and normalise from [0, 1]")
    mean, std = (0.0,) * 3, (1.0,) * 3
    if config.get("do_normalize", True):
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    return Preprocessing(resize=resize, size=side, mean=mean, std=std, bicubic=config.get("resample") != PIL_BILINEAR)


OPENERS = {"timm": _open_timm, "torchvision": _open_torchvision, "hf": _open_hugging_face}
"""Maps each kind of name, ``KIND:NAME``, to the function that opens it."""
