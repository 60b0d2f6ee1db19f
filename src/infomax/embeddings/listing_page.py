"""Makes pages of what search, duplicates and clusters found: the images in their groups, charts, and the table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infomax.embeddings.clusters import Cluster
from infomax.embeddings.listing import Group, Listing
from infomax.embeddings.shown_images import THUMBNAIL_BYTES, ShownImages, ThumbnailRoom
from infomax.embeddings.usual_cosine import UsualCosine
from infomax.reporting.pages.blocks import Facts, Notice, TableBlock
from infomax.reporting.pages.charts import BarChart
from infomax.reporting.pages.gallery import Gallery
from infomax.reporting.pages.page import Page, Section
from infomax.reporting.pages.titled_gallery import TitledGallery, gallery_sections
from infomax.runtime.files import write_atomic

MAX_MEMBERS = 24
"""Images of a group that a page shows."""
MAX_TABLE_ROWS = 2000
"""Rows of a table on a page; a browser is slow with many more."""
MAX_BARS = 60
"""Bars of a chart."""
FOOTER = "Made by infomax."


def write_listing_page(
    file: Path,
    listing: Listing,
    images: ShownImages | None,
    first: Sequence[Section] = (),
    last: Sequence[Section] = (),
    thumbnail_bytes: int = THUMBNAIL_BYTES,
) -> None:
    """Writes the page of a listing; see :func:`listing_page`."""
    assert images is not None  # they were opened, or the user was told why not
    page = listing_page(listing, images, first, last, thumbnail_bytes)
    write_atomic(file, page.html().encode(errors="surrogateescape"))


def listing_page(
    listing: Listing,
    images: ShownImages,
    first: Sequence[Section] = (),
    last: Sequence[Section] = (),
    thumbnail_bytes: int = THUMBNAIL_BYTES,
) -> Page:
    """Returns the page of a listing: of large groups the first images, and of many groups the first ones.

    Args:
        listing: The groups of images.
        images: The images.
        first: Sections that stand before the groups.
        last: Sections between the groups and the table.
        thumbnail_bytes: Bytes that all thumbnails may take.
    """
    formats = "--out FILE.csv or FILE.jsonl" if listing.table_has_all_images else "--out FILE.jsonl"
    room, blocks = ThumbnailRoom(thumbnail_bytes), []
    for group in listing.groups:
        if room.left <= 0:
            break
        blocks.append(_group_block(group, images, room, formats))
    text = list(listing.text)
    if hidden := len(listing.groups) - len(blocks):
        text.append(
            f"The page shows the first {len(blocks):,} groups; {hidden:,} more are not shown; {formats} lists all."
        )
    sections = [*first, *gallery_sections(blocks, f"{len(blocks):,} groups"), *last]
    if listing.warning is not None:
        evidence = listing.warning.evidence[:1].upper() + listing.warning.evidence[1:]
        notice = Notice("warning", listing.warning.heading, evidence, listing.warning.advice)
        sections.insert(0, Section("Before anything is deleted", blocks=(notice,)))
    if listing.cells:
        table = listing.table(MAX_TABLE_ROWS, f"; {formats} lists all")
        sections.append(Section("As a table", blocks=(TableBlock(table),)))
    return Page(listing.title, tuple(text), tuple(sections), FOOTER)


def _group_block(group: Group, images: ShownImages, room: ThumbnailRoom, formats: str) -> TitledGallery:
    """Returns the block of a group, with its first images."""
    first = () if group.thumbnail is None else room.take([group.thumbnail])
    shown = room.take(images.thumbnail(x.row, x.name, *x.details, mark=x.mark) for x in group.images[:MAX_MEMBERS])
    left = len(group.images) - len(shown)
    hidden = f"{left:,} more are not shown; {formats} lists all" if left else ""
    return TitledGallery(group.heading, ". ".join(filter(None, (group.text, hidden))), Gallery((*first, *shown)))


def usual_cosine_section(usual: UsualCosine | None) -> tuple[Section, ...]:
    """Returns the section that says which cosine two images usually have; none if it is not known."""
    if usual is None:
        return ()
    kind = "a sample of pairs" if usual.is_sample else "all pairs"
    facts = (
        ("median of two images", f"{usual.median:.3f}"),
        ("reached by 1 of 100 pairs", f"{usual.high:.3f}"),
        ("measured on", f"{usual.pairs:,} pairs of images of this file, {kind}"),
    )
    text = (
        "A cosine says how alike an encoder takes two images for. It means something only beside the cosine of any "
        "two of these images:"
    )
    return (Section("How high is a high cosine?", text, (Facts(facts),)),)


def cluster_sizes_section(clusters: Sequence[Cluster]) -> Section:
    """Returns the section with a bar for the size of each cluster."""
    sizes = [len(cluster.members) for cluster in clusters]
    bars = []
    for number, (cluster, size) in enumerate(zip(clusters, sizes, strict=True), start=1):
        labels = cluster.describe_labels()
        bars.append((f"{number}: {labels}" if labels else str(number), float(size)))
    left = len(bars) - MAX_BARS
    smaller = f"; {left:,} more, with {sizes[-1]:,} to {sizes[MAX_BARS]:,} images, are not shown" if left > 0 else ""
    caption = f"From {sizes[-1]:,} to {sizes[0]:,} images a cluster, {np.median(sizes):,.0f} in the middle{smaller}."
    chart = BarChart("Images of each cluster", "cluster", "images", tuple(bars[:MAX_BARS]), caption)
    return Section("Sizes", "", (chart,))
