"""The table of encoders that started from other weights."""

from statistics import mean
from typing import Any

from result_tables.kept import MEASUREMENTS, kept_study, made_by, markdown, mean_and_deviation

from infomax.data.splits import counted


def adapting_table() -> str:
    sources, rows = kept_study("adapting.json")
    studies = dict.fromkeys((row["initial"], row["target"]) for row in rows if "method" in row)
    parts = [adapting_study([row for row in rows if (row["initial"], row["target"]) == study]) for study in studies]
    scores = "Points of k-NN top-1 above the initial encoder: mean and standard deviation over seeds."
    return "\n\n".join([*parts, f"{scores} {made_by(*sources)}"])


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


def best_setting(method: str, gains: dict[tuple[str, float], dict[tuple[int, int], list[float]]]) -> str:
    """Returns in words the setting with which a method gains most."""
    cells = {(rate, *key): x for (name, rate), row in gains.items() if name == method for key, x in row.items()}
    settings = {key: mean(x) for key, x in cells.items()}
    (rate, epochs, freeze), gain = max(settings.items(), key=lambda item: item[1])
    setting = f"rate {rate:g}, {counted(epochs, 'epoch')}, {freeze} frozen"
    return f"{method} {gain:+.1f} ({setting})" if gain > 0 else f"{method} nothing"


TABLES = {
    "adapting": (MEASUREMENTS / "adapting.md", adapting_table),
}
