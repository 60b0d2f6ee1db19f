"""Run folders with a checkpoint, an encoder, metrics and results, as a training leaves them, made without training."""

from dataclasses import replace
from pathlib import Path

from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.protocols.linear import LinearRow
from infomax.evaluation.results import append_result
from infomax.models.encoders import save_encoder
from infomax.recipes.building import build_method
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.runs.run_folder import Run, create_run_folder
from infomax.runtime import checkpoints
from watched_runs import add_rows, collapsed_rows, loss_row, rows_until


def made_run(folder: Path, method: str, *overrides: str, seed: int = 0, top1=None, knn=None, ill=False) -> Run:
    """A finished run of one epoch with random weights; ``top1`` and ``knn`` are results of it, ``ill`` a collapse."""
    small = ("method.hidden=16", *overrides)
    recipe = replace(customise(get_recipe(method, "digits"), epochs=20, seed=seed, overrides=small), seed=seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    run = create_run_folder(
        folder, recipe, data={"data": "digits", "images": 1438, "fingerprint": "0"}, launch={}, overwrite=False
    )
    network, steps = build_method(recipe, images=1438), recipe.steps(1438)
    checkpoints.save(folder / "checkpoints", {"step": steps, "method": network.state_dict()})
    settings = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": seed}
    save_encoder(network.eval_encoder, settings, recipe.preprocessing, folder, steps=steps)
    add_rows(run, collapsed_rows(steps) if ill else [*rows_until(steps), loss_row(steps)])
    if top1 is not None:
        names = {"data": "digits", "representation": "trained encoder", "encoder": "abc", "metric": "top1"}
        counts = {"classes": 10, "labelled_images": 1438, "test_images": 359, "seconds": 0.1}
        row = LinearRow(**names, **counts, top1=top1, top5=1.0, penalty=1.0, evaluation="e", trained_steps=steps)
        append_result(folder / "results.jsonl", row)
        if knn is not None:
            row = KnnRow(**names, **counts, top1=knn, top5=1.0, k=20, temperature=0.07, trained_steps=steps)
            append_result(folder / "results.jsonl", row)
    return run
