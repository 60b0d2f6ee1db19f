"""Defines the commands about files of features: embed, search, duplicates and clusters."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infomax.cli.command import Command
from infomax.embeddings.options import (
    LISTING_SUFFIXES,
    ClustersOptions,
    DuplicatesOptions,
    EmbedOptions,
    FeatureFileOptions,
    SearchOptions,
)
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import note, show

if TYPE_CHECKING:
    from infomax.embeddings.feature_file import FeatureTable
    from infomax.embeddings.listing import Listing
    from infomax.embeddings.shown_images import ShownImages


def embed(options: EmbedOptions) -> None:
    """Carries out ``infomax embed``."""
    from infomax.embeddings.feature_file import check_feature_file
    from infomax.embeddings.opening import evaluation_options, open_images
    from infomax.evaluation.run import launched_ranks

    check_feature_file(options.out, overwrite=options.overwrite)  # before torch is imported, which takes seconds
    with launched_ranks(evaluation_options(options)) as rank_options:
        opened = open_images(options)
        with importing_torch():
            from infomax.embeddings.write import embed_to_file

        if line := embed_to_file(options, rank_options, opened):
            show(line)


def search(options: SearchOptions) -> None:
    """Carries out ``infomax search``."""
    from infomax.embeddings.feature_file import row_of_query

    table, images = _open_table(options)
    row_of_query(options.query, table.names)  # a name that is none is refused before torch is imported
    with importing_torch():
        from infomax.embeddings.listing import list_matches
        from infomax.embeddings.search import search
        from infomax.embeddings.shown_images import query_thumbnails
        from infomax.embeddings.usual_cosine import usual_cosine

    matches = search(
        table, options.query, k=options.k, encoder=options.encoder, device=options.device, engine=options.engine
    )
    thumbnails = None if images is None else query_thumbnails(table, options.query, images)
    usual = usual_cosine(table)
    listing = list_matches(matches, options.query, thumbnails, usual).with_notes(table)

    def write_page(file: Path) -> None:
        from infomax.embeddings.listing_page import usual_cosine_section, write_listing_page

        write_listing_page(file, listing, images, last=usual_cosine_section(usual))

    _show_listing(options, listing, write_page)


def duplicates(options: DuplicatesOptions) -> None:
    """Carries out ``infomax duplicates``."""
    table, images = _open_table(options, wants_sizes=True)
    with importing_torch():
        from infomax.embeddings.duplicates import duplicates
        from infomax.embeddings.listing import list_duplicates

    groups = duplicates(table, above=options.above, images=images, quiet=False)
    listing = list_duplicates(groups, table, options.above).with_notes(table)

    def write_page(file: Path) -> None:
        from infomax.embeddings.listing_page import write_listing_page

        write_listing_page(file, listing, images)

    _show_listing(options, listing, write_page)


def clusters(options: ClustersOptions) -> None:
    """Carries out ``infomax clusters``."""
    table, images = _open_table(options)
    with importing_torch():
        from infomax.embeddings.clusters import clusters
        from infomax.embeddings.listing import list_clusters

    groups, silhouette = clusters(table, k=options.k, seed=options.seed)
    if options.k is None:
        note(f"{len(groups)} clusters, the root of half the number of images (--k N gives another number)")
    listing = list_clusters(groups, silhouette).with_notes(table)

    def write_page(file: Path) -> None:
        from infomax.embeddings.cluster_map import cluster_map_section, picture_bytes
        from infomax.embeddings.listing_page import cluster_sizes_section, write_listing_page

        assert images is not None  # they were opened, or the user was told why not
        sections = [cluster_sizes_section(groups), cluster_map_section(table, groups, images, seed=options.seed)]
        write_listing_page(file, listing, images, sections, thumbnail_bytes=picture_bytes(len(table.names))[1])

    _show_listing(options, listing, write_page)
    if options.out is None:
        note("--out FILE.html shows the images of each cluster, --out FILE.jsonl names them")


def _open_table(options: FeatureFileOptions, *, wants_sizes: bool = False) -> "tuple[FeatureTable, ShownImages | None]":
    """Returns the features, and the images themselves if they are to be shown or measured."""
    from infomax.embeddings.feature_file import read_features
    from infomax.embeddings.shown_images import ShownImages
    from infomax.runtime.output_files import check_output_file

    if options.out is not None:
        check_output_file(options.out, LISTING_SUFFIXES, overwrite=options.overwrite)
    table = read_features(options.features)
    if options.data is not None or (options.out is not None and options.out.suffix == ".html"):
        return table, ShownImages(table, options.data)
    if wants_sizes:
        try:
            return table, ShownImages(table)
        except ValueError as error:
            note(f"the first image of each group is kept, as the sizes of the images are not known: {error}")
    return table, None


def _show_listing(options: FeatureFileOptions, listing: "Listing", write_page: Callable[[Path], None]) -> None:
    """Prints a listing as a table, and writes it to a file if the user names one.

    Args:
        options: The options, which name the file.
        listing: What was found.
        write_page: Writes the page with the images to a file.
    """
    from infomax.embeddings.listing import write_listing

    show(listing.terminal_text(options.out))
    if options.out is not None:
        if options.out.suffix == ".html":
            write_page(options.out)
        else:
            write_listing(options.out, listing)
        show(f"written to {options.out}")
    if listing.warning is not None:  # what stands above a long table scrolls away
        show(listing.warning_line)


EMBED, SEARCH, DUPLICATES, CLUSTERS = (
    Command("embed", EmbedOptions, "Write the features of images to a file, with names and labels.", embed),
    Command("search", SearchOptions, "Find the images that are most like a query.", search),
    Command("duplicates", DuplicatesOptions, "Group images whose features are nearly the same.", duplicates),
    Command("clusters", ClustersOptions, "Group images by their features; no labels are needed.", clusters),
)
