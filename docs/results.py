"""Keeps measured results as data, and writes the tables of README.md and docs/ from them.

python docs/results.py demo runs/demo [runs/avx2]  after `infomax demo`, and one without AVX-512: docs/results/demo.json
python docs/results.py photographs runs/c10-*       after pretraining and `evaluate knn`: docs/results/photographs.json
python docs/results.py more-photographs runs/c10-*  adds other seeds, without seconds: from a busy machine
python docs/results.py reproduction runs/sweep.json  after `infomax sweep`: docs/results/reproduction.json
python benchmarks/engine.py                         docs/results/engine.json
python benchmarks/plan.py                           docs/results/plan.json
python benchmarks/start.py                          docs/results/start.json
python benchmarks/clone.py ADDRESS                  docs/results/clone.json
python benchmarks/first_steps.py                    docs/results/first_steps.json
python benchmarks/classifying.py ...                docs/results/classifying.json
python benchmarks/detection.py                      docs/results/detection.json
python benchmarks/export.py                         docs/results/export.json
python benchmarks/health.py                         docs/results/health.json
python benchmarks/precision.py                      docs/results/precision.json
python benchmarks/embeddings.py                     docs/results/embeddings.json
python benchmarks/pages.py                          docs/results/pages.json
LT/bin/python benchmarks/baselines.py               docs/results/baselines.json
python benchmarks/watch.py                          docs/results/watch.json
python benchmarks/backbones.py                      docs/results/backbones.json
python benchmarks/views.py                          docs/results/views.json
python benchmarks/from_disk.py                      docs/results/from_disk.json
python benchmarks/adapting.py                       docs/results/adapting.json
python benchmarks/verdicts.py                       docs/results/verdicts.json
python benchmarks/threads.py                        docs/results/threads.json
python benchmarks/comparison.py RUNS ...            docs/results/comparison.json
python benchmarks/tuning.py                         docs/results/tuning.json
python benchmarks/tuning.py --full                  docs/results/tuning_full.json
python benchmarks/choosing.py                       docs/results/choosing.json, and the summary that choose reads
python benchmarks/knn.py                            docs/results/knn.json, and likewise logistic.py, probes.py and
                                                    speed.py
python docs/results.py tables                       the tables, from what is kept; each is a function in a file of
                                                    docs/result_tables/, which names its page
"""

import json
import sys
from pathlib import Path
from typing import Any

from result_tables import (
    adapting,
    baselines,
    choosing,
    classifying,
    compared,
    embeddings,
    engine,
    evaluation,
    speed,
    start,
    trained,
    verdicts,
    views,
)
from result_tables.kept import KEPT, PER_CENT, lines

SCORES = ("top1", "top5", "interval", "seconds", "test_images", "labelled_images")
MODULES = (
    adapting,
    baselines,
    choosing,
    classifying,
    compared,
    embeddings,
    engine,
    evaluation,
    speed,
    start,
    trained,
    verdicts,
    views,
)
TABLES = {name: table for module in MODULES for name, table in module.TABLES.items()}
"""For each table its page and the function that makes it, by the name in the marks around it."""


def origin(run: Path) -> dict[str, Any]:
    """Returns the provenance of a run's results: date, commit, machine and versions."""
    config = json.loads((run / "config.json").read_text())
    return {name: config[name] for name in ("started", "commit", "machine", "versions")}


def demo(folder: Path, without_avx512: Path | None = None) -> dict[str, Any]:
    """Returns the rows of a demo, and how long it took in all.

    Args:
        folder: Its folder.
        without_avx512: Folder of another demo on the same machine, whose processor was told to do without AVX-512:
            ``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 infomax demo``.
    """
    runs = sorted(folder.iterdir(), key=lambda run: (run / "config.json").stat().st_mtime)
    rows = [row for row in lines(runs[0] / "demo.jsonl") if "run" not in row]
    rows += [row for run in runs for row in lines(run / "demo.jsonl") if "run" in row]
    kept = [{name: row[name] for name in ("name", *PER_CENT, "seconds") if name in row} for row in rows]
    seconds = sum(row.get("seconds", 0) for row in kept)
    others = {} if without_avx512 is None else {"seconds_without_avx512": demo(without_avx512)["seconds"]}
    return {"command": "infomax demo", **origin(runs[0]), "seconds": seconds, **others, "rows": kept}


def photographs(runs: list[Path]) -> dict[str, Any]:
    """Returns a row for each run, with its scores and its seconds."""
    rows = []
    for run in runs:
        config, scores = json.loads((run / "config.json").read_text()), lines(run / "results.jsonl")
        top1 = {row["representation"]: row["top1"] for row in scores if row["protocol"] == "knn"}
        last = [row for row in lines(run / "metrics.jsonl") if "loss" in row][-1]
        rows.append(
            {
                "command": "infomax " + " ".join(config["command"][1:]),
                "method": config["recipe"]["method"]["name"],
                "data": Path(config["data"]).name,
                "seed": config["recipe"]["seed"],
                "pixels": config["recipe"]["preprocessing"]["size"],
                "epochs": config["recipe"]["epochs"],
                "seconds": last["seconds"],
                "images_per_second": last["step"] * config["recipe"]["batch_size"] / last["seconds"],
                "labelled_images": scores[0]["labelled_images"],
                "test_images": scores[0]["test_images"],
                "knn_top1": top1,
                **{name: config[name] for name in ("started", "commit")},
            }
        )
    return {**origin(runs[0]), "rows": rows}


def more_photographs(runs: list[Path]) -> dict[str, Any]:
    """Returns the rows that are kept and those of further runs, without seconds: other programs ran beside them."""
    kept = json.loads((KEPT / "photographs.json").read_text())
    added = [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
        for row in photographs(runs)["rows"]
    ]
    commands = {row["command"] for row in added}
    return {**kept, "rows": [*(row for row in kept["rows"] if row["command"] not in commands), *added]}


def reproduction(file: Path) -> dict[str, Any]:
    """Returns what a sweep kept, without what all runs have in common and without the folders of this machine."""
    kept = json.loads(file.read_text())
    rows = []
    for run in kept["runs"]:
        words = run["command"].split()
        words[words.index("--out") + 1] = f"runs/{Path(words[words.index('--out') + 1]).name}"
        words[words.index("--data") + 1] = Path(run["data"]).name
        own = {
            key: run[key] for key in ("recipe", "changes", "seed", "started", "commit", "images", "training_seconds")
        }
        scores = {key: {name: row[name] for name in SCORES if name in row} for key, row in run["results"].items()}
        rows.append({**own, "command": " ".join(words), "results": scores})
    references: dict[str, dict[str, float]] = {}  # measured by `infomax evaluate` with one of the runs
    for row in (row for results in sorted(file.parent.glob("*/results.jsonl")) for row in lines(results)):
        if row["representation"] != "trained encoder":
            references.setdefault(row["representation"], {})[row["protocol"]] = row["top1"]
    origin = {key: kept["runs"][-1][key] for key in ("started", "commit", "machine", "versions")}
    return {**origin, "rows": rows, "references": references}


def with_tables(file: Path) -> str:
    """Returns the text of a page with its tables made anew, between their marks."""
    text = file.read_text()
    for name, (page, table) in TABLES.items():
        if page == file:
            start, end = f"<!-- {name}: docs/results.py -->", f"<!-- end of {name} -->"
            before, rest = text.split(start)
            text = f"{before}{start}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


def main(task: str, *folders: str) -> None:
    if task == "tables":
        for file in {page for page, _ in TABLES.values()}:
            file.write_text(with_tables(file))
    else:
        make = {"demo": demo, "reproduction": reproduction}.get(task)
        of_runs = more_photographs if task.startswith("more-") else photographs
        kept = make(*map(Path, folders)) if make else of_runs([Path(folder) for folder in folders])
        (KEPT / f"{task.removeprefix('more-')}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
