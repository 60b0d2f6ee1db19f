"""The page of two runs in a browser: nothing is asked for, and it can be read at any width by mouse and keyboard."""

import pytest

import infomax
from toy_data import TOY, write_toy

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    images = write_toy(folder, train=48, test=32, side=12)
    settings = {"image_size": 8, "batch_size": 16, "epochs": 2, "workers": 0, "quiet": True, "log": "none"}
    runs = [
        infomax.pretrain(data=images, out=folder / name, method=name, overrides=TOY[name], **settings)
        for name in ("carl", "corinfomax")
    ]
    infomax.evaluate("knn", runs[0])
    infomax.report(*runs, out=folder / "page.html", no_cache=True)
    return (folder / "page.html").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_the_page_fits_its_window_and_asks_for_nothing(open_page, html, width, scheme):
    opened = open_page(html, width=width, scheme=scheme)
    assert opened.page.locator("h2").first.inner_text() == "What differs between the runs"
    opened.page.mouse.wheel(0, 20_000)
    opened.page.wait_for_timeout(200)
    assert opened.sideways() == 0
    opened.messages = [words for words in opened.messages if "GL Driver Message" not in words]  # of the software's GPU
    opened.assert_quiet()


def test_contents_lead_to_the_verdict_by_keyboard(open_page, html):
    page = open_page(html).page
    link = page.get_by_role("navigation", name="Contents").get_by_role("link", name="Verdict")
    link.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector(location.hash + ' h2').textContent") == "Verdict"


def test_without_scripts_all_words_and_pictures_are_there(open_page, html):
    opened = open_page(html, scripts=False)
    assert "carl" in opened.page.locator("main").inner_text()
    assert opened.page.locator("section img").count() > 50
    assert opened.page.locator("section svg").count() > 10
