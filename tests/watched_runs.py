"""Run folders as a training leaves them while it goes on, written row by row."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from infomax.recipes.registry import get_recipe
from infomax.runs.run_folder import Run, create_run_folder

IMAGES, BATCH = 1438, 128
STEPS_PER_EPOCH = IMAGES // BATCH
EPOCHS = 20
TOTAL = STEPS_PER_EPOCH * EPOCHS


def make_run(folder: Path, *, method: str = "mveb", epochs: int = EPOCHS, overwrite: bool = False) -> Run:
    """Makes the folder of a run of 220 steps on digits that has no row yet."""
    recipe = replace(get_recipe(method, "digits"), epochs=epochs, batch_size=BATCH)
    data = {"data": "digits", "images": IMAGES, "fingerprint": "0123456789ab"}
    return create_run_folder(folder, recipe, data=data, launch={}, overwrite=overwrite)


def loss_row(step: int, **values: Any) -> dict[str, Any]:
    """Returns a row as a training writes it about every 20 steps; a step takes half a second."""
    return {
        "step": step,
        "epoch": (step - 1) // STEPS_PER_EPOCH,
        "loss": 5.0 - step / TOTAL,
        "learning_rate": 0.1 * (1 - step / TOTAL),
        "gradient_norm": 1.0,
        "images_per_second": 256.0,
        "waiting": 0.1,
        "seconds": step / 2,
        **values,
    }


def health_row(step: int, *, cosine: float = 0.3, level: float = 0.1, rank: float = 40.0) -> dict[str, Any]:
    """Returns a row with measurements of a run's health."""
    return {
        "step": step,
        "epoch": step // STEPS_PER_EPOCH,
        "health_rows": BATCH,
        "embedding_mean_cosine": cosine,
        "embedding_collapse_level": level,
        "embedding_effective_rank": rank,
        "feature_mean_cosine": 0.7,
        "feature_effective_rank": 80.0,
    }


def rows_until(last: int) -> list[dict[str, Any]]:
    """Returns the rows of a healthy training until a step, with scores in every 40th."""
    rows = [health_row(0, cosine=0.32, rank=48.9)]
    for step in range(20, last + 1, 20):
        scores = {"knn_top1": 0.5 + step / 1000, "linear_top1": 0.6} if step % 40 == 0 else {}
        first = {"untrained_knn_top1": 0.471} if step == 40 else {}
        rows += [health_row(step - 1), loss_row(step, **scores, **first)]
    return rows


def collapsed_rows(last: int) -> list[dict[str, Any]]:
    """Returns the rows of a training whose embeddings become one point at once."""
    rows = [health_row(0)]
    for step in range(20, last + 1, 20):
        rows += [health_row(step - 1, cosine=0.999, level=0.97), loss_row(step)]
    return rows


def add_rows(run: Path | Run, rows: list[dict[str, Any]]) -> None:
    """Adds rows to the metrics of a run."""
    with (Path(run) / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def finish(run: Path | Run) -> None:
    """Writes what a run has written when it has ended: all rows, and which step its encoder is of."""
    add_rows(run, [*rows_until(TOTAL)])
    add_encoder(run)


def add_encoder(run: Path | Run, steps: int = TOTAL) -> None:
    """Writes the file that says how many steps a run's encoder was trained for."""
    (Path(run) / "encoder.json").write_text(json.dumps({"steps": steps}))
