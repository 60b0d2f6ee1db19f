"""Tables of the protocols: k-NN, logistic regression, probes, detection, and other encoders."""

from result_tables.kept import DOCS, MEASUREMENTS, NOT_MEASURED, markdown, read, where

COCO_SAMPLE = 128  # images, of which the detector's are taken


def knn_table() -> str:
    kept = read("knn.json")
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
    kept = read("logistic.json")
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
    kept = read("probes.json")
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
    kept = read("detection.json")
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


def backbones_table() -> str:
    kept = read("backbones.json")
    if kept is None:
        return NOT_MEASURED
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


TABLES = {
    "knn": (MEASUREMENTS / "evaluation.md", knn_table),
    "logistic": (MEASUREMENTS / "evaluation.md", logistic_table),
    "probes": (MEASUREMENTS / "evaluation.md", probes_table),
    "detection": (DOCS / "guide" / "detect-objects.md", detection_table),
    "backbones": (MEASUREMENTS / "backbones.md", backbones_table),
}
