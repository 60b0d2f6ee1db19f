"""The map answers to mouse, fingers and keys in a real browser, with WebGL and without."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from infomax.reporting.pages.atlas import pack_atlas
from infomax.reporting.pages.embedding_map import EmbeddingMap, MapLayer, MapPoints
from infomax.reporting.pages.page import Page, Section

pytestmark = pytest.mark.browser
CROSS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [0.6, 0.2]], float)
NAMES = ["middle.png", "right.png", "left.png", "up.png", "down.png", "shoe.png"]
COLOURS = [(200, 30, 30), (30, 200, 30)]
NO_WEB_GL = """const open = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.startsWith("webgl") ? null : open.call(this, kind, ...rest);
};"""


def page_of(block: EmbeddingMap) -> str:
    return Page("Map", sections=(Section("Map", blocks=(block,)), Section("After"))).html()


def cross() -> str:
    """Returns a page with six points, of which the first two have a picture."""
    layers = (
        MapLayer("class", np.array([0, 0, 0, 0, 1, 1]), ("many", "few")),
        MapLayer("split", np.array([0, 1, 1, 1, 1, 1]), ("train", "test")),
    )
    atlas = pack_atlas(Image.new("RGB", (32, 32), colour) for colour in COLOURS)
    index = np.array([0, 1, -1, -1, -1, -1])
    return page_of(EmbeddingMap("Six", MapPoints(CROSS, index), layers, atlas, NAMES, "By hand."))


class OpenedMap:
    """A map in the browser, and where its points are in the window."""

    def __init__(self, opened):
        self.opened, self.page = opened, opened.page
        self.page.wait_for_selector("figure[data-map-state=ready]")
        self.box = self.page.locator("[data-map-box]")
        self.box.scroll_into_view_if_needed()
        self.page.wait_for_timeout(350)  # scrolling is over: the wheel zooms

    def ask(self, words: str, *arguments):
        start = "k => { const map = document.querySelector('[data-map]').embeddingMap;"
        return self.page.evaluate(f"{start} {words} }}", *arguments)

    def place(self, point: int) -> tuple[float, float]:
        return self.ask(
            "map.box.scrollIntoView({ block: 'center', behavior: 'instant' });"
            "const b = map.box.getBoundingClientRect(), [x, y] = map.screenOf(k);"
            "return [b.left + map.box.clientLeft + x, b.top + map.box.clientTop + y]",
            point,
        )

    def card(self) -> str | None:
        card = self.page.locator("[data-map-card]")
        return "\n".join(filter(None, card.inner_text().splitlines())) if card.is_visible() else None

    def zoom(self) -> float:
        return self.ask("return map.view.zoom")

    def pixel(self, point: int) -> tuple[int, ...]:
        """Returns the colour on the screen at a point."""
        x, y = self.place(point)
        shot = self.page.screenshot(clip={"x": x - 2, "y": y - 2, "width": 5, "height": 5})
        return Image.open(BytesIO(shot)).convert("RGB").getpixel((2, 2))

    def assert_quiet(self) -> None:
        """Asserts that the page said nothing and asked for nothing; WebGL in software tells how slow it is."""
        self.opened.messages = [words for words in self.opened.messages if "GL Driver Message" not in words]
        self.opened.assert_quiet()

    def settle(self) -> None:
        self.page.wait_for_timeout(400)


@pytest.fixture
def open_map(open_page):
    return lambda html, **options: OpenedMap(open_page(html, **options))


def near(colour, hexadecimal: str) -> bool:
    wanted = [int(hexadecimal[at : at + 2], 16) for at in (1, 3, 5)]
    return max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 40


def test_hovering_shows_picture_name_and_categories(open_map):
    opened = open_map(cross())
    assert opened.card() is None
    opened.page.mouse.move(*opened.place(1))
    assert opened.card().splitlines() == ["right.png", "class: many", "split: test"]
    colour = opened.page.evaluate(
        "[...document.querySelector('[data-map-card] canvas').getContext('2d').getImageData(48, 48, 1, 1).data]"
    )
    assert np.abs(np.array(colour[:3]) - COLOURS[1]).max() < 20
    opened.page.mouse.move(*opened.place(5))
    assert "picture of the nearest image that has one, right.png" in opened.card()
    x, y = opened.place(0)
    opened.page.mouse.move(x + 40, y + 40)
    assert opened.card() is None
    opened.assert_quiet()


@pytest.mark.parametrize(("scheme", "colours"), [("light", ("#0072b2", "#c95700")), ("dark", ("#4a9bdb", "#f07c2e"))])
def test_points_have_the_colours_of_the_scheme(open_map, scheme, colours):
    opened = open_map(cross(), scheme=scheme)
    assert opened.page.locator("[data-map-drawn=webgl]").count() == 1
    assert near(opened.pixel(3), colours[0])
    assert near(opened.pixel(4), colours[1])
    opened.page.get_by_label("Colour by").select_option("split")
    opened.settle()
    assert near(opened.pixel(0), colours[1])
    other = "Dark" if scheme == "light" else "Light"
    opened.page.get_by_role("radio", name=other).click()
    opened.settle()
    assert near(opened.pixel(3), {"light": "#0072b2", "dark": "#4a9bdb"}[other.lower()])


def test_all_by_keyboard(open_map):
    opened = open_map(cross())
    keys = opened.page.keyboard
    opened.page.get_by_role("button", name="Whole map").focus()
    keys.press("Tab")
    assert opened.page.evaluate("document.activeElement.hasAttribute('data-map-box')")
    keys.press("ArrowRight")
    assert opened.card().startswith("middle.png")  # the point in the middle comes first
    for key, name in (("ArrowUp", "up"), ("ArrowDown", "middle"), ("ArrowDown", "down"), ("ArrowUp", "middle"),
                      ("ArrowLeft", "left"), ("ArrowLeft", "left"), ("ArrowRight", "middle")):  # fmt: skip
        keys.press(key)
        assert opened.card().startswith(f"{name}.png")
    opened.page.mouse.click(*opened.place(1))
    keys.press("ArrowUp")
    assert opened.card().startswith("up.png")  # the nearest one, shoe.png, is more to the left than up
    keys.press("ArrowDown")
    assert "middle.png, class: many, split: train" in opened.page.locator("[data-map-status]").inner_text()
    keys.press("Enter")
    keys.press("ArrowUp")
    keys.press("Enter")
    pins = opened.page.locator("[data-map-pins] li")
    assert [text.splitlines()[0] for text in pins.all_inner_texts()] == ["1. middle.png", "2. up.png"]
    keys.press("Delete")
    assert pins.count() == 1
    opened.page.get_by_role("button", name="1. middle.png").focus()
    keys.press("Delete")
    assert not opened.page.locator("[data-map-pins]").is_visible()
    opened.box.focus()
    keys.press("+")
    opened.settle()
    assert opened.zoom() == pytest.approx(2)
    keys.press("0")
    opened.settle()
    assert opened.zoom() == pytest.approx(1)
    keys.press("Escape")
    assert opened.card() is None
    keys.press("Tab")  # the map holds nobody
    assert not opened.page.evaluate("document.activeElement.hasAttribute('data-map-box')")
    opened.assert_quiet()


def test_wheel_buttons_and_dragging(open_map):
    opened = open_map(cross())
    x, y = opened.place(3)
    opened.page.mouse.move(x, y)
    opened.settle()  # the wheel zooms when scrolling is over
    opened.page.mouse.wheel(0, -400)
    opened.settle()
    assert opened.zoom() == pytest.approx(np.exp(0.8))
    assert np.allclose(opened.place(3), (x, y), atol=1)  # what is under the mouse stays there
    opened.page.mouse.down()
    opened.page.mouse.move(x + 30, y + 20, steps=4)
    opened.page.mouse.up()
    assert np.allclose(opened.place(3), (x + 30, y + 20), atol=6)
    opened.page.get_by_role("button", name="Zoom out").click()
    opened.settle()
    assert opened.zoom() == pytest.approx(np.exp(0.8) / 2)
    opened.page.get_by_role("button", name="Whole map").click()
    opened.settle()
    assert opened.zoom() == 1
    opened.page.mouse.move(x, y)
    opened.page.mouse.wheel(0, 200)  # nothing to zoom out of: the page scrolls
    opened.settle()
    assert opened.zoom() == 1


def test_the_page_scrolls_on_over_the_map(open_page):
    """Who scrolls up through the page does not get stuck in the map, which would zoom in."""
    opened = open_page(page_of(EmbeddingMap("Six", MapPoints(CROSS), (), None, NAMES, "word " * 4000)), height=600)
    opened.page.wait_for_selector("figure[data-map-state=ready]")
    opened.page.evaluate("scrollTo({ top: 1e6, behavior: 'instant' })")
    before = opened.page.evaluate("scrollY")
    box = opened.page.locator("[data-map-box]").bounding_box()
    opened.page.mouse.move(640, min(590, box["y"] + box["height"] + 20))  # below the map
    for _ in range(60):
        opened.page.mouse.wheel(0, -60)
        opened.page.wait_for_timeout(20)
    assert opened.page.evaluate("document.querySelector('[data-map]').embeddingMap.view.zoom") == 1
    assert opened.page.evaluate("scrollY") < before - 600


def test_fingers_tap_pinch_and_move(open_map):
    opened = open_map(cross(), width=360, height=740, touch=True)
    assert opened.opened.sideways() == 0
    x, y = opened.place(4)
    opened.page.touchscreen.tap(x + 12, y - 12)
    assert opened.card().startswith("down.png")
    opened.page.get_by_role("button", name="Pin", exact=True).tap()
    assert opened.page.locator("[data-map-pins] li").count() == 1
    x, y = opened.place(1)
    opened.page.touchscreen.tap(x - 20, y + 120)
    assert opened.card() is None
    session = opened.page.context.new_cdp_session(opened.page)
    x, y = opened.place(0)

    def touch(kind, *places):
        points = [{"x": a, "y": b, "id": k} for k, (a, b) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - 20, y), (x + 20, y))
    for k in range(1, 9):
        touch("touchMove", (x - 20 - 5 * k, y), (x + 20 + 5 * k, y))
    touch("touchEnd")
    assert opened.zoom() == pytest.approx(3, rel=0.15)
    assert np.allclose(opened.place(0), (x, y), atol=8)
    touch("touchStart", (x, y))
    for k in range(1, 9):
        touch("touchMove", (x + 5 * k, y + 3 * k))
    touch("touchEnd")
    assert np.allclose(opened.place(0), (x + 40, y + 24), atol=12)
    opened.assert_quiet()


def test_the_legend_isolates(open_map):
    opened = open_map(cross())
    legend = opened.page.locator("[data-map-legend] button:visible")
    assert [text.split("\n") for text in legend.all_inner_texts()] == [["many", "4"], ["few", "2"]]
    legend.nth(1).click()
    assert legend.nth(1).get_attribute("aria-pressed") == "true"
    assert "2 of 6 images shown" in opened.page.locator("[data-map-status]").inner_text()
    opened.page.mouse.move(*opened.place(3))
    assert opened.card() is None  # dim points do not answer
    opened.page.mouse.move(*opened.place(4))
    assert opened.card().startswith("down.png")
    opened.page.get_by_role("button", name="Show all").click()
    opened.page.mouse.move(*opened.place(3))
    assert opened.card().startswith("up.png")
    opened.page.mouse.click(*opened.place(3))
    opened.page.get_by_role("button", name="Only this split").click()
    assert opened.page.get_by_label("Colour by").input_value() == "1"
    assert "5 of 6 images shown" in opened.page.locator("[data-map-status]").inner_text()


def test_search_highlights(open_map):
    opened = open_map(cross())
    opened.page.get_by_label("Find").fill("SHO")
    opened.page.wait_for_timeout(250)
    assert "1 image with “SHO” in all names" in opened.page.locator("[data-map-status]").inner_text()
    assert opened.ask("return [...map.marks].filter((_, k) => k % 2)") == [1, 1, 1, 1, 1, 2]
    opened.page.keyboard.press("Enter")
    assert opened.card().startswith("shoe.png")
    opened.page.keyboard.press("Escape")
    assert opened.page.get_by_label("Find").input_value() == ""
    assert opened.ask("return [...map.marks].filter((_, k) => k % 2)") == [0] * 6


def test_a_slow_machine_draws_fewer_points_while_the_map_moves_and_then_all(open_map):
    opened = open_map(cross())
    slow = "map.painted = performance.now() - 200; map.movedAt = performance.now(); return map.shareNow()"
    assert opened.ask(slow) == pytest.approx(0.6)
    assert opened.ask(slow) == pytest.approx(0.36)
    opened.settle()
    assert opened.ask("return map.shareNow()") == 1
    assert near(opened.pixel(3), "#0072b2")  # all points are there again


def test_a_lost_context_is_replaced_by_a_canvas_and_comes_back(open_map):
    opened = open_map(cross())
    before = opened.pixel(3)
    opened.ask("map.loser = map.webGl.gl.getExtension('WEBGL_lose_context'); map.loser.loseContext()")
    opened.page.wait_for_selector("[data-map-drawn=canvas]")
    assert "taken WebGL's context away" in opened.page.locator("[data-map-note]").inner_text()
    opened.settle()
    assert np.abs(np.array(opened.pixel(3)) - before).max() < 40
    opened.page.mouse.move(*opened.place(1))
    assert opened.card().startswith("right.png")
    opened.page.mouse.move(5, 5)
    opened.ask("map.loser.restoreContext()")
    opened.page.wait_for_selector("[data-map-drawn=webgl]")
    assert not opened.page.locator("[data-map-note]").is_visible()
    opened.settle()
    assert np.abs(np.array(opened.pixel(3)) - before).max() < 40


def test_without_web_gl_some_points_are_drawn_and_all_are_found(open_page):
    n = 21_000
    places = np.random.default_rng(0).random((n, 2))
    layers = (MapLayer("class", np.arange(n) % 40, tuple(f"c{k}" for k in range(40))),)
    opened = open_page(page_of(EmbeddingMap("Many", MapPoints(places), layers, None, [f"{k}.png" for k in range(n)])))
    opened.page.add_init_script(NO_WEB_GL)
    opened.page.reload()
    opened_map = OpenedMap(opened)
    note = opened.page.locator("[data-map-note]").inner_text()
    assert "This browser has no WebGL, so 20,000 of 21,000 points are drawn, from all parts of the map" in note
    assert opened_map.ask("return map.plain.points.length") == 20_000
    opened.page.get_by_label("Find").fill("20999.png")
    opened.page.wait_for_timeout(300)
    assert opened_map.ask("return map.plain.points.includes(20999)")  # what is searched is drawn first
    opened.page.mouse.move(*opened_map.place(20_999))
    assert opened_map.card().startswith("20999.png")
    assert "other: 16 less frequent" in opened.page.locator("[data-map-legend]").inner_text()


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{7*7}}${1}"])
def test_names_and_categories_are_text(open_map, name):
    layers = (MapLayer(name, np.zeros(3, int), (name,)), MapLayer("l", np.zeros(3, int), ("c",)))
    html = page_of(EmbeddingMap(name, MapPoints(CROSS[:3]), layers, None, [name, name + "2", "c"], name))
    opened = open_map(html)
    opened.page.mouse.click(*opened.place(0))
    assert opened.card().splitlines()[:2] == [name, f"{name}: {name}"]
    opened.page.get_by_role("button", name="Pin", exact=True).click()
    assert name in opened.page.locator("[data-map-pins]").inner_text()
    assert name in opened.page.locator("[data-map-legend]").inner_text()
    opened.assert_quiet()


def test_without_scripts_the_picture_stands(open_page):
    opened = open_page(cross(), scripts=False)
    assert opened.page.locator("[data-map-picture]").is_visible()
    assert not opened.page.locator("[data-map-tools]").is_visible()
    assert opened.page.get_by_text("Table: images by class, 2 categories").is_visible()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(open_map, width):
    opened = open_map(cross(), width=width)
    opened.page.mouse.click(*opened.place(1))
    opened.page.get_by_role("button", name="Pin", exact=True).click()
    assert opened.opened.sideways() == 0
    box, card = opened.box.bounding_box(), opened.page.locator("[data-map-card]").bounding_box()
    assert box["x"] <= card["x"]
    assert card["x"] + card["width"] <= box["x"] + box["width"]
    opened.page.set_viewport_size({"width": width + 100, "height": 700})
    opened.settle()
    assert opened.ask("return map.overCanvas.width") == opened.box.evaluate("b => b.clientWidth")
