"""How good the representation is while it is being trained: by k-NN, and by a linear classifier that learns beside it.

Neither changes anything of the training: the classifier learns from features that are computed anyway.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infomax.data.loading.workers import Batch
from infomax.data.splits import LabelledImages, Source, labelled_splits
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.probes import LinearProbes, Probe
from infomax.evaluation.scores import hits, top_k
from infomax.features.extraction import extract_features
from infomax.methods.base import Progress
from infomax.models.encoders import Encoder
from infomax.nn.schedules import cosine
from infomax.recipes.schema import Recipe
from infomax.runtime.collectives import gather, rank, world_size
from infomax.training.engine import Engine

KNN_BANK, QUERIES, TIMES = 10_000, 2_000, 10  # images at most, and scores during a run
LEARNING_RATE = 0.1
CHUNK = 8192  # images that are classified at once


class OnlineProbe:
    """The linear classifier of MIRA's appendix: one step of SGD with each step of the training, on the same images.

    The learning rate falls from 0.1 along a cosine, step by step, to the end of the run; momentum is 0.9, and nothing
    decays. Each full view is an example. Images that are to be tested on are left out, though their views are trained
    on without labels; and so are images that another one stands in for.

    Args:
        known: The images whose labels it may see, of those that are trained on.
        width: Of the features.
    """

    def __init__(self, known: LabelledImages, recipe: Recipe, *, width: int, device: torch.device):
        self.device = device
        self.labels = np.full(len(known.images), -1)
        self.labels[known.index] = known.labels
        how = Probe(epochs=recipe.epochs, batch_size=recipe.batch_size, learning_rate=LEARNING_RATE)
        seed = recipe.seed + 2  # not the numbers of the encoder or of the method again
        self.heads = LinearProbes(width, len(known.images.classes), [LEARNING_RATE], how, seed=seed, device=device)

    def learn(self, parts: Sequence[Batch], features: Sequence[Tensor], progress: Progress) -> None:
        """One step, on the global batch; an :data:`infomax.training.engine.Listener`."""
        labels = []
        for part, made in zip(parts, features, strict=True):
            seen = np.where(np.isin(part.index, list(part.unreadable)), -1, self.labels[part.index])
            labels.append(np.tile(seen, len(made) // len(seen)))  # once for each view
        true = torch.from_numpy(np.concatenate(labels)).to(self.device)
        counts = (true >= 0).float().unsqueeze(1)
        self.heads.step(torch.cat(list(features)), true.clamp_min(0), counts, cosine(1.0, 0.0, progress.fraction))

    def accuracy(self, features: Tensor, labels: np.ndarray) -> float:
        """Top-1."""
        chunks = zip(features.split(CHUNK), torch.from_numpy(labels).split(CHUNK), strict=True)
        found = [hits(self.heads.scores(x.to(self.device))[:, 0].cpu(), true) for x, true in chunks]
        return float(torch.cat(found).float().mean())

    def load(self, state: dict[str, Tensor]) -> bool:
        """Go on from a state; False, and nothing is done, if it is that of other features or classes, or none."""
        if {name: x.shape for name, x in state.items()} != {name: x.shape for name, x in self.heads.state().items()}:
            return False
        self.heads.load(state)
        return True


class OnlineScores:
    """Scores the representation about ten times during a run, where there are labels to do it with.

    Each rank computes the features of its share of the images.

    Args:
        known: To classify by.
        test: To classify.
        engine: To whose steps the linear classifier listens.
        probe: Whether there is one: the images of ``known`` must be those that are trained on.
    """

    def __init__(
        self, known: LabelledImages, test: LabelledImages, engine: Engine, *, probe: bool, workers: int | None
    ):
        self.known, self.test, self.workers = known.subsample(KNN_BANK), test, workers
        self.queries = test.subsample(QUERIES)
        self.recipe, self.device = engine.recipe, engine.device
        self.every = -(-self.recipe.epochs // TIMES)
        self.probe = None
        if probe:
            width = engine.method.eval_encoder.width
            self.probe = OnlineProbe(known, self.recipe, width=width, device=self.device)
            engine.listener = self.probe.learn

    def due(self, epochs_done: int) -> bool:
        """Whether the end of this epoch is a time to score."""
        return epochs_done % self.every == 0 or epochs_done == self.recipe.epochs

    def score(self, encoder: Encoder, epochs_done: int) -> dict[str, float]:
        """Top-1 accuracies by name: on 2,000 test images at most, but at the end the linear classifier's on all."""
        known, last = self._features(encoder, self.known), epochs_done == self.recipe.epochs
        test = self.test if last and self.probe is not None else self.queries
        features = self._features(encoder, test)
        queries = features[np.searchsorted(test.index, self.queries.index)]
        labels, true = torch.from_numpy(self.known.labels), torch.from_numpy(self.queries.labels)
        votes = knn_scores(known, labels, queries, classes=len(self.known.images.classes))
        linear = {} if self.probe is None else {"linear_top1": self.probe.accuracy(features, test.labels)}
        return {"knn_top1": top_k(votes, true), **linear}

    def _features(self, encoder: Encoder, part: LabelledImages) -> Tensor:
        # With fewer images than ranks each takes all, and knows them several times over: no vote changes.
        share = np.array_split(part.index, world_size())[rank()] if len(part.index) >= world_size() else part.index
        how = self.recipe.preprocessing
        features = extract_features(
            encoder, part.images, share, how, device=self.device, workers=self.workers, lenient=True
        )
        return gather(features.to(self.device))[0].cpu()[: len(part.index)]

    def state(self) -> dict[str, Any]:
        """What a checkpoint is to hold of it."""
        return {} if self.probe is None else {"probe": self.probe.heads.state()}

    def load(self, state: dict[str, Any]) -> bool:
        """Go on from a checkpoint; False if the linear classifier starts anew, as from one that was written without."""
        return self.probe is None or self.probe.load(state.get("probe", {}))


def online_scores(source: Source, engine: Engine, *, workers: int | None) -> OnlineScores | None:
    """What a run on this source can be scored by; None where it has no labels, or several for an image."""
    splits = labelled_splits(source)
    if splits is None:
        return None
    return OnlineScores(*splits, engine, probe=source.pretraining is source.train, workers=workers)
