"""Reads what was measured and kept, and says in words where, for all tables."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from infomax.reporting.tables import make_table

DOCS = Path(__file__).parents[1]
KEPT = DOCS / "results"
MEASUREMENTS = DOCS / "measurements"
LOSSES = {"mira": "MIRA", "corinfomax": "CorInfoMax", "carl": "CARL", "mveb": "MVEB"}
NOT_MEASURED = "Not measured yet."
PER_CENT = ("knn_1", "linear_1", "knn_5", "linear_5", "knn_all", "linear_all")


def lines(file: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file with one JSON object per line."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def read(name: str) -> Any:
    """Returns what a result file holds; None if it was not measured yet."""
    file = KEPT / name
    return json.loads(file.read_text()) if file.exists() else None


def kept_study(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the provenances and the rows of a study's result file, of which there are none if it was not made yet.

    A study that was gone on with at another commit has a provenance for each.
    """
    kept = lines(KEPT / name) if (KEPT / name).exists() else []
    return [row for row in kept if "commit" in row], [row for row in kept if "commit" not in row]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return make_table(header, rows).markdown()


def where(kept: dict[str, Any], *later: dict[str, Any]) -> str:
    """Returns the machine, date and commit of a measurement in words, and the others at which it was gone on with."""
    machine, versions = kept["machine"], kept["versions"]
    times = " and ".join(f"{source['started'][:10]}, commit {source['commit']}" for source in (kept, *later))
    return f"{machine['cores']} cores of {machine['cpu']}, torch {versions['torch']}, {times}"


def made_by(kept: dict[str, Any], *later: dict[str, Any]) -> str:
    return f"Measured by `{kept['command']}` on {where(kept, *later)}."


def faster(row: dict[str, Any]) -> list[str]:
    """Returns the milliseconds of both, and how many times faster ours is, with quartiles."""
    calls = row.get("calls", 1)
    numbers = [1e3 * row[name] / calls for name in ("seconds", "seconds_of_other")]
    times = [f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in numbers]
    low, high = (f"{1 / ratio:.2f}" for ratio in reversed(row["quartiles"]))
    return [*times, f"{1 / row['ratio']:.2f}", f"{low} to {high}"]


def mean_and_deviation(values: list[float], form: str = "+.1f") -> str:
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation}" if values else ""
