"""Tables of the training engine: what ranks send, what a step costs beside a bare loop, microbatches, plans, health."""

from typing import Any

from result_tables.kept import MEASUREMENTS, NOT_MEASURED, markdown, read, where


def engine() -> dict[str, Any]:
    return read("engine.json")


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
    kept = read("plan.json")
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


def health_table() -> str:
    kept = read("health.json")
    if kept is None:
        return NOT_MEASURED
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


TABLES = {
    "collectives": (MEASUREMENTS / "engine.md", collectives_table),
    "at-scale": (MEASUREMENTS / "engine.md", at_scale_table),
    "parts": (MEASUREMENTS / "engine.md", parts_table),
    "overhead": (MEASUREMENTS / "engine.md", overhead_table),
    "plan": (MEASUREMENTS / "plan.md", plan_table),
    "health": (MEASUREMENTS / "health.md", health_table),
}
