"""Tables of trained encoders: the demo, photographs, a reproduced table, and the numbers on each method's page."""

from functools import partial
from statistics import mean, median, stdev

from result_tables.kept import (
    DOCS,
    LOSSES,
    MEASUREMENTS,
    NOT_MEASURED,
    PER_CENT,
    faster,
    kept_study,
    made_by,
    markdown,
    mean_and_deviation,
    read,
    where,
)

from infomax.data.splits import counted
from infomax.papers.published import find_numbers

METHODS_PAGES = DOCS / "methods"
MAIN_TABLES = ("mira-1", "mira-7", "corinfomax-1", "carl-1", "mveb-1", "mveb-2")
"""Of the papers' tables those that compare methods; the others are ablations, or of others' methods."""


def demo_table() -> str:
    kept = read("demo.json")
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
    kept = read("photographs.json")
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


def reproduction_table() -> str:
    kept = read("reproduction.json")
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


def cpu_recipes_table() -> str:
    kept = read("cpu_recipes.json")
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


def precision_table() -> str:
    """Steps and scores in bfloat16 beside float32."""
    sources, rows = kept_study("precision.json")
    if not rows:
        return NOT_MEASURED
    runs = [row for row in rows if "knn_top1" in row]
    cells = []
    for step in (row for row in rows if "ratio" in row):
        method = step["name"].split("/")[0]
        scores = [
            mean_and_deviation(
                [100 * run["knn_top1"] for run in runs if (run["method"], run["precision"]) == kind], ".1f"
            )
            for kind in ((method, "32"), (method, "bf16"))
        ]
        cells.append([method, *faster(step), *scores])
    header = ["recipe `small`", "bfloat16, ms", "float32, ms", "times faster", "quartiles"]
    header += ["k-NN in float32, %", "in bfloat16, %"]
    seeds = counted(len({run["seed"] for run in runs}), "seed")
    return (
        f"{markdown(header, cells)}\n\nA step of a batch, on one thread, by processor time; medians of "
        f"{rows[0]['repeats']} turns. Scores after {runs[0]['epochs']} epochs of 10,000 photographs, {seeds}. "
        f"{made_by(*sources)}"
    )


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
    demo_rows = read("demo.json")["rows"]
    (of_demo,) = (row for row in demo_rows if row["name"] == method)
    raw = next(row for row in demo_rows if row["name"] == "raw pixels")
    measured = [
        [f"digits, {words}", "small", "the demo", protocol, f"{100 * of_demo[key]:.1f}", f"{100 * raw[key]:.1f}"]
        for key, words, protocol in (("knn_1", "1 label a class", "k-NN"), ("linear_all", "all labels", "linear"))
    ]
    photographs_rows = read("photographs.json")["rows"]
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


TABLES = {
    "demo": (DOCS.parent / "README.md", demo_table),
    **{f"{name}-numbers": (METHODS_PAGES / f"{name}.md", partial(method_numbers_table, name)) for name in LOSSES},
    "photographs": (MEASUREMENTS / "photographs.md", photographs_table),
    "precision": (MEASUREMENTS / "photographs.md", precision_table),
    "cpu-recipes": (MEASUREMENTS / "photographs.md", cpu_recipes_table),
    "reproduction": (MEASUREMENTS / "reproduction.md", reproduction_table),
}
