"""The page of a run that trains, in Chromium: it changes while it is looked at."""

import threading

import pytest

from browser import SCHEMES, WIDTHS, opened_page
from infomax.reporting.watch import server as serving
from infomax.reporting.watch.runs import WatchedRuns
from infomax.reporting.watch.server import Server
from infomax.runtime.locks import FolderLock
from watched_runs import TOTAL, add_encoder, add_rows, collapsed_rows, loss_row, make_run, rows_until

pytestmark = pytest.mark.browser


@pytest.fixture
def start_server(monkeypatch):
    """A function that serves run folders and returns the server, which ends with the test at the latest."""
    monkeypatch.setattr(serving, "least_pause", lambda cost: 0.0)
    monkeypatch.setattr("infomax.reporting.watch.live_page.SECONDS_BETWEEN_LOOKS", 0.1)
    ends = []

    def start(*folders, port=0):
        server = Server(WatchedRuns(folders), port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def end():
            server.shutdown()
            server.server_close()
            thread.join()

        ends.append(end)
        server.end = end
        return server

    yield start
    for end in ends:
        end()


@pytest.fixture
def open_live(chromium, start_server):
    """A function that opens the page of run folders."""
    opened = []

    def open_runs(*folders, **window):
        server = start_server(*folders)
        context = opened_page(chromium, f"http://127.0.0.1:{server.port}/", **window)
        opened.append(context)
        return context.__enter__(), server

    yield open_runs
    for context in opened:
        context.__exit__(None, None, None)


def test_a_page_follows_a_run_without_being_loaded_again(open_live, tmp_path):
    folder = tmp_path / "a"
    live, _ = open_live(folder)
    page = live.page
    assert page.get_by_text("waiting for a run").is_visible()
    page.evaluate("window.first = true")
    run = make_run(folder)
    with FolderLock(folder):
        page.get_by_text("starting: no row yet").wait_for()
        add_rows(run, rows_until(100))
        page.get_by_text("step 100 of 220").wait_for()
        page.locator(".curve").first.wait_for()
        charts = page.locator("[data-chart]").count()
        assert charts > 5
        assert page.get_by_text("58.0% (untrained 47.1%)").is_visible()
        add_rows(run, collapsed_rows(180)[10:])
        page.get_by_role("heading", name="total collapse, failed").wait_for()
        assert page.title() == f"failed, 82%: {folder}"
        add_rows(run, [loss_row(TOTAL)])
        add_encoder(run)
    page.get_by_role("heading", name="finished").wait_for()
    assert page.evaluate("window.first") is True
    assert live.messages == []
    assert {request.rpartition("/")[2] for request in live.requests} == {"sections.json"}


def test_what_the_reader_does_with_a_chart_stays(open_live, tmp_path):
    run = make_run(tmp_path / "a")
    add_rows(run, rows_until(100))
    live, _ = open_live(run.path)
    page = live.page
    loss = page.locator("[data-part^='chart Loss']")
    cosine = page.locator("[data-part^='chart Cosine']")
    loss.locator("summary").click()
    cosine.locator(".legend button").first.click()
    before, cosine_before = (part.get_attribute("data-version") for part in (loss, cosine))
    add_rows(run, rows_until(140)[len(rows_until(100)) :])
    page.get_by_text("step 140 of 220").wait_for()
    page.mouse.move(1, 1)
    wait_for_other(page, loss, before)
    wait_for_other(page, cosine, cosine_before)
    assert loss.locator("details").evaluate("details => details.open")
    assert cosine.locator(".legend button").first.get_attribute("aria-pressed") == "false"
    assert cosine.locator(".legend button").first.evaluate("button => button === document.activeElement")
    plot = loss.locator("[data-plot]")
    plot.scroll_into_view_if_needed()
    plot.hover()
    assert loss.locator(".readout").is_visible()
    held = loss.get_attribute("data-version")
    add_rows(run, [loss_row(160)])
    page.get_by_text("step 160 of 220").wait_for()
    assert loss.get_attribute("data-version") == held
    assert loss.locator(".readout").is_visible()
    page.mouse.move(1, 1)
    wait_for_other(page, loss, held)
    assert live.messages == []


def wait_for_other(page, part, version):
    """Waits until a part is another one."""
    words = "([part, version]) => part.dataset.version !== version"
    page.wait_for_function(words, arg=[part.element_handle(), version])


def test_a_lost_connection_is_said_until_it_is_back(open_live, start_server, tmp_path, monkeypatch):
    monkeypatch.setattr(serving._Handler, "protocol_version", "HTTP/1.0")  # no connection outlives an answer
    run = make_run(tmp_path / "a")
    add_rows(run, rows_until(100))
    live, server = open_live(run.path)
    page = live.page
    page.get_by_text("As of ").wait_for()
    assert page.get_by_text("Connection lost").count() == 0
    server.end()
    page.get_by_text("Connection lost, trying again.").wait_for()
    assert page.get_by_text("step 100 of 220").is_visible()
    add_rows(run, [loss_row(120)])
    start_server(run.path, port=server.port)
    page.get_by_text("step 120 of 220").wait_for()
    assert not page.get_by_text("Connection lost").is_visible()


def test_a_hidden_page_asks_for_nothing(open_live, tmp_path):
    run = make_run(tmp_path / "a")
    add_rows(run, rows_until(100))
    live, _ = open_live(run.path)
    page = live.page
    page.get_by_text("As of ").wait_for()
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.isHidden})")
    page.evaluate("window.isHidden = true; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(300)
    count = len(live.requests)
    page.wait_for_timeout(600)
    assert len(live.requests) == count
    add_rows(run, [loss_row(120)])
    page.evaluate("window.isHidden = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("step 120 of 220").wait_for()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_any_window(open_live, tmp_path, width, scheme):
    for name in ("a", "b-with-a-very-long-name-" + "x" * 80):
        add_rows(make_run(tmp_path / name), collapsed_rows(120))
    live, _ = open_live(tmp_path, width=width, scheme=scheme)
    live.page.get_by_text("As of ").wait_for()
    assert live.sideways() <= 0
    assert live.messages == []


def test_several_runs_stand_in_a_table_that_stays_sorted(open_live, tmp_path):
    for name, last in (("a", 60), ("b", 100), ("c", 20)):
        add_rows(make_run(tmp_path / name), rows_until(last))
    live, _ = open_live(tmp_path)
    page = live.page
    page.get_by_text("As of ").wait_for()

    def done():
        return page.locator("[data-part^=runs] tbody tr td:nth-child(3)").all_inner_texts()

    assert done() == ["27%", "45%", "9%"]
    page.get_by_role("button", name="done").click()
    assert done() == ["45%", "27%", "9%"]
    add_rows(tmp_path / "a", rows_until(200)[len(rows_until(60)) :])
    page.get_by_text("91%").first.wait_for()
    assert done() == ["91%", "45%", "9%"]
    assert page.get_by_role("button", name="done").evaluate("button => button === document.activeElement")
    assert live.messages == []
