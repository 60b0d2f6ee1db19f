"""The page of a run that trains: on this machine alone, to be read alone."""

import json
import socket
import threading
from contextlib import closing
from http.client import HTTPConnection

import pytest

from html_pages import CheckedPage
from infomax.reporting.watch.live_page import live_page
from infomax.reporting.watch.runs import WatchedRuns
from infomax.reporting.watch.server import PAGE, SECTIONS, Server
from infomax.runtime.locks import FolderLock
from watched_runs import add_rows, collapsed_rows, health_row, loss_row, make_run, rows_until


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A run at step 100 that is being written, and the server of its page."""
    monkeypatch.setattr("infomax.reporting.watch.server.least_pause", lambda cost: 0.0)
    run = make_run(tmp_path / "a")
    add_rows(run, rows_until(100))
    with FolderLock(run.path), Server(WatchedRuns([run.path]), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield run, server
        server.shutdown()
        thread.join()


def ask(server, path=PAGE, method="GET", **headers):
    """Returns the status, the headers and the body of an answer."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{server.port}", **headers}.items():
            for part in [value] if isinstance(value, str) else value:
                connection.putheader(name.replace("_", "-"), part)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_is_one_that_may_ask_this_server_alone(served):
    _, server = served
    status, headers, body = ask(server)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = body.decode()
    assert "connect-src &#x27;self&#x27;" in page or "connect-src 'self'" in page
    assert 'data-address="/sections.json"' in page
    assert "mveb/digits with epochs=20" in page
    assert "58.0% (untrained 47.1%)" in page
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_parts_are_sent_anew_when_something_has_changed(served):
    run, server = served
    status, headers, body = ask(server, SECTIONS)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    tag, before = headers["ETag"], json.loads(body)["sections"]
    assert ask(server, SECTIONS, If_None_Match=tag)[::2] == (304, b"")
    assert ask(server, SECTIONS, If_None_Match=f'"x", W/{tag}')[0] == 304
    assert ask(server, SECTIONS, If_None_Match='"x"')[0] == 200
    page = ask(server)[2].decode()
    for section in before:
        for key, version, content in section:
            assert f'data-version="{version}">\n{content}\n</div>' in page, key
    add_rows(run, [loss_row(120)])
    status, headers, body = ask(server, SECTIONS, If_None_Match=tag)
    assert (status, headers["ETag"] != tag) == (200, True)
    after = json.loads(body)["sections"]
    assert [[key for key, *_ in section] for section in after] == [[key for key, *_ in section] for section in before]
    assert "step 120 of 220" in body.decode()
    same = [a[2] for a, b in zip(after[1], before[1], strict=True) if a == b]
    assert len(same) >= 3  # charts of what was not measured since


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_nothing_but_reading_is_allowed(served, method):
    run, server = served
    before = {file: file.read_bytes() for file in run.path.iterdir()}
    for path in (PAGE, SECTIONS):
        status, headers, _ = ask(server, path, method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert {file: file.read_bytes() for file in run.path.iterdir()} == before


def test_head_has_the_headers_alone(served):
    _, server = served
    _, headers, body = ask(server, SECTIONS)
    status, of_head, nothing = ask(server, SECTIONS, "HEAD")
    assert (status, of_head["Content-Length"], nothing) == (200, str(len(body)), b"")
    assert of_head["ETag"] == headers["ETag"]


@pytest.mark.parametrize(
    "path",
    [
        *("/config.json", "/metrics.jsonl", "/../a/config.json", "/..%2fconfig.json", "//etc/passwd", "/./", "/a/"),
        *("/%2e%2e/", "http://127.0.0.1/", "/sections.json/", "/SECTIONS.JSON", "*", "/index.html"),
    ],
)
def test_there_are_no_other_addresses(served, path):
    _, server = served
    status, _, body = ask(server, path)
    assert (status, body) == (404, b"404 Not Found\n")


def test_what_follows_a_question_mark_is_left_out(served):
    assert ask(served[1], "/?from=mail")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8000", "localhost"])
def test_a_tunnel_may_have_another_port(served, host):
    assert ask(served[1], Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "[::1]"),
        *("0.0.0.0", "127.0.0.1@evil.example", "LOCALHOST:1:2", ["127.0.0.1", "evil.example"], []),
    ],
)
def test_a_browser_that_another_name_led_here_is_refused(served, host):
    """As DNS rebinding would."""
    for path in (PAGE, SECTIONS):
        status, headers, body = ask(served[1], path, Host=host)
        assert (status, body) == (403, b"403 Forbidden\n")
        assert "ETag" not in headers


def test_it_listens_on_this_machine_alone(served):
    _, server = served
    assert server.socket.getsockname()[0] == "127.0.0.1"
    for address in ("127.0.0.2", "::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as other, pytest.raises(OSError):  # noqa: PT011
            other.connect((address, server.port))


def test_a_port_in_use_is_one_line(served, tmp_path):
    _, server = served
    expected = f"--port {server.port} is in use; name another one, or --port 0 takes a free one"
    with pytest.raises(ValueError, match=expected):
        Server(WatchedRuns([tmp_path / "a"]), server.port)


def test_noise_on_the_wire_ends_its_own_connection_alone(served, capfd):
    _, server = served
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and goes before the answer
    assert ask(server)[0] == 200
    assert capfd.readouterr().err == ""


def test_names_cannot_act_on_the_page(tmp_path, monkeypatch):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u2028"
    run = make_run(tmp_path / "a")
    config = run.config
    config["data"] = evil
    config["changes"] = [evil]
    (run.path / "config.json").write_text(json.dumps(config))
    add_rows(run, [*rows_until(60), loss_row(80, **{evil: 1.0})])
    with Server(WatchedRuns([run.path]), 0) as server:
        for path in (PAGE, SECTIONS):
            body = server.live.content(path).body.decode()
            if path == SECTIONS:
                assert "<" not in body  # whatever reads it as HTML finds none
                body = "".join(content for section in json.loads(body)["sections"] for *_, content in section)
            assert "<img" not in body
            assert "<script>alert" not in body
            assert "\u202e" not in body


def test_the_page_is_valid_and_parts_keep_their_ids_when_others_come(tmp_path):
    """A part that did not change is not sent anew, and no id is there twice."""
    folders = [make_run(tmp_path / name).path for name in ("a", "b")]
    for folder in folders:
        add_rows(folder, rows_until(20))
    runs = WatchedRuns(folders)
    before = CheckedPage(live_page(runs.update(), SECTIONS).html)
    add_rows(folders[0], [health_row(39)])
    add_rows(folders[0], [loss_row(40, knn_top1=0.6, consistency=1.0)])  # two charts more, in the middle
    after = CheckedPage(live_page(runs.update(), SECTIONS).html)
    assert {*before.ids} < {*after.ids}


def test_the_tab_says_how_far_the_runs_are(tmp_path):
    run = make_run(tmp_path / "a")
    add_rows(run, collapsed_rows(120))
    runs = WatchedRuns([run.path])
    assert live_page(runs.update(), SECTIONS).tab == f"failed, 55%: {run.path}"
