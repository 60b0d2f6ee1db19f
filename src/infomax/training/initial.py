"""Initial weights: opens the encoder that ``--init`` names, adapts a recipe to it, and keeps its weights for the run.

In: the options. Out: a recipe whose architecture and preprocessing are the initial encoder's, and its weights.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infomax.data.pixel_format import MeasuredPixels
from infomax.models.backbone_names import INITIAL_FILE, library_of
from infomax.models.encoders import Encoder, build_encoder, fingerprint
from infomax.models.foreign_files import read_tensors
from infomax.models.input_channels import adapt_input_weights, first_convolution
from infomax.models.pretrained import open_encoder
from infomax.models.state_dicts import load_all_weights
from infomax.recipes.adapting import adapting_epochs, with_adapting_defaults
from infomax.recipes.customise import chosen_epochs, customise, start_from
from infomax.recipes.experiment import Experiment
from infomax.recipes.pixels import with_pixels
from infomax.recipes.schema import EncoderSettings, Recipe
from infomax.runs.run_folder import Run
from infomax.runtime.text import note


def open_initial(init: str | None) -> Encoder | None:
    """Opens the encoder that a training is to start from; None if there is none.

    Raises:
        ValueError: if there is no such encoder, or its weights do not fit or cannot be fetched.
    """
    return None if init is None else open_encoder(init)


def settle_recipe(
    experiment: Experiment,
    *,
    images: int | None,
    initial: Encoder | None,
    changes: Mapping[str, Any],
    pixels: MeasuredPixels | None = None,
) -> Recipe:
    """Returns an experiment's recipe with the initial encoder's architecture and a user's changes.

    What a backbone of another library leaves open is settled: a transformer's pooling and the size that its positions
    are made for, and the configuration of a model of transformers.

    Args:
        experiment: The recipe with what a paper did with it.
        images: Number of images in the data set; None if it is not known.
        initial: The encoder that ``changes["init"]`` names.
        changes: The arguments of :func:`infomax.recipes.customise.customise`.
        pixels: The pixel format and the normalisation of images that are not 8-bit RGB.

    Raises:
        ValueError: if a setting is not possible, or contradicts the initial encoder.
    """
    epochs = chosen_epochs(changes)
    if initial is None:
        recipe = with_pixels(experiment.recipe(images=images, epochs=epochs), pixels)
        return _settle_backbone(customise(recipe, **changes))
    recipe = experiment.recipe(images=images, epochs=epochs or adapting_epochs(experiment, images))
    settings = recipe.encoder.with_architecture(vars(initial.settings))
    settings = replace(settings, init=changes["init"], init_fingerprint=fingerprint(initial))
    _check_backbone(changes, settings)
    started = with_pixels(start_from(recipe, settings, initial.preprocessing), pixels)
    settings, adapted = started.encoder, with_adapting_defaults(started)
    others: dict[str, Any] = {**changes, "backbone": None}
    recipe = customise(adapted, **others)
    for name, value in settings.architecture().items():
        if name != "pooling" and getattr(recipe.encoder, name) != value:
            raise ValueError(
                f"--set encoder.{name}={getattr(recipe.encoder, name)} contradicts --init {settings.init}, whose "
                f"{name} is {value}: leave out one of them"
            )
    return recipe


def _check_backbone(changes: Mapping[str, Any], settings: EncoderSettings) -> None:
    """Raises ValueError if the user names another backbone than the initial encoder's; a tag of weights may differ."""
    backbone = changes.get("backbone")
    if backbone is None or backbone == settings.backbone:
        return
    if library_of(backbone) == "timm" and settings.backbone.partition(".")[0] == backbone:
        return
    raise ValueError(
        f"--backbone {backbone} contradicts --init {settings.init}, whose backbone is {settings.backbone}: leave out "
        "--backbone"
    )


def _settle_backbone(recipe: Recipe) -> Recipe:
    """Returns the recipe with all that a backbone of another library needs, so that it can be built anywhere."""
    encoder = recipe.encoder
    if library_of(encoder.backbone) is None:
        return recipe
    if encoder.image_size is None:
        side = recipe.views.global_crops[0].size
        with torch.device("meta"):
            image_size = _position_size(encoder, side)
        encoder = replace(encoder, image_size=image_size)
    with torch.device("meta"):
        settled = build_encoder(**encoder.architecture(), seed=recipe.seed).settings
    return replace(recipe, encoder=encoder.with_architecture(vars(settled)))


def _position_size(encoder: EncoderSettings, side: int) -> int | None:
    """Returns the size that a network's positions are to be made for: the views'; None if it has no positions."""
    if library_of(encoder.backbone) == "hf":
        return None
    arguments: dict[str, Any] = {**encoder.architecture(), "image_size": side}
    try:
        build_encoder(**arguments, seed=0)
    except ValueError as error:
        if "encoder.image_size must be none" in str(error):
            return None
        raise
    return side


def initial_weights(initial: Encoder, recipe: Recipe) -> dict[str, Tensor]:
    """Returns the weights of the initial encoder for the encoder of a recipe, which may pool otherwise.

    Args:
        initial: The initial encoder.
        recipe: The recipe, of :func:`settle_recipe`.

    Raises:
        ValueError: naming the weights, if they do not fit.
    """
    weights = {name: tensor.detach().contiguous() for name, tensor in initial.backbone.state_dict().items()}
    with torch.device("meta"):
        expected = build_encoder(**recipe.encoder.architecture(), seed=0).backbone
    if recipe.encoder.channels != initial.settings.channels:
        name = f"{first_convolution(initial.backbone)[0]}.weight"
        weights[name] = adapt_input_weights(weights[name], recipe.encoder.channels)
    if recipe.encoder.pooling != initial.settings.pooling:
        names = expected.state_dict().keys()
        unused = [name for name in weights if name not in names]
        if unused:
            note(f"{recipe.encoder.init}: left out, as pooling {recipe.encoder.pooling} does without: {unused[0]}, ...")
        weights = {name: value for name, value in weights.items() if name in names}
    with warnings.catch_warnings(action="ignore"):  # that nothing is copied
        load_all_weights(expected, weights, recipe.encoder.backbone)
    return weights


def read_initial_weights(run: Run) -> dict[str, Tensor]:
    """Returns the initial weights that a run folder keeps; there are some if its recipe has ``encoder.init``.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    return read_tensors(run.path / INITIAL_FILE)


def describe_initial(recipe: Recipe, preprocessing_size: int, channels: int = 3) -> str:
    """Returns one line on what a run takes from its initial encoder.

    Args:
        recipe: The recipe with all changes.
        preprocessing_size: Size of the images that the initial encoder was trained for, in pixels.
        channels: Channels of those images.
    """
    encoder, size = recipe.encoder, recipe.views.global_crops[0].size
    normalised = "normalised as the images that it was trained on"
    if not recipe.preprocessing.pixel_format.is_rgb:
        normalised = f"its first layer for RGB is adapted to {encoder.channels} channels, normalised by the new images"
        if channels == encoder.channels:
            normalised = "normalised by the new images"
    reason = "which is their size too" if size == preprocessing_size else f"where those had {preprocessing_size}"
    hint = "; --image-size changes it" if size == preprocessing_size else ""
    return (
        f"starts from {encoder.init} ({encoder.backbone}, {encoder.init_fingerprint}): {normalised}, views "
        f"of {size} pixels, {reason}{hint}"
    )
