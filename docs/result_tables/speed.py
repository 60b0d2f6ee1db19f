"""Tables of how fast steps, losses and targets are beside others, and of what bounds them."""

from typing import Any

from result_tables.kept import MEASUREMENTS, faster, markdown, read, where


def speed() -> dict[str, Any]:
    return read("speed.json")


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
    kept, rows = read("gpu.json")["bounds"], []
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


TABLES = {
    "speed-steps": (MEASUREMENTS / "speed.md", speed_steps_table),
    "speed-losses": (MEASUREMENTS / "speed.md", speed_losses_table),
    "speed-targets": (MEASUREMENTS / "speed.md", speed_targets_table),
    "speed-systems": (MEASUREMENTS / "speed.md", speed_systems_table),
    "speed-updates": (MEASUREMENTS / "speed.md", speed_updates_table),
    "speed-memory": (MEASUREMENTS / "speed.md", speed_memory_table),
    "speed-bounds": (MEASUREMENTS / "speed.md", speed_bounds_table),
}
