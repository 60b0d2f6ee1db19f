"""Gives networks that were made for RGB a first convolution for any number of channels."""

from typing import Any

import torch
from torch import Tensor, nn

RGB_CHANNELS = 3


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Returns the name and the module of a network's first convolution, which takes its images.

    Raises:
        ValueError: if it has none.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise ValueError("it has no convolution that takes images, and cannot have other channels")


def set_input_channels(network: nn.Module, channels: int) -> None:
    """Puts an untrained convolution for another number of channels in the place of a network's first one.

    Its weights are random. Their spread keeps the variance of its outputs: that of the old ones, times the root of how
    many fewer channels it sums over.

    Args:
        network: A network whose weights are random.
        channels: Channels of the images.

    Raises:
        ValueError: if the network has no convolution, or one in groups.
    """
    name, old = first_convolution(network)
    if old.groups != 1:
        raise ValueError(f"its first convolution, {name}, is in {old.groups} groups, and cannot have other channels")
    keys: Any = ("out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")
    arguments: dict[str, Any] = {key: getattr(old, key) for key in keys}
    place = {"device": old.weight.device, "dtype": old.weight.dtype}
    new = type(old)(channels, **arguments, bias=old.bias is not None, **place)
    with torch.no_grad():
        std = 0.0 if old.weight.is_meta else float(old.weight.std()) * (old.in_channels / channels) ** 0.5
        new.weight.normal_(0.0, std)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    network.set_submodule(name, new)


def adapt_input_weights(weight: Tensor, channels: int) -> Tensor:
    """Returns the weights of a first convolution for another number of channels, as timm adapts them.

    For one channel, the weights of red, green and blue are added: a gray image then gives what it gave as RGB. For
    others they are repeated and scaled by 3 over the number, so that outputs have about the same size.

    Args:
        weight: The weights [out, 3, height, width].
        channels: Channels of the images.

    Raises:
        ValueError: if the weights do not take RGB.
    """
    from timm.models import adapt_input_conv

    if weight.shape[1] != RGB_CHANNELS:
        raise ValueError(
            f"the initial encoder takes {weight.shape[1]} channels and the images have {channels}; only those of RGB "
            "are adapted"
        )
    return adapt_input_conv(channels, weight).to(weight.dtype).contiguous()
