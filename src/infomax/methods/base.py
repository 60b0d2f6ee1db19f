"""The contract of a method: views and progress in, a loss out. It knows no optimiser, logger, trainer or data set."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from infomax.encoders import Encoder


class Views(NamedTuple):
    """Normalised images, one tensor [B, 3, side, side] a view: two full views, and any number of smaller local ones.

    CorInfoMax and CARL are defined on two views; a recipe with local ones is refused for them.
    """

    full: list[Tensor]
    local: list[Tensor]


@dataclass(frozen=True)
class Progress:
    """Where the run is: optimiser steps done, of how many, and the epoch (from 0) that the batch belongs to."""

    step: int
    total_steps: int
    epoch: int

    @property
    def fraction(self) -> float:
        return self.step / self.total_steps


class Loss(NamedTuple):
    """The loss to minimise, and its parts by name, detached, for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class Method(nn.Module, ABC):
    """Everything that is trained. A concrete method is final; methods share by composition, not by inheritance."""

    encoder: Encoder

    @abstractmethod
    def forward(self, views: Views, progress: Progress) -> Loss: ...

    @property
    @abstractmethod
    def representation(self) -> Encoder:
        """The encoder to keep and to judge: the trained one, or its moving average where the paper evaluates that."""

    def after_backward(self, progress: Progress) -> None:
        """Called between the backward pass and the optimiser's step, with the gradients in place."""
