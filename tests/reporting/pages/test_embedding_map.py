"""The map's data are those of its images, in few bytes; names and categories are text and nothing else."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from html_pages import CheckedPage
from infomax.reporting.pages.atlas import pack_atlas
from infomax.reporting.pages.embedding_map import (
    MAX_POINTS,
    NAME_BUDGET,
    NAMED_CATEGORIES,
    EmbeddingMap,
    MapLayer,
    MapPoints,
    style_words,
)
from infomax.reporting.pages.page import Ids, Page, Section

EXPLOITS = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "\u202egnp.exe",
    "a\nb\u2028c\x1b[31m",
    "\\u003cb\\u003e",
    "]]>&amp;'",
)


def html_of(block: EmbeddingMap) -> str:
    return "\n".join(block.html(Ids()))


def data_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)[1])


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def names_of(data: dict) -> list[str]:
    """Returns the names as the script puts them together."""
    names, before = [], ""
    for shared, rest in zip(base64.b64decode(data["names"]["shared"]), data["names"]["rest"], strict=True):
        before = before[:shared] + rest
        names.append(before + data["names"]["ending"])
    return names


def make_map(n: int = 30, *, layers: tuple[MapLayer, ...] = (), names=None, atlas=None, index=None, **others):
    points = np.random.default_rng(0).standard_normal((n, 2))
    names = [f"images/{k:05}.jpg" for k in range(n)] if names is None else names
    return EmbeddingMap("Map", MapPoints(points, index), layers, atlas, names, **others)


def words_of(html: str) -> str:
    """Returns the text of HTML without that of its scripts."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<script.*?</script>", "", html, flags=re.S))


def test_places_keep_the_aspect_and_use_all_bits():
    points = np.array([[0, 0], [200, 0], [100, 50], [0, 100]], float)
    data = data_of(html_of(EmbeddingMap("Map", MapPoints(points), (), None, list("abcd"))))
    places = array(data["places"], "<u2").reshape(-1, 2)
    assert places[:2].tolist() == [[0, 16384], [65535, 16384]]
    assert places[2].tolist() == [32768, 32768]
    assert places[3, 1] - places[0, 1] == 32767


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.full((3, 2), 7.0), np.array([[1e-300, 0], [0, 1e300]])])
def test_any_finite_places_are_drawn(points):
    block = EmbeddingMap("Map", MapPoints(points), (), None, ["a"] * len(points))
    assert len(array(data_of(html_of(block))["places"], "<u2")) == 2 * len(points)


def test_layers_are_in_the_order_of_frequency():
    values = np.array([2, 2, 2, 0, 0, -1])
    layer = MapLayer("class", values, ("cat", "never", "dog"), missing="no label")
    html = html_of(make_map(6, layers=(layer,)))
    data = data_of(html)["layers"][0]
    assert (data["categories"], data["counts"]) == (["dog", "cat", "no label"], [3, 2, 1])
    assert array(data["values"], "u1").tolist() == [0, 0, 0, 1, 1, 2]
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', html) == [
        ("dog", "blue circle"), ("cat", "vermilion square"), ("no label", "green triangle")
    ]  # fmt: skip


def test_many_categories_take_two_bytes_and_are_grouped_in_words():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3000, 10_000)
    html = html_of(make_map(10_000, layers=(MapLayer("prototype", values, tuple(f"p{k}" for k in range(3000))),)))
    layer = data_of(html)["layers"][0]
    used = len(np.unique(values))
    assert layer["bytes"] == 2
    assert [layer["categories"][k] for k in array(layer["values"], "<u2")] == [f"p{k}" for k in values]
    assert f"The 24 most frequent of {used:,} categories" in words_of(html)
    assert f"{used - 1000:,} less frequent categories" in words_of(html)


def test_named_categories_differ_in_colour_and_shape_and_so_each_is_told_apart():
    words = [style_words(rank, 100) for rank in range(NAMED_CATEGORIES)]
    assert len({*words}) == NAMED_CATEGORIES
    first = [word.rsplit(" ", 1) for word in words[:8]]
    assert len({colour for colour, _ in first}) == len({shape for _, shape in first}) == 8
    assert style_words(NAMED_CATEGORIES, 100) == style_words(99, 100)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a", "ab", "", "ab\U0001f600x", "ab\U0001f600y", "é" * 300, "é" * 300 + "b"],
        ["x/1.jpg", "x/2.jpg"],
        ["same", "same"],
        ["one"],
    ],
)
def test_names_come_back_as_they_were(names):
    data = data_of(html_of(make_map(len(names), names=names)))
    assert names_of(data) == names
    assert data["names"]["positions"] is None


def test_paths_take_a_few_bytes_each():
    names = [f"photographs/train/n{k // 1000:08}/ILSVRC2012_{k:08}.JPEG" for k in range(20_000)]
    html = html_of(make_map(20_000, names=names))
    assert names_of(data_of(html)) == names
    assert len(html) / 20_000 < 20


def test_names_that_do_not_fit_are_kept_for_those_with_a_picture(monkeypatch):
    monkeypatch.setattr("infomax.reporting.pages.embedding_map.NAME_BUDGET", 2000)
    names = [f"{k * 7919 % 1000:03}-{'x' * 40}-{k}" for k in range(500)]
    atlas = pack_atlas(Image.new("L", (4, 4)) for _ in range(20))
    index = np.full(500, -1)
    index[np.arange(20) * 25] = np.arange(20)
    html = html_of(make_map(500, names=names, atlas=atlas, index=index))
    data = data_of(html)
    assert array(data["names"]["positions"], "<u4").tolist() == list(range(0, 500, 25))
    assert names_of(data) == names[::25]
    assert "The names of 20 of the 500 images are in this page; the others have their number" in words_of(html)
    html = html_of(make_map(500, names=names))  # without pictures: names that are spread over the map
    kept = array(data_of(html)["names"]["positions"], "<u4")
    assert 5 < len(kept) < 100
    assert names_of(data_of(html)) == [names[k] for k in kept]


def test_pictures_are_those_of_their_images():
    index = np.full(30, -1)
    index[[4, 9, 20]] = [2, 0, 1]
    html = html_of(make_map(atlas=pack_atlas(Image.new("L", (4, 4)) for _ in range(3)), index=index))
    data = data_of(html)
    assert dict(zip(array(data["pictured"], "<u4").tolist(), array(data["tiles"], "<u2").tolist(), strict=True)) == {
        9: 0, 20: 1, 4: 2
    }  # fmt: skip
    assert "3 of the 30 images have a picture in this page; for the others that of the nearest" in words_of(html)
    assert html.count("data-map-sheet") == 1
    in_order = data_of(html_of(make_map(3, atlas=pack_atlas(Image.new("L", (4, 4)) for _ in range(3)))))
    assert array(in_order["tiles"], "<u2").tolist() == [0, 1, 2]


def test_more_points_than_a_map_takes_are_drawn_at_random_and_counted(monkeypatch):
    monkeypatch.setattr("infomax.reporting.pages.embedding_map.MAX_POINTS", 100)
    values = np.arange(1000) % 2
    index = np.full(1000, -1)
    index[[3, 998]] = [1, 0]
    atlas = pack_atlas(Image.new("L", (4, 4)) for _ in range(2))
    html = html_of(make_map(1000, layers=(MapLayer("parity", values, ("even", "odd")),), atlas=atlas, index=index))
    data = data_of(html)
    rows = array(data["numbers"], "<u4")
    assert len(rows) == 100
    assert {3, 998} <= {*rows.tolist()}
    assert 300 < rows.mean() < 700
    names = data["layers"][0]["categories"]
    assert [names[k] for k in array(data["layers"][0]["values"], "u1")] == [("even", "odd")[k % 2] for k in rows]
    assert rows[array(data["pictured"], "<u4")].tolist() == [998, 3]
    assert names_of(data) == [f"images/{k:05}.jpg" for k in rows]
    assert "100 of 1,000 images are on the map, drawn at random" in words_of(html)


def test_two_hundred_thousand_images_stay_below_four_megabytes_without_pictures():
    rng = np.random.default_rng(0)
    n = MAX_POINTS
    layers = tuple(
        MapLayer(name, rng.integers(0, k, n), tuple(f"{name} {j}" for j in range(k)))
        for name, k in (("class", 100), ("cluster", 1000))
    )
    names = [f"images/train/{k // 500:04}/{rng.integers(10**9):09}.jpg" for k in range(n)]
    html = html_of(make_map(n, layers=layers, names=names))
    assert len(html) < 4_000_000
    assert len(json.dumps(data_of(html)["names"])) < 1.1 * NAME_BUDGET


class Elements(HTMLParser):
    """Collects elements and their attributes, as a browser sees them."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.scripts += tag == "script"

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("exploit", EXPLOITS)
def test_names_and_categories_cannot_act(exploit):
    layer = MapLayer(exploit, np.zeros(2, int), (exploit,), missing=exploit)
    block = EmbeddingMap(exploit, MapPoints(np.eye(2)), (layer,), None, [exploit, exploit + "x"], exploit)
    text = "x" * len(exploit)  # a column of a table is wide if its texts are long
    harmless = EmbeddingMap(
        text, MapPoints(np.eye(2)), (MapLayer(text, np.zeros(2, int), (text,)),), None, [text, text + "x"], text
    )
    seen, expected = Elements(), Elements()
    seen.feed(html_of(block))
    expected.feed(html_of(harmless))
    assert seen.tags == expected.tags
    assert seen.attributes == expected.attributes
    assert seen.scripts == 1
    assert not {"style", "onerror", "onclick"} & {*seen.attributes}
    for character in "\u202e\u2028\x1b":
        assert character not in html_of(block)
    data = data_of(html_of(block))
    assert data["layers"][0]["categories"][0] == names_of(data)[0]
    if exploit.isprintable():
        assert names_of(data)[0] == exploit


def test_without_scripts_there_are_a_picture_and_tables():
    values = np.arange(30) % 3
    html = html_of(
        make_map(layers=(MapLayer("class", values, ("a", "b", "c")), MapLayer("cluster", values, tuple("xyz"))))
    )
    assert html.count("<details>") == 2
    picture = Image.open(BytesIO(base64.b64decode(re.search(r'src="data:image/png;base64,([^"]*)"', html)[1])))
    colours = picture.convert("RGBA").getcolors()
    assert {colour[:3] for _, colour in colours if colour[3]} == {(0, 114, 178), (213, 94, 0), (0, 158, 115)}
    assert next(colour for count, colour in colours if count == max(colours)[0])[3] == 0
    assert 'alt="A map of 30 images as points, coloured by class; the table below counts them."' in html


def test_the_same_map_has_the_same_bytes():
    layer = MapLayer("class", np.arange(30) % 3, ("a", "b", "c"))
    assert html_of(make_map(layers=(layer,))) == html_of(make_map(layers=(layer,)))


def test_no_images_are_a_sentence():
    block = EmbeddingMap("Map", MapPoints(np.zeros((0, 2))), (), None, [])
    assert html_of(block) == "<p>Map: there are no images.</p>"


def test_a_page_with_a_map_has_its_files():
    page = Page(
        "Page", sections=(Section("Map", blocks=(make_map(layers=(MapLayer("l", np.zeros(30, int), ("a",)),)),)),)
    )
    html = page.html()
    CheckedPage(html)
    assert ".map-box" in html
    assert "class WebGlLayer" in html
    assert 'id="map-1"' in html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": MapPoints(np.zeros((3, 3)))}, r"points must be finite numbers of shape \[n, 2\]"),
        ({"points": MapPoints(np.full((3, 2), np.nan))}, "points must be finite"),
        ({"names": ["a"]}, "names must be as many as points, 3, but are 1"),
        ({"layers": (MapLayer("class", np.zeros(2, int), ("a",)),)}, "values of layer 'class' must be 3 integers"),
        ({"layers": (MapLayer("class", np.zeros(3), ("a",)),)}, "values of layer 'class' must be 3 integers"),
        ({"layers": (MapLayer("class", np.full(3, 1), ("a",)),)}, "must be from -1 to 0, but are from 1 to 1"),
        ({"points": MapPoints(np.zeros((3, 2)), np.zeros(2, int))}, "atlas_index must be 3 numbers from -1 to 0"),
        ({"points": MapPoints(np.zeros((3, 2)), np.array([0, 0, -1]))}, "atlas_index must give each tile to one point"),
        ({"points": MapPoints(np.zeros((3, 2)), np.array([0, 1, -1]))}, "atlas_index must be 3 numbers from -1 to 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    atlas = pack_atlas([Image.new("L", (4, 4))])
    fields = {"title": "Map", "points": MapPoints(np.zeros((3, 2))), "layers": (), "atlas": atlas, "names": list("abc")}
    with pytest.raises(ValueError, match=message):
        EmbeddingMap(**{**fields, **change})
