"""Tables of all methods side by side: the search of their settings, the comparison, and the papers' claims."""

import sys
from collections import Counter
from functools import partial
from statistics import mean, median
from typing import Any

from result_tables.kept import (
    DOCS,
    KEPT,
    MEASUREMENTS,
    NOT_MEASURED,
    kept_study,
    lines,
    made_by,
    markdown,
    mean_and_deviation,
    read,
    where,
)

from infomax.data.splits import counted


def parts_of_data(name: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Returns for each data set of a result file how its rows were measured, in words, and the rows.

    The provenance of rows stands before them; those of one data set may be of several.
    """
    sources: dict[str, dict[str, dict[str, Any]]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    kept: dict[str, Any] = {}
    for row in lines(KEPT / name) if (KEPT / name).exists() else []:
        if "commit" in row:
            kept = row
        else:
            sources.setdefault(row["data"], {})[kept["commit"]] = kept
            rows.setdefault(row["data"], []).append(row)
    words = {data: [*kept.values()] for data, kept in sources.items()}
    return [(f"{made_by(*words[data])[:-1]}, one core for each.", rows[data]) for data in rows]


def tuning_table() -> str:
    parts = []
    for source, rows in parts_of_data("tuning.json"):
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
        parts.append(f"{table}\n\n{source}")
    return "\n\n".join(parts) or NOT_MEASURED


def tuning_full_table() -> str:
    """The best trials in long trainings, beside the recipes as they are; means over the seeds of both."""
    parts = []
    for source, rows in parts_of_data("tuning_full.json"):
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
        parts.append(f"{markdown(header, cells)}\n\n{source}")
    return "\n\n".join(parts) or NOT_MEASURED


def comparisons() -> dict[str, dict[str, Any]]:
    """Returns what was measured of all methods: by the name of the data, the comparisons by their budget."""
    kept: dict[str, dict[str, Any]] = {}
    for row in (read("comparison.json") or {"comparisons": []})["comparisons"]:
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
    sources = {source["commit"]: source for kept in budgets.values() for source in kept["sources"]}
    commands = "\n".join(budget["command"] for budget in budgets.values())
    seeds = {name: min(len(x) for m in kept["methods"] for x in m["scores"].values()) for name, kept in budgets.items()}
    counts = " and ".join(f"at equal {name} {counted(count, 'seed')}" for name, count in seeds.items())
    over = (
        "test images alone, as another seed may give another order" if seeds["images"] == 1 else "seeds and test images"
    )
    said = "\n".join(f"- At equal {name}, `compare` says: {kept['recommendation']}." for name, kept in budgets.items())
    return "\n\n".join(
        (
            markdown(header, rows),
            f"Mean and standard deviation over the seeds, {counts}; the interval of a difference is over {over}.",
            said,
            f"{at_images['images']:,} images, measured on {where(*sources.values())}, one core for a run, by",
            f"```\n{commands}\n```",
        )
    )


def trends_table(name: str = "trends.json", share: str = "one core for a run") -> str:
    """How many of the claims hold, and the outcome of each."""
    sys.path.insert(0, str(DOCS.parent / "benchmarks"))
    from claims import claims_table, judged

    sources, rows = kept_study(name)
    if not rows:
        return NOT_MEASURED
    outcomes = Counter(outcome["words"] for outcome in judged(rows))
    one_and_more = {
        "holds": ("holds", "hold"),
        "does not hold": ("does not hold", "do not hold"),
        "cannot be told": ("cannot be told", "cannot be told"),
        "not tried yet": ("is not tried yet", "are not tried yet"),
    }
    counts = ", ".join(
        f"{outcomes[words]} {one if outcomes[words] == 1 else more}"
        for words, (one, more) in one_and_more.items()
        if outcomes[words]
    )
    measured = f"Measured on {where(*sources)}, {share}, by `{sources[0]['command']}`; {counted(len(rows), 'run')}."
    return f"Of {outcomes.total()} claims, {counts}.\n\n{claims_table(rows)}\n\n{measured}"


def trends_scores_table() -> str:
    """The scores of each setting, method by method."""
    _, rows = kept_study("trends.json")
    of_setting: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_setting.setdefault(row["setting"], []).append(row)
    methods = list(dict.fromkeys(setting.split()[0] for setting in of_setting))
    cells = []
    for setting in sorted(of_setting, key=lambda setting: methods.index(setting.split()[0])):
        made = of_setting[setting]
        score = mean_and_deviation([100 * row["knn_top1"] for row in made], ".1f")
        measured = [row for row in made if "failed" not in row]
        cosine, rank = (
            f"{mean(row[name] for row in measured):{form}}" if measured else ""
            for name, form in (("embedding_mean_cosine", "z.2f"), ("embedding_effective_rank", ".1f"))
        )
        cells.append([setting, score, cosine, rank, str(len(made))])
    return markdown(["setting", "k-NN, %", "mean cosine of z", "effective rank of z", "seeds"], cells)


TABLES = {
    "tuning": (MEASUREMENTS / "tuning.md", tuning_table),
    "tuning-full": (MEASUREMENTS / "tuning.md", tuning_full_table),
    "comparison": (MEASUREMENTS / "comparison.md", comparison_table),
    "trends": (MEASUREMENTS / "trends.md", trends_table),
    "trends-scores": (MEASUREMENTS / "trends.md", trends_scores_table),
    "trends-gpu": (MEASUREMENTS / "trends.md", partial(trends_table, "trends_gpu.json", "on a GPU")),
}
