"""Tables of what was said of healthy runs, and of runs that were made to fail."""

from statistics import mean, median
from typing import Any

from result_tables.kept import DOCS, KEPT, MEASUREMENTS, NOT_MEASURED, kept_study, lines, made_by, markdown, read

from infomax.data.splits import counted

EARLY = 40  # the last of the first steps


def verdict_runs() -> list[dict[str, Any]]:
    """Returns the runs of benchmarks/verdicts.py that are kept, without the line on where they were made."""
    return kept_study("verdicts.json")[1]


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


MEASURED = {
    "embedding_mean_cosine": "embeddings of different images",
    "views_mean_cosine": "embeddings of two views of an image",
    "feature_mean_cosine": "features of different images",
}
"""Mean cosines that benchmarks/first_steps.py keeps, in words."""


def first_steps_table() -> str:
    """The mean cosines of healthy trainings by their step; the last one is the end of the run."""
    kept = read("first_steps.json")
    if kept is None:
        return NOT_MEASURED
    rows, early = [], [step for step in kept["rows"][0]["step"] if step <= EARLY]
    for method in dict.fromkeys(row["method"] for row in kept["rows"]):
        runs = [row for row in kept["rows"] if row["method"] == method]
        for key, words in MEASURED.items():
            places = [*(runs[0]["step"].index(step) for step in early), -1]
            means = [f"{mean(run[key][place] for run in runs):.2f}" for place in places]
            rows.append([method, words, *means])
    seeds = len({row["seed"] for row in kept["rows"]})
    header = ["", "mean cosine of", "before", *(f"step {step}" for step in early[1:]), "the end"]
    return f"{markdown(header, rows)}\n\nMeans over {counted(seeds, 'seed')}, recipes `digits`. {made_by(kept)}"


TABLES = {
    "first-steps": (DOCS / "guide" / "is-it-learning.md", first_steps_table),
    "verdicts-healthy": (MEASUREMENTS / "verdicts.md", healthy_verdicts_table),
    "verdicts-provoked": (MEASUREMENTS / "verdicts.md", provoked_verdicts_table),
}
