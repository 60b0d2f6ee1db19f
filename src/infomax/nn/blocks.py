"""Provides blocks that methods share by composition: projector, L2 normalisation, prototypes, EMA teacher."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.functional import full_precision
from infomax.nn.schedules import cosine
from infomax.runtime.checks import check_number


class Chain(nn.Sequential):
    """A sequence of layers that torch.compile takes as one; some releases pass over torch's own Sequential."""

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        for layer in self:
            x = layer(x)
        return x


ReLU = partial(nn.ReLU, inplace=True)


def mlp(
    *widths: int,
    norm: bool,
    hidden_bias: bool = True,
    output_bias: bool = True,
    output_norm: Literal["none", "affine", "plain"] = "none",
    activation: Callable[[], nn.Module] = ReLU,
) -> Chain:
    """Builds a multilayer perceptron: linear layers with an activation between them, and none after the last one.

    Args:
        widths: The widths of the input, of each hidden layer, and of the output; at least two numbers.
        norm: Whether each hidden layer has BatchNorm before its activation.
        hidden_bias: Whether the hidden layers have a bias.
        output_bias: Whether the last layer has a bias.
        output_norm: The BatchNorm behind the last layer: ``affine`` has a trained scale and shift, ``plain`` has none.
        activation: Makes the activation of each hidden layer; ReLU, if not said otherwise.

    Returns:
        A module that maps tensors [B, first width] to tensors [B, last width].

    Example:
        >>> from infomax.nn.blocks import mlp
        >>> [type(layer).__name__ for layer in mlp(512, 2048, 256, norm=True)]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=hidden_bias))
        layers += [nn.BatchNorm1d(width_out)] if norm else []
        layers.append(activation())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=output_bias))
    layers += [] if output_norm == "none" else [nn.BatchNorm1d(widths[-1], affine=output_norm == "affine")]
    return Chain(*layers)


@full_precision
def l2_normalize(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Divides each row by its L2 norm.

    Args:
        z: Embeddings, [B, D].

    Returns:
        Embeddings of unit norm, [B, D]; a row of zeros stays zero. A row shorter than 1e-12 is divided by that. In
        float32 a norm above 1.8e19 has no finite square, and its row becomes zero.

    Example:
        >>> import torch
        >>> from infomax.nn.blocks import l2_normalize
        >>> l2_normalize(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """
    return F.normalize(z, dim=1)


class Prototypes(nn.Module):
    """A linear layer of unit-norm prototypes on L2-normalised embeddings, whose logits are cosines in [-1, 1].

    Args:
        dimension: The width of the embeddings, D.
        prototypes: The number of prototypes, K.
    """

    def __init__(self, dimension: int, prototypes: int):
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(dimension, prototypes, bias=False).weight.detach())

    @full_precision  # a bfloat16 cosine would move the targets by half a per cent
    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return F.linear(l2_normalize(z), l2_normalize(self.weight))


class Teacher(nn.Module):
    """An EMA teacher: a copy of a module whose parameters are an exponential moving average of the student's.

    Buffers are not averaged. Its BatchNorm layers therefore normalise by their own batch statistics, as in the official
    MIRA and MVEB code.

    Args:
        student: The module to copy; the copy has no gradients.
        momentum: The EMA momentum at the start of a run, in [0, 1].
        end: The EMA momentum at its end, in [0, 1], to which a cosine leads; that of the start keeps it constant.

    Raises:
        ValueError: If a momentum is out of range.
    """

    def __init__(self, student: nn.Module, momentum: float, end: float = 1.0):
        super().__init__()
        check_number("momentum", momentum, low=0, high=1, open_high=False)
        check_number("end", end, low=0, high=1, open_high=False)
        self.momentum, self.end = momentum, end
        self.module = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def ema_update(self, student: nn.Module, progress: float) -> None:
        """Updates each parameter: ``teacher <- m * teacher + (1 - m) * student``.

        Args:
            student: The module that the teacher was copied from.
            progress: The share of the run that is done, in [0, 1]; a cosine takes m from ``momentum`` at 0 to ``end``
                at 1.

        Example:
            >>> import torch
            >>> from infomax.nn.blocks import Teacher
            >>> student = torch.nn.Linear(2, 1, bias=False)
            >>> _ = torch.nn.init.constant_(student.weight, 0.0)
            >>> teacher = Teacher(student, momentum=0.9)
            >>> _ = torch.nn.init.constant_(student.weight, 1.0)
            >>> teacher.ema_update(student, progress=0.0)
            >>> teacher.module.weight.data
            tensor([[0.1000, 0.1000]])
        """
        momentum = cosine(self.momentum, self.end, progress)
        # One kernel over all parameters, at a quarter of the time of a loop with temporaries.
        averages, parameters = list(self.module.parameters()), list(student.parameters())
        torch._foreach_lerp_(averages, parameters, 1 - momentum)  # pyrefly: ignore[no-matching-overload]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@torch.no_grad()
def copy_tensors(*, source: list[Tensor], destination: list[Tensor]) -> None:
    """Copies each tensor of ``source`` into the tensor of ``destination`` at the same position.

    On a GPU it takes one operation for each precision, instead of one for each of a hundred small tensors. Those of
    each device are copied apart.

    Args:
        source: The tensors to read.
        destination: The tensors to overwrite, of the same shapes.
    """
    for kind in {(tensor.dtype, tensor.device) for tensor in source}:
        positions = [i for i, tensor in enumerate(source) if (tensor.dtype, tensor.device) == kind]
        torch._foreach_copy_([destination[i] for i in positions], [source[i] for i in positions])
