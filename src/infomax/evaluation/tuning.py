"""Fine-tuning: an encoder and a linear classifier on its features, trained together on labels.

Training images are random crops, flipped or not; images to classify are shown as the encoder wants them. The classifier
of the last step is judged, and none is chosen by the images that it is judged by.

On several ranks each takes its share of a batch and gradients are averaged, but BatchNorm normalises by the share's own
statistics, whose running means are averaged after each step: the number of ranks decides the result with the rest.
"""

import copy
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import supervised_crops
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.loading.training import BatchPrefetcher, training_batches
from infomax.data.loading.workers import Batch
from infomax.data.splits import LabelledImages
from infomax.evaluation.unfinished import Unfinished
from infomax.models.encoders import Encoder
from infomax.nn.batch_norm import batch_norms
from infomax.nn.schedules import cosine
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.collectives import all_ranks_max, average_in_place, gather, rank, world_size
from infomax.runtime.progress import progress_bar
from infomax.runtime.signals import Interruption

SCHEDULES = ("cosine", "cosine-by-step", "staircase")
STAIR, BACKBONE_FALL, HEAD_FALL = 5, 0.2, 0.1  # epochs, and the factors of the rates after each as many
CHECK = 50  # steps after which the loss is looked at: each look waits for the device
SAVE_EVERY = 60.0  # seconds


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How an encoder is fine-tuned: by SGD with momentum 0.9, for ``epochs`` or for ``steps``."""

    name: str
    backbone_rate: float
    """Learning rate of the encoder; at 0 it stays as it is, BatchNorm's statistics included."""
    head_rate: float
    """Learning rate of the classifier."""
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 256
    """Of all ranks together; all images, if they are fewer."""
    schedule: str = "cosine"
    """Of both rates: ``cosine`` to 0, once an epoch; ``cosine-by-step``; or ``staircase``, which multiplies the
    encoder's by 0.2 and the classifier's by 0.1 every 5 epochs."""
    head_std: float | None = None
    """Standard deviation of the classifier's first weights, with biases of 0; None takes PyTorch's own."""
    weight_decay: float = 0.0
    """As SGD takes it; of all parameters."""
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise ValueError(f"name must be a word, for a folder is named after it, but is {self.name!r}")
        choose("schedule", self.schedule, SCHEDULES)
        by_step = self.schedule == "cosine-by-step"
        if (self.epochs is None) == (self.steps is None) or (self.epochs is None and not by_step):
            raise ValueError(
                f"epochs or steps must be given, and epochs for schedule {self.schedule!r}, but they are "
                f"{self.epochs} and {self.steps}"
            )
        for name in ("epochs", "steps", "batch_size"):
            if (value := getattr(self, name)) is not None:
                check_count(f"--{name.replace('_', '-')}", value, low=1)
        for name in ("backbone_rate", "head_rate", "weight_decay"):
            check_number(name, getattr(self, name), low=0)

    def rates(self, step: int, epoch: int, steps: int) -> tuple[float, float]:
        """Learning rates of the encoder and of the classifier at one of ``steps`` steps; steps and epochs from 0."""
        if self.schedule == "staircase":
            fallen = epoch // STAIR
            return self.backbone_rate * BACKBONE_FALL**fallen, self.head_rate * HEAD_FALL**fallen
        done = step / steps if self.epochs is None or self.schedule == "cosine-by-step" else epoch / self.epochs
        return cosine(self.backbone_rate, 0.0, done), cosine(self.head_rate, 0.0, done)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a fine-tuning is carried out by."""

    device: torch.device | str = "cpu"
    workers: int | None = None
    """Processes that decode image files; None takes one a core, at most 8."""
    precision: str = "32"
    """``32``, or ``bf16`` by autocast."""
    quiet: bool = True
    """No progress bar."""

    def __post_init__(self) -> None:
        choose("--precision", self.precision, ("32", "bf16"))

    def cast(self) -> torch.autocast:
        """The precision of a forward pass."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16")


class Classifier(nn.Module):
    """A copy of an encoder and a linear layer on its features: images [B, 3, H, W] to class scores [B, classes]."""

    def __init__(self, encoder: Encoder, classes: int, setting: FineTuning, *, seed: int):
        super().__init__()
        self.frozen = setting.backbone_rate == 0
        self.encoder = copy.deepcopy(encoder).requires_grad_(not self.frozen)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.head = nn.Linear(encoder.width, classes, dtype=next(encoder.parameters()).dtype)
            if setting.head_std is not None:
                nn.init.normal_(self.head.weight, std=setting.head_std)
                nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.encoder(images))


class FineTuner:
    """One fine-tuning on labelled images, from where it was interrupted.

    Args:
        part: Images to train on, with a class each, or with 1 for each class that an image shows; then each class has
            a binary cross-entropy of its own.
        seed: Of the classifier's first weights, the order of the images and their crops.
        unfinished: Where checkpoints are kept, under the setting's name.
    """

    def __init__(
        self,
        encoder: Encoder,
        part: LabelledImages,
        setting: FineTuning,
        *,
        seed: int,
        compute: Compute,
        unfinished: Unfinished,
    ):
        self.setting, self.seed, self.compute, self.unfinished = setting, seed, compute, unfinished
        self.images, self.labels = part.selected_images, torch.from_numpy(part.labels).long()
        self.batch_size = min(setting.batch_size, len(self.images))
        self.model = Classifier(encoder, class_count(part), setting, seed=seed)
        least = world_size() * (1 if self.model.frozen else 2)  # BatchNorm takes two
        if self.batch_size < least:
            what = f"batch_size {setting.batch_size} of {len(self.images)} images"
            raise ValueError(f"{what}: {world_size()} ranks take {least} images a step at least")
        self.steps = setting.steps or (setting.epochs or 0) * (len(self.images) // self.batch_size)
        self.model.to(compute.device).to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        parts = [self.model.encoder, self.model.head]
        self.optimizer = torch.optim.SGD(
            [{"params": list(part.parameters()), "lr": 0.0} for part in parts],
            momentum=0.9,
            nesterov=setting.nesterov,
            weight_decay=setting.weight_decay,
        )
        norms = [] if self.model.frozen else batch_norms(self.model)
        self.statistics = [x for norm in norms for x in (norm.running_mean, norm.running_var) if x is not None]
        self.done, seconds = 0, 0.0
        self.loss, self.summed = torch.zeros((), device=compute.device), 0
        if (state := unfinished.newest(setting.name)) is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done, seconds = state["step"], state["seconds"]
        self.began = time.perf_counter() - seconds  # as if it had not been interrupted

    def run(self) -> Classifier:
        """All steps that are left.

        Raises:
            FloatingPointError: on all ranks, if the loss becomes infinite or NaN.
            ValueError: if an image cannot be read: another one may not stand in for it, for it has its own label.
        """
        device, saved_at = torch.device(self.compute.device), time.perf_counter()
        # Random layers are seeded step by step; the caller's own numbers stay as they were.
        own_numbers = torch.random.fork_rng([device] if device.type == "cuda" else [])
        quiet = self.compute.quiet or rank() > 0
        bar = progress_bar(self.setting.name, self.steps, done=self.done, unit="steps", quiet=quiet)
        self.model.train()
        with bar, own_numbers, Interruption() as interruption:
            for batch in self._batches(device):
                self._step(batch)
                self.done += 1
                bar.update()
                if self.done % CHECK == 0 or self.done == self.steps:
                    bar.set_postfix(loss=f"{self._mean_loss():.4g}")
                if signal := all_ranks_max(interruption.signal, device):  # ranks end at the same step
                    self._save()
                    if self.unfinished.path is not None and rank() == 0:
                        where = f"{self.setting.name}: stopped at step {self.done} of {self.steps}"
                        bar.write(f"infomax: {where}; the same command goes on from there", file=sys.stderr)
                    interruption.end(signal)
                if time.perf_counter() - saved_at > SAVE_EVERY:
                    self._save()
                    saved_at = time.perf_counter()
        return self.model

    def _batches(self, device: torch.device) -> Iterator[Batch]:
        views = supervised_crops(self.model.encoder.preprocessing)
        dtype = self.model.head.weight.dtype

        def make(batch: Batch) -> list[Tensor]:
            return make_views(batch.images, views, seed=self.seed, epoch=batch.epoch, index=batch.index, dtype=dtype)

        read = training_batches(
            self.images,
            views,
            batch_size=self.batch_size,
            seed=self.seed,
            steps=range(self.done, self.steps),
            rank=rank(),
            world_size=world_size(),
            workers=self.compute.workers,
            device=device,
        )
        for batch in BatchPrefetcher(read, device, make):
            if batch.unreadable:
                raise ValueError(next(iter(batch.unreadable.values())))
            yield batch if batch.views is not None else batch._replace(views=make(batch))

    def _step(self, batch: Batch) -> None:
        rates = self.setting.rates(self.done, batch.epoch, self.steps)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        torch.manual_seed((self.seed * 2**44 + self.done * 2**20 + rank()) % 2**63)
        labels = self.labels[torch.from_numpy(batch.index)].to(self.compute.device)
        assert batch.views is not None
        with self.compute.cast():
            scores = self.model(batch.views[0])
        # Ranks may hold different numbers of images: their mean is that over the batch.
        loss = _loss(scores.to(self.model.head.weight.dtype), labels) * (len(labels) * world_size() / self.batch_size)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        average_in_place([*gradients, *self.statistics])
        self.optimizer.step()
        self.loss += loss.detach()
        self.summed += 1

    def _mean_loss(self) -> float:
        """Of the steps since it was asked for last."""
        average_in_place([self.loss])
        mean, self.summed = float(self.loss) / self.summed, 0
        self.loss.zero_()
        if not np.isfinite(mean):
            what = f"the loss became infinite or NaN by step {self.done} of {self.steps}"
            raise FloatingPointError(f"{self.setting.name}: {what}; smaller learning rates are the usual cure")
        return mean

    def _save(self) -> None:
        state = {"step": self.done, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.unfinished.save(self.setting.name, {**state, "seconds": time.perf_counter() - self.began})


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim > 1:
        return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))
    return F.cross_entropy(scores, labels)


def class_count(part: LabelledImages) -> int:
    """That a classifier tells apart."""
    return len(part.images.classes) if part.labels.ndim == 1 else part.labels.shape[1]


@torch.no_grad()
def class_scores(model: Classifier, part: LabelledImages, compute: Compute) -> Float[Tensor, "n classes"]:
    """Of the images of a part, in their order, on the CPU, the same on all ranks; the model is put in evaluation mode.

    Raises:
        FloatingPointError: if they are infinite or NaN.
    """
    how, weight = model.encoder.preprocessing, model.head.weight
    first, last = (r * len(part.index) // world_size() for r in (rank(), rank() + 1))
    found = [weight.new_zeros(0, len(weight))]
    model.eval()
    for batch in evaluation_batches(part.images, part.index[first:last], how, workers=compute.workers):
        with compute.cast():
            found.append(model(batch.to(weight.device, weight.dtype)).to(weight.dtype))
    scores = gather(torch.cat(found))[0].cpu()
    if not scores.isfinite().all():
        raise FloatingPointError("the class scores became infinite or NaN; smaller learning rates are the usual cure")
    return scores
