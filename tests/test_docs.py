"""README and docs tell the truth of the commit they are in."""

import ast
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import infomax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def script(name):
    """Returns a script of docs/ as a module."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


results, reference = script("results"), script("reference")


@pytest.mark.parametrize("name", results.TABLES)
def test_tables_are_those_of_the_kept_results(name):
    page, table = results.TABLES[name]
    assert table() in page.read_text(), "run: python docs/results.py tables"


def test_the_page_of_options_is_that_of_the_options_classes():
    assert reference.PAGE.read_text() == reference.options_page(), "run: python docs/reference.py"


def test_the_demo_clearly_beats_its_references_where_labels_are_few():
    """A claim of the README, on the numbers that stand there."""
    rows = {row["name"]: row for row in results.json.loads((results.KEPT / "demo.json").read_text())["rows"]}
    for method in ("mira", "corinfomax", "carl", "mveb"):
        for score in ("knn_1", "linear_1", "knn_5", "linear_5"):
            best = max(rows["raw pixels"][score], rows["untrained encoder"][score])
            assert rows[method][score] > best + 0.04


def test_every_decision_that_the_code_names_is_on_its_page():
    page = (ROOT / "docs" / "decisions.md").read_text()
    decided = set(re.findall(r"^\*\*([a-z0-9-]+)\.\*\*", page, re.M))
    source = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"decisions(?:\.md)?[,:]\s+(?:#\s*)?([a-z0-9-]+)", source))
    assert named
    assert named <= decided


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Each relative link names a file that exists and, after a #, a heading of that file."""
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in headings(file), f"{target}#{anchor}"


def headings(page):
    """Returns the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_pages_that_the_code_names_exist():
    source = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"docs/[a-z/-]+\.md", source))
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []


def code(page):
    """Returns what a page shows as code: fenced blocks, and lines that are indented by four spaces."""
    fenced = re.findall(r"^```.*\n((?:.*\n)*?)```", page.read_text(), re.M)
    indented = re.findall(r"^    (.*\n)", page.read_text(), re.M)
    return "".join([*fenced, *indented])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_parse(page):
    """Each `infomax ...` line names a command and options that exist."""
    from infomax import cli

    kinds = {name: command.parsed_class for name, command in cli.COMMANDS.items()}
    kinds |= {protocol.name: parsed_class for parsed_class, protocol in cli.evaluate.PROTOCOL_CLASSES.items()}
    for line in re.findall(r"^(?:uv run |torchrun .* |srun )?infomax (.+)$", code(page), re.M):
        words = line.split("#")[0].split()
        name = words[1] if words[0] == "evaluate" else words[0]
        options = {f"--{field.replace('_', '-')}" for field in kinds[name].__dataclass_fields__}
        options |= {"--set", "--encoder"}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_version_is_in_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == infomax.__version__
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"&& (uv run .*pytest.*)$", (ROOT / "README.md").read_text(), re.M)
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in lines
    assert f'{command} -m "process and not slow"' in lines  # which the command itself leaves out


def test_no_address_of_a_registry_and_no_lock_with_one():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"uv.lock", "pylock.toml"} <= set(ignored)
    lock = (ROOT / "requirements.lock").read_text()
    assert "torch==" in lock
    assert "://" not in lock


def test_functions_that_contributing_names_are_in_their_files():
    """Each row `| ... | file | names |` of CONTRIBUTING names functions, classes or constants of that file."""
    rows = re.findall(r"^\|[^|]*\| `([a-z0-9_/]+\.py)` \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rows) > 30
    missing = []
    for file, cell in rows:
        path = ROOT / "src" / "infomax" / file
        source = path.read_text() if path.exists() else ""
        for name in re.findall(r"`(\w+)`", cell):
            if not re.search(rf"^ *(?:(?:def|class) {name}\b|{name}\b(?::[^=]+)? = )", source, re.M):
                missing.append(f"{file}: {name}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_text_imports_names_that_exist(page):
    """Each Python block is Python, and what it imports from infomax, or names as infomax.x, is there."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("infomax"):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "infomax":
                assert hasattr(infomax, node.attr), node.attr
