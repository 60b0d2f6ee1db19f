"""Online evaluation: scores the encoder during training, by k-NN and by a linear probe that learns along with it.

Neither changes the training: the probe learns from features that a step computes anyway, and has its own random
numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.evaluation import KeptBatches
from infomax.data.loading.workers import Batch
from infomax.data.splits import LabelledImages, Source, labelled_splits
from infomax.evaluation.intervals import compare_shares
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.probes import LinearProbes, Probe
from infomax.evaluation.protocols.online_linear import LEARNING_RATE
from infomax.evaluation.scores import hits, top_k
from infomax.features.extraction import RECALIBRATION_IMAGES, extract_features, pixel_batches, recalibrate_batch_norm
from infomax.methods.base import Progress
from infomax.models.encoders import Encoder, build_encoder
from infomax.nn.schedules import cosine
from infomax.recipes.schema import Recipe
from infomax.runtime.collectives import gather, rank, world_size
from infomax.runtime.devices import float64_device
from infomax.training.closing import COMPARED, gain_keys

MAX_KNN_BANK = RECALIBRATION_IMAGES  # which are the bank, so that the untrained encoder is that of `infomax evaluate`
MAX_QUERIES = 2_000  # images
EVALUATIONS = 10  # during a run, at most
CHUNK = 8192  # images that are classified at once


class OnlineProbe:
    """The linear classifier of MIRA's appendix: one step of SGD with each step of the training, on the same images.

    The learning rate falls from 0.1 along a cosine, step by step, to the end of the run. Momentum is 0.9, and there is
    no weight decay. Each global crop is an example. Two kinds of images are left out, though their views are trained on
    without labels: those that the probe is tested on, and those that stand in for an unreadable image.

    Args:
        labelled: The images whose labels the probe may see, among the images that are trained on.
        recipe: Decides the number of steps, the batch size and the seed.
        width: Number of features of an image.
        device: The device that the probe is trained on.

    Attributes:
        first_step: The step of the run, from 0, that it began to learn at; the run's first one, unless the run was
            resumed from a checkpoint without a probe that fits.
    """

    def __init__(self, labelled: LabelledImages, recipe: Recipe, *, width: int, device: torch.device):
        self.device, self.first_step = device, 0
        self.labels = np.full(len(labelled.images), -1)
        self.labels[labelled.index] = labelled.labels
        settings = Probe(epochs=recipe.epochs, batch_size=recipe.batch_size, learning_rate=LEARNING_RATE)
        seed = recipe.seed + 2  # other random numbers than those of the encoder (seed) and of the method (seed + 1)
        classes = len(labelled.images.classes)
        self.heads = LinearProbes(width, classes, [LEARNING_RATE], settings, seed=seed, device=device)

    def learn(
        self, microbatches: Sequence[Batch], features: Sequence[Float[Tensor, "n d"]], progress: Progress
    ) -> None:
        """Makes one step of SGD on the global batch; on each rank, with that rank's share.

        Args:
            microbatches: The images of this step.
            features: Their features, one tensor [views * B, width] a microbatch; see
                :attr:`infomax.training.engine.Step.features`.
            progress: The position of this step in the run.
        """
        labels = []
        for batch, rows in zip(microbatches, features, strict=True):
            of_images = np.where(np.isin(batch.index, list(batch.unreadable)), -1, self.labels[batch.index])
            labels.append(np.tile(of_images, len(rows) // len(of_images)))  # once for each view
        targets = torch.from_numpy(np.concatenate(labels)).to(self.device)
        counts = (targets >= 0).float().unsqueeze(1)
        self.heads.step(torch.cat(list(features)), targets.clamp_min(0), counts, cosine(1.0, 0.0, progress.fraction))

    def accuracies(self, features: Float[Tensor, "n d"], labels: np.ndarray) -> tuple[float, float]:
        """Returns the top-1 and the top-5 accuracy, from 0 to 1."""
        first, fifth = [], []
        for x, targets in zip(features.split(CHUNK), torch.from_numpy(labels).split(CHUNK), strict=True):
            scores = self.heads.scores(x.to(self.device))[:, 0].cpu()
            first.append(hits(scores, targets))
            fifth.append(hits(scores, targets, 5))
        return float(torch.cat(first).float().mean()), float(torch.cat(fifth).float().mean())

    def state(self) -> dict[str, Tensor]:
        """Returns the classifier's weights and momentum, and the step that it began to learn at."""
        return {**self.heads.state(), "first_step": torch.tensor([self.first_step])}

    def load(self, state: dict[str, Tensor]) -> bool:
        """Goes on from a state; returns False, and changes nothing, if the state has other shapes or is empty."""
        if {name: x.shape for name, x in state.items()} != {name: x.shape for name, x in self.state().items()}:
            return False
        self.first_step = int(state["first_step"])
        self.heads.load({name: x for name, x in state.items() if name != "first_step"})
        return True


class OnlineEvaluation:
    """Scores the encoder about ten times during a run. Each rank computes the features of its share of the images.

    Args:
        labelled: The labelled images to classify by.
        test: The labelled images to classify.
        recipe: The recipe of the run.
        width: Number of features of an image.
        device: The device of the networks of this rank; the probe learns where the loss is computed.
        probe: Whether a linear probe learns during the run: the images of ``labelled`` must then be those that are
            trained on.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
    """

    def __init__(
        self,
        labelled: LabelledImages,
        test: LabelledImages,
        recipe: Recipe,
        *,
        width: int,
        device: torch.device,
        probe: bool,
        workers: int | None,
    ):
        self.bank, self.test, self.workers = labelled.subsample(MAX_KNN_BANK), test, workers
        self.queries = test.subsample(MAX_QUERIES)
        self.recipe, self.device = recipe, device
        self.epochs_between = -(-recipe.epochs // EVALUATIONS)
        self.probe = OnlineProbe(labelled, recipe, width=width, device=float64_device(device)) if probe else None
        self.kept: dict[int, KeptBatches] = {}  # by the identity of the labelled images
        self.right: dict[str, np.ndarray] = {}  # which queries k-NN classifies right, by the key of the score

    def keep_images(self, room: int) -> int:
        """Keeps the preprocessed images from the first evaluation on, if they fit; returns the bytes that they take.

        Images that are in memory as arrays take none.

        Args:
            room: Bytes that they may take.
        """
        of_files = [x for x in (self.bank, self.queries) if not isinstance(x.images, ArrayImages)]
        pixels = self.recipe.preprocessing.pixel_format
        image = pixels.channels * (2 if pixels.is_deep else 1) * self.recipe.preprocessing.size**2
        size = sum(image * len(self._share(x.index)) for x in of_files)
        if size > room:
            return 0
        self.kept = {id(x): KeptBatches() for x in of_files}
        return size

    def is_due(self, epochs_done: int) -> bool:
        """Returns whether the encoder is to be scored at the end of this epoch."""
        return epochs_done % self.epochs_between == 0 or epochs_done == self.recipe.epochs

    def score(self, encoder: Encoder, epochs_done: int) -> dict[str, float]:
        """Returns accuracies, from 0 to 1, by name.

        At most 2,000 test images are classified. At the end of the run the probe classifies all of them, and what the
        protocol ``online-linear`` makes a row of is added: the numbers of images and classes, and the step that the
        probe began to learn at.
        """
        bank, is_last = self._features(encoder, self.bank), epochs_done == self.recipe.epochs
        test = self.test if is_last and self.probe is not None else self.queries
        features = self._features(encoder, test)
        queries = features[np.searchsorted(test.index, self.queries.index)]
        bank_labels, targets = torch.from_numpy(self.bank.labels), torch.from_numpy(self.queries.labels)
        votes = knn_scores(bank, bank_labels, queries, classes=len(self.bank.images.classes))
        scores = {"knn_top1": top_k(votes, targets)}
        self.right["knn_top1"] = hits(votes, targets).numpy()
        if self.probe is not None:
            scores["linear_top1"], scores["linear_top5"] = self.probe.accuracies(features, test.labels)
            if is_last:
                scores |= {
                    "linear_test_images": len(test.labels),
                    "linear_labelled_images": int((self.probe.labels >= 0).sum()),
                    "linear_classes": len(test.images.classes),
                    "linear_first_step": self.probe.first_step,
                }
        return scores

    def score_references(self, initial: Encoder | None = None) -> dict[str, float]:
        """Returns the k-NN accuracies, from 0 to 1, of the encoder that a run started from, and of an untrained one.

        Both classify the same images as the trained encoder. The untrained one has the statistics of the same images in
        its BatchNorm layers as in ``infomax evaluate``.

        Args:
            initial: The encoder with the initial weights; None if they were random.
        """
        settings, preprocessing = self.recipe.encoder.architecture(), self.recipe.preprocessing
        untrained = build_encoder(**settings, seed=self.recipe.seed)
        kept = self.kept.get(id(self.bank)) if world_size() == 1 else None  # several ranks keep a share each
        options = {"device": self.device, "workers": self.workers, "lenient": True, "kept": kept}
        recalibrate_batch_norm(untrained, self.bank, preprocessing, **options)
        scores = {}
        for name, encoder in {"initial": initial, "untrained": untrained}.items():
            if encoder is not None:
                bank, queries = self._features(encoder, self.bank), self._features(encoder, self.queries)
                scores[f"{name}_knn_top1"] = self._knn(name, bank, queries)
        return scores

    def compare(self, load_initial: Callable[[], Encoder | None]) -> dict[str, float]:
        """Returns how much better the encoder is by k-NN than what it is compared with, after it was scored.

        The differences are paired: of the same images, as shares, each with the limits of its 95 % interval. The number
        of these images and the accuracy of the raw pixels are among the values.

        Args:
            load_initial: Returns the encoder with the initial weights, or None if there is none. It is called if the
                references were scored before the run was resumed, so that they have to be scored again.
        """
        if "untrained_knn_top1" not in self.right:
            self.score_references(load_initial())
        pixels = self._knn("pixels", self._pixels(self.bank), self._pixels(self.queries))
        gains: dict[str, float] = {"knn_test_images": len(self.queries.labels), "pixels_knn_top1": pixels}
        for name in COMPARED:
            if (right := self.right.get(f"{name}_knn_top1")) is not None:
                gain = compare_shares(self.right["knn_top1"], right)
                gains |= dict(zip(gain_keys(name), (gain.value, gain.low, gain.high), strict=True))
        return gains

    def _knn(self, name: str, bank: Float[Tensor, "n d"], queries: Float[Tensor, "m d"]) -> float:
        """Returns the k-NN accuracy of a reference on the queries, and keeps which of them were right.

        Args:
            name: The reference, one of COMPARED.
            bank, queries: Its features.
        """
        targets = torch.from_numpy(self.queries.labels)
        votes = knn_scores(bank, torch.from_numpy(self.bank.labels), queries, classes=len(self.bank.images.classes))
        self.right[f"{name}_knn_top1"] = hits(votes, targets).numpy()
        return top_k(votes, targets)

    def _pixels(self, labelled: LabelledImages) -> Float[Tensor, "n d"]:
        """Returns the preprocessed images as rows of pixels, averaged down to at most 32 pixels a side."""
        index, kept = labelled.index, self.kept.get(id(labelled))
        options = {"workers": self.workers, "lenient": True, "kept": kept}
        batches = pixel_batches(labelled.images, self._share(index), self.recipe.preprocessing, **options)
        return gather(torch.cat(list(batches)).to(self.device))[0].cpu()[: len(index)]

    def _features(self, encoder: Encoder, labelled: LabelledImages) -> Tensor:
        index, kept = labelled.index, self.kept.get(id(labelled))
        preprocessing = self.recipe.preprocessing
        options = {"device": self.device, "workers": self.workers, "lenient": True, "kept": kept}
        features = extract_features(encoder, labelled.images, self._share(index), preprocessing, **options)
        return gather(features.to(self.device))[0].cpu()[: len(index)]

    def _share(self, index: np.ndarray) -> np.ndarray:
        """Returns those of some images that this rank computes the features of.

        If there are fewer images than ranks, each rank takes all of them. The bank then holds each image several times,
        which changes no vote.
        """
        return np.array_split(index, world_size())[rank()] if len(index) >= world_size() else index

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint is to hold of the probe."""
        return {} if self.probe is None else {"probe": self.probe.state()}

    def load(self, state: dict[str, Any], *, step: int) -> bool:
        """Goes on from a checkpoint; returns False if the probe starts anew, because the checkpoint has none that
        fits.

        Args:
            state: The checkpoint.
            step: Number of steps that the run has made.
        """
        if self.probe is None or self.probe.load(state.get("probe", {})):
            return True
        self.probe.first_step = step
        return False


def online_evaluation(
    source: Source, recipe: Recipe, *, width: int, device: torch.device, workers: int | None
) -> OnlineEvaluation | None:
    """Returns the online evaluation of a run on this source; None if its images have no labels, or several each.

    Args:
        source: The data of the run.
        recipe, width, device, workers: As :class:`OnlineEvaluation` takes them.
    """
    splits = labelled_splits(source)
    if splits is None:
        return None
    labelled, test = splits
    probe = source.pretraining is source.train
    return OnlineEvaluation(labelled, test, recipe, width=width, device=device, probe=probe, workers=workers)
