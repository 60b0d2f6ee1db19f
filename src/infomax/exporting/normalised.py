"""An encoder that normalises the pixels itself."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.models.encoders import Encoder


class Normalised(nn.Module):
    """A module that maps pixels from 0 to 1 to an encoder's features, with the normalisation inside.

    Args:
        encoder: The encoder, with its ``preprocessing``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        for name in ("mean", "std"):
            values = torch.tensor(getattr(encoder.preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values.reshape(1, -1, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        return self.encoder((images - self.mean) / self.std)
