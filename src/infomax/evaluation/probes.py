"""Linear classifiers on a frozen encoder, trained by gradient descent as each paper trains its own.

Any number of learning rates is trained in one pass: the classifiers lie side by side in one matrix and see the same
batches. Each learning rate has two of them: one learns from all training images, the other from nine tenths. The last
tenth says which learning rate is reported; the test images are not looked at before that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from infomax.nn.schedules import cosine
from infomax.runtime.collectives import global_sum

TRUST = 0.001  # LARS's and LARC's coefficient: the share of the weights' norm that a step has


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A frozen dataclass that holds how a linear classifier is trained, beside what is the same for all.

    Weights start as N(0, 0.01^2), biases at 0. Momentum is 0.9, and there is no weight decay.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    """The learning rate at the start, for this batch size: nothing rescales it."""
    optimizer: Literal["sgd", "lars", "larc"] = "sgd"
    """``lars`` scales the weights' steps by their norm over the gradient's, ``larc`` the biases' too."""
    drops: tuple[int, ...] = ()
    """Epochs from which the rate is a tenth of what it was. Without any, it falls along a cosine, once an epoch."""
    end: float = 0.0
    """The end of the cosine, as a share of the learning rate."""
    bicubic: bool = False
    """Whether random crops, and images to classify, are interpolated bicubically; otherwise bilinearly."""
    augmentation: bool = True
    """Whether it learns from random crops; otherwise from the images as they are classified."""

    def rate(self, epoch: int) -> float:
        """Returns the share of the learning rate that holds in this epoch, counted from 0."""
        if self.drops:
            return 0.1 ** sum(epoch >= drop for drop in self.drops)
        return cosine(1.0, self.end, epoch / self.epochs)


PROBES = {
    # MIRA, Sec. 4.2 and footnote 6: 0.075 * batch / 256, searched for the multi-crop model of 400 epochs.
    "mira": Probe(epochs=100, batch_size=1024, learning_rate=0.3),
    # MIRA, appendix: Tables 9 and 12 to 15, and ImageNet-100.
    "mira-lars": Probe(epochs=100, batch_size=1024, learning_rate=0.4, optimizer="lars"),
    # CorInfoMax, appendix F: all data sets but ImageNet-1k, and ImageNet-1k.
    "corinfomax": Probe(epochs=100, batch_size=256, learning_rate=0.2, end=0.01, bicubic=True),
    "corinfomax-imagenet": Probe(epochs=100, batch_size=256, learning_rate=25.0, drops=(20, 40, 60, 80), bicubic=True),
    # CARL follows MoCo (He et al. 2020, Sec. 4.1).
    "carl": Probe(epochs=100, batch_size=256, learning_rate=30.0, drops=(60, 80)),
    # MVEB, Sec. 6.2: as SimSiam, for 50 epochs; 0.1 * batch / 256.
    "mveb": Probe(epochs=50, batch_size=4096, learning_rate=1.6, optimizer="larc"),
    # MVEB, Sec. 7.6: "the same experiment setting as [15]"; from that paper's code (decisions: mveb-cifar-probe).
    "mveb-cifar": Probe(epochs=100, batch_size=128, learning_rate=0.01, drops=(60, 80), augmentation=False),
}
"""The probes of the papers, by the names that ``--probe`` takes."""


class LinearProbes:
    """Linear classifiers side by side, each with a learning rate of its own.

    Args:
        width: Number of features of an image.
        classes: Number of classes.
        rates: The learning rates, one for each classifier.
        probe: How they are trained.
        seed: Of the first weights, which are the same for all classifiers.
        device: Where they are trained.
    """

    def __init__(
        self, width: int, classes: int, rates: Sequence[float], probe: Probe, *, seed: int, device: torch.device
    ):
        self.count, self.classes, self.optimizer = len(rates), classes, probe.optimizer
        generator = torch.Generator().manual_seed(seed)
        initial = 0.01 * torch.randn(classes, width, generator=generator)
        self.weight = initial.repeat(len(rates), 1).to(device)
        self.bias = torch.zeros(len(rates) * classes, device=device)
        self.momentum = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]
        self.rates = torch.tensor(rates, dtype=torch.float32, device=device)

    def scores(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b heads classes"]:
        """Returns the class scores of each classifier."""
        return F.linear(x, self.weight, self.bias).view(len(x), self.count, self.classes)

    def step(
        self, x: Float[Tensor, "b d"], labels: Int[Tensor, " b"], counts: Float[Tensor, "b heads"], share: float
    ) -> None:
        """Makes one step of SGD on each classifier's mean cross-entropy over the global batch.

        Args:
            x: Features of this rank's images.
            labels: Their classes.
            counts: 1 if a classifier (column) is to learn from an image (row), else 0.
            share: The share of the learning rates that holds at this step.
        """
        scores = self.scores(x)
        error = scores.softmax(2)
        error[torch.arange(len(x), device=x.device), :, labels] -= 1
        error = (error * (counts / global_sum(counts.sum(0)).clamp_min(1)).unsqueeze(2)).flatten(1)
        gradients = global_sum(error.T @ x), global_sum(error.sum(0))
        for value, gradient, momentum in zip((self.weight, self.bias), gradients, self.momentum, strict=True):
            by_head, slope = (tensor.view(self.count, -1) for tensor in (value, gradient))
            if self.optimizer == "larc" or (self.optimizer == "lars" and value.ndim > 1):
                norm, length = by_head.norm(dim=1, keepdim=True), slope.norm(dim=1, keepdim=True)
                slope = slope * torch.where((norm > 0) & (length > 0), TRUST * norm / length, 1.0)
            momentum.mul_(0.9).add_(slope.view_as(value))
            by_head.sub_((self.rates * share).unsqueeze(1) * momentum.view(self.count, -1))

    def state(self) -> dict[str, Tensor]:
        """Returns the weights, the biases and their momentum, by name."""
        return dict(zip(("weight", "bias", "weight_momentum", "bias_momentum"), self._values(), strict=True))

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state that :meth:`state` returned."""
        for value, saved in zip(self._values(), state.values(), strict=True):
            value.copy_(saved)

    def _values(self) -> list[Tensor]:
        return [self.weight, self.bias, *self.momentum]


def held_out(labels: Int[np.ndarray, " n"]) -> np.ndarray:
    """Returns which images are held out to choose a learning rate by: True for every tenth image of each class.

    Of a class with two to nine images, every other one is held out.
    """
    out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        out[rows[9::10] if len(rows) >= 10 else rows[1::2]] = True
    return out


def train_probes(
    probes: LinearProbes,
    probe: Probe,
    batches: Iterator[tuple[int, Float[Tensor, "b d"], np.ndarray]],
    labels: Int[Tensor, " n"],
    held_out: Float[Tensor, " n"] | None,
) -> Iterator[int]:
    """Trains on all batches, and yields the epoch after each.

    Args:
        probes: The classifiers, which change.
        probe: How they are trained.
        batches: The epoch, the features on the device, and the rows of ``labels`` that belong to them.
        labels: The classes of all training images, on the device.
        held_out: 1 for each image that the second half of the classifiers must not see, on the device; None if there
            is no second half.
    """
    for epoch, x, rows in batches:
        index = torch.from_numpy(rows).to(x.device)
        counts = torch.ones(len(x), probes.count, device=x.device)
        if held_out is not None:
            counts[:, probes.count // 2 :] = 1 - held_out[index].unsqueeze(1)
        probes.step(x, labels[index], counts, probe.rate(epoch))
        yield epoch
