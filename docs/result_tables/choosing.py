"""Tables of the study of choosing encoders without labels."""

import json
from typing import Any

from result_tables.kept import DOCS, LOSSES, MEASUREMENTS, NOT_MEASURED, markdown, where

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
}
