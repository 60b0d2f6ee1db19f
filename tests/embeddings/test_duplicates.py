"""Groups of images that are nearly the same, beside a plain search for pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from feature_files import origin, write_images, written
from infomax.embeddings import duplicates as module
from infomax.embeddings.clusters import clusters
from infomax.embeddings.duplicates import duplicates
from infomax.embeddings.feature_file import FeatureTable
from infomax.embeddings.listing import list_clusters, list_duplicates
from infomax.embeddings.listing_page import listing_page
from infomax.embeddings.shown_images import ShownImages


def table(features, labels=None) -> FeatureTable:
    names = [f"{i}.png" for i in range(len(features))]
    return FeatureTable(features, names, labels, origin(len(features), features.shape[1]))


def rows_of(groups):
    return sorted(sorted([group.kept.row, *(x.row for x in group.others)]) for group in groups)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block", [7, 2048])
def test_groups_are_those_of_a_plain_search(monkeypatch, dtype, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((12, 16))
    features = (np.repeat(centres, 4, 0) + 0.15 * rng.standard_normal((48, 16))).astype(dtype)
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    number, assigned = connected_components(unit @ unit.T >= 0.98)
    wanted = [np.flatnonzero(assigned == group).tolist() for group in range(number)]
    wanted = sorted(group for group in wanted if len(group) > 1)
    assert 2 < len(wanted) < 20
    assert rows_of(duplicates(table(features), above=0.98)) == wanted


def test_many_equal_images_are_one_group(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(module, "MAX_PAIRS", 50)  # so that pairs are put together several times
    features = np.ones((100, 4), np.float32)
    features[60:] = [1, 0, 0, 0]
    features[99] = [0, 1, 0, 0]
    assert rows_of(duplicates(table(features), above=1.0)) == [list(range(60)), list(range(60, 99))]


def test_a_chain_is_one_group_and_cosines_are_those_to_the_kept_image():
    angles = torch.tensor([0.0, 0.15, 0.3, 2.0])
    features = torch.stack([angles.cos(), angles.sin()], 1).numpy()
    (group,) = duplicates(table(features, ["a", "b", "", "c"]), above=0.98)
    assert (group.kept.name, group.reason) == ("0.png", "it is the first one")
    assert [x.name for x in group.others] == ["1.png", "2.png"]
    np.testing.assert_allclose([x.cosine for x in group.others], np.cos([0.15, 0.3]), atol=1e-6)
    assert [x.label for x in group.others] == ["b", ""]


def test_a_list_that_is_cut_says_which_forms_have_all(tmp_path):
    names = [f"{i:02}.png" for i in range(80)]
    folder = write_images(tmp_path, names)
    features = np.repeat(np.eye(2, dtype=np.float32), 40, 0)
    equal = written(tmp_path / "f.npz", features, names, data={"data": str(folder)})
    images = ShownImages(equal)
    listing = list_duplicates(duplicates(equal, above=1.0), equal, 1.0)
    assert "\nand 20 more; --out FILE.csv or FILE.jsonl lists all" in listing.terminal_text()
    assert "\nand 20 more; --out FILE.csv or FILE.jsonl lists all" in listing.terminal_text(Path("a.html"))
    assert listing.terminal_text(Path("a.csv")).endswith("\nand 20 more, in a.csv")
    assert listing.csv().count("\n") == 81
    section = listing_page(listing, images).sections[1]
    assert section.text.endswith(". 16 more are not shown; --out FILE.csv or FILE.jsonl lists all")
    whole = list_clusters(*clusters(equal, k=2))  # whose table has a row for each cluster, not for each image
    assert listing_page(whole, images).sections[0].text == "16 more are not shown; --out FILE.jsonl lists all"


def test_features_of_length_zero_or_not_finite_are_like_nothing():
    features = np.zeros((6, 3), np.float32)
    features[2:4] = np.nan
    features[4:] = 1
    assert rows_of(duplicates(table(features), above=0.5)) == [[4, 5]]


@pytest.mark.parametrize("above", [0.0, -1, 1.01, float("nan")])
def test_impossible_cosines_are_refused(above):
    with pytest.raises(ValueError, match="--above must be a cosine"):
        duplicates(table(np.ones((2, 2), np.float32)), above=above)
