"""Imports point one way, heavy libraries stay in few files, and files stay short enough to read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import infomax

SOURCE = Path(infomax.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# A layer may import itself and what stands below it.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"judging"},
    {"commands"},
    {"catalogue", "sweep_results", "sweeping"},
    {"report", "sweep"},
    {"demo", "prototypes", "plan", "plan_text"},
    {"pretraining"},
    {"training", "timing"},
    {"replay", "monitor", "online", "cost"},
    {"engine"},
    {"building"},
    {"evaluation"},
    {"runs", "table", "gpus"},
    {"recipes"},
    {"methods"},
    {"nn", "optim"},
    {"pretrained", "weights"},
    {"encoders"},
    {"functional"},
    {"distributed", "schedules"},
    {"data"},
    {"launch", "checkpoints", "published", "progress"},
    {"arguments", "storage"},
]
ONLY_IN = {
    "tyro": {"cli/__init__.py", "cli/words.py", "cli/train.py", "cli/judge.py"},
    "timm": {"encoders.py", "pretrained.py"},
    "sklearn": {"data/arrays.py", "evaluation/clusters.py", "evaluation/transfer.py"},
    "matplotlib": {"data/picture.py", "sweep_results.py"},
    "torch.distributed": {"distributed.py"},
    "torch.multiprocessing": {"launch.py"},
    "torch.utils.tensorboard": {"monitor.py"},
    "argparse": set(),
}


def imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def layer(part: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part in names)


def relative(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("file", [f for f in FILES if relative(f) != "__init__.py"], ids=relative)
def test_imports_point_downwards(file):
    own = relative(file).removesuffix(".py").split("/")[0]
    for name in imports(file):
        if name.startswith("infomax."):
            assert layer(own) <= layer(name.split(".")[1]), f"{relative(file)} imports {name}"


def test_evaluation_knows_no_method():
    for file in FILES:
        if relative(file).startswith("evaluation"):
            assert not [name for name in imports(file) if name.startswith(("infomax.methods", "infomax.recipes"))]


def test_pretraining_knows_no_method_by_name():
    text = " ".join(name for part in ("pretraining", "training", "engine") for name in imports(SOURCE / f"{part}.py"))
    assert not [name for name in ("mira", "corinfomax", "carl", "mveb") if name in text]


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_where_they_are_needed(library):
    users = {relative(f) for f in FILES if any(n == library or n.startswith(f"{library}.") for n in imports(f))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_files_and_functions_stay_short(file):
    tree = ast.parse(file.read_text())
    assert len(file.read_text().splitlines()) <= 300
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = [child for child in node.body if not isinstance(child, ast.Expr)]
            assert not body or (node.end_lineno or 0) - body[0].lineno < 60, f"{relative(file)}: {node.name}"


def test_every_public_name_has_a_docstring():
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                settings = file.name == "schema.py" or node.name.endswith("Settings")
                assert settings or ast.get_docstring(node), f"{relative(file)}: {node.name}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import infomax, infomax.cli", ("torch", "numpy", "matplotlib")),
        ("from infomax.methods import mira, corinfomax, carl, mveb", ("torchvision", "timm", "sklearn", "tensorboard")),
        ("import infomax.evaluation.protocols", ("timm", "torchvision", "tensorboard")),
    ],
)
def test_imports_stay_light(statement, absent):
    code = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    for name in infomax.__all__:
        assert callable(getattr(infomax, name))
    with pytest.raises(AttributeError, match="no attribute 'mira'"):
        _ = infomax.mira
