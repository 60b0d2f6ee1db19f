"""Keeps some rows of what the networks compute in a training step anyway, so that the run's health can be measured.

In: one forward pass of the method's networks. Out: rows on the device, and counts of prototypes. Nothing is computed
twice, and no bit of the training depends on it. Which images are kept follows from their positions in the global batch.
"""

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.data.augmentation.operations import to_device
from infomax.methods.base import Method, Views
from infomax.runtime.devices import float64_device

ROWS_A_PROTOTYPE = 10
"""Images that must have been seen for each prototype, before the share of prototypes in use means anything."""
COMPARED_CROPS = 2  # global crops, whose embeddings are compared


def positions(batch_size: int, count: int) -> Int[np.ndarray, " n"]:
    """Returns the positions of ``count`` images at equal distances in a global batch, or all if there are no more."""
    count = min(count, batch_size)
    return np.arange(count) * batch_size // count


class PrototypeCounter:
    """Counts, over about an epoch, of how many images each prototype is the most probable one.

    An epoch has images enough for that, a single step has not. Of each step as many rows are counted as are needed.

    Args:
        batch_size: Images of a step, over all ranks.
        steps_per_epoch: Number of steps of an epoch.
        share: The positions in the global batch at which this rank's images begin and end.
    """

    def __init__(self, *, batch_size: int, steps_per_epoch: int, share: tuple[int, int]):
        self._batch_size, self._steps_per_epoch, self._share = batch_size, steps_per_epoch, share
        self._rows: Int[np.ndarray, " n"] | None = None
        self._steps = 0
        self.counts: Int[Tensor, " k"] | None = None
        """The counts of this rank, [K] on the device; None if the method has no prototypes, or so many that an epoch
        has too few images for them, or before the first step."""

    @property
    def is_needed(self) -> bool:
        """Returns whether anything is counted, or it is not known yet whether it is."""
        return self._rows is None or self.counts is not None

    def rows(self, method: Method, online: Float[Tensor, "b d"]) -> Int[np.ndarray, " n"]:
        """Returns the numbers of the images of this rank whose prototypes are counted in each step."""
        if self._rows is None:
            self._rows = np.arange(0)
            probabilities = method.assignment_probabilities([online[:1].detach()])
            needed = 0 if probabilities is None else ROWS_A_PROTOTYPE * probabilities[0].shape[1]
            if probabilities is not None and needed <= self._batch_size * self._steps_per_epoch:
                first, last = self._share
                counted = positions(self._batch_size, -(-needed // self._steps_per_epoch))
                self._rows = counted[(counted >= first) & (counted < last)] - first
                self.counts = torch.zeros(probabilities[0].shape[1], dtype=torch.int64, device=online.device)
        return self._rows

    def add(self, probabilities: Float[Tensor, "n k"]) -> None:
        """Counts some rows; the device is not waited for."""
        assert self.counts is not None
        largest = probabilities.argmax(1)
        self.counts.index_add_(0, largest, torch.ones_like(largest))

    def end_step(self) -> None:
        """Counts a step."""
        self._steps += 1

    def begin_anew_if_full(self) -> None:
        """Starts to count from 0 if a whole epoch has been counted."""
        if self.counts is not None and self._steps >= self._steps_per_epoch:
            self.counts, self._steps = torch.zeros_like(self.counts), 0


class OutputObserver:
    """Keeps rows of one step's outputs; make one for each step. Rows are without gradient and in the outputs' type.

    Args:
        kept: The numbers of the images to keep among this rank's images of the step, in rising order; None if the step
            is not measured.
        counter: Counts prototypes; None counts none.
    """

    def __init__(self, kept: Int[np.ndarray, " n"] | None, counter: PrototypeCounter | None = None):
        self.kept, self.counter = kept, counter
        self.embeddings: list[list[Tensor]] = []
        """For each of the first two global crops that are embedded, the projector's outputs [n, D] of each
        microbatch."""
        self.features: list[Tensor] = []
        """The encoder's outputs [n, width] for the first global crop, of each microbatch."""
        self.probabilities: list[Tensor] = []
        """The student's probabilities of the prototypes [n, K] for the first global crop; empty if there are none."""
        self._begin = self._end = 0
        self._method: Method | None = None

    @contextmanager
    def watch(self, method: Method, views: Views) -> Generator[None]:
        """Keeps what the networks compute within the block for the next microbatch.

        Args:
            method: The method, whose networks compute.
            views: The views of the microbatch.
        """
        self._method = method
        self._begin, self._end = self._end, self._end + len(views.global_crops[0])
        if self.kept is None:
            yield
            return
        embeddings: list[Tensor] = []
        features: list[Tensor] = []
        projector = getattr(method, "projector", method.encoder)
        with (
            projector.register_forward_hook(lambda _, inputs, output: embeddings.append(output.detach())),
            method.encoder.register_forward_hook(lambda _, inputs, output: features.append(output.detach())),
        ):
            yield
        size, rows = self._end - self._begin, self._rows_here(self.kept)
        # A method may embed the first of two global crops alone, if the other one is for its teacher.
        embedded = sum(map(len, embeddings)) // size
        crops = max(1, min(COMPARED_CROPS, len(views.global_crops), embedded))
        self.embeddings = self.embeddings or [[] for _ in range(crops)]
        for crop, kept in enumerate(self.embeddings):
            kept.append(_rows_of_view(embeddings, crop * size, rows))
        self.features.append(_rows_of_view(features, 0, rows))

    @torch.no_grad()
    def take_outputs(self, online: list[Tensor]) -> None:
        """Keeps the assignments of the microbatch that has just passed.

        Args:
            online: What :meth:`Method.online` returned for it.
        """
        method, first = self._method, online[0]
        assert method is not None
        if self.kept is not None:
            probabilities = method.assignment_probabilities([_take(first, self._rows_here(self.kept))])
            if probabilities is not None:
                self.probabilities += probabilities
        if self.counter is not None:
            rows = self._rows_here(self.counter.rows(method, first))
            if self.counter.counts is not None and len(rows):
                for probabilities in method.assignment_probabilities([_take(first, rows)]) or []:
                    self.counter.add(probabilities)

    def _rows_here(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns those of some images that are in the present microbatch, by their numbers in it."""
        return rows[(rows >= self._begin) & (rows < self._end)] - self._begin


def _rows_of_view(outputs: list[Tensor], start: int, rows: Int[np.ndarray, " n"]) -> Tensor:
    """Returns rows of one view from the outputs of a network, each of which is of one view or of several together.

    Args:
        outputs: The outputs in the order of the views.
        start: The number of rows of the views before.
        rows: The numbers of the rows in the view.
    """
    for output in outputs:
        if start < len(output):
            return _take(output, start + rows)
        start -= len(output)
    raise ValueError("a network of the method gave fewer outputs than there are global crops")


def _take(x: Tensor, rows: Int[np.ndarray, " n"]) -> Tensor:
    """Returns some rows, where they can be measured in float64; an NVIDIA GPU is not waited for."""
    return x.detach()[to_device(torch.from_numpy(rows), x.device)].to(float64_device(x.device))
