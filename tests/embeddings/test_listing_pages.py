"""Pages of search, duplicates and clusters: what is on them, what is cut and said, and that names do nothing."""

import re

import numpy as np
import pytest

from feature_files import origin
from html_pages import PADDED_EXPLOITS, PLAIN, CheckedPage
from infomax.data.images.arrays import ArrayImages
from infomax.embeddings.cluster_map import cluster_map_section, picture_bytes
from infomax.embeddings.clusters import clusters
from infomax.embeddings.duplicates import duplicates
from infomax.embeddings.feature_file import FeatureTable
from infomax.embeddings.listing import list_clusters, list_duplicates, list_matches
from infomax.embeddings.listing_page import cluster_sizes_section, listing_page, usual_cosine_section
from infomax.embeddings.search import Match, search
from infomax.embeddings.shown_images import ImageRows
from infomax.embeddings.usual_cosine import PAIRS, usual_cosine
from infomax.reporting.pages.page import Page

RNG = np.random.default_rng(0)
COUNT = 14
FEATURES = RNG.normal(size=(COUNT, 6)).astype(np.float32)
FEATURES[1] = FEATURES[0]  # a pair of duplicates
KINDS = ("search", "duplicates", "clusters")


def rows_of_images(count: int = COUNT, side: int = 8, *, is_noise: bool = True) -> ImageRows:
    pixels = (
        RNG.integers(0, 256, (count, side, side, 3), np.uint8)
        if is_noise
        else np.zeros((count, side, side, 3), np.uint8)
    )
    return ImageRows([ArrayImages(pixels, None, [])])


PICTURES = rows_of_images()


def table_of(name: str = "image", label: str = "label") -> FeatureTable:
    """Returns features of images, of which some have the given text in their names and labels."""
    names = [f"{name}{i:02}" for i in range(COUNT)]
    labels = [f"{label}{i % 3}" for i in range(COUNT)]
    return FeatureTable(FEATURES, names, labels, origin(COUNT, 6))


def page_of(kind: str, table: FeatureTable, images: ImageRows = PICTURES, **options) -> Page:
    if kind == "search":
        matches = search(table, table.names[0], k=5)
        thumbnails = {table.names[0]: images.thumbnail(0, table.names[0], mark="query")}
        usual = usual_cosine(table)
        listing = list_matches(matches, table.names[0], thumbnails, usual)
        return listing_page(listing, images, last=usual_cosine_section(usual))
    if kind == "duplicates":
        return listing_page(list_duplicates(duplicates(table, above=0.2), table, 0.2), images)
    groups, silhouette = clusters(table, k=3)
    sections = [cluster_sizes_section(groups), cluster_map_section(table, groups, images, seed=0)]
    bytes_left = picture_bytes(COUNT)[1]
    return listing_page(list_clusters(groups, silhouette), images, sections, thumbnail_bytes=bytes_left)


def text_of(page: Page) -> str:
    return " ".join(" ".join(CheckedPage(page.html()).text).split())


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_labels_do_nothing_on_a_page(kind):
    plain = CheckedPage(page_of(kind, table_of(PLAIN, PLAIN)).html()).shape()
    for exploit in PADDED_EXPLOITS:
        page = CheckedPage(page_of(kind, table_of(exploit, exploit)).html())
        assert page.shape() == plain, exploit


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_all_images_with_their_names_and_the_table(kind):
    page, table = page_of(kind, table_of()), table_of()
    checked = CheckedPage(page.html())
    thumbnails = [a for tag, a in checked.elements if tag == "li" and "data-thumbnail" in a]
    assert len(thumbnails) == {"search": 6, "duplicates": COUNT, "clusters": COUNT}[kind]
    cells = text_of(page).rpartition("As a table")[2]
    named = [name for name in table.names if name in cells]
    assert len(named) == {"search": 5, "duplicates": COUNT, "clusters": 3}[kind]


def test_a_page_of_clusters_has_a_map_and_the_sizes():
    checked = CheckedPage(page_of("clusters", table_of()).html())
    (data,) = (block for block in checked.data if isinstance(block, dict) and "layers" in block)
    assert [layer["name"] for layer in data["layers"]] == ["cluster", "label"]
    groups, _ = clusters(table_of(), k=3)
    assert data["layers"][0]["counts"] == [len(cluster.members) for cluster in groups]
    assert data["layers"][1]["counts"] == [5, 5, 4]
    text = text_of(page_of("clusters", table_of()))
    assert "t-SNE with perplexity" in text
    sizes = [len(cluster.members) for cluster in groups]
    assert f"From {sizes[-1]} to {sizes[0]} images a cluster, {sorted(sizes)[1]} in the middle." in text


def test_a_label_that_is_missing_is_said_on_the_map():
    table = table_of()
    without = FeatureTable(FEATURES, table.names, ["", *table.labels[1:]], table.origin)
    groups, _ = clusters(without, k=2)
    (block,) = cluster_map_section(without, groups, PICTURES, seed=0).blocks
    assert block.layers[1].values.tolist()[:3] == [-1, 1, 2]
    assert block.layers[1].categories == ("label0", "label1", "label2")


def test_a_large_group_is_a_notice_at_the_top():
    table = table_of()
    groups = duplicates(table, above=0.01)
    page = listing_page(list_duplicates(groups, table, 0.01), PICTURES)
    assert page.sections[0].heading == "Before anything is deleted"
    (notice,) = page.sections[0].blocks
    assert notice.kind == "warning"
    assert notice.heading == "A group is suspiciously large"
    assert notice.evidence.startswith("Group 1 holds 14 of 14 images, with cosines to the kept one down to ")
    assert notice.advice.startswith("Before anything is deleted, raise --above")
    pair = listing_page(list_duplicates(duplicates(table, above=0.999), table, 0.999), PICTURES)
    assert pair.sections[0].heading == "Group 1: 2 images"


def test_a_page_of_200_000_rows_and_of_many_large_images_stays_below_10_mb():
    images = rows_of_images(24, 128)
    matches = [Match("query", i, f"folder/image-{i:06}.jpg", "label", 0.5, i % 24) for i in range(200_000)]
    page = listing_page(list_matches(matches, "query"), images)
    html = page.html()
    assert len(html) < 10_000_000
    assert "and 198,000 more; --out FILE.csv or FILE.jsonl lists all" in html
    assert html.count("<tr>") == 2001
    assert "199,976 more are not shown" in html
    many = [Match(f"query {i // 24}", i, f"{i}.jpg", "", 0.5, i % 24) for i in range(24_000)]
    html = listing_page(list_matches(many, "query"), images).html()
    assert 6_000_000 < len(html) < 10_000_000
    shown = int(re.search(r"The page shows the first (\d+) groups; (\d+) more are not shown", html)[1])
    assert 10 < shown < 100


def test_a_map_and_thumbnails_have_room_in_a_page():
    for count in (100, 20_000, 200_000, 10_000_000):
        for_map, for_thumbnails = picture_bytes(count)
        assert 1_000_000 < for_thumbnails < for_map
        assert for_map + for_thumbnails + 14 * min(count, 200_000) + min(1_500_000, 40 * count) < 9_000_000


def test_the_usual_cosine_is_that_of_all_pairs_or_of_a_sample():
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(COUNT, 1)]
    usual = usual_cosine(table_of())
    assert (usual.pairs, usual.is_sample) == (COUNT * (COUNT - 1) // 2, False)
    np.testing.assert_allclose([usual.median, usual.high], np.percentile(cosines, [50, 99]), atol=1e-6)
    many = RNG.normal(size=(2000, 3)).astype(np.float16)
    table = FeatureTable(many, [str(i) for i in range(2000)], None, origin(2000, 3, precision="16"))
    usual = usual_cosine(table)
    assert (usual.pairs, usual.is_sample) == (PAIRS, True)
    assert usual == usual_cosine(table)  # which depends on no random state
    assert abs(usual.median) < 0.05  # cosines of isotropic rows in three dimensions are uniform from -1 to 1
    assert usual.high == pytest.approx(0.98, abs=0.01)
    assert "5,000 random pairs, seed 0" in usual.describe()


def test_images_without_a_direction_are_in_no_pair():
    features = np.array([[1, 0], [0, 1], [0, 0], [np.nan, 1]], np.float32)
    table = FeatureTable(features, ["a", "b", "c", "d"], None, origin(4, 2))
    usual = usual_cosine(table)
    assert (usual.pairs, usual.median, usual.high) == (1, 0.0, 0.0)
    assert usual_cosine(FeatureTable(features[:1], ["a"], None, origin(1, 2))) is None
