"""Pages as files: valid, closed by their policy, in colours that can be read, whatever names stand on them."""

import json
import re

import pytest

from html_pages import EXPLOITS, CheckedPage, picture, sample_page
from infomax.reporting.pages.blocks import Commands, Notice, Paragraph
from infomax.reporting.pages.gallery import Gallery, Thumbnail, make_thumbnail
from infomax.reporting.pages.page import Page, Refresh, Section, asset, json_block, safe
from infomax.runtime.text import escape

ASSETS = ("page.css", "page.js", "tables.js", "gallery.css", "gallery.js", "charts.css", "charts.js")


def test_a_page_with_every_block_is_valid_and_asks_for_nothing():
    html = sample_page().html()
    page = CheckedPage(html)
    assert "http" not in re.sub("http-equiv", "", html)
    assert page.connects is None
    text = " ".join("".join(page.text).split())
    for words in ("It learned", "class/3.png", "runs/b", "A red picture", "infomax pretrain --data images"):
        assert words in text or any(attributes.get("alt") == words for _, attributes in page.elements), words
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links == ["#content", *[f"#section-{i}" for i in range(1, 5)] * 2]


@pytest.mark.parametrize("exploit", EXPLOITS, ids=ascii)
def test_no_text_of_any_block_acts(exploit):
    html = sample_page(exploit).html()
    page = CheckedPage(html)
    assert page.shape() == CheckedPage(sample_page("x" * len(exploit)).html()).shape()
    assert not re.search("[\u2028\u2029\u202e\u2066\u200f\x00\x1b\x85]", html)
    html.encode()
    shown = escape(exploit)
    assert page.text.count(shown) > 60 or "".join(page.text).count(shown) > 60
    names = [curve["name"] for data in page.data for curve in data["curves"]]
    assert set(names) == {shown}
    assert not re.search("[<>&]", "".join(re.findall(r'application/json" id=[^>]*>([^<]*)<', html)))


def test_an_empty_page_and_one_without_contents_are_valid():
    assert CheckedPage(Page("Nothing").html()).ids == ["content"]
    one = CheckedPage(Page("One", ("A line.",), (Section("The only one", blocks=(Paragraph("Here."),)),)).html())
    assert not [tag for tag, _ in one.elements if tag == "nav"]
    with pytest.raises(ValueError, match="a section of a page needs a heading"):
        Section(" ")


def test_only_a_page_of_a_server_may_ask_for_something_of_that_server():
    page = CheckedPage(Page("Live", refresh=Refresh(2.5, "/page")).html())
    assert page.connects == ["'self'"]
    (main,) = [attributes for tag, attributes in page.elements if tag == "main"]
    assert (main["data-refresh"], main["data-address"]) == ("2.5", "/page")


def test_a_page_ships_only_what_its_blocks_need():
    thumbnail = Thumbnail(make_thumbnail(picture()), "a.png")
    plain = Page("Plain", sections=(Section("A", blocks=(Notice("info", "B"), Commands("c"))),)).html()
    shown = Page("Gallery", sections=(Section("A", blocks=(Gallery((thumbnail,)), Gallery((thumbnail,)))),)).html()
    assert "Viewer" not in plain
    assert shown.count("class Viewer") == 1
    assert len(plain) < 30_000


def test_data_for_scripts_is_only_data():
    block = json_block("data-1", {"</script>": ["\u2028<!--&", float("nan"), 1.5, None, True, (1, 2)]})
    text = re.fullmatch(r'<script type="application/json" id="data-1">(.*)</script>', block).group(1)
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"</script>": ["\\u2028<!--&", None, 1.5, None, True, [1, 2]]}
    assert safe('<a href="x">\u202e') == "&lt;a href=&quot;x&quot;&gt;\\u202e"


@pytest.mark.parametrize("name", ASSETS)
def test_assets_are_plain_text_that_neither_loads_nor_runs_anything_else(name):
    text = asset(name)
    assert "\r" not in text
    acting = r"</|<!--|http|@import|url\(|fetch\(|eval|innerHTML|insertAdjacentHTML|document\.write|new Function"
    assert not re.search(acting, text)
    assert not name.endswith(".js") or text.startswith('"use strict";\n')


def blocks_of_colours():
    """Returns the colours of the light scheme, of a dark screen, and of the dark choice, by their names."""
    css = asset("page.css")
    blocks = re.findall(r"\{([^{}]*--back:[^{}]*)\}", css)
    assert len(blocks) == 3
    return [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", block)) for block in blocks]


def contrast(first: str, second: str) -> float:
    """Returns the contrast of two colours by the definition of WCAG 2, from 1 to 21."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_defines_it():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_both_ways_to_the_dark_scheme_are_the_same():
    light, screen, choice = blocks_of_colours()
    assert screen == choice
    assert set(light) == set(screen)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_curves_stand_out(scheme):
    colours = blocks_of_colours()[scheme]
    texts = [("text", ground) for ground in ("back", "card", "code", *(f"shade-{i}" for i in range(9)))]
    texts += [(name, ground) for name in ("soft", "accent") for ground in ("back", "card", "code")]
    texts += [("back", "accent")]
    drawn = [(f"run-{i}", "card") for i in range(8)]
    drawn += [(kind, "card") for kind in ("good", "info", "warning", "failed")]
    drawn += [("focus", ground) for ground in ("back", "card", "code")]
    for pairs, least in ((texts, 4.5), (drawn, 3.0)):
        weak = {pair: round(contrast(*(colours[x] for x in pair)), 2) for pair in pairs}
        assert {pair: value for pair, value in weak.items() if value < least} == {}


def test_every_colour_that_is_used_is_defined():
    used = {name for asset_name in ASSETS for name in re.findall(r"var\(--([a-z0-9-]+)\)", asset(asset_name))}
    assert used - set(blocks_of_colours()[0]) == {"kind"}  # which each kind of notice sets
