"""The contract of a method: views and progress go in, a loss comes out.

A method knows no optimiser, logger, trainer or data set. The outputs of its networks, which depend on one image each,
are apart from its loss, which depends on the whole batch. An engine may therefore pass a large batch through the
networks in microbatches and still minimise the loss of the whole batch.

How one training step goes
--------------------------

1. The engine makes the :class:`Views` of this rank's images, all at once or microbatch by microbatch.
2. ``online = method.online(views)`` gives the outputs of the trained networks: one tensor a view, one row an image.
   With microbatches it is called a second time for the same views, to build the graph that the first call left out.
3. ``target = method.target(views)`` gives the outputs of the EMA teacher, without gradient: one tensor a global crop,
   or an empty list if the method has no teacher.
4. ``values = method.schedule_values(progress)`` gives the numbers in the loss that change over a run.
5. ``loss = method.compute_loss(online, target, values)`` gives the loss of the global batch, whose gradient then flows
   back through step 2. The collectives in it make every rank compute the same loss.
6. ``method.after_backward(progress)`` may change gradients. The engine clips them afterwards.
7. The optimiser takes its step.
8. If the method remembers images, ``method.remember(online, target)`` stores what this step showed of them.
9. ``method.after_step(next_progress)`` updates the EMA teacher.

Until step 7 nothing has changed but buffers, and the engine puts these back if the loss or the gradient is NaN or
infinite. Before the first step of each epoch, a method that remembers images may group all of them anew, in
``method.before_epoch(progress, embed)``.

Evaluation, during a run and after it, uses :attr:`Method.eval_encoder` and, if there are prototypes,
:meth:`Method.cluster_logits`. The health of a run is measured at some steps from what step 2 computes anyway: the
outputs of :attr:`Method.encoder` and :attr:`Method.projector`, :meth:`Method.assignment_probabilities` if there are
prototypes, and :meth:`Method.own_measures`.

Where the needs of a new method go
----------------------------------

* A teacher, with a constant or a scheduled EMA momentum: :meth:`Method.after_step`, which knows the progress, calls
  :meth:`infomax.nn.blocks.Teacher.ema_update`. A cosine raises the momentum to 1; ``end`` of ``Teacher`` keeps it
  constant. A paper that moves the teacher before its forward pass does the same from the second step on, and at the
  first one the teacher is a copy.
* A predictor: a further module of the method that :meth:`Method.online` applies after the projector. If the loss needs
  projections too, they may follow the predictions in the same list: the engine requires one row an image of each
  tensor, not one tensor a view.
* A weight of the loss, or a temperature, that changes over the run: :meth:`Method.schedule_values`.
* A memory bank or another running statistic: a buffer, so that it is saved with the method and is put back if the step
  fails. :meth:`Method.compute_loss` updates it in training mode while gradients are enabled, as
  :class:`infomax.methods.corinfomax.CorInfoMaxLoss` updates its covariances;
  :func:`infomax.runtime.collectives.gather` fetches the rows of all ranks, so that every rank holds the same bank.
* Parameters that rest for some epochs: :meth:`Method.after_backward` removes their gradients.
* Learning rates and weight decays by parameter group: not the method's concern.
  :func:`infomax.nn.optimizers.parameter_groups` divides the parameters, and :mod:`infomax.recipes.building` sets the
  rates. A scheduled weight decay would stand beside ``learning_rate`` there.
* One view, or any other number of them: :attr:`Method.global_crop_count` and the lists in :class:`Views`. A recipe's
  set of views may have one global crop; only ``--views NAME:G+L`` asks for two.
* Random numbers of the loss, as directions or an order of images: they must be equal on all ranks, and
  :mod:`infomax.nn.draws` makes them from :attr:`Method.seed` and the step, a schedule value.
* Masks: what is drawn from torch's generator in :meth:`Method.online` is drawn alike when a microbatch passes again,
  because the engine seeds that generator for each step and microbatch. Masks that the teacher must see too would be a
  field of :class:`Views`.
* What is kept of each training image, as its embedding or its cluster: :attr:`Method.remembers_images` is True, and
  :meth:`Method.prepare` makes a :class:`infomax.nn.memory.Memory` once the number of images is known. Its buffers are
  saved with the method, but as they may be large, the engine copies them at no step: they change in
  :meth:`Method.remember`, after a step has succeeded, and in :meth:`Method.before_epoch`. :attr:`Views.positions` says
  which images a batch has; what the loss needs of them, as their clusters, :meth:`Method.target` looks up.
* Cluster assignments that are recomputed each epoch: :meth:`Method.before_epoch`, from embeddings that the memory
  keeps, or that ``embed`` computes in a forward pass over the epoch's images.
* The encoder's last feature map, beside the features that are pooled of it: :mod:`infomax.models.pooled_map` keeps it
  in the same pass, as in :mod:`infomax.methods.densecl`, which refuses in :meth:`Method.check_view` views that are too
  small for it.
* Another device for the loss: the engine's concern. Beside Apple's GPU it moves the outputs of the networks to the CPU,
  where :meth:`Method.place` has left everything without parameters. :meth:`Method.online` and :meth:`Method.target`
  that read such a buffer bring the two together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.models.encoders import Encoder
from infomax.runtime.devices import float64_device


class Views(NamedTuple):
    """A named tuple that holds normalised images, one tensor [B, 3, side, side] a view.

    There may be any number of smaller local crops. The methods here need two or more global crops, and compare each
    view with every global crop but itself: of two global crops, each is compared with the other.
    """

    global_crops: list[Tensor]
    local_crops: list[Tensor]
    positions: Tensor | None = None
    """The position of each image in the data set, int64 [B]; None unless the method remembers images."""

    @property
    def crops(self) -> list[Tensor]:
        """Returns all views, the global crops first."""
        return [*self.global_crops, *self.local_crops]


Embed = Callable[[Callable[[Views], list[Tensor]]], Iterable[tuple[Tensor, list[Tensor]]]]
"""A function that passes the images of the coming epoch through networks, without gradient, as in training.

It takes a function of this rank's views, which returns tensors [b, ...]. For one batch after another it yields the
positions in the data set of the images of all ranks, and their tensors. Each image comes at most once; those that are
left over at the end of the epoch do not come. Buffers of the networks, as running statistics, are put back.
"""


@dataclass(frozen=True)
class Progress:
    """A frozen dataclass that holds how far a run is.

    Args:
        step: The number of optimiser steps that are done.
        total_steps: The number of optimiser steps of the whole run.
        epoch: The epoch that the batch belongs to, counted from 0.
    """

    step: int
    total_steps: int
    epoch: int

    @property
    def fraction(self) -> float:
        """Returns the share of the run that is done, in [0, 1]."""
        return self.step / self.total_steps


class Loss(NamedTuple):
    """A named tuple that holds the loss to minimise, a scalar, and its detached terms by name, for the log."""

    total: Tensor
    terms: dict[str, Tensor]


def other_global_crops(view: int, global_crop_count: int) -> list[int]:
    """Returns the positions of the global crops that a view is compared with: all of them but itself.

    Args:
        view: The position of the view in a list that starts with the global crops.
        global_crop_count: The number of global crops.
    """
    return [crop for crop in range(global_crop_count) if crop != view]


def crop_pairs(view_count: int, global_crop_count: int) -> list[tuple[int, int]]:
    """Returns the pairs of views that a symmetric loss compares: each two of which the first is a global crop.

    Args:
        view_count: The number of views, the global crops first.
        global_crop_count: The number of global crops.

    Example:
        >>> from infomax.methods.base import crop_pairs
        >>> crop_pairs(3, 2)
        [(0, 1), (0, 2), (1, 2)]
    """
    return [(first, second) for first in range(global_crop_count) for second in range(first + 1, view_count)]


def crossed_pairs(view_count: int, global_crop_count: int) -> list[tuple[int, int]]:
    """Returns the positions of each prediction and each target that come from different crops.

    Args:
        view_count: The number of predictions, one a crop, the global crops first.
        global_crop_count: The number of targets, one a global crop.

    Example:
        >>> from infomax.methods.base import crossed_pairs
        >>> crossed_pairs(3, 2)
        [(0, 1), (1, 0), (2, 0), (2, 1)]
    """
    return [(view, crop) for view in range(view_count) for crop in other_global_crops(view, global_crop_count)]


class Method(nn.Module, ABC):
    """An abstract module that holds everything that is trained, and computes the loss.

    A concrete method is final: methods share code by composition, not by inheritance. The module's docstring tells how
    one step calls the members below. Only :meth:`after_backward` changes gradients, and only :meth:`after_step` changes
    parameters.
    """

    encoder: Encoder
    """The trained encoder."""
    projector: nn.Module
    """The trained network that :meth:`online` applies to the encoder's features. Its outputs, before anything
    normalises them, are the embeddings that a run's health is measured on. If a method has none of this name, those are
    the features."""
    joint_forward = False
    """Whether views of one size pass the networks together and share the statistics of BatchNorm."""
    global_crop_count = 2
    """The number of global crops, which come first among the views."""
    remembers_images = False
    """Whether the method keeps something of each training image. :attr:`Views.positions` are then set, and
    :meth:`prepare`, :meth:`before_epoch` and :meth:`remember` are called. Images that can only be read one after
    another, which have no positions, are then refused."""
    seed = 0
    """The recipe's seed, from which a method draws what must be equal on all ranks, as random directions; the step
    comes from :meth:`schedule_values`."""

    def prepare(self, images: int) -> None:
        """Makes the buffers whose size is the number of training images, before the weights are loaded.

        Args:
            images: The number of images in the data set.

        Raises:
            ValueError: If the method's settings do not fit so few images.
        """

    def check_view(self, images: Tensor) -> None:
        """Checks that the loss can be computed of views of this size; the loss of most methods takes any.

        Args:
            images: A view without numbers, [b, channels, side, side] on the device ``meta``, as the method is.

        Raises:
            ValueError: If it cannot. The message says what would be right.
        """

    def before_epoch(self, progress: Progress, embed: Embed) -> None:
        """Computes what stays the same during an epoch, as clusters of all images; every rank calls it.

        It changes buffers of a :class:`infomax.nn.memory.Memory` alone. A run that is resumed at the beginning of an
        epoch calls it again, which must have the same result.

        Args:
            progress: The progress at the epoch's first step.
            embed: Computes outputs of networks for the epoch's images; see :data:`Embed`. It may be called more than
                once, or never: it takes as long as the forward passes of an epoch.
        """

    @abstractmethod
    def online(self, views: Views) -> list[Tensor]:
        """Returns the outputs of the trained networks that the loss needs.

        Returns:
            One tensor [B, ...] a view, the global crops first, with one row for each of this rank's B images.
        """

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        """Returns the outputs of the EMA teacher that the loss needs, without gradient.

        Returns:
            One tensor [B, ...] a global crop; an empty list if the method has no teacher. A method that remembers
            images may return what is known of them: tensors with one row an image, of any type.
        """
        return []

    @abstractmethod
    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        """Computes the loss of the global batch from the outputs for this rank's images.

        It uses no parameters, and ignores autocast. It updates state in buffers in training mode while gradients are
        enabled.

        Args:
            online: The tensors of :meth:`online`, or detached copies with the rows of all microbatches.
            target: The tensors of :meth:`target`, likewise.
            schedule_values: The numbers of :meth:`schedule_values`, or one float64 tensor that holds them. A compiled
                loss takes the tensor: as constants, new numbers would make torch.compile start again.
        """

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns the numbers in the loss that change over a run; every step has equally many of them."""
        return ()

    def loss(self, online: list[Tensor], target: list[Tensor], progress: Progress) -> Loss:
        """Computes the loss of these outputs at this point of a run."""
        return self.compute_loss(online, target, self.schedule_values(progress))

    def forward(self, views: Views, progress: Progress) -> Loss:
        """Computes the loss of these views at this point of a run."""
        return self.loss(self.online(views), self.target(views), progress)

    @property
    def eval_encoder(self) -> Encoder:
        """Returns the encoder to keep and to evaluate: the trained one, or the EMA teacher's if the paper does so."""
        return self.encoder

    def cluster_logits(self, features: Tensor) -> Tensor | None:
        """Computes the logit of each prototype for each feature.

        Args:
            features: Features of :attr:`eval_encoder`, [n, width].

        Returns:
            Logits [n, prototypes]; None if the method has no prototypes.
        """
        return None

    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor] | None:
        """Computes the student's probability of each prototype from outputs of :meth:`online`.

        Args:
            online: Tensors of :meth:`online`, or some of their rows.

        Returns:
            The probabilities [n, prototypes] of each tensor; None if the method has no prototypes.
        """
        return None

    def own_measures(self, embeddings: Float[Tensor, "n d"]) -> dict[str, float]:
        """Returns what is measured of a run of this method alone, by name.

        It changes nothing, and is called on the first rank alone: it must not call a collective.

        Args:
            embeddings: The projector's outputs for some images of the global batch, [n, D] in float64 on the CPU.
        """
        return {}

    def after_backward(self, progress: Progress) -> None:
        """Changes gradients before the optimiser's step.

        They are averaged over ranks, and under float16 still multiplied by the scale of the loss.

        Args:
            progress: The progress that the loss was computed with.
        """

    def remember(self, online: list[Tensor], target: list[Tensor]) -> None:
        """Stores what a step showed of its images, after the optimiser's step; every rank calls it.

        Args:
            online: The tensors of :meth:`online` that the loss was computed from, detached.
            target: The tensors of :meth:`target`, likewise.
        """

    def after_step(self, progress: Progress) -> None:
        """Updates the EMA teacher after the optimiser's step.

        Args:
            progress: The progress that the next step will have.
        """

    def place(self, device: torch.device) -> Self:
        """Moves the networks to a device, and what the loss alone reads to where the loss is computed.

        These differ on Apple's GPU alone, beside which the loss is computed on the CPU
        (:func:`infomax.runtime.devices.float64_device`). Networks are the parts that have parameters; queues, memories
        and running statistics have none.

        Args:
            device: The device of the networks. The method is on the CPU before.
        """
        if float64_device(device) == device:
            return self.to(device)
        for part in self.children():
            if isinstance(part, Method):
                part.place(device)
            elif any(True for _ in part.parameters()):
                part.to(device)
        return self

    def project(self, images: Tensor) -> Tensor:
        """Computes the projector's outputs [b, D] for images [b, 3, side, side]."""
        return self.projector(self.encoder(images))

    def forward_each(self, network: Callable[[Tensor], Tensor], views: list[Tensor]) -> list[Tensor]:
        """Applies ``network`` to each view, or to all neighbouring views of one size together if ``joint_forward``.

        Args:
            network: A function that maps images [b, 3, side, side] to outputs [b, ...].
            views: Images, one tensor [B, 3, side, side] a view.

        Returns:
            One output [B, ...] a view.
        """
        return [output for (output,) in self.forward_each_to_many(lambda images: (network(images),), views)]

    def forward_each_to_many(
        self, network: Callable[[Tensor], tuple[Tensor, ...]], views: list[Tensor]
    ) -> list[tuple[Tensor, ...]]:
        """Applies a network that has several outputs, as :meth:`forward_each` does.

        Args:
            network: A function that maps images [b, 3, side, side] to a tuple of outputs [b, ...].
            views: Images, one tensor [B, 3, side, side] a view.

        Returns:
            The outputs [B, ...] of each view.
        """
        if not self.joint_forward:
            return [network(view) for view in views]
        outputs: list[tuple[Tensor, ...]] = []
        for _, same_size in groupby(views, key=lambda view: view.shape[-2:]):
            group = list(same_size)
            outputs += zip(*(output.chunk(len(group)) for output in network(torch.cat(group))), strict=True)
        return outputs
