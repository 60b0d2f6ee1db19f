"""Blocks: what stands on a page for a table, a notice, commands and images."""

import base64
from io import BytesIO

import pytest
from PIL import Image

from html_pages import CheckedPage, picture, png
from infomax.reporting.pages.blocks import Commands, Facts, Notice, Picture, Pictures, TableBlock
from infomax.reporting.pages.gallery import SIDE, Gallery, RankedRows, Thumbnail, make_thumbnail
from infomax.reporting.pages.page import Ids, Page, Section
from infomax.reporting.tables import Cell, make_table


def html_of(*blocks):
    html = Page("Page", sections=(Section("Section", blocks=blocks),)).html()
    CheckedPage(html)
    return html


def test_ids_are_new_each_time():
    ids = Ids()
    assert [ids.new("chart"), ids.new("chart"), ids.new("table")] == ["chart-1", "chart-2", "table-1"]


def test_a_table_gives_scripts_the_numbers_behind_its_cells():
    rows = [
        ["a", Cell("93.1 to 94", 93.5), "1,200", "x1"],
        ["b", "-", "80 %", "2"],
        ["c", Cell("?", float("nan")), "", ""],
    ]
    html = html_of(TableBlock(make_table(["row", "accuracy", "images", "text"], rows, title="T\nmore", notes=["Note"])))
    assert '<td class="number" data-value="93.5">93.1 to 94</td>' in html
    assert '<td class="number">-</td>' in html
    assert '<td class="number">?</td>' in html
    assert '<td class="number" data-value="1200.0">1,200</td>' in html
    assert '<td class="number">80 %</td>' in html
    assert '<td class="number" data-value="2.0">2</td>' in html
    assert '<th scope="row">a</th>' in html
    assert "<p>more</p>" in html
    assert '<p class="caption">Note</p>' in html
    assert html_of(TableBlock(make_table(["a"], []))).count("<tr>") == 1
    assert "<tr>\n<td></td>\n<th " in html_of(TableBlock(make_table(["", "b"], [])))


def test_notices_say_their_kind_by_words_and_shapes():
    shapes = {"good": "circle", "info": "rect", "warning": "path", "failed": "path"}
    words = {"good": "Good", "info": "Note", "warning": "Warning", "failed": "Failed"}
    icons = set()
    for kind, shape in shapes.items():
        html = html_of(Notice(kind, "Heading", "Evidence", "Advice"))
        icon = html.split('aria-hidden="true">')[1].split("</svg>")[0]
        assert icon.startswith(f"<{shape}")
        icons.add(icon)
        assert f'<span class="unseen">{words[kind]}: </span>Heading</h3>' in html
    assert len(icons) == 4


def test_commands_keep_their_lines():
    html = html_of(Commands("infomax pretrain \\\n\t--data 'a & b'\n", "How"))
    assert "<code>infomax pretrain \\\n    --data &#x27;a &amp; b&#x27;</code>" in html
    assert "<dd><code>2.11</code></dd>" in html_of(Facts((("torch", "2.11"),), code=True))
    assert "<dd>2.11</dd>" in html_of(Facts((("torch", "2.11"),)))


def test_pictures_are_within_the_page():
    content = png(picture("green"))
    html = html_of(Pictures((Picture(content, "png", 40, 30, "Green"),)))
    assert (
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}" width="40" height="30" alt="Green"' in html
    )
    with pytest.raises(ValueError, match="a picture of a page is a png or a jpeg, not svg\\+xml"):
        Picture(b"<svg/>", "svg+xml", 1, 1, "")


def test_thumbnails_are_small_jpegs_of_any_image():
    for mode, size in (("RGBA", (1000, 10)), ("P", (8, 9)), ("L", (300, 200))):
        opened = Image.open(BytesIO(make_thumbnail(Image.new(mode, size))))
        assert (opened.format, opened.mode) == ("JPEG", "RGB")
        assert max(opened.size) == min(SIDE, max(size))


def test_neighbours_stand_in_their_order_behind_the_image():
    thumbnails = [Thumbnail(make_thumbnail(picture()), f"{i}.png", mark="query" if i == 0 else "") for i in range(4)]
    html = html_of(RankedRows(((thumbnails[0], tuple(thumbnails[1:])),)))
    places = [html.index(f">{i}.png<") for i in range(4)]
    assert places == sorted(places)
    assert html.index('<ol class="ranked-others">') > places[0]
    assert '<span class="mark">query</span>' in html


def test_a_mistake_looks_otherwise_than_an_image_that_is_chosen():
    jpeg = make_thumbnail(picture())
    html = html_of(Gallery((Thumbnail(jpeg, "a", mark="keep"), Thumbnail(jpeg, "b", mark="other", is_mistake=True))))
    assert html.index('class="thumbnail marked"') < html.index(">a<") < html.index('class="thumbnail marked mistaken"')
