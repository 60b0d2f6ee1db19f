"""Lists what search, duplicates and clusters found: as a table, as lines of JSON, as groups of images for a page."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infomax.embeddings.clusters import Cluster
from infomax.embeddings.duplicates import DuplicateGroup
from infomax.embeddings.feature_file import FeatureTable
from infomax.embeddings.search import Match
from infomax.embeddings.usual_cosine import UsualCosine
from infomax.reporting.pages.gallery import Thumbnail
from infomax.reporting.tables import Table, make_table
from infomax.runtime.csv_text import csv_text
from infomax.runtime.files import write_atomic
from infomax.runtime.text import escape

MAX_ROWS = 60
"""Rows of a table in the terminal."""
LARGE_SHARE, LARGE_GROUP = 0.1, 5
"""Share of all images, and number of images, from which on a group of duplicates is warned of."""


@dataclass(frozen=True)
class ListedImage:
    """A frozen dataclass that holds an image of a group, in words."""

    row: int
    name: str
    details: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Group:
    """A frozen dataclass that holds a group of images in words, and as JSON."""

    heading: str
    text: str
    images: tuple[ListedImage, ...]
    record: dict[str, Any]
    thumbnail: Thumbnail | None = None
    """A picture that a page shows before the images."""


@dataclass(frozen=True)
class ListingWarning:
    """A frozen dataclass that holds a warning of what was found."""

    heading: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.evidence}. {self.advice}."


@dataclass(frozen=True)
class Listing:
    """A frozen dataclass that holds groups of images, ready to be shown in any form."""

    title: str
    text: tuple[str, ...]
    groups: tuple[Group, ...]
    columns: tuple[str, ...]
    """Names of the columns of the table, of which the first one names the images."""
    cells: tuple[tuple[str, ...], ...]
    """The rows of the table."""
    notes: tuple[str, ...] = ()
    """Lines below the table."""
    table_has_all_images: bool = True
    """Whether each image has a row of the table."""
    warning: ListingWarning | None = None

    def with_notes(self, table: FeatureTable) -> "Listing":
        """Returns the listing with lines on what the features came from, if there is something to say of it."""
        return replace(self, text=(*map(escape, table.origin.notes), *self.text))

    def terminal_text(self, out: Path | None = None) -> str:
        """Returns the text for a terminal: a table of the first rows, between the title and what is left out.

        Args:
            out: The file that the listing is written to as well; None if it is only printed.
        """
        warning = [] if self.warning is None else [self.warning_line]
        title = "\n".join((self.title, *self.text, *warning))
        if not self.cells:
            return title
        if out is not None and out.suffix in (".csv", ".jsonl"):
            where = f", in {escape(str(out))}"
        else:
            where = "; --out FILE.csv or FILE.jsonl lists all"
        return self.table(MAX_ROWS, where, title=title).text()

    def table(self, rows: int, where: str, *, title: str = "") -> Table:
        """Returns the table of what was found, with its first rows alone.

        Args:
            rows: Largest number of rows.
            where: Words that follow the number of rows that are left out.
            title: Lines above the table.
        """
        left = len(self.cells) - rows
        more = [f"and {left:,} more{where}"] if left > 0 else []
        return make_table(self.columns, self.cells[:rows], title=title, notes=[*more, *self.notes])

    @property
    def warning_line(self) -> str:
        """The warning as a line; empty if there is none."""
        return "" if self.warning is None else f"Warning: {self.warning}"

    def json_lines(self) -> str:
        """Returns a line of JSON for each group."""
        return "".join(f"{json.dumps(group.record, ensure_ascii=False)}\n" for group in self.groups)

    def csv(self) -> str:
        """Returns the whole table, with commas between the cells."""
        return csv_text([self.columns, *self.cells])


def write_listing(file: Path, listing: Listing) -> None:
    """Writes a listing to a file: as a table if it ends in ``.csv``, or else as lines of JSON."""
    content = listing.csv() if file.suffix == ".csv" else listing.json_lines()
    write_atomic(file, content.encode(errors="surrogateescape"))


def list_matches(
    matches: Sequence[Match],
    query: str,
    thumbnails: Mapping[str, Thumbnail] | None = None,
    usual: UsualCosine | None = None,
) -> Listing:
    """Returns the listing of what a search found: a group for each query.

    Args:
        matches: What was found.
        query: What the user searched for.
        thumbnails: Pictures of queries, by the queries' names, which a page shows first.
        usual: The cosine of any two images of the file.
    """
    groups, cells = [], []
    by_query = [list(group) for _, group in itertools.groupby(matches, key=lambda match: match.query)]
    beside = "" if usual is None else f" (usual {usual.median:.3f})"
    for matches_of_query in by_query:
        name = matches_of_query[0].query
        images = tuple(
            ListedImage(match.row, match.name, tuple(filter(None, (match.label, f"cosine {match.cosine:.3f}{beside}"))))
            for match in matches_of_query
        )
        record = {
            "query": name,
            "matches": [_record(x.name, x.label, x.cosine) for x in matches_of_query],
        }
        heading = f"Like {escape(name)}" if len(by_query) > 1 else f"The nearest {len(matches_of_query)}"
        groups.append(Group(heading, "", images, record, (thumbnails or {}).get(name)))
        shown_query = name if len(by_query) > 1 else ""
        cells += [(x.name, shown_query, str(x.rank), x.label, f"{x.cosine:.3f}") for x in matches_of_query]
    columns = ("image", "query", "rank", "label", "cosine")
    notes = () if usual is None else (usual.describe(),)
    return _listing(f"Images like {escape(query)}", (), groups, columns, cells, notes)


def _record(name: str, label: str, cosine: float) -> dict[str, Any]:
    """Returns what a line of JSON says of an image."""
    return {"name": name, "label": label or None, "cosine": round(cosine, 6)}


def list_duplicates(groups: Sequence[DuplicateGroup], table: FeatureTable, above: float) -> Listing:
    """Returns the listing of duplicates: a group for each image that is to be kept."""
    listed, cells = [], []
    for number, group in enumerate(groups, start=1):
        members = (group.kept, *group.others)
        sizes = ["" if member.size is None else member.size.describe() for member in members]
        images = tuple(
            ListedImage(
                member.row,
                member.name,
                tuple(filter(None, (member.label, size, "" if i == 0 else f"cosine to kept {member.cosine:.3f}"))),
                mark="keep" if i == 0 else "",
            )
            for i, (member, size) in enumerate(zip(members, sizes, strict=True))
        )
        reason = f"Keep {escape(group.kept.name)}: {group.reason}"
        warning = large_group_warning(group, number, len(table.names))
        record = {
            "keep": group.kept.name,
            "reason": group.reason,
            "compared": f"features: each image has a cosine of {above:g} or more to another one of the group",
            "warning": None if warning is None else str(warning),
            "duplicates": [
                {"name": x.name, "label": x.label or None, "cosine_to_kept": round(x.cosine, 6)} for x in group.others
            ],
        }
        listed.append(Group(f"Group {number}: {len(members)} images", reason, images, record))
        cells += [
            (x.name, str(number), "keep" if i == 0 else "", x.label, size, "" if i == 0 else f"{x.cosine:.3f}")
            for i, (x, size) in enumerate(zip(members, sizes, strict=True))
        ]
    columns = ("image", "group", "keep", "label", "size", "cosine to kept")
    text = _duplicates_text(groups, len(table.names), above)
    listing = _listing("Possible duplicates" if groups else "No duplicates", text, listed, columns, cells)
    warning = large_group_warning(groups[0], 1, len(table.names)) if groups else None  # the first one is the largest
    return replace(listing, warning=warning)


def _duplicates_text(groups: Sequence[DuplicateGroup], count: int, above: float) -> tuple[str, ...]:
    """Returns lines on what was compared and found."""
    compared = f"features with a cosine of {above:g} or more to another image's"
    if not groups:
        return (f"None of {count:,} images has {compared}.",)
    others = sum(len(group.others) for group in groups)
    number = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
    return (
        f"{others + len(groups):,} of {count:,} images have {compared}. They are in {number}; one "
        f"of each is marked to keep, {others:,} are not.",
        "A group is a chain of such pairs, so the cosine to the image to keep can be lower.",
        "Only features are compared, and a weak encoder takes different images for alike: look at the images before "
        "you delete any. A higher --above lists fewer.",
    )


def large_group_warning(group: DuplicateGroup, number: int, count: int) -> ListingWarning | None:
    """Returns a warning if a group holds so many of the images that they can hardly all be alike; else None.

    Args:
        group: The group.
        number: Its number in the listing.
        count: Number of all images.
    """
    size = 1 + len(group.others)
    if size < max(LARGE_GROUP, LARGE_SHARE * count):
        return None
    least = min(member.cosine for member in group.others)
    return ListingWarning(
        "A group is suspiciously large",
        f"group {number} holds {size:,} of {count:,} images, with cosines to the kept one down to {least:.3f}. Chains "
        "join images that are not alike themselves, and a weak encoder takes different images for alike",
        "Before anything is deleted, raise --above or use a better encoder, and look at the images",
    )


def list_clusters(clusters: Sequence[Cluster], silhouette: float) -> Listing:
    """Returns the listing of clusters: a group for each of them, with the images nearest to its centre first."""
    listed, cells = [], []
    for number, cluster in enumerate(clusters, start=1):
        members = cluster.members
        images = tuple(
            ListedImage(x.row, x.name, tuple(filter(None, (x.label, f"distance {x.distance:.3f}")))) for x in members
        )
        labels = cluster.describe_labels()
        record = {"cluster": number, "images": [x.name for x in members], "distances": [x.distance for x in members]}
        listed.append(Group(f"Cluster {number}: {len(members):,} images", labels, images, record))
        cells.append((members[0].name, str(number), f"{len(members):,}", labels))
    text = (
        f"{sum(len(cluster.members) for cluster in clusters):,} images in {len(clusters)} clusters; silhouette "
        f"{silhouette:.3f} (1: far apart, 0: no clusters).",
    )
    columns = ("nearest to the centre", "cluster", "images", "most frequent")
    return replace(_listing("Clusters", text, listed, columns, cells), table_has_all_images=False)


def _listing(
    title: str,
    text: tuple[str, ...],
    groups: Sequence[Group],
    columns: tuple[str, ...],
    cells: Sequence[tuple[str, ...]],
    notes: tuple[str, ...] = (),
) -> Listing:
    """Returns a listing without the columns that are empty in every row."""
    filled = [i for i in range(len(columns)) if i == 0 or not cells or any(row[i] for row in cells)]
    kept: Iterator[tuple[str, ...]] = (tuple(row[i] for i in filled) for row in cells)
    return Listing(title, text, tuple(groups), tuple(columns[i] for i in filled), tuple(kept), notes)
