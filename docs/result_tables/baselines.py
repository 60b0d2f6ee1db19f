"""Tables of the baselines beside lightly's: values, losses, memory and steps."""

from typing import Any

from result_tables.kept import MEASUREMENTS, NOT_MEASURED, faster, markdown, read, where


def baselines() -> dict[str, Any]:
    """Returns what is kept of benchmarks/baselines.py; nothing if it was not measured yet."""
    return read("baselines.json") or {}


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


TABLES = {
    "baselines-equal": (MEASUREMENTS / "baselines.md", baselines_equal_table),
    "baselines-losses": (MEASUREMENTS / "baselines.md", baselines_losses_table),
    "baselines-memory": (MEASUREMENTS / "baselines.md", baselines_memory_table),
    "baselines-steps": (MEASUREMENTS / "baselines.md", baselines_steps_table),
}
