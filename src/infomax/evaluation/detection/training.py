"""Trains a detector by SGD for a number of iterations, tests it on the way, and goes on where it was interrupted.

On several ranks each takes its share of a batch, and gradients are averaged. BatchNorm takes the statistics of all
ranks. torchvision divides losses by the boxes of a rank, so that the number of ranks is one of the things that decide
the result.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from infomax.data.loading.training import BatchSchedule
from infomax.evaluation.detection.coco_folder import CocoSource
from infomax.evaluation.detection.detecting import detect_all
from infomax.evaluation.detection.loading import LoadedImage, training_batches
from infomax.evaluation.detection.model import Detector
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.detection.scoring import Detection, average_precision
from infomax.evaluation.resumable_work import ResumableWork
from infomax.evaluation.tuning import Compute
from infomax.nn.batch_norm import RunningStatistics, batch_norms, trained_batch_norms
from infomax.nn.optimizers import without_compiler
from infomax.runtime.collectives import average_in_place, broadcast_from_rank0, rank, world_size
from infomax.runtime.devices import random_state_kept
from infomax.runtime.progress import ProgressBar
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.runtime.text import note

NAME = "detector"
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
CHECK = 20  # iterations after which the losses are read: each time waits for the device
SAVE_EVERY = 300.0  # seconds
PRECISE_SEED = 1 << 20  # added to the seed of the batches that set BatchNorm's statistics before a test
Point = dict[str, Any]
"""Scores on the way, with the ``iteration`` and the mean ``loss`` since the last ones."""


class DetectorTraining:
    """Trains a detector, from where an earlier process was interrupted.

    Args:
        detector: The detector, which is trained.
        source: Images and objects.
        setting: How it is trained.
        compute: What it computes on.
        work: Keeps checkpoints.
        truth: The true objects of the test images, as :func:`.scoring.true_objects` returns them.

    Raises:
        ValueError: if there are too few images for a batch, or for the ranks.

    Attributes:
        points: Scores on the way.
    """

    def __init__(
        self,
        detector: Detector,
        source: CocoSource,
        setting: DetectorSetting,
        *,
        compute: Compute,
        work: ResumableWork,
        truth: dict[str, Any],
    ):
        self.detector, self.source, self.setting = detector, source, setting
        self.compute, self.work, self.truth = compute, work, truth
        self.device = torch.device(compute.device)
        batch, images, ranks = setting.batch_size, len(source.train), world_size()
        if batch > images:
            raise ValueError(f"--batch-size {batch}: there are {images} images to train on")
        if batch < ranks:
            raise ValueError(f"--batch-size {batch}: {ranks} ranks take {ranks} images a step at least")
        self.optimizer = without_compiler(torch.optim.SGD)(_parameter_groups(detector), lr=0.0, momentum=MOMENTUM)
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        self.done, seconds, self.points = 0, 0.0, []
        self.loss_sum, self.losses = torch.zeros((), device=self.device), 0
        if (state := work.newest_state(NAME)) is not None:
            detector.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done, seconds, self.points = state["step"], state["seconds"], state["points"]
            self.loss_sum.fill_(state["loss_sum"])
            self.losses = state["losses"]
        self.began = time.perf_counter() - seconds  # as if it had not been interrupted

    @property
    def seconds(self) -> float:
        """Returns the seconds so far, those of earlier processes included."""
        return time.perf_counter() - self.began

    def run(self) -> list[Detection]:
        """Makes all iterations that are left, and returns what the detector finds in the test images.

        Raises:
            FloatingPointError: on all ranks, if the loss becomes infinite or NaN.
            ValueError: if an image cannot be read, or is of another size than the JSON says.
        """
        setting, quiet = self.setting, self.compute.quiet or rank() > 0
        bar = ProgressBar(f"mask-rcnn-{setting.arch}", setting.iterations, done=self.done, unit="its", quiet=quiet)
        loop = ResumableLoop(
            steps=setting.iterations,
            done=self.done,
            save=self._save,
            device=self.device,
            save_every=SAVE_EVERY,
            bar=bar,
            name="detection",
            resume_hint=self.work.resume_hint,
        )
        # Each iteration seeds what torchvision draws. The caller's random state stays as it was.
        self.detector.train()
        with random_state_kept(self.device), loop:
            for batch in self._batches(setting.seed, range(self.done, setting.iterations)):
                self._step(batch)
                self.done += 1
                if self.done % CHECK == 0 or self.done == setting.iterations:
                    bar.show_values([f"loss {self._mean_loss():.4g}"])
                if self.done == setting.iterations:
                    self._save()  # the last test takes long, and a process may be killed in it
                elif self.done % setting.test_interval == 0:
                    self._test()
                loop.step_done()
            return self._test()

    def _batches(self, seed: int, iterations: range) -> Iterator[list[LoadedImage]]:
        """Yields this rank's images of each iteration."""
        schedule = BatchSchedule(
            image_count=len(self.source.train),
            batch_size=self.setting.batch_size,
            seed=seed,
            start=iterations.start,
            stop=iterations.stop,
            micro_batch_size=self.setting.batch_size,
            rank=rank(),
            world_size=world_size(),
        )
        yield from training_batches(*self.source.to_train, schedule, workers=self.compute.workers)

    def _step(self, batch: list[LoadedImage]) -> None:
        """Makes one iteration of SGD."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.setting.rate(self.done)
        self._seed(self.setting.seed, self.done)
        size = self.setting.micro_batch_size or len(batch)
        # Ranks may hold different numbers of images. With this weight their mean is the mean over the batch.
        share = world_size() / self.setting.batch_size

        def learn(part: list[LoadedImage]) -> None:
            loss = self._loss(part) * (len(part) * share)
            loss.backward()
            self.loss_sum += loss.detach()

        self.optimizer.zero_grad(set_to_none=False)
        _by_parts(batch, size, trained_batch_norms(self.detector), learn)
        for parameter in self.parameters:  # a rank without a mask has no gradient of what predicts masks
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        average_in_place([p.grad for p in self.parameters if p.grad is not None])
        self.optimizer.step()
        self.losses += 1

    def _loss(self, part: list[LoadedImage]) -> Tensor:
        """Returns the sum of all losses of some images."""
        images, targets = zip(*(image.to(self.device) for image in part), strict=True)
        with self.compute.cast():
            losses = self.detector(list(images), list(targets))
        return torch.stack([loss.float() for loss in losses.values()]).sum()

    @staticmethod
    def _seed(seed: int, step: int) -> None:
        torch.manual_seed((seed * 2**44 + step * 2**20 + rank()) % 2**63)

    def _mean_loss(self) -> float:
        """Returns the mean loss of the iterations since the last test, the same on all ranks.

        Raises:
            FloatingPointError: if it is infinite or NaN.
        """
        total = self.loss_sum.clone()
        average_in_place([total])
        mean = float(total) / max(1, self.losses)
        if not math.isfinite(mean):
            problem = f"the loss became infinite or NaN by iteration {self.done} of {self.setting.iterations}"
            raise FloatingPointError(f"detection: {problem}; a smaller --learning-rate is the usual cure")
        return mean

    def _test(self) -> list[Detection]:
        """Detects in all test images, keeps and prints the scores, and returns the detections."""
        loss = self._mean_loss()
        self._set_precise_statistics()
        found = detect_all(self.detector, *self.source.to_test, self.compute)
        scores = broadcast_from_rank0(lambda: average_precision(self.truth, found, fast=True))
        self.points.append({"iteration": self.done, "loss": round(loss, 6), **scores})
        self.loss_sum.zero_()
        self.losses = 0
        if rank() == 0 and not self.compute.quiet:
            note(f"iteration {self.done:,} of {self.setting.iterations:,}: {describe_scores(scores)}")
        return found

    @torch.no_grad()
    def _set_precise_statistics(self) -> None:
        """Sets BatchNorm's running statistics to the mean over training batches, with the weights as they are now."""
        self.detector.train()
        norms = trained_batch_norms(self.detector)
        if not norms or not self.setting.precise_batches:
            return
        # As an epoch has few batches of a small data set, no more of them are taken.
        count = min(self.setting.precise_batches, len(self.source.train) // self.setting.batch_size)
        momenta, statistics = [norm.momentum for norm in norms], RunningStatistics(norms)
        for norm in norms:
            norm.momentum = 1.0  # then the running statistics are those of the batch
        size = self.setting.micro_batch_size or self.setting.batch_size
        for number, batch in enumerate(self._batches(self.setting.seed + PRECISE_SEED, range(count))):
            self._seed(self.setting.seed + PRECISE_SEED, number)
            for begin in range(0, len(batch), size):
                statistics.before_microbatch()
                self._loss(batch[begin : begin + size])
                statistics.after_microbatch()
        statistics.set_to_mean()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _save(self) -> None:
        state = {
            "step": self.done,
            "model": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "points": self.points,
            "loss_sum": float(self.loss_sum),
            "losses": self.losses,
        }
        self.work.save(NAME, {**state, "seconds": self.seconds})


def _by_parts(batch: list[LoadedImage], size: int, norms: list, learn: Callable[[list[LoadedImage]], None]) -> None:
    """Calls ``learn`` on a batch, or on parts of it, over which BatchNorm's running statistics are averaged."""
    if size >= len(batch):
        learn(batch)
        return
    statistics = RunningStatistics(norms)
    for begin in range(0, len(batch), size):
        statistics.before_microbatch()
        learn(batch[begin : begin + size])
        statistics.after_microbatch()
    statistics.set_to_mean()


def _parameter_groups(detector: Detector) -> list[dict[str, Any]]:
    """Returns the trained parameters: those of norms have no weight decay, as in Detectron2, all others do."""
    of_norms = {id(p) for norm in batch_norms(detector) for p in norm.parameters()}
    trained = [p for p in detector.parameters() if p.requires_grad]
    groups: dict[float, list[nn.Parameter]] = {WEIGHT_DECAY: [], 0.0: []}
    for parameter in trained:
        groups[0.0 if id(parameter) in of_norms else WEIGHT_DECAY].append(parameter)
    return [{"params": members, "weight_decay": decay} for decay, members in groups.items() if members]


def describe_scores(scores: dict[str, float]) -> str:
    """Returns AP, AP50 and AP75 of boxes and masks in words, in per cent."""
    return "; ".join(
        f"{word} AP {100 * scores[f'{word}_ap']:.1f} (AP50 {100 * scores[f'{word}_ap50']:.1f}, "
        f"AP75 {100 * scores[f'{word}_ap75']:.1f})"
        for word in ("box", "mask")
    )
