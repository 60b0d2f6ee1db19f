"""Lists what search, duplicates and clusters found: as a table, as lines of JSON, and as a page with the images."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infomax.embeddings.clusters import Cluster
from infomax.embeddings.duplicates import DuplicateGroup
from infomax.embeddings.feature_file import FeatureTable
from infomax.embeddings.search import Match
from infomax.embeddings.shown_images import ShownImages
from infomax.reporting.page import MAX_THUMBNAILS, Page, Section, Thumbnail
from infomax.reporting.tables import make_table
from infomax.runtime.files import write_atomic
from infomax.runtime.text import escape

MAX_ROWS = 60
"""Rows of a table in the terminal."""
MAX_MEMBERS = 24
"""Images of a group that a page shows."""


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
class Listing:
    """A frozen dataclass that holds groups of images, ready to be shown in any form."""

    title: str
    text: tuple[str, ...]
    groups: tuple[Group, ...]
    columns: tuple[str, ...]
    """Names of the columns of a table, of which the first one names the images."""
    cells: tuple[tuple[str, ...], ...]
    """The rows of the table."""

    def terminal_text(self) -> str:
        """Returns the text for a terminal: a table of the first rows, between the title and what is left out."""
        title, left = "\n".join((self.title, *self.text)), len(self.cells) - MAX_ROWS
        if not self.cells:
            return title
        notes = (f"and {left:,} more; --out FILE.csv, .jsonl or .html lists all",) if left > 0 else ()
        return make_table(self.columns, self.cells[:MAX_ROWS], title=title, notes=notes).text()

    def json_lines(self) -> str:
        """Returns a line of JSON for each group."""
        return "".join(f"{json.dumps(group.record, ensure_ascii=False)}\n" for group in self.groups)

    def csv(self) -> str:
        """Returns the whole table, with commas between the cells."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.columns, *self.cells])
        return out.getvalue()

    def page(self, images: ShownImages) -> Page:
        """Returns the page with the images; of large groups the first ones, and of many groups the first ones."""
        sections, room = [], MAX_THUMBNAILS
        for group in self.groups:
            if room <= 0:
                break
            shown = group.images[: min(MAX_MEMBERS, room)]
            room -= len(shown)
            left = len(group.images) - len(shown)
            text = ". ".join(filter(None, (group.text, f"{left:,} more are not shown" if left else "")))
            thumbnails = [images.thumbnail(x.row, x.name, *x.details, mark=x.mark) for x in shown]
            first = [] if group.thumbnail is None else [group.thumbnail]
            sections.append(Section(group.heading, text, (*first, *thumbnails)))
        hidden = len(self.groups) - len(sections)
        note = (f"The page shows the first {len(sections):,} groups; {hidden:,} more are not shown.",) if hidden else ()
        return Page(self.title, (*self.text, *note), tuple(sections), "Made by infomax.")


def write_listing(file: Path, listing: Listing, images: ShownImages | None) -> None:
    """Writes a listing to a file, in the form that its suffix says.

    Args:
        file: The file.
        listing: The groups of images.
        images: The images, which a page needs.
    """
    if file.suffix == ".html":
        assert images is not None
        content = listing.page(images).html()
    else:
        content = listing.csv() if file.suffix == ".csv" else listing.json_lines()
    write_atomic(file, content.encode(errors="surrogateescape"))


def list_matches(matches: Sequence[Match], query: str, thumbnails: Mapping[str, Thumbnail] | None = None) -> Listing:
    """Returns the listing of what a search found: a group for each query.

    Args:
        matches: What was found.
        query: What the user searched for.
        thumbnails: Pictures of queries, by the queries' names, which a page shows first.
    """
    groups, cells = [], []
    by_query = [list(group) for _, group in itertools.groupby(matches, key=lambda match: match.query)]
    for matches_of_query in by_query:
        name = matches_of_query[0].query
        images = tuple(
            ListedImage(match.row, match.name, tuple(filter(None, (match.label, f"cosine {match.cosine:.3f}"))))
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
    return _listing(f"Images like {escape(query)}", (), groups, ("image", "query", "rank", "label", "cosine"), cells)


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
                tuple(filter(None, (member.label, size, "" if i == 0 else f"cosine {member.cosine:.3f}"))),
                mark="keep" if i == 0 else "",
            )
            for i, (member, size) in enumerate(zip(members, sizes, strict=True))
        )
        reason = f"Keep {escape(group.kept.name)}: {group.reason}"
        record = {
            "keep": group.kept.name,
            "reason": group.reason,
            "duplicates": [
                {"name": x.name, "label": x.label or None, "cosine": round(x.cosine, 6)} for x in group.others
            ],
        }
        listed.append(Group(f"Group {number}: {len(members)} images", reason, images, record))
        cells += [
            (x.name, str(number), "keep" if i == 0 else "", x.label, size, "" if i == 0 else f"{x.cosine:.3f}")
            for i, (x, size) in enumerate(zip(members, sizes, strict=True))
        ]
    count = sum(len(group.others) for group in groups)
    text = (
        f"{count:,} of {len(table.names):,} images are nearly the same as another one, in {len(groups):,} groups.",
        f"Each is like at least one other image of its group, with a cosine of {above:g} or more.",
    )
    columns = ("image", "group", "keep", "label", "size", "cosine")
    return _listing("Duplicates" if groups else "No duplicates", text, listed, columns, cells)


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
    return _listing("Clusters", text, listed, ("nearest to the centre", "cluster", "images", "most frequent"), cells)


def _listing(
    title: str,
    text: tuple[str, ...],
    groups: Sequence[Group],
    columns: tuple[str, ...],
    cells: Sequence[tuple[str, ...]],
) -> Listing:
    """Returns a listing without the columns that are empty in every row."""
    filled = [i for i in range(len(columns)) if i == 0 or not cells or any(row[i] for row in cells)]
    kept: Iterator[tuple[str, ...]] = (tuple(row[i] for i in filled) for row in cells)
    return Listing(title, text, tuple(groups), tuple(columns[i] for i in filled), tuple(kept))
