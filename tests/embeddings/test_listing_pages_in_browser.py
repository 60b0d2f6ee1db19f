"""A page of clusters and one of duplicates in Chromium, on a phone and on a screen."""

import numpy as np
import pytest

from browser import SCHEMES
from feature_files import origin
from infomax.data.images.arrays import ArrayImages
from infomax.embeddings.cluster_map import cluster_map_section
from infomax.embeddings.clusters import clusters
from infomax.embeddings.duplicates import duplicates
from infomax.embeddings.feature_file import FeatureTable
from infomax.embeddings.listing import list_clusters, list_duplicates
from infomax.embeddings.listing_page import cluster_sizes_section, listing_page
from infomax.embeddings.shown_images import ImageRows

pytestmark = pytest.mark.browser
COUNT = 30


@pytest.fixture(scope="module")
def pages():
    rng = np.random.default_rng(0)
    names = [f"a-folder-with-a-long-name/image-of-a-cat-{i:02}.jpg" for i in range(COUNT)]
    features = rng.normal(size=(COUNT, 4)).astype(np.float32)
    table = FeatureTable(features, names, [f"class {i % 3}" for i in range(COUNT)], origin(COUNT, 4))
    images = ImageRows([ArrayImages(rng.integers(0, 256, (COUNT, 40, 40, 3), np.uint8), None, [])])
    groups, silhouette = clusters(table, k=3)
    sections = [cluster_sizes_section(groups), cluster_map_section(table, groups, images, seed=0)]
    return {
        "clusters": listing_page(list_clusters(groups, silhouette), images, sections).html(),
        "duplicates": listing_page(list_duplicates(duplicates(table, above=0.5), table, 0.5), images).html(),
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["clusters", "duplicates"])
def test_a_page_fits_its_window_and_says_nothing(open_page, pages, name, width, scheme):
    opened = open_page(pages[name], width=width, scheme=scheme)
    assert opened.sideways() <= 0
    opened.page.locator("[data-thumbnail]").first.scroll_into_view_if_needed()
    opened.page.locator(".enlarge").first.click()
    opened.page.keyboard.press("Escape")
    opened.messages = [words for words in opened.messages if "GL Driver Message" not in words]  # of the map's WebGL
    opened.assert_quiet()


def test_the_table_of_duplicates_is_sorted_by_its_numbers(open_page, pages):
    opened = open_page(pages["duplicates"])
    page = opened.page
    table = page.locator("table[data-sortable]").last
    column = ["image", "group", "keep", "label", "cosine to kept"].index("cosine to kept")
    button = table.get_by_role("button", name="cosine to kept")
    orders = []
    for _ in range(2):
        button.click()
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_text_contents()
        orders.append([float(text) for text in cells if text.strip()])
    assert orders[0] != orders[1]
    assert sorted(orders) == sorted([sorted(orders[0]), sorted(orders[0], reverse=True)])
    assert len(set(orders[0])) > 2
    assert page.locator(".notice-warning").first.is_visible()
    opened.assert_quiet()
