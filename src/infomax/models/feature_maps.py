"""Gives the last feature map of an encoder: what a convolutional network pools, or the patch tokens of a transformer.

Models of timm, ours among them, have a function for it, and those of transformers return their last hidden state. Of
any other network, the map is the output of the last module that gives one of the features' width.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.models.encoders import Encoder
from infomax.models.library_backbones import one_line

FeatureMap = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b d rows columns"]]


@torch.no_grad()
def feature_map(encoder: Encoder, size: int, *, title: str = "the encoder") -> tuple[FeatureMap, tuple[int, int]]:
    """Returns the function from normalised square images to the encoder's last feature map, and the map's size.

    The function computes on the device of the encoder, and in its mode.

    Args:
        encoder: The encoder, in evaluation mode.
        size: The side of the images, in pixels.
        title: The words for the encoder in a message.

    Returns:
        The function, and the numbers of rows and columns of the map.

    Raises:
        ValueError: If the encoder takes no images of this size, or gives no map of several cells for them.

    Example:
        >>> import torch
        >>> from infomax.models.encoders import build_encoder
        >>> from infomax.models.feature_maps import feature_map
        >>> to_map, cells = feature_map(build_encoder("small", seed=0).eval(), 32)
        >>> cells, tuple(to_map(torch.zeros(2, 3, 32, 32)).shape)
        ((4, 4), (2, 128, 4, 4))
    """
    parameter = next(encoder.parameters())
    channels = len(encoder.preprocessing.mean) if hasattr(encoder, "preprocessing") else encoder.settings.channels
    image = torch.zeros(1, channels, size, size, dtype=parameter.dtype, device=parameter.device)
    try:
        to_map = _choose(encoder, image)
        shape = None if to_map is None else to_map(image).shape
    except Exception as error:  # a model for another size may raise anything
        raise ValueError(f"{title} takes no images of {size} pixels: {one_line(error)[:200]}") from error
    if to_map is None or shape is None:
        raise ValueError(f"{title} gives no feature map of several cells for images of {size} pixels")
    if shape[2] * shape[3] < 2:
        raise ValueError(f"{title} gives a feature map of one cell for images of {size} pixels; larger ones give more")
    return to_map, (shape[2], shape[3])


def _choose(encoder: Encoder, image: Tensor) -> FeatureMap | None:
    """Returns the function that gives the map; None if there is none."""
    network: Any = encoder.backbone
    while not hasattr(network, "forward_features") and len(children := list(network.children())) == 1:
        if hasattr(network, "class_token") and hasattr(network, "model"):  # a model of transformers in our wrapper
            return _of_hidden_state(network)
        (network,) = children
    if hasattr(network, "forward_features"):
        return _of_timm(network)
    if isinstance(getattr(network, "class_token", None), nn.Parameter) and hasattr(network, "encoder"):
        recorded = _recorded(encoder, network.encoder)  # a vision transformer of torchvision
        return lambda images: _from_tokens(recorded(images), prefix=1)
    module = _last_map_module(encoder, image)
    return None if module is None else _recorded(encoder, module)


def _of_timm(network: Any) -> FeatureMap:
    def to_map(images: Tensor) -> Tensor:
        features = network.forward_features(images)
        if features.ndim == 3:
            return _from_tokens(features, prefix=getattr(network, "num_prefix_tokens", 0))
        is_channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        return features.permute(0, 3, 1, 2) if is_channels_last else features

    return to_map


def _of_hidden_state(network: Any) -> FeatureMap:
    registers = getattr(network.model.config, "num_register_tokens", None) or 0
    prefix = int(network.class_token) + registers

    def to_map(images: Tensor) -> Tensor:
        hidden = network.model(pixel_values=images).last_hidden_state
        return hidden if hidden.ndim == 4 else _from_tokens(hidden, prefix=prefix)

    return to_map


def _from_tokens(tokens: Float[Tensor, "b n d"], *, prefix: int) -> Float[Tensor, "b d side side"]:
    """Returns the patch tokens of square images as a map, without the tokens in front of them."""
    patches = tokens[:, prefix:]
    side = math.isqrt(patches.shape[1])
    if side**2 != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} tokens are no square of patches")
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _recorded(encoder: Encoder, module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns a function that passes images through an encoder and returns the output of one of its modules."""

    def forward(images: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            encoder(images)
        finally:
            hook.remove()
        return outputs[-1]

    return forward


def _last_map_module(encoder: Encoder, image: Tensor) -> nn.Module | None:
    """Returns the last module, in the order of computing, whose output is a map as wide as the features."""
    found: list[nn.Module] = []

    def look(module: nn.Module, _inputs: Any, output: Any) -> None:
        is_map = isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == encoder.width
        if is_map and output.shape[2] * output.shape[3] > 1:
            found.append(module)

    hooks = [module.register_forward_hook(look) for module in encoder.backbone.modules()]
    try:
        encoder(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1] if found else None
