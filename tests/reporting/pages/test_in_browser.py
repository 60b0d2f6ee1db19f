"""Pages in Chromium: clicked, hovered, typed into and resized, in both colour schemes."""

import re

import pytest

from browser import SCHEMES, WIDTHS
from html_pages import EXPLOITS, sample_page
from infomax.reporting.pages.axes import format_number
from infomax.reporting.pages.blocks import Commands, TableBlock
from infomax.reporting.pages.charts import Curve, LineChart
from infomax.reporting.pages.page import Page, Section
from infomax.reporting.tables import Cell, make_table

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def html():
    return sample_page().html()


def page_of(*blocks):
    return Page("Page", sections=(Section("Section", blocks=blocks),)).html()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways(open_page, html, width, scheme):
    opened = open_page(html, width=width, scheme=scheme)
    assert opened.sideways() <= 0
    page = opened.page
    assert page.locator(".contents-wide").is_visible() == (width >= 1024)
    assert page.locator(".contents-narrow").is_visible() == (width < 1024)
    for details in page.locator("details:visible").all():
        details.locator("summary").click()
    assert opened.sideways() <= 0
    page.set_viewport_size({"width": 360, "height": 640})
    assert opened.sideways() <= 0
    opened.assert_quiet()


@pytest.mark.parametrize("exploit", EXPLOITS, ids=ascii)
def test_nothing_acts(open_page, exploit):
    opened = open_page(sample_page(exploit).html())
    page = opened.page
    page.locator(".enlarge").first.click()
    page.keyboard.press("Escape")
    for plot in page.locator("[data-plot]").all():
        plot.hover()
    for button in page.locator(".legend button, .sort").all():
        button.click()
    assert page.evaluate("document.querySelectorAll('svg[onload], img[onerror], [onmouseover]').length") == 0
    opened.assert_quiet()


def test_a_page_can_be_read_without_scripts(open_page, html):
    opened = open_page(html, scripts=False)
    page = opened.page
    assert page.locator(".plot .curve").first.is_visible()
    assert page.locator(".thumbnail img").first.is_visible()
    assert page.get_by_role("heading", name="It learned").is_visible()
    assert page.locator("button").count() == 0
    assert not page.locator(".theme").is_visible()


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_colours_follow_the_system_until_the_reader_chooses(open_page, html):
    opened = open_page(html, scheme="dark")
    page = opened.page
    dark = background(page)
    page.get_by_role("radio", name="Light").check()
    light = background(page)
    assert light != dark
    page.reload()
    assert background(page) == light
    assert page.get_by_role("radio", name="Light").is_checked()
    page.emulate_media(color_scheme="light")
    page.get_by_role("radio", name="Light").focus()
    page.keyboard.press("ArrowRight")
    assert background(page) == dark
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="System").is_checked()
    assert background(page) == light
    page.emulate_media(color_scheme="dark")
    assert background(page) == dark
    opened.assert_quiet()


def test_the_first_tab_skips_to_the_content(open_page, html):
    page = open_page(html).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_the_contents_lead_to_sections_and_mark_the_one_that_is_read(open_page, html):
    opened = open_page(html, reduced_motion=True)
    page = opened.page
    current = "document.querySelector('.contents-wide a[aria-current]').textContent"
    opened.wait_until(f"{current} === 'Verdict'")
    page.locator(".contents-wide a", has_text="Numbers").click()
    opened.wait_until(f"{current} === 'Numbers'")
    page.locator(".contents-wide a", has_text="Curves").click()
    opened.wait_until(f"{current} === 'Curves'")
    page.set_viewport_size({"width": 360, "height": 640})
    page.locator(".contents-narrow summary").click()
    page.locator(".contents-narrow a", has_text="Images").click()
    assert not page.locator(".contents-narrow ol").is_visible()
    assert page.url.endswith("#section-3")
    opened.assert_quiet()


def test_motion_is_smooth_only_if_the_reader_has_nothing_against_it(open_page, html):
    smooth = "getComputedStyle(document.documentElement).scrollBehavior"
    assert open_page(html).page.evaluate(smooth) == "smooth"
    assert open_page(html, reduced_motion=True).page.evaluate(smooth) == "auto"


CURVES = (
    Curve("first", tuple(range(0, 101, 10)), tuple(i * 0.5 for i in range(11))),
    Curve(
        "second",
        tuple(range(0, 51, 10)),
        (9.0, 8.0, None, 6.0, 5.0, 4.0),
        1,
        (8, 7, None, 5, 4, 3),
        (10, 9, None, 7, 6, 5),
    ),
)
CHART = LineChart("Loss", "step", "loss", CURVES)


def readout(page):
    return " ".join(page.locator(".readout").inner_text().split())


def test_the_mouse_shows_the_values_of_the_nearest_point(open_page):
    opened = open_page(page_of(CHART))
    page = opened.page
    box = page.locator("[data-plot] > svg").bounding_box()
    page.mouse.move(box["x"] + 0.31 * box["width"], box["y"] + 50)
    assert readout(page) == "step 30 first 1.50 second 6.00 (5.00 to 7.00)"
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    assert readout(page) == "step 20 first 1.00 second \u2013"
    page.mouse.move(box["x"] + box["width"] + 10, box["y"] + 50)
    assert readout(page) == "step 100 first 5.00 second \u2013"
    assert page.locator(".spot").count() == 1
    page.mouse.move(box["x"], box["y"] - 200)
    assert not page.locator(".readout").is_visible()
    opened.assert_quiet()


def test_the_mouse_shows_the_values_of_a_chart_with_a_logarithmic_x_axis(open_page):
    wide = LineChart("Scores", "prototypes", "%", (Curve("ours", (1, 10, 100, 1000), (1, 2, 3, 4)),), log_x=True)
    opened = open_page(page_of(wide))
    page = opened.page
    box = page.locator("[data-plot] > svg").bounding_box()
    for share, words in ((0.36, "prototypes 10 ours 2.00"), (0.65, "prototypes 100 ours 3.00")):  # at a third, and two
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 50)
        assert readout(page) == words
        spot = page.locator(".spot").bounding_box()
        middle = (spot["x"] + spot["width"] / 2 - box["x"]) / box["width"]
        assert abs(middle - round(3 * middle) / 3) < 0.02
    opened.assert_quiet()


def test_arrows_move_the_crosshair_and_say_the_values(open_page):
    opened = open_page(page_of(CHART))
    page = opened.page
    page.locator(".legend button").last.focus()
    page.keyboard.press("Tab")
    spoken = page.locator("[data-plot] [aria-live]")
    assert spoken.text_content() == "step 100. first: 5.00, second: no value"
    page.keyboard.press("ArrowLeft")
    assert spoken.text_content() == "step 90. first: 4.50, second: no value"
    page.keyboard.press("Home")
    assert spoken.text_content() == "step 0. first: 0, second: 9.00 (8.00 to 10.0)"
    page.keyboard.press("ArrowRight")
    assert readout(page) == "step 10 first 0.500 second 8.00 (7.00 to 9.00)"
    page.keyboard.press("Escape")
    assert not page.locator(".readout").is_visible()
    assert page.evaluate("document.activeElement === document.body")
    opened.assert_quiet()


def test_a_finger_shows_the_values_until_it_taps_elsewhere(open_page):
    opened = open_page(page_of(CHART), width=360, touch=True)
    page = opened.page
    box = page.locator("[data-plot] > svg").bounding_box()
    page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 50)
    assert readout(page).startswith("step 50 first 2.50")
    page.touchscreen.tap(5, 5)
    assert not page.locator(".readout").is_visible()
    opened.assert_quiet()


def test_buttons_of_the_legend_hide_curves(open_page):
    opened = open_page(page_of(CHART))
    page = opened.page
    button = page.get_by_role("button", name="first")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator("[data-curve='0']:visible").count() == 0
    assert page.locator("[data-curve='1'] .curve").is_visible()
    box = page.locator("[data-plot] > svg").bounding_box()
    page.mouse.move(box["x"] + box["width"], box["y"] + 50)
    assert readout(page) == "step 50 second 4.00 (3.00 to 5.00)"
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("[data-curve='0'] .curve").is_visible()
    opened.assert_quiet()


@pytest.mark.parametrize("digits", [2, 3, 5])
def test_the_crosshair_writes_numbers_as_the_table_does(open_page, digits):
    values = (0.0, 1.0, 0.000123456, 1e-7, 12345.678, -0.5, 9.9999, 2.5e9, 1e7, 999.5, 1000.0)
    page = open_page(page_of(LineChart("T", "x", "y", (Curve("a", tuple(range(11)), values),), digits=digits))).page
    page.locator("[data-plot]").focus()
    page.keyboard.press("Home")
    shown = []
    for _ in values:
        shown.append(page.locator(".readout dd").inner_text())
        page.keyboard.press("ArrowRight")
    assert shown == [format_number(value, digits) for value in values]


def test_texts_of_charts_have_their_size_on_a_phone(open_page):
    sizes = []
    for width in (360, 1280):
        page = open_page(page_of(CHART), width=width).page
        sizes.append(page.locator(".tick").first.evaluate("e => e.getBoundingClientRect().height"))
        inside = page.locator(".tick:not(.second)").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).every(b => b.left >= 0 && b.right <= innerWidth)"
        )
        assert inside
    assert sizes[0] == pytest.approx(sizes[1])


def test_columns_sort_by_the_numbers_behind_them(open_page):
    rows = [
        [name, Cell(text, value)]
        for name, text, value in (("b", "9.5 s", 9.5), ("c", "-", None), ("a", "1 min", 60.0), ("d", "100 ms", 0.1))
    ]
    opened = open_page(page_of(TableBlock(make_table(["name", "time"], rows))))
    page = opened.page

    def order():
        return "".join(page.locator("tbody th").all_inner_texts())

    button = page.get_by_role("button", name="time")
    seen = []
    for _ in range(4):
        button.click()
        seen.append((order(), page.locator("thead th").last.get_attribute("aria-sort")))
    assert seen == [("abdc", "descending"), ("dbac", "ascending"), ("bcad", None), ("abdc", "descending")]
    page.get_by_role("button", name="name").focus()
    page.keyboard.press("Enter")
    assert order() == "abcd"
    assert page.locator("[aria-sort]").count() == 1
    opened.assert_quiet()


def test_a_wide_table_scrolls_in_its_own_box_and_by_keys(open_page):
    columns = [f"column {i}" for i in range(12)]
    opened = open_page(page_of(TableBlock(make_table(columns, [["0.12345"] * 12] * 3))), width=360)
    page, box = opened.page, opened.page.locator(".scroll")
    assert opened.sideways() <= 0
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    opened.wait_until("document.querySelector('.scroll').tabIndex === 0")
    box.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    opened.wait_until("document.querySelector('.scroll').scrollLeft > 0")
    page.set_viewport_size({"width": 3000, "height": 600})
    opened.wait_until("document.querySelector('.scroll').tabIndex === -1")


def test_commands_are_copied_as_they_stand(open_page):
    text = "infomax pretrain --data 'a & b' \\\n    --out runs/<a>"
    opened = open_page(page_of(Commands(text)))
    page = opened.page
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == text
    opened.assert_quiet()


def test_images_are_enlarged_by_mouse_and_keys(open_page, html):
    opened = open_page(html)
    page = opened.page
    dialog = page.locator("dialog")
    page.locator(".gallery .enlarge").nth(1).click()
    assert dialog.is_visible()
    assert re.match(r"class/1\.png\s+cosine 0\.8\s+label\s+2 of 5", dialog.inner_text())
    page.keyboard.press("ArrowRight")
    assert "3 of 5" in dialog.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "5 of 5" in dialog.inner_text()
    page.get_by_role("button", name="Next").click()
    assert "keep" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    opened.wait_until("document.activeElement.getAttribute('aria-label') === 'Enlarge class/0.png'")
    for key in ("Enter", "Space"):
        page.keyboard.press(key)
        assert dialog.is_visible()
        page.keyboard.press("Escape")
    page.locator(".ranked .enlarge").first.click()
    page.mouse.click(3, 3)
    assert not dialog.is_visible()
    opened.assert_quiet()


def test_the_focus_is_always_seen(open_page, html):
    page = open_page(html, width=360).page
    seen = 0
    for _ in range(30):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            """() => {
                const active = document.activeElement;
                const shown = active.matches('.theme input') ? active.nextElementSibling : active;
                return active === document.body || getComputedStyle(shown).outlineStyle !== 'none';
            }"""
        )
        assert outline, page.evaluate("document.activeElement.outerHTML")
        seen += page.evaluate("document.activeElement !== document.body")
    assert seen > 20


def test_a_printed_page_is_light_and_has_no_controls(open_page, html):
    page = open_page(html, scheme="dark").page
    page.get_by_role("radio", name="Dark").check()
    page.emulate_media(media="print")
    style = "(({ colorScheme, backgroundColor }) => [colorScheme, backgroundColor])"
    root = page.evaluate(f"{style}(getComputedStyle(document.documentElement))")
    assert root == ["light", "rgb(255, 255, 255)"]
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 28, 26)"
    for kind in (".theme", ".contents-wide", ".copy-line", ".skip"):
        assert not page.locator(kind).first.is_visible()
    assert page.locator(".plot .curve").first.is_visible()


def test_of_many_curves_those_near_the_mouse_are_shown(open_page):
    curves = tuple(Curve(f"run {i}", (0, 1), (float(i), float(i)), i) for i in range(30))
    opened = open_page(page_of(LineChart("T", "x", "y", curves)))
    page, box = opened.page, opened.page.locator("[data-plot] > svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    assert page.locator(".readout dt").all_inner_texts() == [f"run {i}" for i in range(20, 30)]
    assert readout(page).endswith("and 20 more")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5)
    assert page.locator(".readout dt").all_inner_texts() == [f"run {i}" for i in range(10)]
    page.locator("[data-plot]").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("[data-plot] [aria-live]").text_content().endswith("run 9: 9.00, and 20 more")
    opened.assert_quiet()


def test_names_of_rows_stay_while_a_table_is_scrolled(open_page):
    rows = [["runs/a", *["0.12345"] * 12] for _ in range(3)]
    page = open_page(page_of(TableBlock(make_table([f"column {i}" for i in range(13)], rows))), width=360).page
    before = page.locator("tbody th").first.bounding_box()["x"]
    page.locator(".scroll").evaluate("e => { e.scrollLeft = 300; }")
    assert page.locator("tbody th").first.bounding_box()["x"] == before
