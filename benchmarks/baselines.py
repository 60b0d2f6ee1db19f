"""Compares the baselines with lightly's same methods: values and gradients, the time of a loss, and that of a step.

python benchmarks/baselines.py                  some minutes; writes docs/results/baselines.json
python benchmarks/baselines.py --quick          small, to see that it works; keeps nothing
python benchmarks/baselines.py --only losses    some parts; the others stay as they were kept

The python is one with lightly 1.6.0, which infomax does not depend on: `uv venv LT` and `uv pip install -p LT
lightly==1.6.0 -e .`. Values and gradients are compared in float64 on the same numbers. The memory of a loss is what its
process holds at most, beyond what it holds before. Losses and steps are timed in turns, in processor time, with the
threads of OMP_NUM_THREADS. A step of either trains the same small encoder on batches of 256 images at 32 pixels: ours
by its recipe `small`, lightly's by its heads of the same widths, its loss, a DataLoader and its transform with the
crops and the distortions of the recipe's views, and the same optimiser.

A method is a line in LOSSES, and one in LOOPS if lightly has its heads; a method that infomax lacks is left out.
"""

import argparse
import copy
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly import loss as peer
from lightly.models import utils
from lightly.models.modules import heads
from lightly.transforms import SimCLRTransform
from steps import Pictures, ours
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from turns import WARM_UP, Row, row, seconds_of, turns

from infomax.models.encoders import build_encoder
from infomax.nn.optimizers import Lars, parameter_groups
from infomax.recipes.customise import customise
from infomax.recipes.registry import METHODS, get_recipe
from infomax.recipes.schema import Recipe
from infomax.runs.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "baselines.json"
BATCH, QUEUE = 256, 4096
MEMORY_BATCH = 4096
QUICK_BATCH = 64
Loss = Callable[..., Tensor]


def infomax_loss(method: str, function: str) -> Loss:
    """Returns a loss function of ours."""
    return getattr(import_module(f"infomax.methods.{method}"), function)


@dataclass(frozen=True)
class LossPair:
    """A frozen dataclass that holds a loss of ours and lightly's same one, which take the same tensors."""

    method: str
    """Name of our module."""
    ours: Callable[[], Callable[[list[Tensor]], Tensor]]
    """Makes our loss; it imports the module, which need not exist."""
    lightly: Callable[[list[Tensor]], Tensor]
    """Computes lightly's loss of the same tensors, times what makes it ours."""
    width: int
    """Length of a row of each tensor."""
    tensors: int = 2
    held: tuple[int, ...] = ()
    """Tensors that no gradient is compared of: one of both holds them constant."""
    same: bool = True
    """Whether the values must agree; not if both draw random numbers of their own."""


def swav_pair(crops: list[Tensor]) -> Tensor:
    return peer.SwaVLoss()(crops[:2], crops[2:])


def queue_pair(tensors: list[Tensor]) -> Tensor:
    """Computes lightly's NT-Xent with a memory bank that holds the queue."""
    query, key, queue = tensors
    criterion = peer.NTXentLoss(temperature=0.2, memory_bank_size=(len(queue), queue.shape[1]))
    criterion.memory_bank.bank = queue.detach().clone()
    criterion.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    return criterion(query, key)


def dino_pair(tensors: list[Tensor]) -> Tensor:
    teacher, student = tensors[:2], tensors[2:]
    criterion = peer.DINOLoss(output_dim=teacher[0].shape[1]).to(teacher[0].dtype)
    return criterion([x.detach() for x in teacher], student, epoch=100)


def our_dino(tensors: list[Tensor]) -> Tensor:
    centre = torch.zeros(tensors[0].shape[1], dtype=tensors[0].dtype)
    return infomax_loss("dino", "dino_loss")(tensors[2:], tensors[:2], centre)


def our_mmcr(tensors: list[Tensor]) -> Tensor:
    return infomax_loss("mmcr", "mmcr_loss")(tensors, weight=0.005)


def lightly_mmcr(tensors: list[Tensor]) -> Tensor:
    """Computes lightly's MMCR of rows of length 1, which ours makes itself."""
    online, momentum = (normalize(x, dim=1)[:, None] for x in tensors)
    return peer.MMCRLoss(lmda=0.005)(online, momentum)


def our_wmse(tensors: list[Tensor]) -> Tensor:
    return infomax_loss("wmse", "wmse_loss")(*tensors, size=len(tensors[0]))


def lightly_wmse(tensors: list[Tensor]) -> Tensor:
    """Computes lightly's W-MSE of the whole batch in one part, so that its random order changes nothing."""
    rows, width = tensors[0].shape
    criterion = peer.WMSELoss(embedding_dim=width, w_size=rows, track_running_stats=False).to(tensors[0].dtype)
    return criterion(torch.cat(tensors))


def our_lejepa(tensors: list[Tensor]) -> Tensor:
    directions = normalize(torch.randn(tensors[0].shape[1], 1024, dtype=tensors[0].dtype), dim=0)
    return infomax_loss("lejepa", "lejepa_loss")(tensors, directions)


def lightly_lejepa(tensors: list[Tensor]) -> Tensor:
    views = torch.stack(tensors)
    return peer.LeJEPALoss()(local_proj=views[2:], global_proj=views[:2])


def function_of(method: str, function: str, **options: Any) -> Callable[[], Callable[[list[Tensor]], Tensor]]:
    """Returns what makes a loss of ours that takes each tensor as an argument of its own."""

    def make() -> Callable[[list[Tensor]], Tensor]:
        loss = infomax_loss(method, function)
        return lambda tensors: loss(*tensors, **options)

    return make


def listed(method: str, function: str) -> Callable[[], Callable[[list[Tensor]], Tensor]]:
    """Returns what makes a loss of ours that takes a list of tensors."""
    return lambda: infomax_loss(method, function)


LOSSES: dict[str, LossPair] = {
    "Barlow Twins": LossPair(
        "barlow", function_of("barlow", "redundancy_loss"), lambda z: peer.BarlowTwinsLoss()(*z), 2048
    ),
    "BYOL": LossPair(
        "byol",
        function_of("byol", "regression_loss"),
        lambda z: 2 + 2 * peer.NegativeCosineSimilarity()(z[0], z[1].detach()),
        256,
        held=(1,),
    ),
    "DINO": LossPair("dino", lambda: our_dino, dino_pair, 4096, tensors=4, held=(0, 1)),
    "LeJEPA": LossPair("lejepa", lambda: our_lejepa, lightly_lejepa, 256, tensors=4, same=False),
    "MMCR": LossPair("mmcr", lambda: our_mmcr, lightly_mmcr, 512),
    "MoCo": LossPair("moco", function_of("moco", "queue_loss"), queue_pair, 128, held=(1, 2), tensors=3),
    "SimCLR": LossPair(
        "simclr", function_of("simclr", "nt_xent_loss"), lambda z: peer.NTXentLoss(temperature=0.1)(*z), 128
    ),
    "SimSiam": LossPair(
        "simsiam",
        function_of("simsiam", "negative_cosine"),
        lambda z: peer.NegativeCosineSimilarity()(z[0], z[1].detach()),
        2048,
        held=(1,),
    ),
    "SwAV": LossPair("swav", listed("swav", "swapped_loss"), swav_pair, 3000, tensors=4),
    "VICReg": LossPair("vicreg", function_of("vicreg", "vicreg_loss"), lambda z: peer.VICRegLoss()(*z), 2048),
    "W-MSE": LossPair("wmse", lambda: our_wmse, lightly_wmse, 32),
}


def known_losses() -> dict[str, LossPair]:
    """Returns the pairs whose method infomax has."""
    return {name: pair for name, pair in LOSSES.items() if find_spec(f"infomax.methods.{pair.method}")}


def inputs(pair: LossPair, batch: int, dtype: torch.dtype) -> list[Tensor]:
    """Returns random tensors for a pair of losses; those that are prototypes' scores or queries are cosines."""
    torch.manual_seed(0)
    rows = [batch, batch, QUEUE] if pair.method == "moco" else [batch] * pair.tensors
    tensors = [torch.randn(count, pair.width, dtype=dtype) for count in rows]
    if pair.method in ("moco", "swav"):
        tensors = [normalize(x, dim=1) for x in tensors]
    return [x.requires_grad_(i not in pair.held) for i, x in enumerate(tensors)]


def value_and_gradient(loss: Callable[[list[Tensor]], Tensor], tensors: list[Tensor]) -> tuple[float, list[Tensor]]:
    """Returns a loss and its gradients."""
    value = loss(tensors)
    return float(value.detach()), list(torch.autograd.grad(value, [x for x in tensors if x.requires_grad]))


def equal(quick: bool) -> Iterator[Row]:
    """Yields by how much our loss and its gradient differ from lightly's in float64, relative to the largest value."""
    for name, pair in known_losses().items():
        if not pair.same:
            continue
        tensors = inputs(pair, QUICK_BATCH if quick else BATCH, torch.float64)
        (value, gradients), (other, others) = (
            value_and_gradient(loss, tensors) for loss in (pair.ours(), pair.lightly)
        )
        largest = max(float(x.abs().max()) for x in others)
        difference = max(float((a - b).abs().max()) for a, b in zip(gradients, others, strict=True))
        yield {
            "name": name,
            "value": value,
            "value_difference": abs(value - other) / max(abs(other), 1e-12),
            "gradient_difference": difference / largest,
        }


def losses(quick: bool) -> Iterator[Row]:
    """Yields the time of the value and the gradient of each loss, beside lightly's, in float32."""
    for name, pair in known_losses().items():
        batch = QUICK_BATCH if quick else BATCH
        tensors = inputs(pair, batch, torch.float32)
        both = {"infomax": pair.ours(), "lightly": pair.lightly}
        calls = {key: partial(value_and_gradient, loss, tensors) for key, loss in both.items()}
        yield row(name, turns(calls, 3 if quick else 40), "infomax", "lightly", batch=batch, width=pair.width)


def memory(quick: bool) -> Iterator[Row]:
    """Yields the memory of the value and the gradient of each loss, beside lightly's, in float32, in MB."""
    context, batch = multiprocessing.get_context("spawn"), QUICK_BATCH if quick else MEMORY_BATCH
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # of a process that starts: what is freed is given back at once
    for name, pair in known_losses().items():
        megabytes = {}
        for key in ("infomax", "lightly"):
            with context.Pool(1) as pool:  # a process for each, so that none has the other's memory at hand
                megabytes[key] = pool.apply(peak_megabytes, (name, key, batch))
        given = sum(x.numel() * x.element_size() for x in inputs(pair, batch, torch.float32)) / 1e6
        yield {"name": name, "batch": batch, "width": pair.width, "given_mb": given, **megabytes}


def peak_megabytes(name: str, key: str, batch: int) -> float:
    """Returns what a process needs at most for a loss and its gradients, beyond the tensors that are given; Linux."""
    pair = LOSSES[name]
    loss = pair.ours() if key == "infomax" else pair.lightly
    value_and_gradient(loss, inputs(pair, QUICK_BATCH, torch.float32))  # loads what the first call loads
    tensors = inputs(pair, batch, torch.float32)
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is held now
    before = resident_megabytes("VmRSS")
    value_and_gradient(loss, tensors)
    return resident_megabytes("VmHWM") - before


def resident_megabytes(field: str) -> float:
    """Returns a size that Linux keeps of this process, now (VmRSS) or at most (VmHWM)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == f"{field}:") * 1024 / 1e6


@dataclass(frozen=True)
class Loop:
    """A frozen dataclass that holds what a step of one of lightly's methods is made of."""

    projector: Callable[[int, Any], nn.Module]
    """Makes the projector for the encoder's width and our method's settings."""
    loss: Callable[[], Callable[..., Tensor]]
    predictor: Callable[[Any], nn.Module] | None = None
    teacher: bool = False


def symmetric(p: list[Tensor], z: list[Tensor]) -> Tensor:
    """Computes lightly's loss of predictions and the other view's targets."""
    criterion = peer.NegativeCosineSimilarity()
    return (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach())) / 2


LOOPS: dict[str, Loop] = {
    "barlow": Loop(
        lambda width, x: heads.BarlowTwinsProjectionHead(width, x.hidden, x.dimension), lambda: peer.BarlowTwinsLoss()
    ),
    "byol": Loop(
        lambda width, x: heads.BYOLProjectionHead(width, x.hidden, x.dimension),
        lambda: symmetric,
        lambda x: heads.BYOLPredictionHead(x.dimension, x.predictor_hidden, x.dimension),
        teacher=True,
    ),
    "simclr": Loop(
        lambda width, x: heads.SimCLRProjectionHead(width, x.hidden, x.dimension, batch_norm=x.output_norm),
        lambda: peer.NTXentLoss(temperature=0.2),
    ),
    "simsiam": Loop(
        lambda width, x: heads.SimSiamProjectionHead(width, x.hidden, x.dimension),
        lambda: symmetric,
        lambda x: heads.SimSiamPredictionHead(x.dimension, x.predictor_hidden, x.dimension),
    ),
    "swav": Loop(
        lambda width, x: nn.Sequential(
            heads.SwaVProjectionHead(width, x.hidden, x.dimension),
            _Unit(),
            heads.SwaVPrototypes(x.dimension, x.prototypes),
        ),
        lambda: lambda first, second: peer.SwaVLoss()([first, second], []),
    ),
    "vicreg": Loop(
        lambda width, x: heads.VICRegProjectionHead(width, x.hidden, x.dimension), lambda: peer.VICRegLoss()
    ),
}


class _Unit(nn.Module):
    """A module that normalises rows."""

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, dim=1)


class Transform(SimCLRTransform):
    """lightly's transform for two views with the crops and the distortions of a recipe's first view."""

    def __init__(self, recipe: Recipe):
        view = recipe.views.global_crops[0]
        super().__init__(
            input_size=view.size,
            cj_prob=view.jitter,
            cj_strength=1.0,
            cj_bright=view.brightness,
            cj_contrast=view.contrast,
            cj_sat=view.saturation,
            cj_hue=view.hue,
            min_scale=view.scale[0],
            random_gray_scale=view.grayscale,
            gaussian_blur=view.blur,
            hf_prob=view.flip,
        )


def lightly_steps(recipe: Recipe) -> Iterator[None]:
    """Yields after each step of lightly's loop, put together from its public parts as its examples do."""
    torch.manual_seed(0)
    settings, loop = recipe.optimizer, LOOPS[recipe.method.name]
    encoder = build_encoder(**recipe.encoder.architecture(), seed=0)
    online = nn.Sequential(encoder, loop.projector(encoder.width, recipe.method))
    predictor = None if loop.predictor is None else loop.predictor(recipe.method)
    teacher = copy.deepcopy(online).requires_grad_(False) if loop.teacher else None
    criterion = loop.loss()
    trained = nn.ModuleList([online, *([] if predictor is None else [predictor])])
    groups = parameter_groups(trained, settings.weight_decay, decay_all=settings.decay_all)
    kinds = {"sgd": partial(torch.optim.SGD, momentum=settings.momentum), "lars": Lars, "adamw": torch.optim.AdamW}
    optimizer = kinds.get(settings.name, torch.optim.Adam)(groups, lr=settings.learning_rate)
    loader = DataLoader(Pictures(Transform(recipe)), recipe.batch_size, shuffle=True, drop_last=True)
    for views in loader:
        z = [online(view) for view in views[:2]]
        if predictor is None:
            value = criterion(*z)
        else:
            targets = z if teacher is None else [teacher(view) for view in views[:2]]
            value = criterion([predictor(x) for x in z], targets)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        if teacher is not None:
            utils.update_momentum(online, teacher, 0.99)
        yield


def steps(quick: bool) -> Iterator[Row]:
    """Yields the time of a whole training step of each baseline, beside lightly's."""
    for method in (name for name in LOOPS if name in METHODS and "small" in METHODS[name].recipes):
        recipe = customise(get_recipe(method, "small"), batch_size=QUICK_BATCH if quick else BATCH)
        recipe = replace(recipe, views=replace(recipe.views, local_crops=()))
        loops = {"infomax": ours(recipe), "lightly": lightly_steps(recipe)}
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for turn in range(WARM_UP + (1 if quick else 10)):
            for name in list(loops)[:: -1 if turn % 2 else 1]:
                taken = seconds_of(partial(next, loops[name]))
                if turn >= WARM_UP:
                    seconds[name].append(taken)
        times = {name: np.array(x) for name, x in seconds.items()}
        yield row(method, times, "infomax", "lightly", batch=recipe.batch_size, recipe=recipe.name)


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {"equal": equal, "losses": losses, "memory": memory, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    kept = json.loads(OUT.read_text()) if OUT.exists() else {}
    command = f"python benchmarks/baselines.py{'' if arguments.only == list(PARTS) else ' --only ...'}"
    origin = {**provenance(), "command": command, "lightly": version("lightly"), "threads": torch.get_num_threads()}
    results: dict[str, Any] = {**kept, **origin}
    for part in arguments.only:
        results[part] = []
        for result in PARTS[part](arguments.quick):
            results[part].append(result)
            print(part, json.dumps(result), flush=True)
        if not arguments.quick:
            OUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
