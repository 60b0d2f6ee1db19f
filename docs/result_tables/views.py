"""Tables of the way from files to views: views, channels, folders, kept images, threads."""

from statistics import median

from result_tables.kept import MEASUREMENTS, markdown, read, where

PIPELINES = {
    "A": "32 px, two views, arrays in memory",
    "B": "224 px, two views, from JPEG files",
    "C": "2 x 224 px and 6 x 96 px, from JPEG files",
}


def views_table() -> str:
    kept = read("views.json")
    rows = []
    for section, pipeline in PIPELINES.items():
        for row in kept[section]["rows"]:
            low, high = row["quartiles"]
            name = row["name"] if row["name"] != "solo-learn" else "as solo-learn, by PIL and torchvision"
            cells = [f"{row['images_per_second']:,.0f}", f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
            rows.append([f"{pipeline}; {row['data']}", name, *cells])
    blur = {row["name"]: row.get("milliseconds", 1e3 / row.get("images_per_second", 1)) for row in kept["D"]["rows"]}
    first = kept["A"]["rows"][0]
    return (
        f"{markdown(['', 'pipeline', 'images/s', 'ratio', 'quartiles'], rows)}\n\n"
        "Images a second from bytes or files to all their normalised views, on one core, by processor time; the set "
        f"is `byol`, and `dino` for eight views. Medians of {first['repeats']} turns in which all take part. A blur at "
        f"224 pixels takes {blur['infomax']:.2f} ms, by PIL {blur['PIL']:.2f}, by torchvision's 23 x 23 kernel "
        f"{blur['torchvision, 23x23']:.1f}. Measured by `python benchmarks/views.py` on {where(kept['A'])}."
    )


def channels_table() -> str:
    kept = read("views.json")["G"]
    rows = []
    for row in kept["rows"]:
        low, high = row["quartiles"]
        cells = [f"{row['images_per_second']:,.0f}", f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
        rows.append([f"{row['side']} px", row["name"], *cells])
    busy = " Other processes had the machine too." if any(row["busy"] for row in kept["rows"]) else ""
    return (
        f"{markdown(['', 'channels', 'images/s', 'ratio', 'quartiles'], rows)}\n\n"
        "Images a second from arrays to two normalised views each (`byol`), on one core, by processor time; medians of "
        f"{kept['rows'][0]['repeats']} turns in which all take part, and their ratio to bytes of red, green and blue. "
        "Colour operations that mix channels are off where there are not three. Those with noise have a turn and noise "
        f"in each view, and each channel dropped with probability 0.1.{busy} Measured by "
        f"`python benchmarks/views.py --only G` on {where(kept)}."
    )


def opening_table() -> str:
    kept = read("views.json")["E"]
    rows, opened, workers = [], {}, {}
    for row in kept["rows"]:
        if "seconds" in row:
            opened.setdefault(" ".join([row["name"], row["how"]]).strip(), []).append(row)
        else:
            workers[row["name"], row["start"]] = row["because_of_the_paths"]
    for name, measured in opened.items():
        middle = sorted(measured, key=lambda row: row["seconds"])[len(measured) // 2]
        own = [f"{max(0, workers[name.split()[0], start]) / 1e6:.0f}" for start in ("fork", "forkserver", "spawn")]
        rows.append([name, f"{middle['seconds']:.2f}", f"{middle['peak_bytes'] / 1e6:.0f}", *own])
    header = ["", "seconds", "MB at most", "MB more a worker: fork", "forkserver", "spawn"]
    paths = kept["rows"][0]["paths"]
    return (
        f"{markdown(header, rows)}\n\nTo open a folder of {paths:,} files in 1,000 classes, first and again, beside "
        "torchvision's ImageFolder: memory of the process, and what a worker has to itself because of the paths "
        f"after it has read 100,000 of them. Measured by `python benchmarks/views.py` on {where(kept)}."
    )


def from_disk_table() -> str:
    kept = read("from_disk.json")
    by_case: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for row in kept["rows"]:
        same = [x for x in kept["rows"] if all(x[name] == row[name] for name in ("files", "side", "way"))]
        rates = {name: median(x[name] for x in same) for name in row if isinstance(row[name], float)}
        by_case.setdefault((row["files"], row["side"]), {})[row["way"]] = rates
    has_before = any(row["way"] == "before" for row in kept["rows"])
    rows = []
    for (files, side), ways in by_case.items():
        off, keep, floor = ways["off"], ways["kept"], ways["decoding"]
        before = ways.get("before", off)
        numbers = [*([before["later"]] if has_before else []), off["later"], keep["first"], keep["later"]]
        numbers += [floor["Pillow"], floor.get("libjpeg-turbo", floor["Pillow"])]
        rows.append([f"{files}, {side} px", *(f"{x:,.0f}" for x in numbers), f"{keep['later'] / before['later']:.1f}"])
    header = ["files, views", *(["before"] if has_before else []), "decoded anew", "kept: first epoch", "kept: later"]
    header += ["decoding alone: Pillow", "libjpeg-turbo", "later, ratio"]
    return (
        f"{markdown(header, rows)}\n\nImages a second, in the process that trains, of two views' crops of "
        f"{kept['images']:,} JPEG files ({kept['data']}), by two workers; medians of {kept['repeats']} turns in which "
        "all take part. The ratio is that of later epochs with kept images over the first column. Decoding alone is "
        "done in two processes, at the sizes at which the crops need the files. Measured by "
        f"`{kept['command']}` on {where(kept)}."
    )


def threads_table() -> str:
    kept, rows = read("threads.json"), []
    for data, condition in dict.fromkeys((row["data"], row["condition"]) for row in kept["rows"]):
        here = [row for row in kept["rows"] if (row["data"], row["condition"]) == (data, condition)]
        before, after = (next(row for row in here if row["kind"] == kind) for kind in ("before", "after"))
        best = max((row for row in here if row["kind"] != "after"), key=lambda row: row["images_per_second"])
        was, now, most = (row["images_per_second"] for row in (before, after, best))
        words = [f"{best['threads']} thread{'s' * (best['threads'] > 1)}"]
        words += [f"{best['spins']:,} turns"] if best["threads"] > 1 else []
        words += [f"{best['workers']} worker{'s' * (best['workers'] != 1)}"] if best["workers"] is not None else []
        cells = [f"{was:,.0f}", f"{now:,.0f}", f"{now / was:.2f}", f"{most:,.0f}", ", ".join(words)]
        rows.append([data, condition, *cells, f"{100 * now / most:.0f}"])
    header = ["training on", "machine", "before", "after", "times faster", "best by hand", "its setting", "% of it"]
    return (
        f"{markdown(header, rows)}\n\nImages a second; medians of {kept['turns']} turns of each setting, in turn. "
        f"Measured by `python benchmarks/threads.py` on {where(kept)}{kept.get('note', '')}."
    )


TABLES = {
    "views": (MEASUREMENTS / "views.md", views_table),
    "from_disk": (MEASUREMENTS / "views.md", from_disk_table),
    "threads": (MEASUREMENTS / "threads.md", threads_table),
    "channels": (MEASUREMENTS / "views.md", channels_table),
    "opening": (MEASUREMENTS / "views.md", opening_table),
}
