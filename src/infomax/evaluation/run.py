"""What the commands that judge encoders do and print, by the words of their options."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from infomax.runtime.failures import MachineError

Row = dict[str, Any]


def evaluate(
    protocol: str,
    *,
    encoder: str | None,
    named: str | None,
    out: Path | None,
    download: bool,
    device: str,
    workers: int | None,
    feature_precision: str,
    no_cache: bool,
    alone: bool = False,
    **options: Any,
) -> None:
    """``infomax evaluate``: each result is kept as soon as it is known, then all are printed."""
    from infomax.evaluation.representations import EvaluationOptions
    from infomax.reporting.comparison import told as told_rows
    from infomax.runs.run_folder import Run
    from infomax.runtime.collectives import process_group, rank
    from infomax.runtime.failures import describe_machine_failure
    from infomax.runtime.json_lines import append_json_line
    from infomax.runtime.ranks import device_of, rank_from_environment

    if (name := encoder or named) is None or (encoder and named):
        raise ValueError(
            "one encoder is wanted: a run folder, timm:NAME, torchvision:NAME, hf:NAME or a checkpoint file"
        )
    run = Run(Path(name)) if (Path(name) / "config.json").is_file() else None
    if out is None:
        out = (run.path if run is not None else Path()) / "results.jsonl"
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise ValueError(f"--out {out} must be a file that can be written, in a folder that is there")
    how = EvaluationOptions(
        device=device,
        workers=workers,
        feature_precision=feature_precision,
        no_cache=no_cache,
        alone=alone,
        quiet=False,
    )
    where = location(options)
    if where.data is None and protocol != "transfer" and options.get("setting") != "transfer":
        if run is None:
            raise ValueError(f"--data is wanted: {name} is not a run folder, which would say what it was trained on")
        given = {key: value for key, value in vars(where).items() if value is not None}
        where = replace(run.location, **given)
    limits = {f"{key}_file": file for key in ("classes", "subset") if (file := getattr(where, key)) is not None}
    rank_info = rank_from_environment()
    if rank_info is not None and rank_info.rank > 0:
        how = replace(how, quiet=True)
    rows: list[Row] = []

    def judged() -> None:
        try:
            for row in _rows(protocol, name, where, download, how, options):
                rows.append(row)
                if rank() == 0:
                    append_json_line(out, {**row, **limits, **_origin(row, run)})
        except Exception as error:
            told = describe_machine_failure(error, "--feature-precision 16, or a smaller --batch-size, takes less")
            if told is None:
                raise
            raise MachineError(f"{told}. What was computed is kept, and the same command goes on") from error

    try:
        if rank_info is None:
            judged()
        else:
            with process_group(
                rank_info.rank, rank_info.world_size, device=device_of(how.torch_device.type, rank_info.local_rank)
            ):
                judged()
    finally:
        if rows and (rank_info is None or rank_info.rank == 0):
            print(told_rows(protocol, rows, limits))
            if run is not None:
                print(f"trained by {run.recipe_title}")
            print(f"added to {out}")


def location(options: dict[str, Any]) -> Any:
    """Takes where the images are out of the options."""
    from infomax.data.sources.location import DataLocation

    return DataLocation(**{name: options.pop(name) for name in ("data", "data_dir", "classes", "subset")})


def _origin(row: Row, run: Any) -> Row:
    """The command, and of a run's own encoder what it is."""
    own = run is not None and row["representation"] == "trained encoder"
    origin = {"recipe": run.recipe_title, "trained_steps": run.trained_steps} if own else {}
    return {**origin, "command": shlex.join(["infomax", *sys.argv[1:]])}


def _rows(protocol: str, name: str, where: Any, download: bool, how: Any, options: dict[str, Any]) -> Iterable[Row]:
    """What a protocol finds, as it finds it."""
    if protocol == "transfer" or options.get("setting") == "transfer":
        return _transfers(protocol, name, where, download, how, options)
    return _protocols()[protocol](name, where.open(download=download), how=how, **options)


def _protocols() -> dict[str, Callable[..., Iterable[Row]]]:
    """By the name of each; torch is imported with them."""
    from infomax.evaluation import protocols
    from infomax.evaluation.finetune import finetune
    from infomax.evaluation.prototypes import prototype_row

    def cluster(name: str, source: Any, *, how: Any, **options: Any) -> Iterable[Row]:
        yield from protocols.cluster(name, source, how=how, **options)
        if (row := prototype_row(name, source, how=how)) is not None:
            yield row

    def tuned(name: str, source: Any, *, steps: int | None, budget: int | None, **options: Any) -> Iterable[Row]:
        for word, value in (("--steps", steps), ("--budget", budget)):
            if value is not None:
                raise ValueError(f"{word} {value} is for --setting transfer")
        yield finetune(name, source, **options)

    return {"knn": protocols.knn, "linear": _linear, "few": protocols.few, "cluster": cluster, "finetune": tuned}


def _linear(name: str, source: Any, *, how: Any, probe: str | None, **options: Any) -> Iterable[Row]:
    """Solved to the optimum, or trained as a paper trains it."""
    from infomax.evaluation import protocols
    from infomax.evaluation.probing import probe as trained

    if probe is None:
        unset = {"learning_rate": (), "no_augmentation": False, "seed": 0}
        for word, value in options.items():
            if value != unset.get(word):
                raise ValueError(f"--{word.replace('_', '-')} is for a trained classifier; name it with --probe")
        return protocols.linear(name, source, how=how)
    rates = options.pop("learning_rate") or None
    return trained(name, source, name=probe, learning_rates=rates, how=how, **options)


def _transfers(
    protocol: str, name: str, where: Any, download: bool, how: Any, options: dict[str, Any]
) -> Iterable[Row]:
    """A row for each data set; all are opened before the first is computed."""
    from infomax.data.sources.named import NAMED_DATASETS
    from infomax.evaluation.search import transfer_finetune
    from infomax.evaluation.transfer import TRANSFER_SETS, to_transfer, transfer
    from infomax.runtime.collectives import rank

    if protocol == "finetune" and options["epochs"] is not None:
        raise ValueError(f"--epochs {options['epochs']} is not for --setting transfer, whose runs have --steps")
    wanted = where.data.split(",") if where.data else list(TRANSFER_SETS)
    if not set(wanted) <= {*NAMED_DATASETS, "digits"}:
        wanted = [where.data]  # folders, which may have commas between them too
    sources, missing = [], []
    for data in wanted:
        try:
            sources.append(replace(where, data=data).open(download=download))
        except ValueError as error:
            if where.data is not None:
                raise
            missing.append(str(error))
    if not sources:
        raise ValueError(f"none of the {len(TRANSFER_SETS)} data sets is there: {missing[0]}")
    if missing and rank() == 0:
        print(f"left out: {', '.join(sorted({*wanted} - {s.name for s in sources}))}")
        for reason in missing:
            print(f"  {reason}", file=sys.stderr)
    what = to_transfer(name, how)
    for source in sources:
        if protocol == "transfer":
            yield from transfer(what, source, how=how, **options)
        else:
            words = {key: value for key, value in options.items() if key != "setting"}
            yield from transfer_finetune(what, source, how=how, **words)


def report(*, results: tuple[Path, ...], table: str | None) -> None:
    """``infomax report``."""
    from infomax.reporting.comparison import compared

    print(compared(results, table))
