"""Trains all methods on the embedded digits, and evaluates their encoders: the demo."""

import itertools
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infomax.data.sources.location import open_source
from infomax.evaluation.few_shot import few_shot_scores
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.representations import Features, compare_features
from infomax.evaluation.scores import top_k
from infomax.experiments.sweep_results import training_seconds
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe, methods_with_papers
from infomax.reporting.tables import Cell, Table, make_table
from infomax.runs.run_folder import Run, recipe_differences
from infomax.runtime.doors import resumed_by
from infomax.runtime.files import write_atomic
from infomax.runtime.locks import FolderLock
from infomax.runtime.text import note
from infomax.training.pretrain import pretrain

DEMO_METHODS = tuple(methods_with_papers())
"""Methods of the demo, in its order."""
LABELS = (1, 5)
"""Labels a class of the few-shot scores."""
DRAWS = 20
"""Draws of which images have them."""
RESULTS = "demo.jsonl"
"""File in a run folder with the rows of the demo: the baselines, and the encoder of this run."""
SCORES = {
    "knn_1": "1 label: kNN",
    "linear_1": "linear",
    "knn_5": "5 labels: kNN",
    "linear_5": "linear",
    "knn_all": "all: kNN",
    "linear_all": "linear",
}
"""Names of the columns, by the keys of a row."""


def demo(out: str | Path, *, epochs: int | None = None, quiet: bool = False) -> Iterator[dict[str, Any]]:
    """Trains and evaluates each method in turn, and yields a row as soon as it is known.

    The first two rows are the baselines, the raw pixels and the untrained encoder. A row holds the top-1 accuracy of
    k-NN and of a linear classifier with one and five labels a class, averaged over draws, and with all labels.

    A demo that was interrupted goes on: methods that are done are not trained again, and their rows are those of then.

    Args:
        out: Folder for the run folders, one for each method.
        epochs: Epochs of each run; None takes those of the recipes.
        quiet: Whether no progress bars are shown.

    Raises:
        ValueError: if the folder holds anything else, a demo that was trained otherwise, or one that another process
            writes.
    """
    folder = Path(out)
    check_folder(folder, epochs)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder), resumed_by(f"infomax demo --out {shlex.quote(str(folder))}"):
        baselines: list[dict[str, Any]] = []
        for number, method in enumerate(DEMO_METHODS, start=1):
            if not (rows := _finished_rows(folder / method)):
                if not quiet:
                    note(f"{method}, method {number} of {len(DEMO_METHODS)}; the time left is that of this method")
                rows = _carry_out(folder / method, baselines, epochs, quiet)
            if not baselines:  # the encoder's seed is the same in all runs, so the baselines of one serve them all
                baselines = rows[:-1]
                yield from baselines
            yield rows[-1]


def _carry_out(folder: Path, baselines: list[dict[str, Any]], epochs: int | None, quiet: bool) -> list[dict[str, Any]]:
    """Trains and evaluates one method, and returns the rows of the baselines and its own; they are kept together."""
    start, resumed = time.perf_counter(), (folder / "config.json").is_file()
    run = pretrain(data="digits", method=folder.name, out=folder, epochs=epochs, resume=True, quiet=quiet)
    seconds = training_seconds(folder) if resumed else time.perf_counter() - start
    trained, untrained, pixels = compare_features(folder, open_source("digits"))
    baselines = baselines or [{"name": features.name, **_evaluate(features)} for features in (pixels, untrained)]
    row = {"name": folder.name, **_evaluate(trained), "seconds": seconds, "run": str(run.path)}
    rows = [*baselines, row]
    write_atomic(folder / RESULTS, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return rows


def _finished_rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a method that is trained and evaluated; none if it is not."""
    is_there = (folder / "config.json").is_file() and (folder / RESULTS).is_file()
    return Run(folder).read_rows(RESULTS) if is_there else []


def is_begun(folder: Path) -> bool:
    """Returns whether a folder holds a run of a demo."""
    return any((folder / method / "config.json").is_file() for method in DEMO_METHODS)


def _is_interrupted(folder: Path) -> bool:
    """Returns whether a folder holds a demo that is not finished, can go on, and is not going on in another process."""
    with suppress(ValueError):
        check_folder(folder)
        FolderLock(folder).release()
        return is_begun(folder) and not all(_finished_rows(folder / method) for method in DEMO_METHODS)
    return False


def check_folder(folder: Path, epochs: int | None = None) -> None:
    """Checks that a demo can be made in a folder, or go on there.

    Args:
        folder: The folder.
        epochs: Epochs of each run; None takes those of the recipes.

    Raises:
        ValueError: if it holds anything else, or a demo that was trained otherwise.
    """
    cure = "choose another, or leave out --out"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"--out {folder} exists and is no folder; {cure}")
    files = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if others := sorted({*files} - {*DEMO_METHODS}):
        raise ValueError(f"--out {folder} exists and holds {others[0]}, which is of no demo; {cure}")
    for method in files:
        if not (folder / method / "config.json").is_file():
            continue
        recipe, wanted = Run(folder / method).recipe, customise(get_recipe(method, "digits"), epochs=epochs)
        if differences := recipe_differences(recipe, wanted):
            raise ValueError(f"--out {folder} has a demo that was trained otherwise: {'; '.join(differences)}; {cure}")


def choose_folder(first: Path) -> Path:
    """Returns the folder of a demo that was interrupted, or else the first one that does not exist.

    Args:
        first: The first folder that may be chosen; ``-2``, ``-3`` and so on are added to its name.
    """
    newest, folder = None, first
    for number in itertools.count(2):
        if not folder.exists():
            break
        newest, folder = folder, first.with_name(f"{first.name}-{number}")
    return newest if newest is not None and _is_interrupted(newest) else folder


def demo_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Makes the table of the demo from its rows."""
    cells = [
        [
            row["name"],
            *(Cell.per_cent(row[score]) for score in SCORES),
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]
        for row in rows
    ]
    title = f"Top-1 accuracy in %; labels are for each class, and 1 and 5 the mean over {DRAWS} draws of them."
    return make_table(["", *SCORES.values(), "seconds"], cells, title=title)


def _evaluate(features: Features) -> dict[str, float]:
    """Returns the scores of one representation."""
    scores: dict[str, float] = {}
    for count in LABELS:
        for row in few_shot_scores(features, count, draws=DRAWS):
            scores[f"{row['classifier']}_{count}"] = row["top1"]
    classes = features.classes
    knn = knn_scores(features.train, features.train_labels, features.test, classes=classes)
    linear, _ = linear_scores(features.train, features.train_labels, features.test, classes=classes)
    return scores | {"knn_all": top_k(knn, features.test_labels), "linear_all": top_k(linear, features.test_labels)}
