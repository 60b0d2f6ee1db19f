"""Keeps what a step with an infinite or NaN loss or gradient was computed from, and computes it again."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.data.loading.workers import Batch
from infomax.data.streams import Stream
from infomax.recipes.registry import recipe_from_json
from infomax.recipes.schema import to_json
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.checks import check_count
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.devices import check_precision, choose_device
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.near_names import missing_path
from infomax.training.engine import Engine

MAX_RANKS = 1 << 16  # whose files are looked for


def capture(run: Run, engine: Engine, microbatches: Sequence[Batch], reason: str, images: Images | Stream) -> Path:
    """Writes the state before a failed step, and its images, into the run folder, and returns where.

    Every rank calls it and writes its own images; the first one writes the state.

    Args:
        run: The run folder.
        engine: The engine, as it was before the step.
        microbatches: This rank's share of the step's batch.
        reason: What was seen, as "the loss became nan at step 3".
        images: All images of the run, for their names.

    Raises:
        OSError: if it cannot be written.
    """
    folder = run.path / "nonfinite" / f"step-{engine.steps_done + 1:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    stored = [
        {
            "images": b.images.cpu() if isinstance(b.images, Tensor) else [crops.cpu() for crops in b.images],
            "epoch": b.epoch,
            "index": torch.from_numpy(np.array(b.index)),
        }
        for b in microbatches
    ]
    write_atomic(folder / f"images-{rank()}-of-{world_size()}.pt", checkpoints.to_bytes({"microbatches": stored}))
    names = [images.name(int(i)) for batch in microbatches for i in batch.index]
    write_atomic(folder / f"names-{rank()}-of-{world_size()}.txt", "\n".join(names).encode())
    if rank() == 0:
        write_atomic(folder / "state.ckpt", checkpoints.to_bytes(engine.state()))
        report = {
            "ranks": world_size(),
            "reason": reason,
            "step": engine.steps_done + 1,
            "steps_per_epoch": engine.steps_per_epoch,
            "stages": list(engine.stages),
            "images": engine.images,
            "command": shlex.join(["infomax", "replay", str(folder)]),
            "recipe": to_json(engine.recipe),
        }
        write_atomic(folder / "report.json", json.dumps(report, indent=1).encode())
    return folder


class FailureReport(TypedDict):
    """The keys of ``report.json`` that are read again, and their types."""

    reason: str
    ranks: int
    steps_per_epoch: int
    stages: NotRequired[list[int]]
    images: NotRequired[int]
    recipe: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """A frozen dataclass that holds where the infinite or NaN values of a failed step arise."""

    reason: str
    """The failure that was seen during the run."""
    loss: float | None
    """The loss now; None if it could not be computed."""
    error: str | None
    """Why the loss could not be computed; None if it could."""
    first_layer: str | None
    """Name of the first layer whose output is not finite although its input is; None if there is none."""
    parameters: tuple[str, ...]
    """Names of the parameters that are not finite."""
    gradients: tuple[str, ...]
    """Names of the parameters whose gradients are not finite."""


def replay(folder: str | PathLike[str], *, device: str = "auto") -> ReplayResult:
    """Computes a failed step again, in one process, up to its gradient.

    Args:
        folder: The folder that :func:`capture` wrote.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for a CUDA GPU if there is one.

    Raises:
        ValueError: if ``folder`` is not one that a run left, or is not complete.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ValueError(f"{folder} is not a folder that a failed step was kept in: {missing_path(folder)}")
    if not (folder / "report.json").is_file():
        kept = sorted(folder.glob("nonfinite/step-*"))
        cure = f"did you mean {kept[-1]}?" if kept else "a run that met NaN or infinity has it, as nonfinite/step-..."
        raise ValueError(f"{folder} is not a folder that a failed step was kept in: it has no report.json; {cure}")
    try:
        report = parse_value(read_json(folder / "report.json"), FailureReport, "", other_keys=True)
        recipe = recipe_from_json(report["recipe"], key="recipe")
        ranks, steps_per_epoch = report["ranks"], report["steps_per_epoch"]
        check_count("ranks", ranks, low=1)
        check_count("steps_per_epoch", steps_per_epoch, low=1)
        files = [folder / f"images-{number}-of-{ranks}.pt" for number in range(min(ranks, MAX_RANKS))]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a folder that a failed step was kept in: {error}") from error
    if missing := [file.name for file in files if not file.exists()]:
        raise ValueError(f"{folder} is not complete: it has no {', '.join(missing)}")
    device = choose_device(device)
    check_precision(recipe.precision, device)
    engine = Engine(
        recipe,
        steps_per_epoch=steps_per_epoch,
        device=torch.device(device),
        stages=report.get("stages"),
        images=report.get("images"),
    )
    engine.load(checkpoints.load(folder / "state.ckpt"))
    stored = [batch for file in files for batch in checkpoints.load(file)["microbatches"]]
    microbatches = [Batch(batch["images"], batch["epoch"], batch["index"].numpy(), {}) for batch in stored]
    if recipe.micro_batch_size is None:  # the shares of several ranks went through the networks as one batch
        microbatches = [_joined(microbatches)]
    suspects = _watch_layers(engine)
    loss, message = None, None
    try:
        loss = float(engine.backward(microbatches).total.detach())
    except FloatingPointError as error:
        message = str(error)
    parameters = dict(engine.method.named_parameters())
    return ReplayResult(
        reason=report["reason"],
        loss=loss,
        error=message,
        first_layer=suspects[0] if suspects else None,
        parameters=tuple(name for name, p in parameters.items() if not _finite(p)),
        gradients=tuple(name for name, p in parameters.items() if p.grad is not None and not _finite(p.grad)),
    )


def _joined(batches: Sequence[Batch]) -> Batch:
    """Returns the images of all batches as one batch."""
    images: Any = [batch.images for batch in batches]
    joined = torch.cat(images) if isinstance(images[0], Tensor) else [torch.cat(v) for v in zip(*images, strict=True)]
    return Batch(joined, batches[0].epoch, np.concatenate([batch.index for batch in batches]), {})


def _watch_layers(engine: Engine) -> list[str]:
    """Returns a list to which each layer adds its name when it turns a finite input into an output that is not."""
    suspects: list[str] = []

    def note(name: str, inputs: Any, output: Any) -> None:
        if all(_finite(x) for x in inputs if isinstance(x, Tensor)) and not _finite(output):
            suspects.append(name)

    for name, layer in engine.method.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, inputs, output, name=name: note(name, inputs, output))
    return suspects


def _finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or bool(x.isfinite().all())
