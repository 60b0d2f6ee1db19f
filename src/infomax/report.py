"""Our results beside those that the papers print."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infomax import published
from infomax.published import Column, Conditions, Table
from infomax.runs import Run, rows_of
from infomax.table import table

NAMES = {
    "k": "k",
    "temperature": "T",
    "labels_per_class": "labels",
    "classifier": "classifier",
    "probe": "probe",
    "learning_rate": "rate",
    "setting": "setting",
    "data": "data",
}
"""Columns that tell rows of one call apart."""
SCORES = {
    "top1": "top-1",
    "mean_per_class": "per class",
    "map11": "mAP",
    "nmi": "NMI",
    "interval": "95 %",
    "top5": "top-5",
    "ari": "ARI",
    "accuracy": "matched",
}
REFERENCES = ("untrained encoder", "raw pixels")
SUBSETS = {"1percent", "10percent"}


@dataclass(frozen=True)
class Result:
    """A row of results, of which encoder it is, and what is known of how that was trained."""

    name: str
    row: dict[str, Any]
    conditions: Conditions | None

    @property
    def subset(self) -> str:
        """Of the labelled images, as the published tables call it."""
        stem = Path(self.row.get("subset_file", "")).stem
        return stem if stem in SUBSETS else ""

    def fits(self, column: Column) -> bool:
        """Whether a published column measures the same, after a training of the same kind as far as that is known."""
        row = self.row
        here = (row["protocol"], row["data"], self.subset)
        if here != (column.protocol, column.data, column.subset) or column.metric not in row or "classes_file" in row:
            return False
        wanted = {key: value for key, value in vars(column.conditions).items() if value is not None}
        known = vars(self.conditions) if self.conditions is not None else {}
        return all(known.get(key) in (None, value) for key, value in wanted.items())


def compared(places: Sequence[Path], name: str | None) -> str:
    """The tables of the papers that have a column for one of these results, with a line for each encoder of ours.

    Args:
        places: Run folders, or files of results.
        name: Of the only table wanted; ``list`` names all tables instead.

    Raises:
        ValueError: if there are no results, or no such table.
    """
    if name == "list":
        return "\n".join(f"{one.id:16} {one.paper}, {one.number}: {one.title}" for one in published.tables())
    if not places:
        raise ValueError("a run folder or a file of results is wanted; --table list names the published tables")
    wanted = [published.table(name)] if name is not None else published.tables()
    results = [result for place in places for result in _results(place)]
    if not results:
        raise ValueError(f"{places[0]} has no results yet; infomax evaluate adds them")
    told = [_beside(one, results) for one in wanted if name or any(r.fits(c) for r in results for c in one.columns)]
    return "\n\n".join([_ours(results), *told])


def _results(place: Path) -> Iterable[Result]:
    """The results in a run folder or a file; of equal measurements the last."""
    conditions = None
    if place.is_dir():
        recipe = Run(place).recipe
        method = vars(recipe.method)
        conditions = Conditions(
            backbone=recipe.encoder.backbone,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            multi_crop=bool(recipe.views.local),
            prototypes=method.get("prototypes"),
            iterations=method.get("iterations"),
        )
    elif not place.is_file():
        raise ValueError(f"{place} is neither a run folder nor a file of results")
    found: dict[tuple, Result] = {}
    measured = {"interval", "seconds", *published.METRICS}
    for row in rows_of(place / "results.jsonl" if place.is_dir() else place):
        if "representation" not in row:  # of the demonstration, which has a table of its own
            continue
        own = row["representation"] == "trained encoder"
        title = place.name or str(place.resolve().name)
        key = tuple((word, str(value)) for word, value in row.items() if word not in measured)
        found.pop(key, None)
        found[key] = Result(title if own else row["representation"], row, conditions if own else None)
    return found.values()


def _ours(results: Sequence[Result]) -> str:
    """All results, one table for each protocol and data set."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for result in results:
        key = result.row["protocol"], result.row["data"], result.subset
        groups.setdefault(key, []).append({**result.row, "representation": result.name})
    blocks = []
    for (protocol, data, subset), rows in groups.items():
        limited = f", {subset} of the labels" if subset else ""
        blocks.append(f"{protocol}, {data}{limited}: ours, in %\n{result_table(rows, {'data'})}")
    return "\n\n".join(blocks)


def _beside(one: Table, results: Sequence[Result]) -> str:
    """A published table, and a line for each encoder with a result that it has a column for."""
    lines, notes = [], []
    for row in one.rows:
        mark = ""
        if row.uncertain:
            notes.append(row.uncertain)
            mark = f" [{len(notes)}]"
        varied = [
            f"{value}" if key != "multi_crop" else ("multi-crop" if value else "two crops")
            for key, value in vars(row.conditions).items()
            if value is not None
        ]
        title = f"{row.method}{', ' if varied else ''}{', '.join(varied)}{mark}"
        lines.append([title, *(_printed(v, d) for v, d in zip(row.values, row.deviations, strict=True))])
    for name in dict.fromkeys(result.name for result in results if result.name not in REFERENCES):
        mine = [r for r in results if r.name == name]
        cells = [next((f"{100 * r.row[c.metric]:.1f}" for r in reversed(mine) if r.fits(c)), "") for c in one.columns]
        if any(cells):
            lines.append([f"ours: {name}", *cells])
    title = f"{one.paper}, {one.number}: {one.title}\n{one.setting}"
    columns = [column.name for column in one.columns]
    return "\n".join([title, table(["", *columns], lines), *(f"[{i}] {note}" for i, note in enumerate(notes, start=1))])


def told(protocol: str, rows: Sequence[dict[str, Any]], limits: dict[str, Any]) -> str:
    """The rows as a table below what they have in common."""
    first = rows[0]
    title = {
        "knn": "k-NN",
        "linear": f"linear classifier, probe {first['probe']}" if "probe" in first else "linear classifier",
        "few": "few labels",
        "cluster": "clusters",
        "finetune": "fine-tuning",
        "transfer": "transfer by a linear classifier",
    }[protocol]
    same = {key for key in NAMES if all(row.get(key) == first.get(key) for row in rows)}
    about = [f"of {first['data']}"] if "data" in same else []
    if "data" in same and "labelled_images" not in NAMES and protocol != "few":
        about.insert(0, f"{first.get('labelled_images', first.get('train_images'))} labelled and")
        about.insert(1, f"{first['test_images']} test images")
    if "classes" in first and "data" in same:
        about.append(f"in {first['classes']} classes")
    settings = [
        f"{NAMES[key]} {first[key]}" for key in NAMES if key in same and key in first and key not in ("data", "probe")
    ]
    lines = [
        ", ".join([title, *settings])
        + ": "
        + " ".join(about)
        + "".join(f", those of {file}" for file in limits.values())
    ]
    return "\n".join([lines[0] + "; accuracy in %", result_table(rows, same)])


def result_table(rows: Sequence[dict[str, Any]], same: set[str]) -> str:
    """Rows of results; columns that say the same of all are left out."""
    keys = [key for key in NAMES if key not in same and any(key in row for row in rows)]
    found = [key for key in SCORES if any(key in row for row in rows)]
    cells = [
        [row["representation"], *(str(row.get(key, "")) for key in keys), *(_cell(row.get(key, "")) for key in found)]
        for row in rows
    ]
    return table(["", *(NAMES[key] for key in keys), *(SCORES[key] for key in found)], cells)


def _cell(value: Any) -> Any:
    return f"{100 * value[0]:.1f} to {100 * value[1]:.1f}" if isinstance(value, list) else value


def _printed(value: float | None, deviation: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" + (f" ± {deviation:g}" if deviation is not None else "")
