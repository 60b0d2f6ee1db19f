"""The contract of a method: views and progress in, a loss out. It knows no optimiser, logger, trainer or data set.

What is computed image by image (the outputs of the networks) is apart from what is computed over the batch (the loss),
so that an engine may take a large batch through the networks in parts and still minimise the loss of all of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from infomax.models.encoders import Encoder


class Views(NamedTuple):
    """Normalised images, one tensor [B, 3, side, side] a view: two or more full ones, any number of smaller local ones.

    The full views are what all views are compared with, each with those but itself: of two views, each with the other.
    """

    global_crops: list[Tensor]
    local_crops: list[Tensor]


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


def others(position: int, full: int) -> list[int]:
    """The full views, of which there are ``full``, that the view at this position is compared with."""
    return [view for view in range(full) if view != position]


class Method(nn.Module, ABC):
    """Everything that is trained. A concrete method is final; methods share by composition, not by inheritance.

    One step is ``loss(online(views), target(views), progress)``, its backward pass, :meth:`after_backward`, the
    optimiser's step, and :meth:`after_step`. No part of it but the last two changes a parameter. The loss is
    ``objective(online, target, scheduled(progress))``: what is computed, and the numbers in it that change.
    """

    encoder: Encoder
    joint_forward = False
    """Whether views of one size go through the networks together, sharing BatchNorm's statistics."""
    global_views = 2
    """How many of the views, the first ones, are full."""

    @abstractmethod
    def online(self, views: Views) -> list[Tensor]:
        """What the loss needs of each image from the trained branch: [B, ...] a view, the full ones first."""

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        """What the loss needs of each image from a teacher: [B, ...] a full view; nothing where there is no teacher."""
        return []

    @abstractmethod
    def compute_loss(self, online: list[Tensor], target: list[Tensor], numbers: Iterable[float | Tensor]) -> Loss:
        """The loss of the global batch, from the outputs for this rank's images. Has no parameters of its own.

        Autocast is ignored. State that lives in buffers advances, in training mode while gradients are enabled.

        Args:
            numbers: Those of :meth:`schedule_values`; or a tensor that holds them, where one compiled loss is to serve a run.
        """

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """The numbers in the loss that change over a run, always equally many."""
        return ()

    def loss(self, online: list[Tensor], target: list[Tensor], progress: Progress) -> Loss:
        """The loss of these outputs at this point of a run."""
        return self.compute_loss(online, target, self.schedule_values(progress))

    def forward(self, views: Views, progress: Progress) -> Loss:
        """The loss of these views."""
        return self.loss(self.online(views), self.target(views), progress)

    @property
    @abstractmethod
    def eval_encoder(self) -> Encoder:
        """The encoder to keep and to judge: the trained one, or its moving average where the paper evaluates that."""

    def cluster_logits(self, features: Tensor) -> Tensor | None:
        """How well each prototype suits each of these features [n, width] of :attr:`representation`: [n, prototypes].

        None where the method has no prototypes.
        """
        return None

    def after_backward(self, progress: Progress) -> None:
        """Called between the backward pass and the optimiser's step, with the gradients in place."""

    def after_step(self, progress: Progress) -> None:
        """Called after the optimiser's step, with the progress that the next step stands at: moves a teacher."""

    def each(self, network: Callable[[Tensor], Tensor], views: list[Tensor]) -> list[Tensor]:
        """``network`` of each view; of views of one size together, if ``joint_forward``."""
        if not self.joint_forward:
            return [network(view) for view in views]
        outputs: list[Tensor] = []
        for _, group in groupby(views, key=lambda view: view.shape[-2:]):
            members = list(group)
            outputs += network(torch.cat(members)).chunk(len(members))
        return outputs
