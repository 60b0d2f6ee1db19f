"""Fine-tuning: an encoder and a linear classifier on its features, trained together on labels.

Training images are random crops, some of them flipped; images to classify are prepared as the encoder's preprocessing
says. The classifier of the last step is evaluated; none is chosen by the test images.

On several ranks each takes its share of a batch, and gradients are averaged. BatchNorm normalises by the share's own
statistics, whose running means are averaged after each step. So the number of ranks is one of the things that decide
the result.
"""

import copy
import re
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
from infomax.data.loading.unreadable import unreadable_error
from infomax.data.loading.workers import Batch
from infomax.data.splits import LabelledImages
from infomax.evaluation.resumable_work import ResumableWork
from infomax.models.encoders import Encoder
from infomax.nn.batch_norm import batch_norms
from infomax.nn.optimizers import lay_out_state, without_compiler
from infomax.nn.schedules import cosine
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.collectives import average_in_place, gather, rank, world_size
from infomax.runtime.devices import check_precision, network_layout, place_network, random_state_kept, to_network
from infomax.runtime.progress import ProgressBar
from infomax.runtime.resumable_loop import ResumableLoop

SCHEDULES = ("cosine", "cosine-by-step", "staircase")
STAIR = 5  # epochs after which the staircase multiplies the learning rates
BACKBONE_FACTOR, HEAD_FACTOR = 0.2, 0.1  # of the staircase
CHECK = 50  # steps after which the loss is read: each time waits for the device
SAVE_EVERY = 60.0  # seconds


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A frozen dataclass that says how an encoder is fine-tuned: by SGD with momentum 0.9, for some epochs or steps."""

    name: str
    """Name of the setting; a folder is named after it."""
    backbone_rate: float
    """Learning rate of the encoder. At 0 the encoder stays as it is, BatchNorm's statistics included."""
    head_rate: float
    """Learning rate of the classifier."""
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 256
    """Images of a step, over all ranks; all images, if they are fewer."""
    schedule: str = "cosine"
    """The schedule of both learning rates: ``cosine`` falls to 0, once an epoch; ``cosine-by-step``, at each step;
    ``staircase`` multiplies the encoder's by 0.2 and the classifier's by 0.1 every 5 epochs."""
    head_std: float | None = None
    """Standard deviation of the classifier's first weights, whose biases are then 0; None takes PyTorch's own."""
    weight_decay: float = 0.0
    """Weight decay of all parameters, as SGD takes it."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""
    bicubic: bool = True
    """Whether random crops are interpolated bicubically; otherwise bilinearly."""

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
        """Returns the learning rates of the encoder and of the classifier.

        Args:
            step: The step, counted from 0.
            epoch: The epoch, counted from 0.
            steps: Number of steps in all.
        """
        if self.schedule == "staircase":
            stairs = epoch // STAIR
            return self.backbone_rate * BACKBONE_FACTOR**stairs, self.head_rate * HEAD_FACTOR**stairs
        done = step / steps if self.epochs is None or self.schedule == "cosine-by-step" else epoch / self.epochs
        return cosine(self.backbone_rate, 0.0, done), cosine(self.head_rate, 0.0, done)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A frozen dataclass that says what a fine-tuning computes on."""

    device: torch.device | str = "cpu"
    """The device that this rank computes on."""
    workers: int | None = None
    """Number of processes that decode image files; None takes one for each core, at most 8."""
    precision: str = "32"
    """``32``, or ``bf16`` by autocast."""
    quiet: bool = True
    """Whether to show no progress bar."""

    def __post_init__(self) -> None:
        choose("--precision", self.precision, ("32", "bf16"))
        check_precision(self.precision, torch.device(self.device).type)

    def cast(self) -> torch.autocast:
        """Returns a context manager that sets the precision of a forward pass."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16")


class Classifier(nn.Module):
    """A copy of an encoder with a linear layer on its features: images [B, 3, H, W] to class scores [B, classes].

    Args:
        encoder: The encoder, which does not change.
        classes: Number of classes.
        setting: Says how the layer starts, and whether the encoder is frozen.
        seed: Of the layer's first weights.
    """

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
        """Sets training mode, but leaves a frozen encoder in evaluation mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.encoder(images))


class FineTuner:
    """Makes one fine-tuning on labelled images, from where an earlier process was interrupted.

    Args:
        encoder: The encoder, which does not change.
        images: The images to train on. Each has a class, or a 1 for each class that it shows; then each class has a
            binary cross-entropy of its own.
        setting: How the encoder is fine-tuned.
        seed: Of the classifier's first weights, the order of the images and their crops.
        compute: What it computes on.
        work: Keeps checkpoints, under the setting's name.

    Raises:
        ValueError: if a batch has too few images for the ranks.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: LabelledImages,
        setting: FineTuning,
        *,
        seed: int,
        compute: Compute,
        work: ResumableWork,
    ):
        self.setting, self.seed, self.compute, self.work = setting, seed, compute, work
        self.images, self.labels = images.selected_images, torch.from_numpy(images.labels).long()
        self.batch_size = min(setting.batch_size, len(self.images))
        self.model = Classifier(encoder, class_count(images), setting, seed=seed)
        least = world_size() * (1 if self.model.frozen else 2)  # BatchNorm needs two images on each rank
        if self.batch_size < least:
            batch = f"batch_size {setting.batch_size} of {len(self.images)} images"
            raise ValueError(f"{batch}: {world_size()} ranks take {least} images a step at least")
        self.steps = setting.steps or (setting.epochs or 0) * (len(self.images) // self.batch_size)
        place_network(self.model, compute.device)
        self.model.to(memory_format=network_layout(compute.device))  # pyrefly: ignore[no-matching-overload]
        self.optimizer = without_compiler(torch.optim.SGD)(
            [{"params": list(module.parameters()), "lr": 0.0} for module in (self.model.encoder, self.model.head)],
            momentum=0.9,
            nesterov=setting.nesterov,
            weight_decay=setting.weight_decay,
        )
        norms = [] if self.model.frozen else batch_norms(self.model)
        self.running_statistics = [x for norm in norms for x in (norm.running_mean, norm.running_var) if x is not None]
        self.done, seconds = 0, 0.0
        self.loss_sum, self.losses = torch.zeros((), device=compute.device), 0
        if (state := work.newest_state(setting.name)) is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            lay_out_state(self.optimizer, network_layout(compute.device))
            self.done, seconds = state["step"], state["seconds"]
        self.began = time.perf_counter() - seconds  # as if it had not been interrupted

    def run(self) -> Classifier:
        """Makes all steps that are left, and returns the classifier.

        Raises:
            FloatingPointError: on all ranks, if the loss becomes infinite or NaN.
            ValueError: if an image cannot be read: no other image may stand in for it, for it would have another label.
        """
        device = torch.device(self.compute.device)
        # Each step seeds random layers. The caller's random state stays as it was.
        quiet = self.compute.quiet or rank() > 0
        bar = ProgressBar(self.setting.name, self.steps, done=self.done, unit="steps", quiet=quiet)
        loop = ResumableLoop(
            steps=self.steps,
            done=self.done,
            save=self._save,
            device=device,
            save_every=SAVE_EVERY,
            bar=bar,
            name=self.setting.name,
            resume_hint=self.work.resume_hint,
        )
        self.model.train()
        with random_state_kept(device), loop:
            for batch in self._batches(device):
                self._step(batch)
                self.done += 1
                if self.done % CHECK == 0 or self.done == self.steps:
                    bar.show_values([f"loss {self._mean_loss():.4g}"])
                loop.step_done()
        return self.model

    def _batches(self, device: torch.device) -> Iterator[Batch]:
        """Yields this rank's share of each batch that is left, with its views."""
        views = supervised_crops(self.model.encoder.preprocessing, bicubic=self.setting.bicubic)
        dtype = self.model.head.weight.dtype

        def make(batch: Batch) -> list[Tensor]:
            crops = make_views(batch.images, views, seed=self.seed, epoch=batch.epoch, index=batch.index, dtype=dtype)
            return [to_network(crop, device) for crop in crops]

        batches = training_batches(
            self.images,
            views,
            batch_size=self.batch_size,
            seed=self.seed,
            steps=range(self.done, self.steps),
            rank=rank(),
            world_size=world_size(),
            workers=self.compute.workers,
            device=device,
            pixel_format=self.model.encoder.preprocessing.pixel_format,
        )
        for batch in BatchPrefetcher(batches, device, make):
            if batch.unreadable:
                raise unreadable_error(next(iter(batch.unreadable.values())))
            yield batch if batch.views is not None else batch._replace(views=make(batch))

    def _step(self, batch: Batch) -> None:
        """Makes one step of SGD."""
        rates = self.setting.rates(self.done, batch.epoch, self.steps)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        torch.manual_seed((self.seed * 2**44 + self.done * 2**20 + rank()) % 2**63)
        labels = self.labels[torch.from_numpy(batch.index)].to(self.compute.device)
        assert batch.views is not None
        with self.compute.cast():
            scores = self.model(batch.views[0])
        # Ranks may hold different numbers of images. With these weights their mean is the mean over the batch.
        loss = _loss(scores.to(self.model.head.weight.dtype), labels) * (len(labels) * world_size() / self.batch_size)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        average_in_place([*gradients, *self.running_statistics])
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.losses += 1

    def _mean_loss(self) -> float:
        """Returns the mean loss of the steps since the last call, the same on all ranks.

        Raises:
            FloatingPointError: if it is infinite or NaN.
        """
        average_in_place([self.loss_sum])
        mean, self.losses = float(self.loss_sum) / self.losses, 0
        self.loss_sum.zero_()
        if not np.isfinite(mean):
            problem = f"the loss became infinite or NaN by step {self.done} of {self.steps}"
            raise FloatingPointError(f"{self.setting.name}: {problem}; smaller learning rates are the usual cure")
        return mean

    def _save(self) -> None:
        state = {"step": self.done, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.work.save(self.setting.name, {**state, "seconds": time.perf_counter() - self.began})


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim > 1:
        return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))
    return F.cross_entropy(scores, labels)


def class_count(images: LabelledImages) -> int:
    """Returns the number of classes that a classifier of these images tells apart."""
    return len(images.images.classes) if images.labels.ndim == 1 else images.labels.shape[1]


@torch.no_grad()
def class_scores(model: Classifier, images: LabelledImages, compute: Compute) -> Float[Tensor, "n classes"]:
    """Returns the class scores of the images, in their order, on the CPU; the same on all ranks.

    The model is put in evaluation mode.

    Raises:
        FloatingPointError: if a score is infinite or NaN.
    """
    preprocessing, weight = model.encoder.preprocessing, model.head.weight
    first, last = (r * len(images.index) // world_size() for r in (rank(), rank() + 1))
    scores = [weight.new_zeros(0, len(weight))]  # a rank may have no image
    model.eval()
    for batch in evaluation_batches(images.images, images.index[first:last], preprocessing, workers=compute.workers):
        with compute.cast():
            scores.append(model(to_network(batch, weight.device, weight.dtype)).to(weight.dtype))
    all_scores = gather(torch.cat(scores))[0].cpu()
    if not all_scores.isfinite().all():
        raise FloatingPointError("the class scores became infinite or NaN; smaller learning rates are the usual cure")
    return all_scores
