"""Finds the images nearest to a query by the cosine of their features."""

import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.data.loading.unreadable import UnreadableImageError, name_all_unreadable
from infomax.data.range_notes import range_notes
from infomax.embeddings.embed import features_of_splits
from infomax.embeddings.feature_file import FeatureTable, is_feature_file, open_table, read_features, row_of_query
from infomax.embeddings.options import ENGINES
from infomax.embeddings.shown_images import open_query_images
from infomax.features.faiss_search import import_faiss, nearest_by_faiss
from infomax.features.nearest_neighbours import nearest
from infomax.models.encoders import fingerprint
from infomax.models.pretrained import open_encoder
from infomax.runtime.checks import check_count, choose
from infomax.runtime.devices import choose_device
from infomax.runtime.text import note
from infomax.runtime.threads import threads_within_quota


@dataclass(frozen=True)
class Match:
    """A frozen dataclass that holds an image that was found for a query."""

    query: str
    """Name of the query."""
    rank: int
    """Its place among those that were found, from 1."""
    name: str
    """Name of the image that was found."""
    label: str
    """The name of its class; empty without labels."""
    cosine: float
    """The cosine of the two features, from -1 to 1."""
    row: int
    """Its row in the table of features."""


@threads_within_quota()
def search(
    features: str | PathLike[str] | FeatureTable,
    query: str | PathLike[str],
    *,
    k: int = 12,
    encoder: str | PathLike[str] | None = None,
    device: str = "auto",
    engine: str = "exact",
) -> list[Match]:
    """Finds the k images nearest to each query by the cosine of their features; the search is exact.

    Args:
        features: A file of features that ``infomax embed`` wrote, or its content.
        query: One image, a folder of images, or anything else that ``--data`` takes; another file of features; or the
            name of an image among the features, which is then left out of what is found.
        k: Images to find for each query.
        encoder: The encoder of the query's features. Default: the one that the features are of, by the name by which it
            was opened.
        device: Kind of device for the query's features; ``auto`` takes a CUDA GPU if there is one.
        engine: What searches: ``exact``, infomax itself; or ``faiss``, its IndexFlatIP, which is exact too and finds
            the same images, but for the order of equal cosines.

    Returns:
        The matches of the first query from the highest cosine to the lowest, then those of the next one.

    Raises:
        ValueError: if there is no such file or query, the query's features are of another encoder, or faiss
            is wanted and not installed.

    Example:
        >>> import infomax
        >>> matches = infomax.search("features.parquet", "cat.jpg", k=3)  # doctest: +SKIP
        >>> matches[0].name, round(matches[0].cosine, 2)  # doctest: +SKIP
        ('cats/17.jpg', 0.93)
    """
    check_count("--k", k, low=1)
    if choose("--engine", engine, ENGINES) == "faiss":
        import_faiss()  # before the queries are computed
    table = open_table(features)
    queries = _open_queries(table, os.fspath(query), encoder, device)
    find = nearest_by_faiss if engine == "faiss" else nearest
    cosines, rows = find(_as_tensor(table.features), queries.features, k + (queries.own_rows is not None))
    matches = []
    for i, name in enumerate(queries.names):
        pairs = list(zip(cosines[i].clamp(-1, 1).tolist(), rows[i].tolist(), strict=True))  # rounding exceeds 1
        if queries.own_rows is not None:
            pairs = [pair for pair in pairs if pair[1] != queries.own_rows[i]]
        for place, (cosine, row) in enumerate(pairs[:k], start=1):
            matches.append(Match(name, place, table.names[row], table.label(row), cosine, row))
    return matches


@dataclass(frozen=True)
class _Queries:
    """A frozen dataclass that holds the features of queries."""

    names: list[str]
    features: Float[Tensor, "m d"]
    own_rows: Int[np.ndarray, " m"] | None = None
    """Their rows in the table itself, if they are images of it."""


def _open_queries(table: FeatureTable, query: str, encoder: str | PathLike[str] | None, device: str) -> _Queries:
    """Returns the features of what a query names."""
    if Path(query).is_file() and is_feature_file(Path(query)):
        other = read_features(Path(query))
        if other.origin.encoder_hash != table.origin.encoder_hash:
            own, wanted = (f"{x.origin.encoder} ({x.origin.encoder_hash})" for x in (other, table))
            raise ValueError(f"--query {query} has features of {own}, but those that are searched are of {wanted}")
        return _Queries(list(other.names), _as_tensor(other.features))
    if (row := row_of_query(query, table.names)) is not None:
        return _Queries([query], torch.from_numpy(np.array(table.features[[row]])), np.array([row]))
    return _embed_queries(table, query, table.origin.encoder if encoder is None else os.fspath(encoder), device)


def _embed_queries(table: FeatureTable, query: str, encoder: str, device: str) -> _Queries:
    """Returns the features of images, computed by the encoder that the table's features are of."""
    try:
        network = open_encoder(encoder)
    except ValueError as error:
        raise ValueError(f"{error}; --encoder says where the encoder of the features is now") from error
    if (identity := fingerprint(network)) != table.origin.encoder_hash:
        raise ValueError(
            f"--encoder {encoder} has other weights ({identity}) than the encoder that the features are of "
            f"({table.origin.encoder_hash}); name that one, or let infomax embed write the features anew"
        )
    splits, names = open_query_images(table, query)
    for images in splits.values():
        for line in range_notes(images, network.preprocessing.pixel_format):
            note(f"{query}: {line}")
    try:
        return _Queries(names, features_of_splits(network, splits, device=choose_device(device)))
    except UnreadableImageError as error:
        raise name_all_unreadable(error, splits.values(), network.preprocessing.pixel_format) from error


def _as_tensor(features: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
    """Returns features as a tensor; memory that is read-only, of which torch warns, is copied."""
    return torch.from_numpy(np.require(features, requirements=["C", "W"]))
