"""Opens any encoder by its name: of a run, of timm, torchvision or Hugging Face, or in a checkpoint file."""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infomax.data.augmentation.views import Preprocessing
from infomax.models.backbone_names import ENCODER_NAMES
from infomax.models.checkpoint_files import open_checkpoint
from infomax.models.encoder_files import load_encoder_file
from infomax.models.encoders import Encoder, EncoderArguments, library_encoder, load_encoder
from infomax.models.layouts import UNUSED, drop_zero_biases, is_square
from infomax.models.library_backbones import (
    build_timm,
    build_torchvision,
    import_transformers,
    one_line,
    pooled_hugging_face,
    unknown_model,
)
from infomax.models.state_dicts import find_weights, leave_out, load_all_weights, parse_location
from infomax.runtime.hub import hub_host, hub_or_cache, is_unknown, is_unreached, was_reachable, why_unreached
from infomax.runtime.near_names import missing_path
from infomax.runtime.stages import Stage
from infomax.runtime.text import note

PIL_BILINEAR = 2


def open_encoder(name: str | PathLike[str]) -> Encoder:
    """Opens a trained encoder by its name, with all of its weights.

    If a model was trained on images that were squeezed into a square, its preprocessing crops their centre instead.

    Args:
        name: One of these:

            - a run folder, or a file of safetensors that ``infomax export`` has written;
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
            - ``FILE`` or ``FILE#PREFIX``: a checkpoint of a ResNet, ResNeXt, vision transformer, DINOv3 transformer or
              ConvNeXt, by the names of timm, torchvision, DINO, DINOv2, DINOv3, MAE, MoCo v3, I-JEPA, lightly,
              solo-learn, VISSL or mmselfsup, below any prefix; the prefix chooses one of several encoders in a file.
              The shapes say what is built; a line says what they do not tell: the images' size and statistics, and the
              number of heads or a small stem's padding, which ``FILE#heads=12`` and ``FILE#padding=2`` give otherwise.

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
                return load_encoder_file(text) or open_checkpoint(text).eval()
    except ValueError as error:
        message = one_line(error)
        raise ValueError(message if text in message else f"{text}: {message}") from error
    raise ValueError(f"{text} is no encoder: {missing_path(text)}; want {ENCODER_NAMES}")


def _make_encoder(network: nn.Module, preprocessing: Preprocessing, settings: EncoderArguments) -> Encoder:
    """Makes an encoder of a network of another library.

    Raises:
        ValueError: If the network does not take images of the preprocessing's size, or does not return vectors.
    """
    encoder = library_encoder(network, settings, size=preprocessing.size)
    encoder.preprocessing = preprocessing
    return encoder


FETCH = {
    "timm": "import timm, torch; torch.save(timm.create_model('{name}', pretrained=True).state_dict(), 'weights.pth')",
    "torchvision": "import torch, torchvision; torch.save(torchvision.models.get_model('{name}', "
    "weights='DEFAULT').state_dict(), 'weights.pth')",
    "hf": "from transformers import AutoImageProcessor, AutoModel; [c.from_pretrained('{name}')"
    ".save_pretrained('folder') for c in (AutoImageProcessor, AutoModel)]",
}
"""Programs of one line that fetch a library's weights on a machine with a network, and write them into files."""


def _not_fetched(library: str, name: str, error: Exception) -> ValueError:
    """Makes the error for weights that could not be fetched, which says how to fetch them on another machine."""
    if library == "hf" and is_unknown(error):
        return ValueError(f"hf:{name}: is the name right? {hub_host()[0]} has no such public model")
    asks_the_hub = library != "torchvision" and not Path(name).exists()
    if not is_unreached(error) and not (asks_the_hub and not was_reachable()):  # transformers may hide the cause
        hint = f"{library}:{name}@FILE takes them from a file"
        if library == "hf":
            hint = "hf:./folder wants config.json, preprocessor_config.json and model.safetensors"
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        return ValueError(f"{library}:{name}: cannot be opened: {reason}; {hint}")
    program = FETCH[library].format(name=name)
    reason = "download.pytorch.org cannot be reached" if library == "torchvision" else why_unreached()
    advice, place = "fetch it", f"{library}:{name}@weights.pth"
    if library == "hf":
        advice, place = "is the name right? Then fetch it", "hf:./folder"
    return ValueError(
        f'{library}:{name}: {advice} on a machine with a network, by python -c "{program}", and name {place} here: '
        f"{reason}"
    )


def _read_weights_for(backbone: nn.Module, location: str, heads: Iterable[str]) -> dict[str, Tensor]:
    """Reads the weights of a model without its classifiers from a file.

    Args:
        backbone: The model that they are for.
        location: The file, and a prefix if it holds several encoders.
        heads: The names of the classifiers that were cut off, whose weights are left out.
    """
    head_prefixes = tuple(f"{head}." for head in heads)
    expected = backbone.state_dict()
    place = parse_location(location)
    if place.heads is not None or place.padding is not None:
        raise ValueError(f"heads and padding are for a file alone, as {place.file}#heads=6: a name says them")
    weights = find_weights(place, list(expected)).weights
    if not any(name.endswith(".attn.q_bias") for name in expected):
        weights = drop_zero_biases(weights)
    weights = {name: value for name, value in weights.items() if not name.startswith(head_prefixes)}
    return leave_out(weights, lambda name: name not in expected and UNUSED.match(name) is not None, location)


def _size_of_positions(network: Any, weights: Mapping[str, Tensor]) -> int | None:
    """Returns the size of images that the positions in ``weights`` are made for, in pixels.

    It is None if ``network`` has positions for this size already, or none at all.
    """
    own, given = getattr(network, "pos_embed", None), weights.get("pos_embed")
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if own is None or given is None or not isinstance(patch, tuple) or own.ndim != 3 or given.ndim != 3:
        return None
    tokens = 0 if getattr(network, "no_embed_class", False) else getattr(network, "num_prefix_tokens", 0)
    if own.shape[1] == given.shape[1] or own.shape[2] != given.shape[2] or not is_square(given.shape[1] - tokens):
        return None
    return math.isqrt(given.shape[1] - tokens) * patch[0]


def _open_timm(name: str) -> Encoder:
    """Opens ``NAME`` or ``NAME@FILE`` by timm."""
    name, at, location = name.partition("@")
    import timm
    from timm.data import resolve_model_data_config

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_model("no timm model", architecture, timm.list_models())
    with_weights = timm.list_pretrained(f"{architecture}.*")
    if (tag and name not in with_weights) or not (at or with_weights):
        raise unknown_model("no file of timm's weights for", name, with_weights)
    try:
        with hub_or_cache(needed=not at):
            network = build_timm(name, image_size=None, pooling=None, pretrained=not at)
    except Exception as error:  # of many kinds: from the hub, from the network, from files
        raise _not_fetched("timm", name, error) from error
    size = None
    if at:
        heads = network.pretrained_cfg.get("classifier") or ()
        weights = _read_weights_for(network, location, (heads,) if isinstance(heads, str) else heads)
        if size := _size_of_positions(network, weights):
            note(f"{location}: has positions for images of {size} pixels, which are taken instead of {name}'s own")
            network = build_timm(name, image_size=size, pooling=None)
        load_all_weights(network, weights, name)
    config: Any = resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    if size:
        height = width = size
    if channels != 3 or height != width:
        raise ValueError(f"takes images of {channels} x {height} x {width}; want 3 channels and a square")
    preprocessing = Preprocessing(
        resize=height if config["crop_mode"] == "squash" else math.floor(height / config["crop_pct"]),
        size=height,
        mean=config["mean"],
        std=config["std"],
        bicubic=config["interpolation"] != "bilinear",
    )
    return _make_encoder(network, preprocessing, _arguments(f"timm:{name}"))


def _open_torchvision(name: str) -> Encoder:
    """Opens ``NAME`` or ``NAME@FILE`` by torchvision."""
    from torchvision import models

    name, at, location = name.partition("@")
    names = models.list_models(module=models)
    if name not in names:
        raise unknown_model("no torchvision model", name, names)
    weights: Any = models.get_model_weights(name)["DEFAULT"]
    transforms = weights.transforms()
    (resize,), (size,) = transforms.resize_size, transforms.crop_size
    if at and name in ("googlenet", "inception_v3"):
        raise ValueError("takes no weights from a file: what its images must be like depends on who trained them")
    image_size = size if name.startswith("vit_") else None  # as its DEFAULT weights have it
    try:
        with redirect_stdout(StringIO()):  # torch.hub prints where it downloads to
            network, classifier = build_torchvision(name, image_size=image_size, weights=None if at else weights)
    except Exception as error:  # of many kinds, as above
        raise _not_fetched("torchvision", name, error) from error
    if at:
        load_all_weights(network, _read_weights_for(network, location, [classifier]), name)
    preprocessing = Preprocessing(
        resize=resize,
        size=size,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        bicubic=transforms.interpolation.value != "bilinear",
    )
    return _make_encoder(network, preprocessing, _arguments(f"torchvision:{name}", image_size=image_size))


def _open_hugging_face(name: str) -> Encoder:
    """Opens a model of the package transformers."""
    transformers = import_transformers(name)
    try:
        with hub_or_cache(needed=not Path(name).exists()):
            processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
            model, loading_info = transformers.AutoModel.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # of many kinds, and with many lines
        raise _not_fetched("hf", name, error) from error
    pooled = pooled_hugging_face(model, None)
    # Nothing here uses the mask token.
    missing = [key for key in loading_info["missing_keys"] if not key.endswith("mask_token")]
    pooling = None
    if any(key.startswith("pooler.") for key in missing):  # it is untrained: the checkpoint's model has none
        pooling = "token" if pooled.class_token else "avg"
        pooled = pooled_hugging_face(model, pooling)
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise ValueError(f"{len(missing)} weights are missing from its file: {', '.join(sorted(missing)[:3])}, ...")
    config = pooled.model.config.to_json_string()
    settings = _arguments(f"hf:{name}", pooling=pooling, architecture_config=config)
    return _make_encoder(pooled, _hugging_face_preprocessing(processor), settings)


def _arguments(backbone: str, **options: Any) -> EncoderArguments:
    """Returns the arguments that build a network of another library untrained."""
    return EncoderArguments(backbone=backbone, stem="imagenet", seed=0, **options)


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
