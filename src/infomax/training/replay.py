"""What is kept of a step that was no number, and how it is made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infomax.data.images import Images
from infomax.data.loading.workers import Batch
from infomax.data.streams import Stream
from infomax.recipes.registry import recipe_from_json
from infomax.recipes.schema import to_json
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.checks import choose_device
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.files import write_atomic
from infomax.training.engine import Engine


def capture(run: Run, engine: Engine, parts: list[Batch], reason: str, images: Images | Stream) -> Path:
    """Keep the state before a failed step, and its images, in the run folder; each rank writes its own images."""
    folder = run.path / "nonfinite" / f"step-{engine.steps_done + 1:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    batch = [
        {
            "images": p.images.cpu() if isinstance(p.images, Tensor) else [crops.cpu() for crops in p.images],
            "epoch": p.epoch,
            "index": torch.from_numpy(np.array(p.index)),
        }
        for p in parts
    ]
    write_atomic(folder / f"images-{rank()}-of-{world_size()}.pt", checkpoints.to_bytes({"parts": batch}))
    names = [images.name(int(i)) for part in parts for i in part.index]
    write_atomic(folder / f"names-{rank()}-of-{world_size()}.txt", "\n".join(names).encode())
    if rank() == 0:
        write_atomic(folder / "state.ckpt", checkpoints.to_bytes(engine.state()))
        report = {
            "ranks": world_size(),
            "reason": reason,
            "step": engine.steps_done + 1,
            "steps_per_epoch": engine.steps_per_epoch,
            "command": f"infomax replay {folder}",
            "recipe": to_json(engine.recipe),
        }
        write_atomic(folder / "report.json", json.dumps(report, indent=1).encode())
    return folder


def replay(folder: str | Path, *, device: str = "auto") -> dict[str, Any]:
    """Make a failed step again, in one process, up to its gradient.

    Returns:
        ``reason``, what was seen then; ``loss`` and ``error``, what is seen now; ``first``, the first layer whose
        output is not finite although its input is; ``parameters`` and ``gradients``, the names of those that are not.

    Raises:
        ValueError: if ``folder`` is not one that a run left, or not complete.
    """
    folder = Path(folder)
    try:
        report = json.loads((folder / "report.json").read_text())
        recipe = recipe_from_json(report["recipe"])
        world = int(report["ranks"])
        files = [folder / f"images-{number}-of-{world}.pt" for number in range(world)]
        steps_per_epoch = int(report["steps_per_epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a folder that a failed step was kept in: {error}") from error
    if missing := [file.name for file in files if not file.exists()]:
        raise ValueError(f"{folder} is not complete: it has no {', '.join(missing)}")
    engine = Engine(recipe, steps_per_epoch=steps_per_epoch, device=torch.device(choose_device(device)))
    engine.load(checkpoints.load(folder / "state.ckpt"))
    stored = [part for file in files for part in checkpoints.load(file)["parts"]]
    parts = [Batch(part["images"], part["epoch"], part["index"].numpy(), {}) for part in stored]
    suspects: list[str] = []
    for name, layer in engine.method.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, inputs, output, name=name: _suspect(name, inputs, output, suspects))
    loss, error = None, None
    try:
        loss = float(engine.backward(parts if recipe.micro_batch_size else [_joined(parts)]).total.detach())
    except FloatingPointError as failure:
        error = str(failure)
    named = dict(engine.method.named_parameters())
    return {
        "reason": report["reason"],
        "loss": loss,
        "error": error,
        "first": suspects[0] if suspects else None,
        "parameters": [name for name, p in named.items() if not _finite(p)],
        "gradients": [name for name, p in named.items() if p.grad is not None and not _finite(p.grad)],
    }


def _joined(parts: list[Batch]) -> Batch:
    images: Any = [part.images for part in parts]
    joined = torch.cat(images) if isinstance(images[0], Tensor) else [torch.cat(v) for v in zip(*images, strict=True)]
    return Batch(joined, parts[0].epoch, np.concatenate([part.index for part in parts]), {})


def _suspect(name: str, inputs: Any, output: Any, suspects: list[str]) -> None:
    if all(_finite(x) for x in inputs if isinstance(x, Tensor)) and not _finite(output):
        suspects.append(name)


def _finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or bool(x.isfinite().all())
