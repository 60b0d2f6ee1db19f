"""Opens the encoder in a checkpoint file: the names and shapes of its weights tell which it is."""

import re
from dataclasses import asdict

from infomax.data.augmentation.views import CIFAR10_MEAN, CIFAR10_STD, Preprocessing
from infomax.models.architectures import CIFAR_SIZE, CROPPED_BELOW, CROPPED_SHARE, FileArchitecture, describe
from infomax.models.encoders import Encoder, build_encoder
from infomax.models.layouts import drop_zero_biases, is_no_encoder
from infomax.models.state_dicts import find_encoder, leave_out, load_all_weights, parse_location
from infomax.runtime.text import note


def open_checkpoint(text: str) -> Encoder:
    """Opens ``FILE`` or ``FILE#PREFIX,heads=N,padding=N``.

    A line on the standard error says what the encoder is taken to be.

    Args:
        text: The file, and what it does not tell.

    Returns:
        The encoder, in training mode on the CPU, with its ``preprocessing``.

    Raises:
        ValueError: If the file cannot be read, if it holds no encoder or many of them, or if the weights are not those
            of an architecture that can be built here.
    """
    location = parse_location(text)
    found_encoder = find_encoder(location)
    weights = drop_zero_biases(found_encoder.weights)
    weights = leave_out(weights, lambda name: is_no_encoder(found_encoder.layout.family, name), text)
    try:
        architecture = describe(weights, found_encoder, location)
        encoder = build_encoder(**asdict(architecture.settings))
        load_all_weights(encoder.backbone, weights, architecture.title)
    except ValueError as error:
        message = str(error).replace("FILE", location.file)
        below = f" below {found_encoder.prefix!r}" if found_encoder.prefix else ""
        hint = (
            "" if re.search("@|#|^(heads|padding)", message) else f"; timm:NAME@{location.file} loads another model's"
        )
        raise ValueError(f"{location.file}{below}: {message}{hint}") from error
    encoder.preprocessing = preprocessing_of(architecture)
    shown = encoder.preprocessing
    statistics = "CIFAR-10's" if shown.mean == CIFAR10_MEAN else "ImageNet's"
    resized = f"resized to {shown.resize} and cropped to {shown.size}" if shown.resize > shown.size else "resized to "
    resized += f"{shown.size}" * (shown.resize == shown.size)
    choices = f"; {architecture.choices}" * bool(architecture.choices)
    note(f"{text}: {architecture.title}{choices}; images are {resized} pixels, with {statistics} mean and deviation")
    return encoder


def preprocessing_of(architecture: FileArchitecture) -> Preprocessing:
    """Returns the usual preprocessing of an encoder whose file says nothing about it.

    Args:
        architecture: What the weights tell about the encoder; images of 32 pixels are taken to be CIFAR's.
    """
    size = architecture.size
    if size == CIFAR_SIZE:
        return Preprocessing(resize=size, size=size, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    resize = round(size / CROPPED_SHARE) if CIFAR_SIZE < size < CROPPED_BELOW else size
    return Preprocessing(resize=resize, size=size)
