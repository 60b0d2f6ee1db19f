"""Keeps measured results as data, and writes the tables of README.md and docs/ from them.

python docs/results.py demo runs/demo               after `infomax demo`: docs/results/demo.json
python docs/results.py photographs runs/c10-*       after pretraining and `evaluate knn`: docs/results/photographs.json
python docs/results.py tables                       the tables, from what is kept
"""

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
KEPT = DOCS / "results"
PER_CENT = ("knn_1", "linear_1", "knn_5", "linear_5", "knn_all", "linear_all")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def origin(run: Path) -> dict[str, Any]:
    """What a number needs beside it to be believed."""
    config = json.loads((run / "config.json").read_text())
    return {name: config[name] for name in ("started", "commit", "machine", "versions")}


def demo(folder: Path) -> dict[str, Any]:
    runs = sorted(folder.iterdir(), key=lambda run: (run / "config.json").stat().st_mtime)
    rows = [row for row in lines(runs[0] / "results.jsonl") if "run" not in row]
    rows += [row for run in runs for row in lines(run / "results.jsonl") if "run" in row]
    kept = [{name: row[name] for name in ("name", *PER_CENT, "seconds") if name in row} for row in rows]
    return {"command": "infomax demo", **origin(runs[0]), "rows": kept}


def photographs(runs: list[Path]) -> dict[str, Any]:
    rows = []
    for run in runs:
        config, scores = json.loads((run / "config.json").read_text()), lines(run / "results.jsonl")
        top1 = {row["representation"]: row["top1"] for row in scores if row["protocol"] == "knn"}
        last = [row for row in lines(run / "metrics.jsonl") if "loss" in row][-1]
        rows.append(
            {
                "command": "infomax " + " ".join(config["command"][1:]),
                "method": config["recipe"]["method"]["name"],
                "data": Path(config["data"]).name,
                "epochs": config["recipe"]["epochs"],
                "seconds": last["seconds"],
                "images_per_second": last["step"] * config["recipe"]["batch_size"] / last["seconds"],
                "labelled_images": scores[0]["labelled_images"],
                "test_images": scores[0]["test_images"],
                "knn_top1": top1,
            }
        )
    return {**origin(runs[0]), "rows": rows}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    cells = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def where(kept: dict[str, Any]) -> str:
    machine, versions = kept["machine"], kept["versions"]
    return (
        f"{machine['cores']} cores of {machine['cpu']}, torch {versions['torch']}, {kept['started'][:10]}, "
        f"commit {kept['commit']}"
    )


def demo_table() -> str:
    kept = json.loads((KEPT / "demo.json").read_text())
    header = ["top-1, %", "1 label: kNN", "linear", "5 labels: kNN", "linear", "all: kNN", "linear", "seconds"]
    rows = []
    for row in kept["rows"]:
        scores = [f"{100 * row[score]:.1f}" for score in PER_CENT]
        rows.append([row["name"], *scores, f"{row['seconds']:.0f}" if "seconds" in row else ""])
    return f"{markdown(header, rows)}\n\nMeasured by `{kept['command']}` on {where(kept)}."


def photographs_table() -> str:
    kept = json.loads((KEPT / "photographs.json").read_text())
    header = ["", "epochs", "seconds", "trained", "untrained", "raw pixels"]
    names = ("trained encoder", "untrained encoder", "raw pixels")
    rows = [
        [
            f"{row['method']}, {'array' if row['data'].endswith('.npz') else 'folder'}",
            str(row["epochs"]),
            f"{row['seconds']:.0f}",
            *(f"{100 * row['knn_top1'][name]:.1f}" for name in names),
        ]
        for row in kept["rows"]
    ]
    commands = "\n".join(row["command"] for row in kept["rows"])
    return f"{markdown(header, rows)}\n\nMeasured on {where(kept)}, by\n\n```\n{commands}\n```"


TABLES = {"demo": (DOCS.parent / "README.md", demo_table), "photographs": (DOCS / "photographs.md", photographs_table)}


def with_tables(file: Path) -> str:
    """The text of a page with its tables made anew, between their marks."""
    text = file.read_text()
    for name, (page, table) in TABLES.items():
        if page == file:
            start, end = f"<!-- {name}: docs/results.py -->", f"<!-- end of {name} -->"
            before, rest = text.split(start)
            text = f"{before}{start}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


def main(what: str, *folders: str) -> None:
    if what == "tables":
        for file in {page for page, _ in TABLES.values()}:
            file.write_text(with_tables(file))
    else:
        kept = demo(Path(folders[0])) if what == "demo" else photographs([Path(folder) for folder in folders])
        (KEPT / f"{what}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
