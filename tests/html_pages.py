"""Checks pages as a strict reader of HTML would, and makes a page that has every kind of block."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

from PIL import Image

from infomax.reporting.pages.blocks import Commands, Facts, Notice, Paragraph, Picture, Pictures, TableBlock
from infomax.reporting.pages.charts import BarChart, Curve, LineChart, Matrix
from infomax.reporting.pages.gallery import Gallery, RankedRows, Thumbnail, make_thumbnail
from infomax.reporting.pages.page import Page, Section
from infomax.reporting.tables import Cell, make_table

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
REFERENCES = ("aria-labelledby", "aria-describedby", "aria-controls", "for")
EXPLOITS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</script><script>alert(1)</script>",
    "<!--<script>alert(1)",
    "</style></title></textarea><svg onload=alert(1)>",
    "]]><svg/onload=alert(1)>",
    "a\u2028alert(1)\u2029b",
    "\u202egnp.exe\u2066\u200f",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "\x00\x1b[31m\ud800\x85",
]
"""Names that would do something on a careless page."""
PADDED_EXPLOITS = [exploit + "x" * (60 - len(exploit)) for exploit in EXPLOITS]
"""Exploits of one length, by which the layout of a page may differ."""
PLAIN = "x" * 60
"""A name of this length that does nothing."""


class CheckedPage(HTMLParser):
    """A page that was read strictly: each element is ended, each id is there once, each reference leads somewhere.

    It may hold nothing that its policy forbids: no style and no script beside those that the policy names, no
    attributes ``style`` and ``on...``, no picture and no link that is not within the file.

    Args:
        html: The page.
    """

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.data: list[object] = []
        """What the blocks of JSON hold."""
        self.hashes: dict[str, list[str]] = {"style": [], "script": []}
        self._raw = ""
        assert html.startswith("<!DOCTYPE html>\n")
        self.feed(html)
        self.close()
        assert self.open == [], "elements that are not ended"
        self._check_references()
        self._check_headings()
        self._check_policy()

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice: {names}"
        attributes = dict(attrs)
        assert not [name for name in names if name == "style" or name.startswith("on")], (tag, names)
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or re.match(r"#|data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", value), (
                tag,
                name,
                value,
            )
        if tag == "img":
            assert "alt" in attributes
        if tag == "li":
            assert self.open[-1] in ("ul", "ol"), self.open
        if tag in ("p", "h1", "h2", "h3", "ul", "ol", "div", "figure", "table"):
            assert not {"p", "h1", "h2", "h3", "button", "span"} & set(self.open), (self.open, tag)
        if name := attributes.get("id"):
            self.ids.append(name)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        self._raw = ""

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"<{tag}/> is only allowed in SVG"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag, f"</{tag}> ends another element"
        if tag in self.hashes:
            kind = self.elements[-1][1].get("type")
            if kind == "application/json":
                self.data.append(json.loads(self._raw))
            else:
                assert kind is None
                digest = hashlib.sha256(self._raw.encode()).digest()
                self.hashes[tag].append(f"'sha256-{base64.b64encode(digest).decode()}'")
        self._raw = ""

    def handle_data(self, data):
        self._raw += data
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data}")

    def _check_references(self):
        assert len(set(self.ids)) == len(self.ids), sorted(self.ids)
        for tag, attributes in self.elements:
            for name in REFERENCES:
                for other in (attributes.get(name) or "").split():
                    assert other in self.ids, (tag, name, other)
            if (href := attributes.get("href") or "").startswith("#"):
                assert href[1:] in self.ids, (tag, href)

    def _check_headings(self):
        levels = [int(tag[1]) for tag, _ in self.elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels)), levels
        tags = [tag for tag, _ in self.elements]
        assert tags.count("main") == tags.count("title") == 1
        assert all(attributes.get("aria-label") for tag, attributes in self.elements if tag == "nav")

    def _check_policy(self):
        (policy,) = [a["content"] for tag, a in self.elements if tag == "meta" and "http-equiv" in a]
        rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
        assert rules.pop("style-src") == self.hashes["style"]
        assert rules.pop("script-src") == self.hashes["script"]
        assert len(self.hashes["style"]) == 1
        self.connects = rules.pop("connect-src", None)
        none = ["'none'"]
        assert rules == {"default-src": none, "img-src": ["data:"], "base-uri": none, "form-action": none}

    def shape(self) -> list[tuple]:
        """Returns all that is on the page but its texts: elements, and attributes that hold no text."""
        words = ("alt", "aria-label")
        return [(tag, {k: v for k, v in attributes.items() if k not in words}) for tag, attributes in self.elements]


def picture(colour="red", size=(40, 30)) -> Image.Image:
    """Returns an image of one colour."""
    return Image.new("RGB", size, colour)


def png(image: Image.Image) -> bytes:
    """Returns an image as the content of a PNG file."""
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def sample_page(text: str = "", count: int = 5) -> Page:
    """Returns a page with every kind of block.

    Args:
        text: Stands in every field that holds a text, instead of the words there.
        count: Number of thumbnails of each list.
    """

    def say(words: str) -> str:
        return text or words

    colours = ("red", "green", "blue", "orange", "purple")
    thumbnails = tuple(
        Thumbnail(
            make_thumbnail(picture(colours[i % 5], (60 + 20 * i, 60))),
            say(f"class/{i}.png"),
            (say(f"cosine 0.{9 - i % 9}"), say("label")),
            say("keep") if i == 0 else "",
        )
        for i in range(count)
    )
    steps = tuple(range(0, 1000, 50))
    falling = tuple(5.0 / (1 + step / 100) for step in steps)
    curves = (
        Curve(say("runs/a"), steps, falling, 0),
        Curve(say("runs/b"), steps, (None, *(1.1 * y for y in falling[1:9]), float("nan"), *falling[10:]), 1),
        Curve(
            say("runs/c"),
            steps[:10],
            falling[10:],
            2,
            tuple(y / 2 for y in falling[10:]),
            tuple(2 * y for y in falling[10:]),
        ),
    )
    rows = [[say(f"row {i}"), Cell(say(f"{0.1 * i:.1f}"), 0.1 * i), say("words")] for i in (2, 0, 1)]
    table = make_table(
        [say("name"), say("k-NN"), say("note")],
        [*rows, [say("last"), say("-"), ""]],
        title=say("A table"),
        notes=[say("A note.")],
    )
    names = (say("cat"), say("dog"))
    return Page(
        say("A page"),
        (say("What it shows."),),
        (
            Section(
                say("Verdict"),
                say("What is known."),
                (
                    Notice("good", say("It learned"), say("0.9 against 0.5"), say("Go on")),
                    *(Notice(kind, say("A notice"), say("Evidence")) for kind in ("info", "warning", "failed")),
                    Paragraph(say("A paragraph.")),
                ),
            ),
            Section(
                say("Curves"),
                "",
                (
                    LineChart(say("Loss"), say("step"), say("loss"), curves, caption=say("Of three runs.")),
                    LineChart(say("Loss, logarithmic"), say("step"), say("loss"), curves[:1], log_y=True),
                    BarChart(
                        say("Images"), say("class"), say("images"), ((say("cat"), 3.0), (say("dog"), 5.0)), say("Few.")
                    ),
                    BarChart(
                        say("Many"),
                        say("prototype"),
                        say("images"),
                        tuple((say(f"{i}"), float(i % 7)) for i in range(300)),
                        say("Bars."),
                    ),
                    Matrix(say("Confusion"), names, names, ((5, 1), (2, 9)), say("True by row.")),
                ),
            ),
            Section(
                say("Images"),
                say("Some."),
                (Gallery(thumbnails, say("All of them.")), RankedRows(((thumbnails[0], thumbnails[1:]),))),
            ),
            Section(
                say("Numbers"),
                "",
                (
                    TableBlock(table),
                    Facts(((say("torch"), say("2.11")), (say("seed"), say("0"))), code=True),
                    Facts(((say("cores"), say("2")),)),
                    Commands(say("infomax pretrain --data images\n  --out runs/a"), say("How it was made")),
                    Pictures((Picture(png(picture()), "png", 40, 30, say("A red picture"), say("Red.")),)),
                ),
            ),
        ),
        say("Made by infomax."),
    )
