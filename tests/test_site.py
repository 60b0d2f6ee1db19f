"""The site is made of the pages of docs/: its navigation has all of them, and its links lead where theirs do."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _build_script():
    specification = importlib.util.spec_from_file_location("build", ROOT / "docs" / "site" / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


build = _build_script()


def test_every_page_is_in_the_navigation_once():
    sections = build.navigation((ROOT / build.FIRST).read_text())
    assert list(sections) == ["Start", "Guide", "Methods", "Reference", "Decisions", "Measurements", "Project"]
    listed = [page for pages in sections.values() for page in pages]
    assert len(listed) == len(set(listed))
    paths = {((ROOT / "docs") / page).resolve().relative_to(ROOT).as_posix() for page in listed}
    assert paths == build.page_places().keys() - {build.FIRST}


@pytest.mark.parametrize(
    ("page", "link", "rewritten"),
    [
        ("docs/guide/data.md", "[a](../reference/views.md#x)", "[a](../reference/views.md#x)"),
        ("docs/guide/data.md", "[a](../../README.md#try-it)", "[a](../about.md#try-it)"),
        ("docs/guide/data.md", "[a](../README.md)", "[a](../index.md)"),
        ("README.md", "[a](docs/guide/data.md)", "[a](guide/data.md)"),
        ("README.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("CONTRIBUTING.md", "[a](src/infomax/cli)", "a"),
        ("docs/guide/data.md", "[a](#labels) [b](https://x.org/y)", "[a](#labels) [b](https://x.org/y)"),
        ("docs/guide/data.md", "![a](../pictures/x.webp)", "![a](../pictures/x.webp)"),
        ("docs/guide/data.md", "```\n[a](../../README.md)\n```", "```\n[a](../../README.md)\n```"),
    ],
)
def test_links_lead_to_the_places_of_the_site(page, link, rewritten):
    assert build.rewrite_links(link, page, build.page_places()) == rewritten


def test_the_page_of_python_has_all_public_names():
    import infomax

    page = build.api_page(infomax.__all__)
    assert set(re.findall(r"auto(?:function|class):: infomax\.(\w+)$", page, re.M)) == set(infomax.__all__)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Sphinx's extensions warn each other of what a later Sphinx will lack
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path, monkeypatch):
    """CI checks that its pages can be built; here they are built and read."""
    pytest.importorskip("sphinx")
    monkeypatch.setattr(build, "OUT", tmp_path)
    build.main()
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "search.html", "methods/mira.html", "reference/api.html"} <= pages.keys()
    for name, text in pages.items():
        assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*", text) == [], name
    styles = "".join(file.read_text() for file in tmp_path.rglob("*.css"))
    assert not re.search(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", styles)
    assert "<math" in pages["methods/mira.html"]
    assert (tmp_path / "searchindex.js").stat().st_size > 10_000
