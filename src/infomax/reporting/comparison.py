"""Our results beside those that the papers print."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infomax.papers import published
from infomax.papers.published import Column, Conditions, Table
from infomax.reporting.tables import Cell, make_table
from infomax.runs.run_folder import Run
from infomax.runtime.json_lines import read_json_lines

NAMES = {
    "leave_one_out": "leave-one-out",
    "k": "k",
    "temperature": "T",
    "labels_per_class": "labels a class",
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
PUBLISHED_KNN = (20, 0.07)
"""k and temperature of all published numbers."""
RESULTS = {
    *(
        "command",
        "trained_steps",
        "interval",
        "seconds",
        "validation",
        "penalty",
        "held_out_top1",
        "converged",
        "tried",
    ),
    *published.METRICS,
}
"""What a measurement finds, not what it is of."""
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

    def fits(self, column: Column, varied: Iterable[str] = ()) -> bool:
        """Whether a published column measures the same.

        Args:
            varied: The conditions that tell the column from others; they have to be the same, as far as they are known.
        """
        row = self.row
        here = (row["protocol"], row["data"], self.subset)
        if here != (column.protocol, column.data, column.subset) or column.metric not in row:
            return False
        if "classes_file" in row or row.get("leave_one_out"):
            return False
        if column.protocol == "knn" and (row.get("k"), row.get("temperature")) != PUBLISHED_KNN:
            return False
        return not {word for word, _ in self.unlike(column)} & {*varied}

    @property
    def manner(self) -> str:
        """How a classifier was trained, where there are several ways."""
        ways = {"linear": self.row.get("probe", "logistic regression"), "finetune": self.row.get("setting", "")}
        return ways.get(self.row["protocol"], "")

    def unlike(self, column: Column) -> list[tuple[str, Any]]:
        """The conditions, known of both, in which this result was made otherwise than the column's."""
        known, wanted = vars(self.conditions or Conditions()), vars(column.conditions)
        return [(w, known[w]) for w in known if None not in (known[w], wanted[w]) and known[w] != wanted[w]]


def _varied(one: Table, column: Column) -> set[str]:
    """The conditions in which columns of a table differ that else measure the same."""
    what = ("protocol", "data", "metric", "subset")
    alike = [vars(c.conditions) for c in one.columns if all(getattr(c, w) == getattr(column, w) for w in what)]
    return {word for word in alike[0] if len({conditions[word] for conditions in alike}) > 1}


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
    told = [
        _beside(one, results)
        for one in wanted
        if name or any(r.fits(c, _varied(one, c)) for r in results for c in one.columns)
    ]
    origins = dict.fromkeys(f"{r.name}: {r.row['recipe']}" for r in results if "recipe" in r.row)
    return "\n\n".join([_ours(results), *(["\n".join(origins)] if origins else []), *told])


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
            multi_crop=bool(recipe.views.local_crops),
            prototypes=method.get("prototypes"),
            iterations=method.get("iterations"),
        )
    elif not place.is_file():
        raise ValueError(f"{place} is neither a run folder nor a file of results")
    found: dict[tuple, Result] = {}
    for row in read_json_lines(place / "results.jsonl" if place.is_dir() else place):
        if "representation" not in row:  # of the demonstration, which has a table of its own
            continue
        own = row["representation"] == "trained encoder"
        title = place.name or str(place.resolve().name)
        key = tuple((word, str(value)) for word, value in row.items() if word not in RESULTS)
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
        varied = [said(word, value) for word, value in vars(row.conditions).items() if value is not None]
        lines.append(
            [
                ", ".join([row.method, *varied]) + mark,
                *(printed(v, d) for v, d in zip(row.values, row.deviations, strict=True)),
            ]
        )
    for name in dict.fromkeys(result.name for result in results if result.name not in REFERENCES):
        mine = [result for result in reversed(results) if result.name == name]
        own = one.paper.lower()
        mine.sort(key=lambda r: (r.manner.startswith(own), r.manner != "logistic regression"), reverse=True)
        places = [(c, next((r for r in mine if r.fits(c, _varied(one, c))), None)) for c in one.columns]
        if found := [(column, result) for column, result in places if result is not None]:
            told = [said(word, value) for column, result in found for word, value in result.unlike(column)]
            told += [way for _, result in found if (way := result.manner) and not way.startswith(own)]
            unlike = dict.fromkeys(told)
            cells = ["" if result is None else f"{100 * result.row[c.metric]:.1f}" for c, result in places]
            lines.append([", ".join([f"ours: {name}", *unlike]), *cells])
    title = f"{one.paper}, {one.number}: {one.title}\n{one.setting}"
    columns = [column.name for column in one.columns]
    numbered = [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    return make_table(["", *columns], lines, title=title, notes=numbered).text()


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
    shown = [
        key for key in NAMES if key in same and key not in ("data", "probe") and first.get(key) not in (None, False)
    ]
    head = ", ".join([title, *(NAMES[key] if first[key] is True else f"{NAMES[key]} {first[key]}" for key in shown)])
    if "data" in same:
        counts = [("labelled", first.get("labelled_images", first.get("train_images"))), ("test", first["test_images"])]
        told = " and ".join(f"{count} {what}" for what, count in counts if count and protocol != "few")
        head += f": {told} images of {first['data']}" if told else f" of {first['data']}"
        head += f" in {first['classes']} classes" + "".join(f", those of {file}" for file in limits.values())
    return f"{head}; scores in %\n{result_table(rows, same)}"


def result_table(rows: Sequence[dict[str, Any]], same: set[str]) -> str:
    """Rows of results; columns that say the same of all are left out."""
    keys = [key for key in NAMES if key not in same and any(key in row for row in rows)]
    found = [key for key in SCORES if any(key in row for row in rows)]
    cells = [
        [row["representation"], *(str(row.get(key, "")) for key in keys), *(_cell(row.get(key, "")) for key in found)]
        for row in rows
    ]
    return make_table(["", *(NAMES[key] for key in keys), *(SCORES[key] for key in found)], cells).text()


def _cell(value: Any) -> Cell | str:
    if isinstance(value, float):
        return Cell.per_cent(value)
    return f"{100 * value[0]:.1f} to {100 * value[1]:.1f}" if isinstance(value, list) else value


def said(word: str, value: Any) -> str:
    """A condition of a result in words."""
    what = word.replace("multi_crop", "multi-crop").replace("_", " ")
    if isinstance(value, bool):
        return what if value else f"no {what}"
    if word in ("epochs", "runs", "prototypes", "iterations"):
        return f"{value} {what}"
    return str(value) if word in ("backbone", "crops", "hardware") else f"{what} {value}"


def printed(value: float | None, deviation: float | None) -> str:
    """A published number, as the paper prints it."""
    if value is None:
        return "-"
    return f"{value:g}" + (f" ± {deviation:g}" if deviation is not None else "")
