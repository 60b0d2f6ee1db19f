"""Keeps measured results as data, and writes the tables of README.md and docs/ from them.

python docs/results.py demo runs/demo [runs/avx2]  after `infomax demo`, and one without AVX-512: docs/results/demo.json
python docs/results.py photographs runs/c10-*       after pretraining and `evaluate knn`: docs/results/photographs.json
python docs/results.py more-photographs runs/c10-*  adds other seeds, without seconds: from a busy machine
python docs/results.py reproduction runs/sweep.json  after `infomax sweep`: docs/results/reproduction.json
python benchmarks/engine.py                         docs/results/engine.json
python benchmarks/plan.py                           docs/results/plan.json
python benchmarks/start.py                          docs/results/start.json
python benchmarks/clone.py ADDRESS                  docs/results/clone.json
python benchmarks/detection.py                      docs/results/detection.json
python benchmarks/export.py                         docs/results/export.json
python benchmarks/health.py                         docs/results/health.json
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
python docs/results.py tables                       the tables, from what is kept
                                                    on one page
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from infomax.data.splits import counted
from infomax.papers.published import find_numbers
from infomax.reporting.tables import make_table

DOCS = Path(__file__).parent
KEPT = DOCS / "results"
MEASUREMENTS = DOCS / "measurements"
GUIDE, EXAMPLES = DOCS / "guide" / "one-loss-in-your-loop.md", DOCS / "examples"
LOSSES = {"mira": "MIRA", "corinfomax": "CorInfoMax", "carl": "CARL", "mveb": "MVEB"}
LIBRARIES = {"pytorch": "PyTorch", "lightning": "Lightning", "fabric": "Fabric"}
COCO_SAMPLE = 128  # images, of which the detector's are taken
NOT_MEASURED = "Not measured yet."
SCORES = ("top1", "top5", "interval", "seconds", "test_images", "labelled_images")
PER_CENT = ("knn_1", "linear_1", "knn_5", "linear_5", "knn_all", "linear_all")


def lines(file: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file with one JSON object per line."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def kept_lines(name: str) -> list[Any]:
    """Returns the provenance and the rows of a result file of lines; None alone if it was not measured yet."""
    file = KEPT / name
    return lines(file) if file.exists() else [None]


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


def reproduction_table() -> str:
    kept = json.loads((KEPT / "reproduction.json").read_text())
    protocols = list(kept["rows"][0]["results"])
    rows = []
    for recipe in dict.fromkeys(row["recipe"] for row in kept["rows"]):
        runs = [row for row in kept["rows"] if row["recipe"] == recipe]
        cells = []
        for protocol in protocols:
            scores = [100 * run["results"][protocol]["top1"] for run in runs]
            cells.append(f"{mean(scores):.2f} ± {stdev(scores):.2f}")
        seconds = median(run["training_seconds"] for run in runs)
        rows.append([recipe, *cells, str(len(runs)), f"{seconds:.0f}"])
    for name, scores in kept["references"].items():
        rows.append([name, *(f"{100 * scores[protocol]:.2f}" for protocol in protocols), "", ""])
    header = ["top-1, %", *protocols, "seeds", "seconds a run"]
    commands = "\n".join(dict.fromkeys(row["command"] for row in kept["rows"] if row["seed"] == 0))
    return (
        f"{markdown(header, rows)}\n\nMean and standard deviation over seeds, measured on {where(kept)}, by\n\n"
        f"```\n{commands}\n```\n\nand likewise with the other seeds, on one thread, while other programs ran there too."
    )


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return make_table(header, rows).markdown()


def where(kept: dict[str, Any]) -> str:
    """Returns the machine, date and commit of a measurement in words."""
    machine, versions = kept["machine"], kept["versions"]
    return (
        f"{machine['cores']} cores of {machine['cpu']}, torch {versions['torch']}, {kept['started'][:10]}, "
        f"commit {kept['commit']}"
    )


def demo_table() -> str:
    kept = json.loads((KEPT / "demo.json").read_text())
    header = ["top-1, %", "1 label: kNN", "linear", "5 labels: kNN", "linear", "all: kNN", "linear", "seconds"]
    rows = []
    for row in kept["rows"]:
        scores = [f"{100 * row[score]:.1f}" for score in PER_CENT]
        rows.append([row["name"], *scores, f"{row['seconds']:.0f}" if "seconds" in row else ""])
    minutes = f"{kept['seconds'] / 60:.1f} minutes of training"
    slower = f"; {kept['seconds_without_avx512'] / 60:.1f} on the same cores without AVX-512"
    return (
        f"{markdown(header, rows)}\n\nMeasured by `{kept['command']}` on {where(kept)}: {minutes}"
        f"{slower if 'seconds_without_avx512' in kept else ''}."
    )


def photographs_table() -> str:
    kept = json.loads((KEPT / "photographs.json").read_text())
    header = ["", "pixels", "epochs", "seconds", "trained", "untrained", "raw pixels"]
    names = ("trained encoder", "untrained encoder", "raw pixels")
    rows = []
    for data, method in dict.fromkeys((row["data"], row["method"]) for row in kept["rows"]):
        runs = [row for row in kept["rows"] if (row["data"], row["method"]) == (data, method)]
        trained, untrained, pixels = ([100 * run["knn_top1"][name] for run in runs] for name in names)
        seconds = f"{median(run['seconds'] for run in runs if 'seconds' in run):.0f}"
        sizes = [str(runs[0]["pixels"]), str(runs[0]["epochs"]), seconds]
        scores = [f"{mean(x):.1f}" + (f" ± {stdev(x):.1f}" if len(x) > 1 else "") for x in (trained, untrained)]
        rows.append([f"{data}, {method}", *sizes, *scores, f"{mean(pixels):.1f}"])
    seeds = len({row["seed"] for row in kept["rows"]})
    timed = len({row["seed"] for row in kept["rows"] if "seconds" in row})
    over = "One seed"
    if seeds > 1:
        over = f"Mean and standard deviation over {seeds} seeds; seconds are " + (
            "the median" if timed == seeds else "of the first, as other programs ran beside the others"
        )
    others = "\n\nand likewise with the other seeds." if seeds > 1 else ""
    commands = "\n".join(dict.fromkeys(row["command"] for row in kept["rows"] if row["seed"] == 0))
    return (
        f"{markdown(header, rows)}\n\n{over}. Measured on {where(kept)}, one core for a run, by\n\n```\n{commands}\n"
        f"```{others}"
    )


METHODS_PAGES = DOCS / "methods"
MAIN_TABLES = (
    "mira-1",
    "mira-7",
    "corinfomax-1",
    "carl-1",
    "mveb-1",
    "mveb-2",
)  # the others are ablations, or of others


def published_rows(method: str) -> list[list[str]]:
    """Returns the linear accuracies that the main tables of a method's own paper print for it, each once."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for number in find_numbers(method=LOSSES[method], metric="top1"):
        if number.table.id not in MAIN_TABLES or number.table.paper != LOSSES[method]:
            continue
        conditions = number.conditions
        trained = [
            f"{conditions.epochs} epochs" if conditions.epochs else "",
            f"batch {conditions.batch_size}" if conditions.batch_size else "",
            {True: "multi-crop", False: "two crops", None: ""}[conditions.multi_crop],
        ]
        cells = [number.column.data, conditions.backbone or "", ", ".join(filter(None, trained))]
        value = f"{number.value:g}" + (f" ± {number.deviation:g}" if number.deviation is not None else "")
        note = " (uncertain copy)" if number.row.uncertain else ""
        rows.setdefault((*cells, value), [*cells, f"{number.table.number}{note}", value])
    return list(rows.values())


def method_numbers_table(method: str) -> str:
    """Returns what the paper prints for a method, and what we measured of it."""
    header = ["data", "encoder", "trained for", "place", "linear top-1, %"]
    published = markdown(header, published_rows(method))
    demo_rows = json.loads((KEPT / "demo.json").read_text())["rows"]
    (of_demo,) = (row for row in demo_rows if row["name"] == method)
    raw = next(row for row in demo_rows if row["name"] == "raw pixels")
    measured = [
        [f"digits, {words}", "small", "the demo", protocol, f"{100 * of_demo[key]:.1f}", f"{100 * raw[key]:.1f}"]
        for key, words, protocol in (("knn_1", "1 label a class", "k-NN"), ("linear_all", "all labels", "linear"))
    ]
    photographs_rows = json.loads((KEPT / "photographs.json").read_text())["rows"]
    scores = [row["knn_top1"] for row in photographs_rows if row["method"] == method]
    epochs = next(row["epochs"] for row in photographs_rows if row["method"] == method)
    trained, pixels = ([100 * score[name] for score in scores] for name in ("trained encoder", "raw pixels"))
    spread = f"{mean(trained):.1f}" + (f" ± {stdev(trained):.1f}, {len(trained)} seeds" if len(trained) > 1 else "")
    measured.append(["CIFAR-10", "small", f"{epochs} epochs", "k-NN", spread, f"{mean(pixels):.1f}"])
    header = ["data", "encoder", "trained for", "protocol", "top-1, %", "raw pixels"]
    return (
        "Published by the authors in their main tables, and not reproduced here yet; `infomax report --table list` "
        f"names all tables, ablations too:\n\n{published}\n\nMeasured by us on a CPU, at a scale that says little of "
        "the one above ([photographs](../measurements/photographs.md), [the demo](../../README.md#try-it)):\n\n"
        f"{markdown(header, measured)}"
    )


def cpu_recipes_table() -> str:
    kept = json.loads((KEPT / "cpu_recipes.json").read_text())
    header = ["", "optimiser", "rate", "batch", "encoder", "images seen", "k-NN, %"]
    rows = [
        [
            row["method"],
            row["optimizer"],
            f"{row['learning_rate']:g}",
            str(row["batch_size"]),
            row["encoder"],
            f"{row['images_seen']:,}",
            f"{100 * row['knn_top1']:.1f}",
        ]
        for row in sorted(kept["photographs"], key=lambda row: (row["method"], -row["knn_top1"]))
    ]
    sizes = ", ".join(
        f"{row['pixels']} pixels {100 * row['leave_one_out_knn_top1']:.1f} % in {row['cpu_seconds']} s of one core"
        for row in kept["sizes"]
    )
    return (
        f"{markdown(header, rows)}\n\nMVEB on 713 photographs of clothing, leave-one-out k-NN: {sizes}.\n\nMeasured by "
        f"a loop around the training engine, one thread, on a core of {kept['machine']['cpu']}, {kept['started']}, "
        f"commit {kept['commit']}."
    )


def parts_of_data(name: str) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Returns for each data set of a result file the provenance of its rows, which stands before them, and the rows."""
    parts: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for row in lines(KEPT / name) if (KEPT / name).exists() else []:
        if "commit" in row:
            parts.append((row, []))
        else:
            parts[-1][1].append(row)
    return parts


def tuning_table() -> str:
    parts = []
    for kept, rows in parts_of_data("tuning.json"):
        cells = []
        for method in dict.fromkeys(row["method"] for row in rows):
            trials = [row for row in rows if row["method"] == method]
            best = max(trials, key=lambda row: row["knn_top1"])
            as_it_is = [t["knn_top1"] for t in trials if (t["optimizer"], t["own"]) == ("recipe", 1.0)]
            shown = (best["knn_top1"], *as_it_is, median(t["knn_top1"] for t in trials))
            scores = [f"{100 * x:.1f}" for x in shown]
            if not as_it_is:
                scores.insert(1, "")
            rate = "its own" if best["optimizer"] == "recipe" else f"{best['rate']:g}"
            words = [best["optimizer"], rate, f"{best['own']:g}"]
            cells.append([method, *words, *scores, str(len(trials))])
        header = [rows[0]["data"], "optimiser", "rate", "own setting times", "best k-NN, %"]
        table = markdown([*header, "recipe as it was", "median", "trials"], cells)
        parts.append(f"{table}\n\nMeasured on {where(kept)}, one core for a trial, by `{kept['command']}`.")
    return "\n\n".join(parts) or NOT_MEASURED


def tuning_full_table() -> str:
    """The best trials in long trainings, beside the recipes as they are; means over the seeds of both."""
    parts = []
    for kept, rows in parts_of_data("tuning_full.json"):
        cells = []
        for method in dict.fromkeys(row["method"] for row in rows):
            scores: dict[bool, dict[int, float]] = {True: {}, False: {}}
            for row in (row for row in rows if row["method"] == method):
                is_recipe = (row["optimizer"], row["own"]) == ("recipe", 1.0)
                scores[is_recipe][row["seed"]] = 100 * row["knn_top1"]
            seeds = scores[True].keys() & scores[False].keys()
            if seeds:
                as_it_is, tried = (mean(scores[key][seed] for seed in seeds) for key in (True, False))
                shown = [f"{as_it_is:.1f}", f"{tried:.1f}", f"{tried - as_it_is:+.1f}"]
                epochs = next(str(row["epochs"]) for row in rows if row["method"] == method)
                cells.append([method, *shown, str(len(seeds)), epochs])
        header = [
            f"{rows[0]['data']}, long trainings",
            "recipe as it was, %",
            "best trial, %",
            "points",
            "seeds",
            "epochs",
        ]
        parts.append(
            f"{markdown(header, cells)}\n\nMeasured on {where(kept)}, one core for a run, by `{kept['command']}`."
        )
    return "\n\n".join(parts) or NOT_MEASURED


def comparisons() -> dict[str, dict[str, Any]]:
    """Returns what was measured of all methods: by the name of the data, the comparisons by their budget."""
    file = KEPT / "comparison.json"
    kept: dict[str, dict[str, Any]] = {}
    for row in json.loads(file.read_text())["comparisons"] if file.exists() else []:
        kept.setdefault(row["data"], {})[row["budget"]] = row
    return kept


def comparison_table() -> str:
    """A table for each set of images: the methods, the best at equal images first, and then what all must beat."""
    parts = [comparison_of_data(data, budgets) for data, budgets in comparisons().items() if "images" in budgets]
    return "\n\n".join(parts) or NOT_MEASURED


def comparison_of_data(data: str, budgets: dict[str, Any]) -> str:
    """The table of one set of images."""
    at_images, at_time = budgets["images"], budgets.get("time")
    columns = list(dict.fromkeys(column for method in at_images["methods"] for column in method["scores"]))
    timed = {method["method"]: method for method in at_time["methods"]} if at_time else {}
    rows = []
    for method in at_images["methods"]:
        difference = method["over_best"].get(columns[0])
        over = "the best"
        if difference is not None:
            value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
            over = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
        cells = [mean_and_deviation(method["scores"].get(column, []), ".1f") for column in columns]
        in_time = timed.get(method["method"], {"scores": {}, "epochs": None})
        score = in_time["scores"].get(columns[0])
        of_time = [mean_and_deviation(score, ".1f"), f"{in_time['epochs']:,}"] if score else ["", ""]
        said = [*method["verdicts"], *method["failures"]]
        rows.append([method["method"], cells[0], over, *cells[1:], *of_time, "; ".join(said) or "no sign of trouble"])
    for name, scores in at_images["baselines"].items():
        cells = [f"{scores[column.split(',')[0]]:.1f}" if column.split(",")[0] in scores else "" for column in columns]
        rows.append([name, cells[0], "", *cells[1:], "", "", ""])
    epochs = at_images["methods"][0]["epochs"]
    header = [f"{data}, %", f"{columns[0]}, {epochs} epochs", "over the best", *(f"{c}, likewise" for c in columns[1:])]
    header += [f"{columns[0]}, equal time", "epochs in that time", "trainings at equal images"]
    commands = "\n".join(budget["command"] for budget in budgets.values())
    seeds = max(len(scores) for method in at_images["methods"] for scores in method["scores"].values())
    return (
        f"{markdown(header, rows)}\n\nMean and standard deviation over {counted(seeds, 'seed')}; the interval of a "
        f"difference is over seeds and test images. {at_images['images']:,} images, measured on {where(at_images)}, "
        f"one core for a run, by\n\n```\n{commands}\n```"
    )


def trends_table() -> str:
    sys.path.insert(0, str(DOCS.parent / "benchmarks"))
    from trends import claims_table

    kept, *rows = kept_lines("trends.json")
    table = claims_table(rows)
    if kept is None:
        return f"{table}\n\n{NOT_MEASURED}"
    return f"{table}\n\nMeasured on {where(kept)}, one core for a run, by `{kept['command']}`; {len(rows)} runs so far."


def baselines() -> dict[str, Any]:
    """Returns what is kept of benchmarks/baselines.py; nothing if it was not measured yet."""
    file = KEPT / "baselines.json"
    return json.loads(file.read_text()) if file.exists() else {}


def baselines_measured(kept: dict[str, Any]) -> str:
    threads = f"{kept['threads']} thread{'s' if kept['threads'] > 1 else ''}"
    return f"lightly {kept['lightly']}; measured by `{kept['command']}` on {where(kept)}, {threads}."


def baselines_equal_table() -> str:
    kept = baselines()
    if "equal" not in kept:
        return NOT_MEASURED
    rows = [
        [row["name"], f"{row['value']:.6g}", f"{row['value_difference']:.0e}", f"{row['gradient_difference']:.0e}"]
        for row in kept["equal"]
    ]
    table = markdown(["loss, float64", "value", "difference from lightly's", "of the gradient"], rows)
    return f"{table}\n\nRelative differences, of the gradient's largest element; {baselines_measured(kept)}"


def baselines_losses_table() -> str:
    kept = baselines()
    if "losses" not in kept:
        return NOT_MEASURED
    rows = [[row["name"], f"{row['batch']:,} x {row['width']:,}", *faster(row)] for row in kept["losses"]]
    header = ["value and gradient", "of", "infomax, ms", "lightly, ms", "times faster", "quartiles"]
    repeats = kept["losses"][0]["repeats"]
    return f"{markdown(header, rows)}\n\nMedians of {repeats} turns; {baselines_measured(kept)}"


def baselines_memory_table() -> str:
    kept = baselines()
    if "memory" not in kept:
        return NOT_MEASURED
    rows = [
        [row["name"], f"{row['batch']:,} x {row['width']:,}"]
        + [f"{row[key]:,.0f}" for key in ("given_mb", "infomax", "lightly")]
        for row in kept["memory"]
    ]
    header = ["value and gradient", "of", "given, MB", "infomax, MB", "lightly, MB"]
    return f"{markdown(header, rows)}\n\nA process for each; {baselines_measured(kept)}"


def baselines_steps_table() -> str:
    kept = baselines()
    if "steps" not in kept:
        return NOT_MEASURED
    rows = [[row["name"], str(row["batch"]), *faster(row)] for row in kept["steps"]]
    header = ["step of", "images", "infomax, ms", "lightly, ms", "times faster", "quartiles"]
    repeats = kept["steps"][0]["repeats"]
    return f"{markdown(header, rows)}\n\nMedians of {repeats} turns; {baselines_measured(kept)}"


def engine() -> dict[str, Any]:
    return json.loads((KEPT / "engine.json").read_text())


def sizes(row: dict[str, Any]) -> str:
    words = [row["method"], f"K = {row['prototypes']}" if "prototypes" in row else f"D = {row['dimension']}"]
    words += [f"{row['iterations']} iterations"] if "iterations" in row else []
    words += [row["score_scope"]] if "score_scope" in row else []
    return ", ".join(words)


def counts(row: dict[str, Any]) -> list[str]:
    calls = str(sum(row["calls"].values()))
    return [calls, str(row["calls_of_one_number"]), f"{row['bytes'] / 1e6:.3g}", f"{row['gradient_bytes'] / 1e6:.0f}"]


def collectives_table() -> str:
    kept = engine()
    header = ["", "ranks", "calls", "of one number", "MB", "gradients, MB", "ms", "ms, no waiting", "loss, ms"]
    seconds = ("seconds", "seconds_without_waiting", "loss_seconds")
    rows = [
        [sizes(row), str(row["ranks"]), *counts(row), *(f"{1000 * row[name]:.1f}" for name in seconds)]
        for row in kept["collectives"]
    ]
    first = kept["collectives"][0]
    return (
        f"{markdown(header, rows)}\n\nPer step of {first['batch']} images in {first['views']} views: calls, those that "
        "take one number of a rank, and what they leave on each rank, beside what averaging the gradients of "
        f"{first['backbone']} leaves; time in the calls, without waiting for slower ranks, and of the loss with its "
        f"gradient. Medians of {first['repeats']} steps, one thread a rank, by gloo. Measured by `{kept['command']}` "
        f"on {where(kept)}."
    )


def at_scale_table() -> str:
    kept = engine()
    header = ["", "views", "batch", "ranks", "calls", "of one number", "MB", "gradients, MB"]
    rows = [
        [sizes(row), *(str(row[name]) for name in ("views", "batch", "ranks")), *counts(row)]
        for row in kept["at_scale"]
    ]
    backbones = ", ".join(dict.fromkeys(f"{row['method']} {row['backbone']}" for row in kept["at_scale"]))
    return f"{markdown(header, rows)}\n\nPer step and rank; gradients of {backbones}."


def overhead_table() -> str:
    kept = engine()
    header = ["", "step, ms", "bare loop, ms", "more, %", "quartiles, %", "all steps, %", "steps"]
    rows = []
    for row in kept["overhead"]:
        low, high = (f"{100 * (ratio - 1):.1f}" for ratio in row["quartiles"])
        seconds = [f"{1000 * row[name]:.0f}" for name in ("seconds", "seconds_of_other")]
        more, total = (f"{100 * (row[name] - 1):.1f}" for name in ("ratio", "ratio_of_sums"))
        rows.append(
            [f"{row['recipe']}, {row['method']}", *seconds, more, f"{low} to {high}", total, str(row["repeats"])]
        )
    return (
        f"{markdown(header, rows)}\n\nSteps of {kept['overhead'][0]['batch']} images on one thread, both loops in turn "
        "and to the same weights: medians of the pairs, and the sum of all steps, with the metrics written meanwhile. "
        f"Saving and scoring are left out. Measured by `{kept['command']}` on {where(kept)}."
    )


def parts_table() -> str:
    kept = engine()
    speed = [
        [
            f"{row['method']}, {row['backbone']}",
            str(row["threads"]),
            f"{row['batch']} / {row['micro_batch_size']}",
            *(f"{row[name]:.2f}" for name in ("seconds_of_other", "seconds", "ratio")),
            " to ".join(f"{ratio:.2f}" for ratio in row["quartiles"]),
        ]
        for row in kept["parts"]
    ]
    names = ("whole", "in_parts", "one_part", "outputs")
    memory = [[row["method"], *(f"{row[name] / 1e6:.0f}" for name in names)] for row in kept["memory"]]
    header = ["", "threads", "images / of a microbatch", "at once, s", "in microbatches, s", "ratio", "quartiles"]
    peaks = [
        "1,024 images",
        "at once, MB",
        "in microbatches of 128, MB",
        "128 images alone, MB",
        "outputs of 1,024, MB",
    ]
    return (
        f"{markdown(header, speed)}\n\n{markdown(peaks, memory)}\n\n"
        f"Images of 32 pixels: medians of {kept['parts'][-1]['repeats']} to {kept['parts'][0]['repeats']} pairs of "
        "steps. Memory, with the small encoder: the largest rise of resident memory during a step, in a process of its "
        "own on one thread, above weights, gradients and momentum. "
        f"Measured by `{kept['command']}` on {where(kept)}."
    )


def plan_table() -> str:
    kept = json.loads((KEPT / "plan.json").read_text())
    header = ["run", "a step of", "predicted, s", "took, s", "ratio"]
    speed = [
        [
            f"{row['method']}, {row['data']}, {row['epochs']} epochs"
            + (", ResNet-18" if "micro_batch_size" in row else ""),
            f"{row['measured_images']} images",
            *(f"{row[name]:.1f}" for name in ("predicted", "real")),
            f"{row['ratio']:.2f}",
        ]
        for row in kept["time"]
    ]
    peaks = ["a step of 1,024 images", "in microbatches of", "predicted, MB", "took, MB", "ratio"]
    memory = [
        [
            row["method"],
            str(row["part"] or ""),
            *(f"{row[name] / 1e6:.0f}" for name in ("predicted", "real")),
            f"{row['ratio']:.2f}",
        ]
        for row in kept["memory"]
    ]
    return (
        f"{markdown(header, speed)}\n\n{markdown(peaks, memory)}\n\n"
        "Short runs of `infomax pretrain`, and the images of the steps by which their time was predicted, in the mean "
        "of a plan before the run and one after it, because the speed of a machine drifts; and by how "
        "much resident memory rises at most during a step, above weights, gradients and momentum, in a process of its "
        "own. "
        f"Measured by `{kept['command']}` on {where(kept)}."
    )


PIPELINES = {
    "A": "32 px, two views, arrays in memory",
    "B": "224 px, two views, from JPEG files",
    "C": "2 x 224 px and 6 x 96 px, from JPEG files",
}


def start_table() -> str:
    kept = json.loads((KEPT / "start.json").read_text())
    rows = []
    for row in kept["rows"]:
        first_line = "" if row["first_line"] is None else f"{row['first_line']:.2f}"
        rows.append([row["name"], first_line, row["result"], f"{row['seconds']:.1f}", f"{row['ratio']:.2f}"])
    repeats = max(row["repeats"] for row in kept["rows"])
    return (
        f"{markdown(['from Enter to', 'first line, s', 'then', 's', 'times import torch'], rows)}\n\n"
        f"Medians of {counted(repeats, 'turn')}, in each of which all commands run once; the ratio is within a turn. "
        f"Measured by `{kept['command']}` on {where(kept)}."
    )


def clone_table() -> str:
    kept = json.loads((KEPT / "clone.json").read_text())
    rows = []
    for event in kept["events"]:
        received = event["received_bytes"]
        rows.append([event["name"], f"{event['seconds']:.0f}", "" if received is None else f"{received / 1e9:.2f}"])
    disk = {name: f"{size / 1e9:.1f} GB" for name, size in kept["disk_bytes"].items()}
    return (
        f"{markdown(['from `git clone` to', 's', 'GB received'], rows)}\n\n"
        f"On the disk, the clone takes {kept['disk_bytes']['clone'] / 1e6:.0f} MB, `.venv` {disk['environment']}, and "
        f"all with uv's cache, whose files `.venv` shares, {disk['all']}. Measured once by "
        f"`{kept['command']}` on {where(kept)}, Python {kept['versions']['python']}; other processes kept the cores "
        f"busy, with a load of {kept['load']:.0f}."
    )


def health_table() -> str:
    file = KEPT / "health.json"
    if not file.exists():
        return NOT_MEASURED
    kept = json.loads(file.read_text())
    rows = []
    for row in kept["rows"]:
        counted_operations = row["counted"]
        operations = (str(counted_operations[kind]["operations"]) for kind in counted_operations)
        waits = counted_operations["counting"]["waits"] - counted_operations["step"]["waits"]
        rows.append(
            [
                f"{row['method']}/{row['recipe']}",
                str(row["rows"]),
                f"{1000 * row['seconds_of_step']:.0f}",
                f"{1000 * row['seconds_of_measurement']:.1f}",
                f"{row['steps_between_measurements']} of {row['steps']}",
                f"{row['share_of_run']:.2%}",
                f"{row['share_of_counting']:+.1%}",
                " / ".join(operations),
                str(waits),
            ]
        )
    header = ["", "images", "step, ms", "measurement, ms", "every", "of a run", "counting", "operations", "waits"]
    return f"{markdown(header, rows)}\n\nMeasured by `{kept['command']}` on {where(kept)}."


def backbones_table() -> str:
    file = KEPT / "backbones.json"
    if not file.exists():
        return NOT_MEASURED
    kept = json.loads(file.read_text())
    rows = []
    for step, features in zip(kept["steps"], kept["features"], strict=True):
        low, high = step["quartiles"]
        rows.append(
            [
                step["name"],
                f"{step['ratio']:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{step['weights_differ_by']:.0e}",
                f"{features['same_tensors_differ_by']:.0e}",
                f"{features['files_differ_by']:.0e}",
                f"{features['least_cosine']:.5f}",
            ]
        )
    header = ["", "step, times bare", "quartiles", "weights differ by", "features", "from files", "least cosine"]
    first, images = kept["steps"][0], kept["features"][0]["images"]
    return (
        f"{markdown(header, rows)}\n\n"
        f"MIRA at 96 pixels, 16 images a step, one thread; medians of {first['repeats']} turns in which both take "
        f"part, and the largest difference of any weight after them. Features are those of {images} "
        f"images ({kept['kind']}), with differences as shares of the largest feature: of the same tensors, and from "
        f"files by our preprocessing and timm's own transform. Measured by `{kept['command']}` on {where(kept)}."
    )


def export_table() -> str:
    file = KEPT / "export.json"
    if not file.exists():
        return NOT_MEASURED
    kept = json.loads(file.read_text())
    rows = []
    for row in kept["rows"]:
        difference = f"{row['relative_difference']:.0e}" if row["relative_difference"] else "0"
        size = f"{row['bytes'] / 1e6:.1f}"
        rows.append([row["encoder"], row["format"], f"{row['seconds']:.1f}", f"{row['ratio']:.1f}", size, difference])
    repeats = max(row["repeats"] for row in kept["rows"])
    return (
        f"{markdown(['encoder', 'format', 's', 'times import torch', 'MB', 'largest difference'], rows)}\n\n"
        f"Medians of {counted(repeats, 'turn')}, in each of which all exports run once; the ratio is within a turn. "
        f"Measured by `{kept['command']}` on {where(kept)}."
    )


def pages(part: str, header: list[str], cells: Callable[[dict[str, Any]], list[str]]) -> str:
    """Returns the table of a part of benchmarks/pages.py, and where it was measured."""
    file = KEPT / "pages.json"
    kept = json.loads(file.read_text()).get(part) if file.exists() else None
    if kept is None:
        return NOT_MEASURED
    rows = [[f"{row['images']:,}", *cells(row)] for row in kept["rows"]]
    return (
        f"{markdown(['images', *header], rows)}\n\nMeasured by `{kept['command']}` on {where(kept)}; other programs "
        f"gave the machine a load of {kept['load']:.1f} before."
    )


def map_file_table() -> str:
    header = [
        "layout, s",
        "of a core, s",
        "pictures, s",
        "page, s",
        "page, MB",
        "memory, layout, MB",
        "memory, MB",
        "kept, %",
    ]
    return pages(
        "file",
        header,
        lambda row: [
            f"{row['layout_seconds']:.0f}",
            f"{row['layout_processor_seconds']:.0f}",
            f"{row['atlas_seconds']:.1f}",
            f"{row['page_seconds']:.1f}",
            f"{row['bytes'] / 1e6:.1f}",
            *(f"{row[name] / 1e6:,.0f}" for name in ("layout_memory", "memory")),
            f"{100 * row['kept_neighbours']:.0f}",
        ],
    )


def map_browser_table() -> str:
    header = [
        "first paint, s",
        "map, s",
        "hover, ms",
        "of 95 %, ms",
        "to the frame, ms",
        "frames/s",
        "drawn, %",
        "without WebGL",
    ]
    return pages(
        "browser",
        header,
        lambda row: [
            *(f"{row[name]:.2f}" for name in ("first_paint", "map_ready")),
            *(f"{1000 * row[name]:.1f}" for name in ("hover", "slow_hover", "hover_to_frame")),
            f"{row['frames_per_second']:.0f}",
            f"{100 * row['share']:.0f}",
            f"{row['plain_frames_per_second']:.0f}",
        ],
    )


def map_projector_table() -> str:
    return pages("projector", ["s", "MB"], lambda row: [f"{row['seconds']:.1f}", f"{row['bytes'] / 1e6:,.1f}"])


def watch_table() -> str:
    file = KEPT / "watch.json"
    if not file.exists():
        return NOT_MEASURED
    kept = json.loads(file.read_text())
    names = {"infomax": "infomax watch --serve", "spt": f"spt web {kept.get('spt', '')}".rstrip()}
    rows = [
        [
            f"{row['rows']:,}",
            names[row["viewer"]],
            f"{row['first_answer']:.1f}",
            f"{row['first_paint']:.2f}",
            f"{row['bytes'] / 1e3:,.0f}",
            f"{row['memory'] / 1e6:,.0f}",
        ]
        for row in kept["rows"]
    ]
    return (
        f"{markdown(['rows', 'viewer', 'first answer, s', 'first paint, s', 'kB', 'memory, MB'], rows)}\n\nMedians of "
        f"{counted(kept['turns'], 'turn')}, one viewer after the other. Measured by `{kept['command']}` on "
        f"{where(kept)}."
    )


def embeddings(part: str) -> dict[str, Any] | None:
    """Returns what is kept of a part of benchmarks/embeddings.py; None if it was not measured yet."""
    file = KEPT / "embeddings.json"
    return json.loads(file.read_text()).get(part) if file.exists() else None


def embed_throughput_table() -> str:
    kept = embeddings("throughput")
    if kept is None:
        return NOT_MEASURED
    others, rows = ["timm", "lightly-train", "encoder alone"], []
    for row in kept["rows"]:
        rates = row["rates"]
        cells = [f"{median(rates['infomax']):,.0f}"]
        for name in others:
            cells.append(f"{median(rates[name]):,.0f}" if name in rates else "")
        for name in others:
            cells.append(f"{times_faster(rates['infomax'], rates[name]):.2f}" if name in rates else "")
        rows.append([f"{row['encoder']}, {row['images']:,} JPEGs of {row['files']}", *cells])
    header = ["images/s", "infomax", *others, *(f"infomax / {name}" for name in others)]
    difference = max(row["largest_difference"] for row in kept["rows"])
    return (
        f"{markdown(header, rows)}\n\nMedians of {counted(len(kept['rows'][0]['rates']['infomax']), 'turn')}, and of "
        f"the ratios within a turn. Our features differ from those of timm's loop by at most {difference:.0e} of the "
        f"largest one. {made_by(kept)}"
    )


def times_faster(ours: list[float], others: list[float]) -> float:
    """Returns the median of the ratios of two rates within a turn."""
    return median(a / b for a, b in zip(ours, others, strict=True))


def made_by(kept: dict[str, Any]) -> str:
    return f"Measured by `{kept['command']}` on {where(kept)}."


def search_table() -> str:
    kept = embeddings("search")
    if kept is None:
        return NOT_MEASURED
    (row,) = kept["rows"]
    seconds = {name: median(row["seconds"][name]) for name in ("infomax", "faiss")}
    sizes = f"{row['queries']:,} queries among {row['bank']:,} x {row['dimension']}, {row['k']} neighbours"
    cells = [f"{seconds['infomax']:.1f}", f"{seconds['faiss']:.1f}", f"{seconds['faiss'] / seconds['infomax']:.2f}"]
    header = ["processor time in seconds, one core", "infomax", "faiss IndexFlatIP", "times faster"]
    return (
        f"{markdown(header, [[sizes, *cells]])}\n\nFrom features in float16 to neighbours. "
        f"{100 * row['same_rows']:.2f} % of the neighbours are the same rows in the same order, and cosines differ by "
        f"at most {row['largest_difference']:.0e}: the rest are equal up to rounding. {made_by(kept)}"
    )


def duplicates_table() -> str:
    kept = embeddings("duplicates")
    if kept is None:
        return NOT_MEASURED
    (row,) = kept["rows"]
    right = "exactly those that were put there" if row["as_planted"] else "not those that were put there"
    return (
        f"Among {row['images']:,} x {row['dimension']} features, {row['groups']:,} groups, {right}, in "
        f"{median(row['seconds']):.1f} s on {counted(row['threads'], 'core')}. {made_by(kept)}"
    )


def embed_memory_table() -> str:
    kept = embeddings("memory")
    if kept is None:
        return NOT_MEASURED
    rows = [[f"{row['images']:,}", f"{row['bytes'] / 1e6:,.0f}", f"{row['seconds']:,.0f}"] for row in kept["rows"]]
    first, last = kept["rows"][0], kept["rows"][-1]
    slope = (last["bytes"] - first["bytes"]) / (last["images"] - first["images"])
    return (
        f"{markdown(['images of 8 pixels', 'MB at the peak', 'seconds'], rows)}\n\n{slope:,.0f} bytes more for an "
        f"image more. {made_by(kept)}"
    )


def page_table() -> str:
    kept = embeddings("page")
    if kept is None:
        return NOT_MEASURED
    (row,) = kept["rows"]
    seconds = {name: median(times) for name, times in row["seconds"].items()}
    return (
        f"Of {row['images']:,} JPEGs of {row['files']} by the encoder `{row['encoder']}`: `infomax embed` "
        f"{seconds['embed']:.1f} s, `infomax search --out like.html` {seconds['search']:.1f} s. {made_by(kept)}"
    )


def examples_table() -> str:
    rows = []
    for method, title in LOSSES.items():
        links = [f"[{method}](../examples/{library}_{method}.py)" for library in LIBRARIES]
        text = (EXAMPLES / f"pytorch_{method}.py").read_text().split('"""')[1].strip().split("\n\n")[-1]
        prints = re.fullmatch(r"Prints (.*?),? and at last:\n\s+(.*)", text, re.S)
        assert prints is not None, text
        rows.append([title, *links, " ".join(prints[1].split()), f"`{prints[2].strip()}`"])
    return markdown(["loss", *LIBRARIES.values(), "prints", "last line, about"], rows)


def views_table() -> str:
    kept = json.loads((KEPT / "views.json").read_text())
    rows = []
    for section, pipeline in PIPELINES.items():
        for row in kept[section]["rows"]:
            low, high = row["quartiles"]
            name = row["name"] if row["name"] != "solo-learn" else "as solo-learn, by PIL and torchvision"
            cells = [f"{row['images_per_second']:,.0f}", f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
            rows.append([f"{pipeline}; {row['data']}", name, *cells])
    blur = {row["name"]: row.get("milliseconds", 1e3 / row.get("images_per_second", 1)) for row in kept["D"]["rows"]}
    first = kept["A"]["rows"][0]
    return (
        f"{markdown(['', 'pipeline', 'images/s', 'ratio', 'quartiles'], rows)}\n\n"
        "Images a second from bytes or files to all their normalised views, on one core, by processor time; the set "
        f"is `byol`, and `dino` for eight views. Medians of {first['repeats']} turns in which all take part. A blur at "
        f"224 pixels takes {blur['infomax']:.2f} ms, by PIL {blur['PIL']:.2f}, by torchvision's 23 x 23 kernel "
        f"{blur['torchvision, 23x23']:.1f}. Measured by `python benchmarks/views.py` on {where(kept['A'])}."
    )


def channels_table() -> str:
    kept = json.loads((KEPT / "views.json").read_text())["G"]
    rows = []
    for row in kept["rows"]:
        low, high = row["quartiles"]
        cells = [f"{row['images_per_second']:,.0f}", f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
        rows.append([f"{row['side']} px", row["name"], *cells])
    busy = " Other processes had the machine too." if any(row["busy"] for row in kept["rows"]) else ""
    return (
        f"{markdown(['', 'channels', 'images/s', 'ratio', 'quartiles'], rows)}\n\n"
        "Images a second from arrays to two normalised views each (`byol`), on one core, by processor time; medians of "
        f"{kept['rows'][0]['repeats']} turns in which all take part, and their ratio to bytes of red, green and blue. "
        "Colour operations that mix channels are off where there are not three. Those with noise have a turn and noise "
        f"in each view, and each channel dropped with probability 0.1.{busy} Measured by "
        f"`python benchmarks/views.py --only G` on {where(kept)}."
    )


def opening_table() -> str:
    kept = json.loads((KEPT / "views.json").read_text())["E"]
    rows, opened, workers = [], {}, {}
    for row in kept["rows"]:
        if "seconds" in row:
            opened.setdefault(" ".join([row["name"], row["how"]]).strip(), []).append(row)
        else:
            workers[row["name"], row["start"]] = row["because_of_the_paths"]
    for name, measured in opened.items():
        middle = sorted(measured, key=lambda row: row["seconds"])[len(measured) // 2]
        own = [f"{max(0, workers[name.split()[0], start]) / 1e6:.0f}" for start in ("fork", "forkserver", "spawn")]
        rows.append([name, f"{middle['seconds']:.2f}", f"{middle['peak_bytes'] / 1e6:.0f}", *own])
    header = ["", "seconds", "MB at most", "MB more a worker: fork", "forkserver", "spawn"]
    paths = kept["rows"][0]["paths"]
    return (
        f"{markdown(header, rows)}\n\nTo open a folder of {paths:,} files in 1,000 classes, first and again, beside "
        "torchvision's ImageFolder: memory of the process, and what a worker has to itself because of the paths "
        f"after it has read 100,000 of them. Measured by `python benchmarks/views.py` on {where(kept)}."
    )


def from_disk_table() -> str:
    kept = json.loads((KEPT / "from_disk.json").read_text())
    by_case: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for row in kept["rows"]:
        same = [x for x in kept["rows"] if all(x[name] == row[name] for name in ("files", "side", "way"))]
        rates = {name: median(x[name] for x in same) for name in row if isinstance(row[name], float)}
        by_case.setdefault((row["files"], row["side"]), {})[row["way"]] = rates
    has_before = any(row["way"] == "before" for row in kept["rows"])
    rows = []
    for (files, side), ways in by_case.items():
        off, keep, floor = ways["off"], ways["kept"], ways["decoding"]
        before = ways.get("before", off)
        numbers = [*([before["later"]] if has_before else []), off["later"], keep["first"], keep["later"]]
        numbers += [floor["Pillow"], floor.get("libjpeg-turbo", floor["Pillow"])]
        rows.append([f"{files}, {side} px", *(f"{x:,.0f}" for x in numbers), f"{keep['later'] / before['later']:.1f}"])
    header = ["files, views", *(["before"] if has_before else []), "decoded anew", "kept: first epoch", "kept: later"]
    header += ["decoding alone: Pillow", "libjpeg-turbo", "later, ratio"]
    return (
        f"{markdown(header, rows)}\n\nImages a second, in the process that trains, of two views' crops of "
        f"{kept['images']:,} JPEG files ({kept['data']}), by two workers; medians of {kept['repeats']} turns in which "
        "all take part. The ratio is that of later epochs with kept images over the first column. Decoding alone is "
        "done in two processes, at the sizes at which the crops need the files. Measured by "
        f"`{kept['command']}` on {where(kept)}."
    )


def threads_table() -> str:
    kept, rows = json.loads((KEPT / "threads.json").read_text()), []
    for data, condition in dict.fromkeys((row["data"], row["condition"]) for row in kept["rows"]):
        here = [row for row in kept["rows"] if (row["data"], row["condition"]) == (data, condition)]
        before, after = (next(row for row in here if row["kind"] == kind) for kind in ("before", "after"))
        best = max((row for row in here if row["kind"] != "after"), key=lambda row: row["images_per_second"])
        was, now, most = (row["images_per_second"] for row in (before, after, best))
        words = [f"{best['threads']} thread{'s' * (best['threads'] > 1)}"]
        words += [f"{best['spins']:,} turns"] if best["threads"] > 1 else []
        words += [f"{best['workers']} worker{'s' * (best['workers'] != 1)}"] if best["workers"] is not None else []
        cells = [f"{was:,.0f}", f"{now:,.0f}", f"{now / was:.2f}", f"{most:,.0f}", ", ".join(words)]
        rows.append([data, condition, *cells, f"{100 * now / most:.0f}"])
    header = ["training on", "machine", "before", "after", "times faster", "best by hand", "its setting", "% of it"]
    return (
        f"{markdown(header, rows)}\n\nImages a second; medians of {kept['turns']} turns of each setting, in turn. "
        f"Measured by `python benchmarks/threads.py` on {where(kept)}{kept.get('note', '')}."
    )


def knn_table() -> str:
    kept = json.loads((KEPT / "knn.json").read_text())
    names = {"infomax": "infomax", "DINO": "product and top-k in chunks", "scikit-learn": "scikit-learn"}
    rows = []
    for row in kept["searches"]:
        sizes = f"{row['queries']:,} queries, {row['bank']:,} x {row['dimension']:,}, {row['features']}"
        rows.append([sizes, *(f"{row[name]['of_product'][1]:.2f}" for name in names)])
    peak = max(row["peak"] for row in kept["memory"] if row["memory"] == 2**30)
    return (
        f"{markdown(['processor time, over that of the bare float32 product', *names.values()], rows)}\n\n"
        f"One core; medians of {kept['searches'][0]['repeats']} turns in which all take part; the same predictions. "
        f"At most {peak / 2**20:.0f} MiB beside the features. Measured by `python benchmarks/knn.py` on {where(kept)}."
    )


def logistic_table() -> str:
    kept = json.loads((KEPT / "logistic.json").read_text())
    rows, first = [], kept["rows"][0]
    for row in kept["rows"]:
        seconds = {
            n: sorted(c[row["compared_by"]])[len(c[row["compared_by"]]) // 2] for n, c in row["contestants"].items()
        }
        times = [f"{seconds[name]:,.1f}" for name in (row["faster"], "infomax")]
        wide = f"{row['images']:,} x {row['features']:,}, {row['classes']} classes"
        loss = "at every one" if row["no_loss_higher"] else "not at every one"
        rows.append(
            [f"{wide}, on {'a GPU' if row['device'] == 'cuda' else 'one core'}", *times, f"{row['ratio']:.1f}", loss]
        )
    header = [
        f"seconds for {len(first['penalties'])} penalties",
        "scikit-learn",
        "infomax",
        "ratio",
        "loss equal or lower",
    ]
    count = len(first["ratios"])
    turns = f"medians of {count} turns," if count > 1 else "one turn,"
    return (
        f"{markdown(header, rows)}\n\nscikit-learn as the published results were made, in float32 or float64, "
        f"whichever is faster; {turns} by processor time on a CPU. Measured by "
        f"`python benchmarks/logistic.py` on {where(kept)}."
    )


def probes_table() -> str:
    kept = json.loads((KEPT / "probes.json").read_text())
    rows = [
        [
            f"{row['encoder']}, {row['images']:,} images of {row['side']} pixels",
            f"{row['seconds_running']:,.0f}",
            f"{row['seconds_features']:,.0f}",
            f"{row['ratio']:.0f}",
        ]
        for row in kept["rows"]
    ]
    header = [
        f"seconds of a probe of {kept['rows'][0]['epochs']} epochs",
        "running the encoder",
        "on features",
        "ratio",
    ]
    return f"{markdown(header, rows)}\n\nMeasured by `python benchmarks/probes.py` on {where(kept)}."


def detection_table() -> str:
    kept = json.loads((KEPT / "detection.json").read_text())
    row = kept["result"]
    scores = [f"{what}_ap{level}" for what in ("box", "mask") for level in ("", "50", "75")]
    rows = [[f"{point['iteration']:,}", *(f"{100 * point[name]:.1f}" for name in scores)] for point in row["points"]]
    header = ["iteration", "box AP, %", "AP50", "AP75", "mask AP, %", "AP50", "AP75"]
    options = (
        f"--arch {row['arch']} --batch-size {row['batch_size']} --learning-rate {row['learning_rate']:g} --budget "
        f"{row['iterations']} --train-sides {row['train_sides'][0]} --test-side {row['test_side']} --boxes-per-image "
        f"{row['boxes_per_image']}"
    )
    return (
        f"{markdown(header, rows)}\n\nOf {COCO_SAMPLE} photographs of COCO's train2017, the {len(row['image_ids'])} "
        f"with the lowest numbers are taken whose objects all have a box of at least {100 * row['least_share']:.0f} % "
        f"of the image: {row['objects']} objects. The encoder is `{row['backbone']}`, untrained. `{options}` takes "
        f"{row['cpu_seconds'] / 60:.1f} minutes of one core. Measured by `{kept['command']}` on {where(kept)}."
    )


def speed() -> dict[str, Any]:
    return json.loads((KEPT / "speed.json").read_text())


def faster(row: dict[str, Any]) -> list[str]:
    """Returns the milliseconds of both, and how many times faster ours is, with quartiles."""
    calls = row.get("calls", 1)
    numbers = [1e3 * row[name] / calls for name in ("seconds", "seconds_of_other")]
    times = [f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in numbers]
    low, high = (f"{1 / ratio:.2f}" for ratio in reversed(row["quartiles"]))
    return [*times, f"{1 / row['ratio']:.2f}", f"{low} to {high}"]


def measured(kept: dict[str, Any]) -> str:
    rates = kept["rates"]
    return (
        f"Measured by `{kept['command']}` on {where(kept)}: {kept['machine']['device']}, which adds vectors at "
        f"{rates['memory'] / 1e9:.0f} GB/s, and multiplies matrices at {rates['float32'] / 1e9:,.0f} GFLOP/s in "
        f"float32 and {rates['float64'] / 1e9:,.0f} in float64."
    )


def speed_steps_table() -> str:
    kept, rows, stages = speed(), [], []
    names = ("wait", "views", "forward", "loss", "backward", "optimiser", "EMA", "rest")
    for row in kept["steps"]:
        floor = [f"{1e3 * row['floor']:.0f}"] if "floor" in row else [""]
        rows.append([row["name"], *faster(row), *floor])
        for library, seconds in row.get("stages", {}).items():
            times = [f"{1e3 * seconds[stage]:.2f}" if stage in seconds else "" for stage in names]
            stages.append([row["name"].split(" / ")[0] if library == "infomax" else f"lightly's {row['kin']}", *times])
    first = kept["steps"][0]
    header = ["step of", "infomax, ms", "other, ms", "times faster", "quartiles", "arithmetic alone, ms"]
    return (
        f"{markdown(header, rows)}\n\n{markdown(['ms by stage', *names], stages)}\n\nSteps of {first['batch']} images "
        f"by the recipe `{first['recipe']}`; medians of {first['repeats']} turns. {measured(kept)}"
    )


def speed_losses_table() -> str:
    kept = speed()
    rows = [[row["name"], f"{row['batch']:,} x {row['width']:,}", *faster(row)] for row in kept["losses"]]
    header = ["value and gradient", "of", "infomax, ms", "other, ms", "times faster", "quartiles"]
    return f"{markdown(header, rows)}\n\nMedians of {kept['losses'][0]['repeats']} turns."


def speed_targets_table() -> str:
    kept, rows = speed(), []
    for row in kept["targets"]:
        errors = [f"{x:.0e}" if x is not None else "" for x in (row["error"], row["error_of_other"])]
        rows.append([row["name"], *faster(row), f"{1e3 * row['floor']:.0f}", *errors])
    first = kept["targets"][0]
    header = ["", "infomax, ms", "other, ms", "times faster", "quartiles", "memory alone, ms", "our error", "other's"]
    needed = {row["name"].split(":")[0]: row["plain_to_a_millionth"] for row in kept["targets"]}
    plain = " and ".join(f"{count} for {kind} logits" for kind, count in needed.items())
    return (
        f"{markdown(header, rows)}\n\nOf {first['batch']:,} images and {first['prototypes']:,} prototypes, in float32; "
        f"medians of {first['repeats']} turns. If no number is given, {first['iterations']} iterations; plain ones "
        f"come within 1e-6 in float64 after {plain}."
    )


def speed_systems_table() -> str:
    kept, header = speed(), ["CorInfoMax against", "infomax, ms", "other, ms", "times faster", "quartiles"]
    determinants = [[row["name"], *faster(row)] for row in kept["log_determinants"]]
    scores = []
    for row in kept["scores"]:
        sizes = [f"{row[name]:,}" if name in row else "" for name in ("largest", "of_all_pairs")]
        scores.append([row["name"], *faster(row), *sizes])
    sized = ["MVEB against", *header[1:], "largest tensor", "M M D"]
    return (
        f"{markdown(header, determinants)}\n\n{markdown(sized, scores)}\n\nMedians of "
        f"{kept['log_determinants'][0]['repeats']} and {kept['scores'][-1]['repeats']} turns."
    )


def speed_updates_table() -> str:
    kept, rows = speed(), []
    for row in kept["updates"]:
        speed_of_memory, moved = row["bytes"] / row["floor"], []
        for size in (row["bytes"], row.get("bytes_as_written", row["bytes"])):
            moved += [f"{size / 1e6:,.0f}", f"{100 * size / row['seconds'] / speed_of_memory:.0f}"]
        rows.append([row["name"], *faster(row), *moved])
    header = ["", "infomax, ms", "other, ms", "times faster", "quartiles"]
    header += ["MB at least", "% of memory's speed", "MB as written", "% of memory's speed"]
    return f"{markdown(header, rows)}\n\nMedians of {kept['updates'][0]['repeats']} turns."


def speed_memory_table() -> str:
    rows = [
        [row["name"], *(f"{row[name] / 1e6:.0f}" for name in ("bytes", "bytes_of_other")), f"{row['ratio']:.2f}"]
        for row in speed()["memory"]
    ]
    return markdown(["", "infomax, MB", "other, MB", "ratio"], rows)


def speed_bounds_table() -> str:
    kept, rows = json.loads((KEPT / "gpu.json").read_text())["bounds"], []
    for row in kept["rows"]:
        at_most = [f"{row['batch'] / row[name]:,.0f}" for name in ("arithmetic", "unfused")]
        each = [f"{row['flops'] / row['batch'] / 1e9:.1f}", f"{row['bytes'] / row['batch'] / 1e6:.0f}"]
        share = 100 * row["goal"] * row["unfused"] / row["batch"]
        rows.append([row["name"], *each, *at_most, f"{row['goal']:,}", f"{share:.0f}"])
    header = [
        "image pairs a second",
        "GFLOP each",
        "MB each",
        "by arithmetic alone",
        "without fusion",
        "goal",
        "% of it",
    ]
    rates = kept["rates"]
    return (
        f"{markdown(header, rows)}\n\nIn bfloat16, at {rates['bfloat16'] / 1e12:.0f} TFLOP/s and "
        f"{rates['memory'] / 1e12:.1f} TB/s. Counted by `{kept['command']}`, commit {kept['commit'][:12]}."
    )


def adapting_table() -> str:
    kept, *rows = lines(KEPT / "adapting.json")
    studies = dict.fromkeys((row["initial"], row["target"]) for row in rows if "method" in row)
    parts = [adapting_study([row for row in rows if (row["initial"], row["target"]) == study]) for study in studies]
    scores = "Points of k-NN top-1 above the initial encoder: mean and standard deviation over seeds."
    return "\n\n".join([*parts, f"{scores} Measured by `{kept['command']}` on {where(kept)}."])


def adapting_study(rows: list[dict[str, Any]]) -> str:
    """Returns the table of the encoders that started from one encoder and were adapted to one data set."""
    references = {row["reference"]: 100 * row["knn_top1"] for row in rows if "reference" in row}
    initial, runs = references["initial encoder"], [row for row in rows if "method" in row]
    columns = sorted({(row["epochs"], row["freeze"]) for row in runs})
    gains: dict[tuple[str, float], dict[tuple[int, int], list[float]]] = {}
    for row in runs:
        cells = gains.setdefault((row["method"], row["backbone_rate"]), {})
        cells.setdefault((row["epochs"], row["freeze"]), []).append(100 * row["knn_top1"] - initial)
    table = [
        [method, f"{rate:g}", *(mean_and_deviation(gains[method, rate].get(column, [])) for column in columns)]
        for method, rate in sorted(gains)
    ]
    header = [
        "",
        "rate",
        *(f"{counted(epochs, 'epoch')}{f', {freeze} frozen' * bool(freeze)}" for epochs, freeze in columns),
    ]
    others = ", ".join(f"{name} {score:.1f} %" for name, score in references.items())
    seeds, images = len({row["seed"] for row in runs}), next(row["test_images"] for row in rows if "reference" in row)
    best = ", ".join(best_setting(method, gains) for method in dict.fromkeys(name for name, _ in sorted(gains)))
    first, target = rows[0]["initial"], rows[0]["target"].replace("-", " ")
    encoder = "A supervised encoder" if first == "supervised" else f"An encoder of {first}"
    extent = f"{images:,} images, {counted(seeds, 'seed')}"
    return (
        f"{encoder}, adapted to the {target} ({extent}): {others}.\n\n{markdown(header, table)}\n\nMost gained: {best}."
    )


def mean_and_deviation(values: list[float], form: str = "+.1f") -> str:
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation}" if values else ""


def best_setting(method: str, gains: dict[tuple[str, float], dict[tuple[int, int], list[float]]]) -> str:
    """Returns in words the setting with which a method gains most."""
    cells = {(rate, *key): x for (name, rate), row in gains.items() if name == method for key, x in row.items()}
    settings = {key: mean(x) for key, x in cells.items()}
    (rate, epochs, freeze), gain = max(settings.items(), key=lambda item: item[1])
    setting = f"rate {rate:g}, {counted(epochs, 'epoch')}, {freeze} frozen"
    return f"{method} {gain:+.1f} ({setting})" if gain > 0 else f"{method} nothing"


def verdict_runs() -> list[dict[str, Any]]:
    """Returns the runs of benchmarks/verdicts.py that are kept, without the line on where they were made."""
    return kept_lines("verdicts.json")[1:]


def made_so_far(kind: str, count: int) -> str:
    """Returns the number of runs in words, and of how many if the study is not complete."""
    planned = lines(KEPT / "verdicts.json")[0]["planned"][kind]
    return str(count) if count >= planned else f"{count} of the {planned} that the study has are made so far"


def healthy_verdicts_table() -> str:
    runs = [run for run in verdict_runs() if run["kind"] == "healthy"]
    if not runs:
        return NOT_MEASURED
    rows, sets = [], {"digits": "digits", "cifar10": "CIFAR-10 subset"}
    for data, variant, method in dict.fromkeys((run["data"], run["variant"], run["method"]) for run in runs):
        group = [run for run in runs if (run["data"], run["variant"], run["method"]) == (data, variant, method)]
        scores = [100 * run["knn_top1"] for run in group if "knn_top1" in run]
        name = sets[data] + f", {variant}" * bool(variant)
        alarms = sum(bool(run["verdicts"]) for run in group)
        score = f"{min(scores):.0f} to {max(scores):.0f}" if scores else ""
        measured = f"{median(run['health_rows'] for run in group):.0f}"
        rows.append([name, method, str(group[0]["steps"]), measured, str(len(group)), str(alarms), score])
    alarmed = [run for run in runs if run["verdicts"]]
    said = "".join(
        f"\n- {run['data']}, {run['method']}, seed {run['seed']}: {all_said(run)}; k-NN at the end "
        f"{100 * run.get('knn_top1', 0):.0f} %"
        for run in alarmed
    )
    count = made_so_far("healthy", len(runs))
    summary = f"Healthy runs: {count}. Runs with an alarm: {len(alarmed)}{':' if said else '.'}"
    header = ["", "method", "steps", "measurements", "runs", "alarms", "k-NN at the end, %"]
    origin = lines(KEPT / "verdicts.json")[0]
    return f"{markdown(header, rows)}\n\n{summary}{chr(10) * bool(said)}{said}\n\n{made_by(origin)}"


def all_said(run: dict[str, Any]) -> str:
    """Returns in words what was said of a run."""
    return (
        ", ".join(f"{said['name']} ({said['state']}) at step {said['step']}" for said in run["verdicts"]) or "nothing"
    )


def provoked_verdicts_table() -> str:
    runs = [run for run in verdict_runs() if run["kind"] != "healthy"]
    if not runs:
        return NOT_MEASURED
    rows, wrong = [], []
    for kind, method in dict.fromkeys((run["kind"], run["method"]) for run in runs):
        group = [run for run in runs if (run["kind"], run["method"]) == (kind, method)]
        firsts = [next((v for v in run["verdicts"] if v["name"] in run["named"]), None) for run in group]
        steps = [first["step"] for first in firsts if first is not None]
        names = list(dict.fromkeys(first["name"] for first in firsts if first is not None))
        others = [{v["name"] for v in run["verdicts"]} - {*run["named"], *run["beside"]} for run in group]
        wrong += [run for run, first, more in zip(group, firsts, others, strict=True) if first is None or more]
        beside = sorted({v["name"] for run in group for v in run["verdicts"] if v["name"] in run["beside"]})
        when = [f"{median(steps):.0f}", f"{100 * max(steps) / group[0]['steps']:.0f}"] if steps else ["", ""]
        counts = [str(len(group)), str(len(steps)), str(sum(map(bool, others)))]
        rows.append([kind, method, ", ".join([*names, *(f"and {name}" for name in beside)]), *counts, *when])
    header = ["", "method", "named", "runs", "named in", "another name in", "at step, median", "latest, % of the run"]
    said = "".join(f"\n- {run['kind']}, {run['method']}, seed {run['seed']}: {all_said(run)}" for run in wrong)
    count = made_so_far("provoked", len(runs))
    summary = f"Provoked runs: {count}. Runs without the right name, or with another one: {len(wrong)}"
    return f"{markdown(header, rows)}\n\n{summary}{':' + chr(10) if said else '.'}{said}"


CHOOSING = DOCS.parent / "src" / "infomax" / "experiments" / "choosing.json"
GROUP_COLUMNS = ("mira", "corinfomax", "carl", "mveb", "all")


def choosing() -> dict[str, Any]:
    return json.loads(CHOOSING.read_text())


def choosing_table() -> str:
    """Returns what was measured: how many runs, of which data sets, and how often they collapsed."""
    kept = choosing()
    if not kept["groups"]:
        return NOT_MEASURED
    rows = []
    for data in dict.fromkeys(group["data"] for group in kept["groups"]):
        groups = {(g["method"], g["with_collapsed"]): g for g in kept["groups"] if g["data"] == data}
        for method in GROUP_COLUMNS:
            every, healthy = groups.get((method, True)), groups.get((method, False))
            if every is not None:
                left = every["runs"] - (0 if healthy is None else healthy["runs"])
                planned = kept["runs_planned"][data] // (1 if method == "all" else len(LOSSES))
                best = f"{100 * every['best_knn']:.1f}"
                rows.append([data, method, f"{every['runs']} of {planned}", str(left), str(every["epochs"]), best])
    header = ["", "", "runs of those planned", "collapsed", "epochs", "best k-NN, %"]
    return (
        f"{markdown(header, rows)}\n\nMeasures are of {kept['images']:,} training images at most, k-NN is of held-out "
        f"images. Measured by `{kept['command']}` on {where(kept)}."
    )


def choosing_groups(with_collapsed: bool) -> list[dict[str, Any]]:
    return [group for group in choosing()["groups"] if group["with_collapsed"] == with_collapsed]


def with_interval(values: dict[str, Any], name: str, form: str) -> str:
    """Returns a value and its interval, as ``.45 (.12 to .70)``; empty if there is none."""
    if values.get(name) is None:
        return ""
    low, high = values[f"{name}_interval"]
    return f"{values[name]:{form}} ({low:{form}} to {high:{form}})"


def choosing_rows(groups: list[dict[str, Any]], name: str, form: str, *, rules: bool) -> str:
    """Returns a table for each data set, with a line for each measure and a column for each method."""
    from infomax.experiments.label_free import MEASURES

    parts = []
    for data in dict.fromkeys(group["data"] for group in groups):
        columns = {g["method"]: g for g in groups if g["data"] == data}
        present = [method for method in GROUP_COLUMNS if method in columns]
        known = dict.fromkeys(rule for g in columns.values() for rule in g["rules"]) if rules else {}
        rows = [
            [rule, *(with_interval(columns[method]["rules"].get(rule, {}), name, form) for method in present)]
            for rule in known
        ]
        rows += [
            [
                measure.label,
                *(with_interval(columns[method]["measures"].get(key, {}), name, form) for method in present),
            ]
            for key, measure in MEASURES.items()
            if any(key in columns[method]["measures"] for method in present) and not (rules and key == "loss")
        ]
        parts.append(markdown([data, *present], rows))
    return "\n\n".join(parts) or NOT_MEASURED


def choosing_spearman_table() -> str:
    return choosing_rows(choosing_groups(False), "spearman", ".2f", rules=False)


def choosing_trusted_table() -> str:
    """The measure that ``infomax choose`` takes for each method, by the rule that it has itself."""
    from infomax.experiments.choose import study_of
    from infomax.experiments.label_free import MEASURES

    methods = dict.fromkeys(group["method"] for group in choosing()["groups"] if group["method"] != "all")
    rows, data = [], []
    for method in methods:
        trusted = sorted(study_of(method).values(), key=lambda trust: -trust.low)
        best, helping = trusted[0], [MEASURES[trust.measure].label for trust in trusted[1:] if trust.helps]
        data = [agreement.data for agreement in best.agreements]
        correlations = [f"{agreement.spearman:.2f}" for agreement in best.agreements]
        rows.append([method, MEASURES[best.measure].label, *correlations, ", ".join(helping) or "none"])
    return markdown(["method", "measure", *data, "others above 0 on both"], rows)


def choosing_kendall_table() -> str:
    return choosing_rows(choosing_groups(False), "kendall", ".2f", rules=False)


def choosing_end_table() -> str:
    return choosing_rows(choosing_groups(False), "spearman_at_end", ".2f", rules=False)


def choosing_collapsed_table() -> str:
    counts = [{(g["data"], g["method"], g["runs"]) for g in choosing_groups(collapsed)} for collapsed in (True, False)]
    if counts[0] and counts[0] == counts[1]:
        return "No run has collapsed so far: the table is the first one."
    return choosing_rows(choosing_groups(True), "spearman", ".2f", rules=False)


def choosing_within_table() -> str:
    return choosing_rows(choosing_groups(False), "regret_within", ".1f", rules=True)


def choosing_among_table() -> str:
    return choosing_rows(choosing_groups(False), "regret_among", ".1f", rules=True)


TABLES = {
    "verdicts-healthy": (MEASUREMENTS / "verdicts.md", healthy_verdicts_table),
    "verdicts-provoked": (MEASUREMENTS / "verdicts.md", provoked_verdicts_table),
    **{
        f"choosing{part}": (MEASUREMENTS / "choosing.md", table)
        for part, table in (
            ("", choosing_table),
            ("-trusted", choosing_trusted_table),
            ("-spearman", choosing_spearman_table),
            ("-kendall", choosing_kendall_table),
            ("-end", choosing_end_table),
            ("-collapsed", choosing_collapsed_table),
            ("-within", choosing_within_table),
            ("-among", choosing_among_table),
        )
    },
    "adapting": (MEASUREMENTS / "adapting.md", adapting_table),
    "knn": (MEASUREMENTS / "evaluation.md", knn_table),
    "logistic": (MEASUREMENTS / "evaluation.md", logistic_table),
    "probes": (MEASUREMENTS / "evaluation.md", probes_table),
    "detection": (DOCS / "guide" / "detect-objects.md", detection_table),
    "start": (MEASUREMENTS / "start.md", start_table),
    "clone": (MEASUREMENTS / "start.md", clone_table),
    "export": (MEASUREMENTS / "export.md", export_table),
    "examples": (GUIDE, examples_table),
    "embed-throughput": (MEASUREMENTS / "embeddings.md", embed_throughput_table),
    "search": (MEASUREMENTS / "embeddings.md", search_table),
    "duplicates": (MEASUREMENTS / "embeddings.md", duplicates_table),
    "embed-memory": (MEASUREMENTS / "embeddings.md", embed_memory_table),
    "map-file": (MEASUREMENTS / "pages.md", map_file_table),
    "map-browser": (MEASUREMENTS / "pages.md", map_browser_table),
    "map-projector": (MEASUREMENTS / "pages.md", map_projector_table),
    "watch": (MEASUREMENTS / "pages.md", watch_table),
    "like-this-one": (MEASUREMENTS / "embeddings.md", page_table),
    "backbones": (MEASUREMENTS / "backbones.md", backbones_table),
    "views": (MEASUREMENTS / "views.md", views_table),
    "from_disk": (MEASUREMENTS / "views.md", from_disk_table),
    "threads": (MEASUREMENTS / "threads.md", threads_table),
    "channels": (MEASUREMENTS / "views.md", channels_table),
    "opening": (MEASUREMENTS / "views.md", opening_table),
    "demo": (DOCS.parent / "README.md", demo_table),
    **{f"{name}-numbers": (METHODS_PAGES / f"{name}.md", partial(method_numbers_table, name)) for name in LOSSES},
    "photographs": (MEASUREMENTS / "photographs.md", photographs_table),
    "tuning": (MEASUREMENTS / "tuning.md", tuning_table),
    "tuning-full": (MEASUREMENTS / "tuning.md", tuning_full_table),
    "comparison": (MEASUREMENTS / "comparison.md", comparison_table),
    "trends": (MEASUREMENTS / "trends.md", trends_table),
    "baselines-equal": (MEASUREMENTS / "baselines.md", baselines_equal_table),
    "baselines-losses": (MEASUREMENTS / "baselines.md", baselines_losses_table),
    "baselines-memory": (MEASUREMENTS / "baselines.md", baselines_memory_table),
    "baselines-steps": (MEASUREMENTS / "baselines.md", baselines_steps_table),
    "cpu-recipes": (MEASUREMENTS / "photographs.md", cpu_recipes_table),
    "reproduction": (MEASUREMENTS / "reproduction.md", reproduction_table),
    "collectives": (MEASUREMENTS / "engine.md", collectives_table),
    "at-scale": (MEASUREMENTS / "engine.md", at_scale_table),
    "parts": (MEASUREMENTS / "engine.md", parts_table),
    "overhead": (MEASUREMENTS / "engine.md", overhead_table),
    "plan": (MEASUREMENTS / "plan.md", plan_table),
    "health": (MEASUREMENTS / "health.md", health_table),
    "speed-steps": (MEASUREMENTS / "speed.md", speed_steps_table),
    "speed-losses": (MEASUREMENTS / "speed.md", speed_losses_table),
    "speed-targets": (MEASUREMENTS / "speed.md", speed_targets_table),
    "speed-systems": (MEASUREMENTS / "speed.md", speed_systems_table),
    "speed-updates": (MEASUREMENTS / "speed.md", speed_updates_table),
    "speed-memory": (MEASUREMENTS / "speed.md", speed_memory_table),
    "speed-bounds": (MEASUREMENTS / "speed.md", speed_bounds_table),
}


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
