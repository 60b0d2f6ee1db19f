"""Builds the site from the pages in docs/, without a network: uv run --group docs python docs/site/build.py [--check]

It writes site/; open site/index.html. With --check, which CI runs, it writes nothing, and says in half the time if a
link, a formula or a docstring cannot be read. The pages are those that a code host shows: this script copies them to a
temporary folder, and changes there what a site needs.

- docs/README.md becomes the first page, and its lists of links become the navigation.
- README.md, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md become pages too, and links lead to them. A link to another
  file outside docs/ becomes plain text.
- A page with all public functions and losses is made from their docstrings.
"""

import argparse
import posixpath
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS, OUT = ROOT / "docs", ROOT / "site"
FIRST = "docs/README.md"
OTHERS = {
    "README.md": "about.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Pages outside docs/, and their places on the site."""
KEPT_SUFFIXES = {".py", ".json", ".png", ".webp", ".svg", ".ipynb", ".toml"}
"""Files of docs/ that pages may link to or show."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
API_TITLE = "Python, from the docstrings"
LOSSES = ("mira", "corinfomax", "carl", "mveb")


def page_places() -> dict[str, str]:
    """Returns the place on the site of each page, by its path in the repository."""
    pages = {path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md")}
    places = {page: page.removeprefix("docs/") for page in pages}
    return {**places, FIRST: "index.md", **OTHERS}


def rewrite_links(text: str, page: str, places: dict[str, str]) -> str:
    """Returns a page with links that lead to the places of the site.

    Args:
        text: The page.
        page: Its path in the repository.
        places: From paths in the repository to places on the site.
    """

    def rewrite(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        place = places.get(file)
        if place is None and file.startswith("docs/"):
            place = file.removeprefix("docs/")
        if place is None:
            return label
        relative = posixpath.relpath(place, posixpath.dirname(places[page]) or ".")
        return f"{mark}[{label}]({relative}{'#' + anchor if anchor else ''})"

    parts = FENCE.split(text)  # code stands at odd numbers
    return "".join(part if number % 2 else LINK.sub(rewrite, part) for number, part in enumerate(parts))


def navigation(first: str) -> dict[str, list[str]]:
    """Returns the pages of each section of the first page, in the order of its links.

    Args:
        first: The text of docs/README.md.
    """
    sections: dict[str, list[str]] = {}
    seen: set[str] = set()
    for title, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", first, re.M | re.S):
        listed = [target.partition("#")[0] for _, _, target in LINK.findall(body)]
        pages = [page for page in dict.fromkeys(listed) if page.endswith(".md") and page not in seen]
        seen.update(pages)
        sections[title.partition(":")[0]] = pages
    return sections


def add_navigation(text: str, sections: dict[str, list[str]], places: dict[str, str]) -> str:
    """Returns the first page with the navigation, which is not seen on the page itself."""
    for title, pages in sections.items():
        listed = [places[posixpath.normpath(posixpath.join("docs", page))].removesuffix(".md") for page in pages]
        if title == "Reference":
            listed.append("reference/api")
        text += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {title}\n", *listed, "```\n"])
    return text


def api_page(names: Iterable[str]) -> str:
    """Returns the page of the public functions and losses, whose texts are the docstrings."""
    lines = [f"# {API_TITLE}\n", "What each function takes, returns and raises, with an example.\n"]
    lines += ["```{eval-rst}"]
    for name in names:
        kind = "autoclass" if name[0].isupper() else "autofunction"
        lines += [f".. {kind}:: infomax.{name}", *(["   :members:"] if kind == "autoclass" else []), ""]
    lines += ["```\n", "## Losses\n"]
    for module in (*(f"infomax.methods.{name}" for name in LOSSES), "infomax.functional"):
        lines += [f"### {module}\n", "```{eval-rst}", f".. automodule:: {module}", "   :members:", "```\n"]
    return "\n".join(lines)


def prepare(folder: Path) -> None:
    """Writes the pages of the site, for Sphinx, to a folder."""
    import infomax

    places = page_places()
    for page, place in places.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        rewritten = rewrite_links(text, page, places)
        if page == FIRST:
            rewritten = add_navigation(rewritten, navigation(text), places)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(rewritten, encoding="utf-8")
    for file in DOCS.rglob("*"):
        if file.suffix in KEPT_SUFFIXES and "site" not in file.relative_to(DOCS).parts:
            place = folder / file.relative_to(DOCS)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    (folder / "reference" / "api.md").write_text(api_page(infomax.__all__), encoding="utf-8")


def main(*, check: bool = False) -> None:
    """Builds the site; a warning, as of a link that leads nowhere, is an error.

    Args:
        check: Whether nothing is written.
    """
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out" if check else OUT
        source.mkdir()
        prepare(source)
        shutil.rmtree(out, ignore_errors=True)
        options = ["-q", "-W", "--keep-going", "-b", "dummy" if check else "html", "-c", str(Path(__file__).parent)]
        code = build_main([*options, "-d", f"{folder}/doctrees", str(source), str(out)])
    if code:
        sys.exit(code)
    print("all pages can be built" if check else f"{OUT / 'index.html'} is the first page")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    main(check=parser.parse_args().check)
