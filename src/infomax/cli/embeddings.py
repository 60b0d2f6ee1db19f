"""Defines the commands about files of features: embed, search, duplicates and clusters."""

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

    check_feature_file(options.out, overwrite=options.overwrite)  # before torch is imported, which takes seconds
    with importing_torch():
        from infomax.embeddings.write import embed_to_file, evaluation_options
        from infomax.evaluation.run import launched_ranks

    with launched_ranks(evaluation_options(options)) as rank_options:
        if line := embed_to_file(options, rank_options):
            show(line)


def search(options: SearchOptions) -> None:
    """Carries out ``infomax search``."""
    table, images = _open_table(options)
    with importing_torch():
        from infomax.embeddings.listing import list_matches
        from infomax.embeddings.search import search
        from infomax.embeddings.shown_images import query_thumbnails

    matches = search(
        table, options.query, k=options.k, encoder=options.encoder, device=options.device, engine=options.engine
    )
    thumbnails = None if images is None else query_thumbnails(table, options.query, images)
    _show_listing(options, list_matches(matches, options.query, thumbnails), images)


def duplicates(options: DuplicatesOptions) -> None:
    """Carries out ``infomax duplicates``."""
    table, images = _open_table(options, wants_sizes=True)
    with importing_torch():
        from infomax.embeddings.duplicates import duplicates
        from infomax.embeddings.listing import list_duplicates

    groups = duplicates(table, above=options.above, images=images, quiet=False)
    _show_listing(options, list_duplicates(groups, table, options.above), images)


def clusters(options: ClustersOptions) -> None:
    """Carries out ``infomax clusters``."""
    table, images = _open_table(options)
    with importing_torch():
        from infomax.embeddings.clusters import clusters
        from infomax.embeddings.listing import list_clusters

    groups, silhouette = clusters(table, k=options.k, seed=options.seed)
    if options.k is None:
        note(f"{len(groups)} clusters, the root of half the number of images (-k N gives another number)")
    _show_listing(options, list_clusters(groups, silhouette), images)
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


def _show_listing(options: FeatureFileOptions, listing: "Listing", images: "ShownImages | None") -> None:
    """Prints a listing as a table, and writes it to a file if the user names one."""
    from infomax.embeddings.listing import write_listing

    show(listing.terminal_text(options.out))
    if options.out is not None:
        write_listing(options.out, listing, images)
        show(f"written to {options.out}")


EMBED, SEARCH, DUPLICATES, CLUSTERS = (
    Command("embed", EmbedOptions, "Write the features of images to a file, with names and labels.", embed),
    Command("search", SearchOptions, "Find the images that are most like a query.", search),
    Command("duplicates", DuplicatesOptions, "Group images whose features are nearly the same.", duplicates),
    Command("clusters", ClustersOptions, "Group images by their features; no labels are needed.", clusters),
)
