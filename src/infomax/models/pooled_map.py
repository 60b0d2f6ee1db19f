"""Keeps the feature map that an encoder pools into its features, so that one pass gives both.

A hook on the pooling layer does it, so that the encoder remains what it is: it can be saved, evaluated and compiled.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from infomax.models.encoders import Encoder
from infomax.models.library_backbones import USUAL_SIZE, one_line


class PooledMap:
    """Holds the map of an encoder's last pass, from :meth:`start` to :meth:`take`.

    It is a hook of the pooling layer. A copy of a module that has both the encoder and this object has a map of its
    own, as copy.deepcopy copies them together.
    """

    def __init__(self) -> None:
        self._is_awaited = False
        self._map: Tensor | None = None

    def __call__(self, _pool: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._is_awaited:  # passes of an evaluation leave no map in memory
            self._map = inputs[0]

    def start(self) -> None:
        """Waits for a pass of the encoder."""
        self._is_awaited = True

    def take(self) -> Tensor:
        """Returns the map of the pass since :meth:`start`, [B, C, rows, columns], and forgets it."""
        kept, self._map, self._is_awaited = self._map, None, False
        assert kept is not None
        return kept


def keep_pooled_map(encoder: Encoder) -> PooledMap:
    """Lets an encoder's pooling layer keep what it pools.

    The layer is found by a pass without numbers: it makes one cell of the last map of several, with as many channels as
    the features have.

    Args:
        encoder: The encoder, to whose pooling layer a hook is added.

    Raises:
        ValueError: If its features are not made of a pooled map, as those of a transformer.

    Example:
        >>> import torch
        >>> from infomax.models.encoders import build_encoder
        >>> from infomax.models.pooled_map import keep_pooled_map
        >>> encoder = build_encoder("small", seed=0).eval()
        >>> pooled = keep_pooled_map(encoder)
        >>> pooled.start()
        >>> features, last_map = encoder(torch.zeros(2, 3, 32, 32)), pooled.take()
        >>> last_map.shape, torch.allclose(features, last_map.mean((2, 3)))
        (torch.Size([2, 128, 4, 4]), True)
    """
    settings = getattr(encoder, "settings", None)
    name = "the encoder" if settings is None else settings.backbone
    size, channels = (settings.image_size or USUAL_SIZE, settings.channels) if settings else (USUAL_SIZE, 3)
    try:
        pool = _last_pool(encoder, torch.empty(2, channels, size, size, device="meta"))
    except Exception as error:  # a model of another library may raise anything
        raise ValueError(f"{name} takes no images of {size} pixels ({one_line(error)[:200]})") from error
    if pool is None:
        raise ValueError(
            f"{name} has no layer that pools a feature map into its features, as a ResNet has; choose another backbone"
        )
    pooled = PooledMap()
    pool.register_forward_pre_hook(pooled)
    return pooled


@torch.no_grad()
def _last_pool(encoder: Encoder, images: Tensor) -> nn.Module | None:
    """Returns the module that pools the last map; None if there is none."""
    pools: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if _is_map(output):
            pools.clear()  # what was pooled before is not the last map, as within a squeeze-and-excitation block
        elif not pools and inputs and _is_map(inputs[0]) and isinstance(output, Tensor):
            batch, channels = inputs[0].shape[:2]
            if channels == encoder.width and output.numel() == batch * channels:
                pools.append(module)

    is_training = encoder.training
    modules = [*encoder.backbone.modules()]
    hooks = [module.register_forward_hook(note) for module in modules]
    tensors = {key: x.to("meta") for key, x in (*encoder.named_parameters(), *encoder.named_buffers())}
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            torch.func.functional_call(encoder.eval(), tensors, (images.to(next(encoder.parameters()).dtype),))
    finally:
        encoder.train(is_training)
        for hook in hooks:
            hook.remove()
    return pools[0] if pools else None


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim == 4 and x.shape[2] * x.shape[3] > 1
