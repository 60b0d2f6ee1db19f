"""README and docs tell the truth of the commit they are in."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import mean

import pytest
import reference
import results
import torch
from PIL import Image

import infomax
from command import run_command
from infomax.data.augmentation.views import Preprocessing
from infomax.embeddings.options import EmbedOptions
from infomax.embeddings.write import embed_to_file
from infomax.evaluation.options import EvaluationOptions
from infomax.models.encoders import build_encoder, save_encoder
from mask_folders import write_masked

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", results.TABLES)
def test_tables_are_those_of_the_kept_results(name):
    page, table = results.TABLES[name]
    assert table() in page.read_text(), "run: python docs/results.py tables"


def test_each_marked_table_is_made():
    marked = {name for page in PAGES for name in re.findall(r"<!-- ([\w-]+): docs/results.py -->", page.read_text())}
    assert marked == results.TABLES.keys()


def test_the_page_of_options_is_that_of_the_options_classes():
    assert reference.PAGE.read_text() == reference.options_page(), "run: python docs/reference.py"


def test_the_page_of_methods_is_that_of_the_methods():
    assert reference.METHODS_PAGE.read_text() == reference.methods_page(), "run: python docs/reference.py"


def test_the_page_of_figures_is_that_of_the_figures():
    assert reference.FIGURES_PAGE.read_text() == reference.figures_page(), "run: python docs/reference.py"


def test_the_page_of_the_papers_is_that_of_the_figures_and_the_tables():
    assert reference.PAPERS_PAGE.read_text() == reference.papers_page(), "run: python docs/reference.py"


def test_each_reason_for_a_missing_recipe_is_used_and_names_a_decision():
    page, decisions = reference.PAPERS_PAGE.read_text(), (ROOT / "docs" / "decisions.md").read_text()
    for (table, method), why in reference.reasons_without_recipe().items():
        lines = [line for line in page.splitlines() if f"{method} ({why})" in line]
        assert lines, f"no number of {method} lacks a recipe in {table or 'any table'}"
        named = why.rpartition(": ")[2] if ": " in why else None
        assert named is None or f"**{named}.**" in decisions, named


def test_each_figure_of_a_paper_with_numbers_is_made_and_each_source_is_one_of_a_paper():
    tables = {f"{table.paper} {table.number}" for table in reference.published.tables()}
    drawn = {figure.name: figure.kind for figure in reference.published.figures()}
    sources = {source for figure in reference.FIGURES.values() for source in figure.sources}
    assert sources <= tables | {name for name, kind in drawn.items() if kind == "data"}
    assert {name for name, kind in drawn.items() if kind == "data"} <= sources


def test_the_demo_clearly_beats_its_references_where_labels_are_few():
    """A claim of the README, on the numbers that stand there."""
    rows = {row["name"]: row for row in results.json.loads((results.KEPT / "demo.json").read_text())["rows"]}
    for method in ("mira", "corinfomax", "carl", "mveb"):
        for score in ("knn_1", "linear_1", "knn_5", "linear_5"):
            best = max(rows["raw pixels"][score], rows["untrained encoder"][score])
            assert rows[method][score] > best + 0.04


@pytest.mark.parametrize("page", ["README.md", "docs/guide/one-loss-in-your-loop.md"])
def test_the_alignment_in_the_text_is_that_of_the_kept_runs(page):
    runs = [
        row
        for row in json.loads((ROOT / "docs" / "results" / "first_steps.json").read_text())["rows"]
        if row["method"] == "mveb"
    ]
    places = [0, runs[0]["step"].index(5), -1]
    before, after_five, end = (mean(run["views_mean_cosine"][place] for run in runs) for place in places)
    words = f"is on the digits {before:.2f} before training, {after_five:.2f} after five steps and {end:.2f} at the end"
    assert words in (ROOT / page).read_text()


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


def test_pictures_are_small_and_shown_with_words():
    shown = [(page, *found) for page in PAGES for found in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text())]
    assert shown
    files = {(page.parent / target).resolve() for page, _, target in shown}
    assert all(len(words) > 20 for _, words, _ in shown)
    assert all(file.stat().st_size < 150_000 for file in files)
    assert files >= set((ROOT / "docs" / "pictures").iterdir())  # none is left over


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
    """Returns what a page shows as code: fenced blocks, but for what appears, and lines indented by four spaces."""
    text = re.sub(r"^```text\n(?:.*\n)*?```", "", page.read_text(), flags=re.M)
    fenced = re.findall(r"^```.*\n((?:.*\n)*?)```", text, re.M)
    indented = re.findall(r"^    (.*\n)", text, re.M)
    return "".join([*fenced, *indented])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_parse(page):
    """Each `infomax ...` line names a command and options that exist."""
    from infomax import cli

    kinds = {name: command.parsed_class for name, command in cli.COMMANDS.items()}
    kinds |= {protocol.name: parsed_class for parsed_class, protocol in cli.evaluate.PROTOCOL_CLASSES.items()}
    for line in re.findall(r"^(?:uv run |torchrun .* |srun )?infomax (.+)$", code(page), re.M):
        words = line.split("#")[0].split()
        if words[0] in ("--version", "--print-completion"):
            continue
        name = words[1] if words[0] == "evaluate" else words[0]
        name = f"{name} {words[1]}" if name == "classify" else name
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


def python_blocks(page: str) -> list[str]:
    """Returns the Python blocks of a page, in their order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    """Makes a working folder with what the pages have made before their Python: a run, and images of two classes."""
    settings = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
    (tmp_path / "runs" / "a").mkdir(parents=True)
    preprocessing = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_encoder(build_encoder(**settings), settings, preprocessing, tmp_path / "runs" / "a")
    for number in range(12):
        (tmp_path / "images" / "cd"[number % 2]).mkdir(parents=True, exist_ok=True)
        colour = (20 * number, 255 - 20 * number, 99)
        Image.new("RGB", (20, 24), colour).save(
            tmp_path / "images" / "cd"[number % 2] / f"{number}.{('jpg', 'png')[number % 2]}"
        )
    Image.new("RGB", (20, 24)).save(tmp_path / "cat.jpg")
    write_masked(tmp_path / "scenes", train=5, val=2)
    monkeypatch.chdir(tmp_path)
    options = EmbedOptions(encoder="runs/a", data="images", out=Path("features.parquet"))
    embed_to_file(options, EvaluationOptions())
    return tmp_path


# Others on these pages need a finished run, weights from the network, or what a user has of another library.
RUNNABLE = {
    "README.md": slice(None),
    "docs/guide/your-own-images.md": slice(None),
    "docs/guide/use-the-encoder.md": slice(3),
    "docs/guide/is-it-good.md": slice(0, None, 2),
    "docs/guide/search-your-images.md": slice(3),
    "docs/guide/classify-your-images.md": slice(None),
    "docs/guide/segment-images.md": slice(None),
    "docs/reference/measures.md": slice(None),
}
RUN_ELSEWHERE = {
    "docs/guide/one-loss-in-your-loop.md": "test_the_loop_of_the_guide_runs_and_trains, below",
    "docs/guide/use-the-encoder-elsewhere.md": "test_each_export_of_the_guide..., below",
    "docs/guide/write-a-method.md": "test_the_method_of_the_guide..., below",
    "docs/guide/write-a-protocol.md": "tests/evaluation/test_protocol_contract.py has a protocol of a package",
    "docs/guide/in-your-teams-tools.md": "trains; tests/training/test_step_report.py",
    "docs/guide/is-it-learning.md": "needs a finished run; tests/runs",
    "docs/guide/look-at-a-run.md": "needs two finished runs; tests/reporting/run_page",
    "docs/guide/plan-a-run.md": "takes a data set by name; tests/planning",
    "docs/reference/python.md": "trains six encoders; tests/experiments",
}
"""Pages whose Python is not run by the test below, and where it is, or the like of it."""


def test_the_python_of_each_page_is_run_or_said_where():
    pages = {str(page.relative_to(ROOT)) for page in PAGES if python_blocks(str(page.relative_to(ROOT)))}
    assert pages == RUNNABLE.keys() | RUN_ELSEWHERE.keys()


@pytest.mark.parametrize("page", RUNNABLE)
def test_python_in_the_text_runs_as_it_stands(page, users_folder):
    """Each block runs after those above it."""
    names = {"__name__": "__main__"}
    for block in python_blocks(page)[RUNNABLE[page]]:
        exec(compile(block, page, "exec"), names)


@pytest.mark.process
@pytest.mark.parametrize("number", range(len(python_blocks("README.md"))))
def test_python_in_readme_runs_in_a_clean_process(number, users_folder):
    source = "\n".join(python_blocks("README.md")[: number + 1])
    environment = {**os.environ, "PYTHONPATH": str(Path(infomax.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


ELSEWHERE = "docs/guide/use-the-encoder-elsewhere.md"


@pytest.mark.process
@pytest.mark.slow
def test_each_export_of_the_guide_is_written_and_opened_as_the_guide_says(users_folder, monkeypatch, capsys):
    """The page's commands run as they stand, and then its Python, without a network."""
    settings = {"backbone": "resnet18", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
    (users_folder / "runs" / "b").mkdir()
    preprocessing = Preprocessing(resize=36, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_encoder(build_encoder(**settings), settings, preprocessing, users_folder / "runs" / "b")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    commands = re.findall(r"^infomax (export .+)$", code(ROOT / ELSEWHERE), re.M)
    assert len(commands) == 6
    for command in commands:
        exit_code, _, err = run_command(monkeypatch, capsys, *command.split())
        assert exit_code == 0, err
    source = "\n".join(python_blocks(ELSEWHERE))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_the_method_of_the_guide_passes_its_example_and_is_known_and_trained(tmp_path):
    """Both files of the page make a package, which is installed as pip installs it."""
    page = "docs/guide/write-a-method.md"
    (tmp_path / "mymethod").mkdir()
    for block in python_blocks(page):
        (tmp_path / re.match(r"# (mymethod/\w+\.py)\n", block)[1]).write_text(block)
    entry = re.search(r"^```toml\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)[1]
    (names,) = tomllib.loads(entry)["project"]["entry-points"].values()
    information = tmp_path / "mymethod-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mymethod\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in names.items())
    (information / "entry_points.txt").write_text(f"[infomax.methods]\n{lines}")
    places = os.pathsep.join([str(Path(infomax.__file__).parents[1]), str(tmp_path)])
    script = (
        "import doctest, sys, mymethod.spread as spread; from infomax.cli import main\n"
        "failed, tried = doctest.testmod(spread)\n"
        "assert (failed, tried) == (0, 1)\n"
        "for words in ('recipes spread/digits --set method.weight=2', 'pretrain --data digits --method spread "
        "--epochs 8 --out runs/spread', 'evaluate knn runs/spread --no-baselines'):\n"
        "    sys.argv = ['infomax', *words.split()]\n"
        "    main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "health: dimensional collapse, warning" in done.stderr  # as the page says
    assert "(changed from 1" in done.stdout
    assert "trained by spread/digits with" in done.stdout


VIEWS = re.compile(r"^z1, z2 = .*$", re.M)
NETWORK = """
network = torch.nn.Sequential(torch.nn.Linear(300, 512), torch.nn.BatchNorm1d(512), torch.nn.ReLU())
network.append(torch.nn.Linear(512, 64))
x = torch.randn(256, 300)
z1, z2 = (F.normalize(network(x + torch.randn_like(x)), dim=1) for _ in range(2))
"""
COLLAPSED = "z1 = z2 = F.normalize(torch.randn(1, 64), dim=1).repeat(256, 1).requires_grad_()"


def losses(page: str, number: int, embeddings: str = "") -> dict:
    """Runs the block with the losses of all four methods, perhaps on other embeddings; returns what it computes."""
    names: dict = {}
    source = python_blocks(page)[number]
    assert len(VIEWS.findall(source)) == 1
    exec(VIEWS.sub(embeddings, source) if embeddings else source, names)
    return names


@pytest.mark.parametrize(("page", "number"), [("README.md", 1), ("docs/guide/one-loss-in-your-loop.md", 2)])
def test_losses_are_in_the_ranges_that_the_text_gives(page, number):
    log_k = 4.605
    text = (ROOT / page).read_text()
    as_it_stands = losses(page, number)
    expected = {"mira": 5.4, "corinfomax": 15.3, "carl": 4.6, "mveb": -0.5}
    for name, value in expected.items():
        assert as_it_stands[name].item() == pytest.approx(value, abs=0.15), name
        assert f"{value}" in text
    untrained = losses(page, number, NETWORK)
    assert untrained["mira"].item() == pytest.approx(log_k, abs=0.1)
    assert 10 < untrained["corinfomax"].item() < 14
    assert untrained["carl"].item() == pytest.approx(log_k, abs=0.1)
    collapsed = losses(page, number, COLLAPSED)
    assert collapsed["mira"].item() == pytest.approx(log_k, abs=0.2)
    assert collapsed["corinfomax"].item() == pytest.approx(9.2, abs=0.1)
    assert collapsed["carl"].item() == pytest.approx(log_k, abs=0.2)
    assert collapsed["alignment"](collapsed["z1"], collapsed["z2"].roll(1, 0)).item() == pytest.approx(1)


def test_corinfomax_and_carl_end_where_the_text_says():
    random, collapsed = losses("README.md", 1), losses("README.md", 1, COLLAPSED)
    for names, limit in ((random, 16.4), (collapsed, 36.8)):
        loss = names["CorInfoMaxLoss"](64)
        assert [loss(names["z1"], names["z2"]).item() for _ in range(6)][-1] == pytest.approx(limit, abs=0.2)
    in_one_cluster = torch.eye(100)[torch.zeros(256, dtype=torch.long)] * 50
    carl = random["consistency_loss"](in_one_cluster, in_one_cluster) + 4 * random["uniformity_loss"](in_one_cluster)
    assert carl.item() == pytest.approx(18.4, abs=0.05)


def test_the_loop_of_the_guide_runs_and_trains():
    names: dict = {"__name__": "__main__"}
    for block in python_blocks("docs/guide/one-loss-in-your-loop.md"):
        exec(block, names)
        if "loss" in names and "trained_loss" not in names:
            names["trained_loss"] = names["loss"].item()
    assert 8.3 < names["trained_loss"] < 12.5
    pixels = names["accuracy"](names["images"].flatten(1))
    assert names["accuracy"](names["encoder"](names["images"]).detach()) > pixels + 0.03
