"""Tables of what a new user waits for: a clone, commands, exports, and the examples of losses."""

import re

from result_tables.kept import DOCS, LOSSES, MEASUREMENTS, NOT_MEASURED, markdown, read, where

from infomax.data.splits import counted

LIBRARIES = {"pytorch": "PyTorch", "lightning": "Lightning", "fabric": "Fabric"}
GUIDE, EXAMPLES = DOCS / "guide" / "one-loss-in-your-loop.md", DOCS / "examples"


def start_table() -> str:
    kept = read("start.json")
    rows = []
    for row in kept["rows"]:
        first_line = "" if row["first_line"] is None else f"{row['first_line']:.2f}"
        rows.append([row["name"], first_line, row["result"], f"{row['seconds']:.1f}", f"{row['ratio']:.2f}"])
    repeats = max(row["repeats"] for row in kept["rows"])
    return (
        f"{markdown(['from Enter to', 'first line, s', 'then', 's', 'times import torch'], rows)}\n\n"
        f"Medians of {counted(repeats, 'turn')}, in each of which all commands run once; the ratio is within a turn. "
        f"Measured by `{kept['command']}` on {where(kept)}."
    )


def clone_table() -> str:
    kept = read("clone.json")
    rows = []
    for event in kept["events"]:
        received = event["received_bytes"]
        rows.append([event["name"], f"{event['seconds']:.0f}", "" if received is None else f"{received / 1e9:.2f}"])
    busy = f"; other processes kept the cores busy, with a load of {load:.0f}" if (load := kept["load"]) >= 0.5 else ""
    disk = {name: f"{size / 1e9:.1f} GB" for name, size in kept["disk_bytes"].items()}
    return (
        f"{markdown(['from `git clone` to', 's', 'GB received'], rows)}\n\n"
        f"On the disk, the clone takes {kept['disk_bytes']['clone'] / 1e6:.0f} MB, `.venv` {disk['environment']}, and "
        f"all with uv's cache, whose files `.venv` shares, {disk['all']}. Measured once by "
        f"`{kept['command']}` on {where(kept)}, Python {kept['versions']['python']}{busy}."
    )


def export_table() -> str:
    kept = read("export.json")
    if kept is None:
        return NOT_MEASURED
    rows = []
    for row in kept["rows"]:
        difference = f"{row['relative_difference']:.0e}" if row["relative_difference"] else "0"
        size = f"{row['bytes'] / 1e6:.1f}"
        rows.append([row["encoder"], row["format"], f"{row['seconds']:.1f}", f"{row['ratio']:.1f}", size, difference])
    repeats = max(row["repeats"] for row in kept["rows"])
    return (
        f"{markdown(['encoder', 'format', 's', 'times import torch', 'MB', 'largest difference'], rows)}\n\n"
        f"Medians of {counted(repeats, 'turn')}, in each of which all exports run once; the ratio is within a turn. "
        f"Measured by `{kept['command']}` on {where(kept)}."
    )


def examples_table() -> str:
    rows = []
    for method, title in LOSSES.items():
        links = [f"[{method}](../examples/{library}_{method}.py)" for library in LIBRARIES]
        text = (EXAMPLES / f"pytorch_{method}.py").read_text().split('"""')[1].strip().split("\n\n")[-1]
        prints = re.fullmatch(r"Prints (.*?),? and at last:\n\s+(.*)", text, re.S)
        assert prints is not None, text
        rows.append([title, *links, " ".join(prints[1].split()), f"`{prints[2].strip()}`"])
    return markdown(["loss", *LIBRARIES.values(), "prints", "last line, about"], rows)


TABLES = {
    "start": (MEASUREMENTS / "start.md", start_table),
    "clone": (MEASUREMENTS / "start.md", clone_table),
    "export": (MEASUREMENTS / "export.md", export_table),
    "examples": (GUIDE, examples_table),
}
