"""Loss functions of all methods with inputs for them: a line here gives a loss the tests of test_losses.py.

They hold what all loss functions have in common, whatever their equations: one value on any number of ranks, gradients
of one process, no gradient where the method holds an argument constant, errors, precision, and edge cases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from infomax.methods import (
    barlow,
    byol,
    deepcluster,
    densecl,
    dino,
    emp_ssl,
    lejepa,
    mmcr,
    moco,
    mvib,
    nnclr,
    pcl,
    ressl,
    self_classifier,
    simclr,
    simsiam,
    spectral,
    swav,
    twist,
    unigrad,
    vicreg,
    visreg,
    wmse,
)

ROWS = 12
QUEUE = normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64), dim=1)
"""A queue of embeddings, for rows of 8 numbers."""


@dataclass(frozen=True)
class LossCase:
    """A frozen dataclass that holds a loss function and inputs of random numbers for it."""

    function: Callable[..., Tensor]
    """It takes the tensors of ``trained`` and ``held`` by name, and ``whole``, and returns a scalar."""
    trained: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The shape of one row of each argument that gradients flow to; its rows are images."""
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The same of the arguments that are held constant."""
    lists: dict[str, int] = field(default_factory=dict)
    """The arguments that are lists of tensors, with the number of tensors."""
    whole: dict[str, Any] = field(default_factory=dict)
    """Arguments that are equal on all ranks: tensors, which are held constant, and numbers."""
    integers: dict[str, int] = field(default_factory=dict)
    """The arguments with a whole number for each image, as its cluster, and the number of their values."""
    unit: tuple[str, ...] = ()
    """Names of arguments whose rows must have unit norm."""
    fewest_rows: int = 1
    """The number of images below which the loss is an error."""
    equal_rows: bool = True
    """Whether the loss is finite if all rows are equal."""
    holds_parts: bool = False
    """Whether it holds constant what it computes of a trained argument, so that its gradient is not its slope."""

    def make(self, rows: int = ROWS, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        """Returns random arguments for a number of images; ``whole`` is not among them."""
        generator = torch.Generator().manual_seed(seed)
        arguments: dict[str, Any] = {}
        for name, shape in {**self.trained, **self.held}.items():
            tensors = [
                torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
                for _ in range(self.lists.get(name, 1))
            ]
            tensors = [(normalize(x, dim=1) if name in self.unit else x).to(dtype) for x in tensors]
            arguments[name] = tensors if name in self.lists else tensors[0]
        for name, count in self.integers.items():
            arguments[name] = torch.randint(count, (rows,), generator=generator)
        return arguments

    def call(self, arguments: dict[str, Any], dtype: torch.dtype = torch.float64) -> Tensor:
        """Computes the loss of arguments that :meth:`make` returned, or of some of their rows."""
        whole = {
            name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in self.whole.items()
        }
        return self.function(**arguments, **whole)


def each(arguments: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Returns arguments of which each tensor is changed by a function."""
    return {
        name: [change(x) for x in value] if isinstance(value, list) else change(value)
        for name, value in arguments.items()
    }


def leaf(x: Tensor) -> Tensor:
    """Returns a copy that gradients flow to, of a tensor that they can flow to."""
    return x.clone().requires_grad_(x.is_floating_point())


def flat(arguments: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """Returns all tensors among arguments with the arguments' names."""
    return [(name, x) for name, value in arguments.items() for x in (value if isinstance(value, list) else [value])]


GAUSSIANS: dict[str, tuple[int, ...]] = dict.fromkeys(("mean1", "log_variance1", "mean2", "log_variance2"), (8,))
DIRECTIONS = normalize(torch.randn(6, 20, generator=torch.Generator().manual_seed(9), dtype=torch.float64), dim=0)
"""Random directions, one a column, for embeddings of width 6."""
LOSSES: dict[str, LossCase] = {
    "deepcluster": LossCase(
        deepcluster.cluster_loss,
        trained={"scores": (5,)},
        lists={"scores": 3},
        integers={"assignment": 5},
        whole={"temperature": 0.2},
    ),
    "barlow": LossCase(barlow.redundancy_loss, trained={"z1": (8,), "z2": (8,)}, fewest_rows=2),
    "byol": LossCase(byol.regression_loss, trained={"prediction": (8,)}, held={"target": (8,)}),
    "coding-rate": LossCase(emp_ssl.total_coding_rate, trained={"z": (8,)}),
    "emp_ssl": LossCase(emp_ssl.emp_ssl_loss, trained={"views": (8,)}, lists={"views": 3}, whole={"invariance": 2.0}),
    "mmcr": LossCase(mmcr.mmcr_loss, trained={"views": (8,)}, lists={"views": 3}),
    "mmcr-local": LossCase(mmcr.mmcr_loss, trained={"views": (8,)}, lists={"views": 3}, whole={"weight": 0.3}),
    "densecl": LossCase(
        densecl.dense_loss,
        trained={"query": (8, 3)},
        held={"key": (8, 3), "query_features": (5, 3), "key_features": (5, 3)},
        whole={"queue": QUEUE, "temperature": 0.2},
    ),
    "dino": LossCase(
        dino.dino_loss,
        trained={"student": (5,)},
        held={"teacher": (5,)},
        lists={"student": 3, "teacher": 2},
        whole={"centre": torch.linspace(-1, 1, 5, dtype=torch.float64), "teacher_temperature": 0.3},
    ),
    "gaussian-kl": LossCase(mvib.gaussian_kl, trained=GAUSSIANS),
    "moco": LossCase(
        moco.queue_loss, trained={"query": (8,)}, held={"key": (8,)}, whole={"queue": QUEUE, "temperature": 0.2}
    ),
    "mocov3": LossCase(moco.batch_loss, trained={"query": (8,)}, held={"key": (8,)}, whole={"temperature": 0.2}),
    "mvib": LossCase(mvib.mvib_loss, trained={**GAUSSIANS, "noise1": (8,), "noise2": (8,)}, whole={"weight": 0.1}),
    "nnclr": LossCase(
        nnclr.nnclr_loss, trained={"prediction": (8,)}, held={"neighbour": (8,)}, whole={"temperature": 0.2}
    ),
    "pcl": LossCase(
        pcl.prototype_loss,
        trained={"z": (8,)},
        integers={"assignment": 5},
        whole={"centroids": QUEUE[:5], "concentration": torch.tensor([0.1, 0.2, 0.2, 0.3, 0.4])},
    ),
    "ressl": LossCase(
        ressl.relation_loss,
        trained={"query": (8,)},
        held={"key": (8,)},
        whole={"queue": QUEUE, "student_temperature": 0.2, "teacher_temperature": 0.1},
    ),
    "self_classifier": LossCase(
        self_classifier.self_classifier_loss,
        trained={"logits": (5,)},
        lists={"logits": 3},
        whole={"row_temperature": 0.5, "column_temperature": 0.5},
    ),
    "sigreg": LossCase(lejepa.sigreg_loss, trained={"z": (6,)}, whole={"directions": DIRECTIONS}),
    "lejepa": LossCase(
        lejepa.lejepa_loss,
        trained={"views": (6,)},
        lists={"views": 3},
        whole={"directions": DIRECTIONS, "full": 2, "weight": 0.3},
    ),
    "unigrad": LossCase(
        unigrad.unigrad_loss,
        trained={"z1": (6,), "z2": (6,)},
        held={"target1": (6,), "target2": (6,)},
        whole={"correlation": DIRECTIONS @ DIRECTIONS.T / 20, "weight": 10.0},
    ),
    "wmse": LossCase(
        wmse.wmse_loss, trained={"z1": (2,), "z2": (2,)}, whole={"size": 4}, fewest_rows=2, equal_rows=False
    ),
    "simclr": LossCase(simclr.nt_xent_loss, trained={"z1": (8,), "z2": (8,)}, whole={"temperature": 0.2}),
    "infonce": LossCase(simclr.info_nce_loss, trained={"anchor": (8,), "positive": (8,)}, whole={"temperature": 0.2}),
    "simsiam": LossCase(simsiam.negative_cosine, trained={"prediction": (8,)}, held={"target": (8,)}),
    "spectral": LossCase(spectral.spectral_loss, trained={"z1": (8,), "z2": (8,)}, whole={"mu": 8.0}, fewest_rows=2),
    "twist": LossCase(
        twist.twist_loss,
        trained={"logits1": (5,), "logits2": (5,)},
        whole={"sharpness": 0.4, "diversity": 1.5, "temperature": 0.7},
    ),
    "vicreg": LossCase(vicreg.vicreg_loss, trained={"z1": (8,), "z2": (8,)}, fewest_rows=2),
    "swav": LossCase(swav.swapped_loss, trained={"scores": (5,)}, lists={"scores": 3}, holds_parts=True),
    "swav-queue": LossCase(
        swav.swapped_loss,
        trained={"scores": (5,)},
        lists={"scores": 3},
        holds_parts=True,
        whole={"queued": list(torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(2)).double())},
    ),
    "visreg": LossCase(visreg.regulariser, trained={"z": (6,)}, whole={"directions": DIRECTIONS}, holds_parts=True),
}
