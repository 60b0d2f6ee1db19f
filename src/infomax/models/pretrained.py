"""Any encoder by one word: of a run, of timm, torchvision or Hugging Face, or a ResNet in somebody's checkpoint."""

import math
import os
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.data.augmentation.views import CIFAR10_MEAN, CIFAR10_STD, Preprocessing
from infomax.models.encoders import Encoder, load_encoder
from infomax.models.state_dicts import fill, load_resnet, read_weights

LINEAR = 2  # PIL's number
WANTED = "a run folder, a checkpoint file of a ResNet, timm:NAME, torchvision:NAME or hf:NAME"


def open_encoder(name: str | PathLike[str]) -> Encoder:
    """A trained encoder, in evaluation mode on the CPU; its ``preprocessing`` says what it takes.

    Models whose images were squeezed into a square are shown the centre of theirs.

    Args:
        name: One of

            - a run folder;
            - ``timm:resnet50`` or ``timm:resnet50.a1_in1k``: timm's model without classifier, its features pooled;
            - ``torchvision:resnet50``: torchvision's best weights, and what enters the last layer;
            - ``timm:NAME@FILE`` or ``torchvision:NAME@FILE``: the same with weights from a file, whose names are the
              library's own below any prefix;
            - ``hf:facebook/dinov2-small`` or ``hf:./folder``: a model of the package transformers, its safetensors
              alone, and no code of its own. Features are the ``pooler_output`` (DINOv2 and CLIP: the class token; Swin,
              ConvNeXt, ResNet: the mean; ViT: what was trained on top of the class token), unless the checkpoint has no
              weights for it: then the class token, as DINO's documentation has it, or without one the mean of the
              patches, as I-JEPA's has it. Of a model of images and text the part for images, before its projection;
            - ``FILE`` or ``FILE#PREFIX``: a checkpoint of a ResNet-18, 34, 50 or 101 with torchvision's names, below
              any prefix, where a file holds two the one to take. Its images are ImageNet's of 224 pixels, or CIFAR's
              of 32 with a CIFAR stem.

    Raises:
        ValueError: if there is no such encoder, or its weights cannot be fetched or do not fit; never loads a part.
    """
    text = os.fspath(name)
    kind, _, rest = text.partition(":")
    try:
        with torch.random.fork_rng(devices=[]):  # models are drawn at random before their weights come
            if kind in OPENERS and rest:
                return OPENERS[kind](rest).eval()
            if Path(text).is_dir():
                return load_encoder(text)
            if Path(text).is_file() or Path(text.rpartition("#")[0]).is_file():
                return _open_checkpoint(text).eval()
    except ValueError as error:
        told = _line(error)
        raise ValueError(told if text in told else f"{text}: {told}") from error
    raise ValueError(f"{text} is no encoder, nor a file or folder; want {WANTED}")


def _line(error: Exception) -> str:
    """A library's message, which may have many lines, as one."""
    return " ".join(str(error).split())


@torch.no_grad()
def _encoder(backbone: nn.Module, how: Preprocessing, architecture: str) -> Encoder:
    """The backbone with its width, which an image of the right size tells."""
    try:
        features = backbone.eval()(torch.zeros(1, 3, how.size, how.size))
    except Exception as error:  # whatever a model raises that was made for something else
        raise ValueError(f"takes no image of {how.size} pixels: {_line(error)[:300]}") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError("gives no vector for an image, and so cannot be evaluated")
    encoder = Encoder(backbone, features.shape[1])
    encoder.preprocessing, encoder.architecture = how, architecture
    return encoder


def _open_checkpoint(place: str) -> Encoder:
    encoder, stem = load_resnet(place)
    how = Preprocessing(resize=256, size=224)
    if stem == "cifar":
        how = Preprocessing(resize=32, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    encoder.preprocessing = how
    return encoder


def _unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return ValueError(f"there is {what} {name}{'; near are ' * bool(near)}{', '.join(near)}")


def _not_fetched(name: str, error: Exception) -> ValueError:
    why = f"{type(error).__name__}: {_line(error)[:300]}"
    return ValueError(f"the weights could not be fetched ({why}); {name}@FILE takes them from a file")


def _fill_from(place: str, backbone: nn.Module, heads: Iterable[str], what: str) -> None:
    """Weights from a file into a model whose classifiers, called ``heads``, are cut off."""
    outside = tuple(f"{head}." for head in heads)
    weights = read_weights(place, list(backbone.state_dict()))
    fill(backbone, {name: value for name, value in weights.items() if not name.startswith(outside)}, what)


def _open_timm(name: str) -> Encoder:
    import timm
    from timm.data import resolve_model_data_config

    name, at, place = name.partition("@")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown("no timm model", architecture, timm.list_models())
    tagged = timm.list_pretrained(f"{architecture}.*")
    if (tag and name not in tagged) or not (at or tagged):
        raise _unknown("no file of timm's weights for", name, tagged)
    try:
        network: Any = timm.create_model(name, pretrained=not at, num_classes=0)
    except Exception as error:  # of many kinds: of the hub, of the network, of files
        raise _not_fetched(f"timm:{name}", error) from error
    if at:
        heads = network.pretrained_cfg.get("classifier") or ()
        _fill_from(place, network, (heads,) if isinstance(heads, str) else heads, name)
    config: Any = resolve_model_data_config(network)
    channels, size, width = config["input_size"]
    if channels != 3 or size != width:
        raise ValueError(f"takes images of {channels} x {size} x {width}; want 3 channels and a square")
    resize = size if config["crop_mode"] == "squash" else math.floor(size / config["crop_pct"])
    numbers = {"mean": config["mean"], "std": config["std"], "bicubic": config["interpolation"] != "bilinear"}
    return _encoder(network, Preprocessing(resize=resize, size=size, **numbers), name.partition(".")[0])


def _open_torchvision(name: str) -> Encoder:
    from torchvision import models

    name, at, place = name.partition("@")
    if name not in (known := models.list_models(module=models)):
        raise _unknown("no torchvision model", name, known)
    weights: Any = models.get_model_weights(name)["DEFAULT"]
    shown = weights.transforms()
    (resize,), (size,) = shown.resize_size, shown.crop_size
    if at and name in ("googlenet", "inception_v3"):
        raise ValueError("takes no weights from a file: what its images must be like depends on who trained them")
    try:
        sized = {"image_size": size} if at and name.startswith("vit_") else {}  # as its DEFAULT weights have it
        network = models.get_model(name, weights=None if at else weights, **sized)
    except Exception as error:  # of many kinds, as above
        raise _not_fetched(f"torchvision:{name}", error) from error
    classifier = [n for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    network.set_submodule(classifier, nn.Identity())
    if at:
        _fill_from(place, network, [classifier], name)
    numbers = {"mean": tuple(shown.mean), "std": tuple(shown.std), "bicubic": shown.interpolation.value != "bilinear"}
    return _encoder(network, Preprocessing(resize=resize, size=size, **numbers), name)


class _Pooled(nn.Module):
    """A vision model of transformers: images [B, 3, H, W] to features [B, width]; see :func:`open_encoder`."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.class_token = any(n.endswith(("cls_token", "class_embedding")) for n, _ in model.named_parameters())

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        outputs = self.model(pixel_values=images)
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)  # of convolutional models [B, width, 1, 1]
        hidden = outputs.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self.class_token else hidden.mean(1)


def _open_hugging_face(name: str) -> Encoder:
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise ValueError("needs the package transformers; pip install transformers") from error
    try:
        shown = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
        model, found = transformers.AutoModel.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of many kinds, and many lines
        raise ValueError(
            f"is no local model, and could not be fetched ({type(error).__name__}: {_line(error)[:300]}); hf:./folder "
            "takes config.json, preprocessor_config.json and model.safetensors from a folder"
        ) from error
    if model.config.model_type == "vit_mae":
        raise ValueError("hides random parts of its images; timm has MAE's encoders, as timm:vit_base_patch16_224.mae")
    missing = [key for key in found["missing_keys"] if not key.endswith("mask_token")]  # which nothing here uses
    if any(key.startswith("pooler.") for key in missing):
        model.pooler = None  # untrained: the checkpoint is of a model that has none
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise ValueError(f"{len(missing)} weights are missing from its file: {', '.join(sorted(missing)[:3])}, ...")
    pooled = _Pooled(getattr(model, "vision_model", model).float())
    return _encoder(pooled, _shown(shown), pooled.model.config.to_json_string())


def _shown(config: dict[str, Any]) -> Preprocessing:
    """What the image processor of a model of transformers does, as far as we can do the same."""
    size, crop = config.get("size") or {}, config.get("crop_size") or {}
    resize = size.get("shortest_edge") or size.get("height")
    side = crop.get("height") if config.get("do_center_crop") else resize
    share = config.get("crop_pct")  # ConvNeXt's: only small images are enlarged for a crop
    if resize and share and resize < 384:
        resize = int(resize / share)
    scale = 255 * config.get("rescale_factor", 1 / 255)
    plain = config.get("do_resize", True) and config.get("do_rescale", True) and abs(scale - 1) < 1e-6
    more = any(config.get(key) for key in ("do_pad", "rescale_offset", "include_top"))  # the last two EfficientNet's
    square = size.get("width") == size.get("height") and crop.get("width") == crop.get("height")
    if more or not (plain and square and resize and side):
        raise ValueError("its image processor does more or less than resize, crop the centre and normalise from [0, 1]")
    mean, std = (0.0,) * 3, (1.0,) * 3
    if config.get("do_normalize", True):
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    return Preprocessing(resize=resize, size=side, mean=mean, std=std, bicubic=config.get("resample") != LINEAR)


OPENERS = {"timm": _open_timm, "torchvision": _open_torchvision, "hf": _open_hugging_face}
