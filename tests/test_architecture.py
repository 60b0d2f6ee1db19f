"""Imports point one way, heavy libraries stay in few files, and functions stay short enough to read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import infomax

SOURCE = Path(infomax.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# A package may import itself and what stands below it.
PACKAGES = [
    "__main__",
    "cli",
    "diagnosis",
    "figures",
    "experiments",
    "exporting",
    "classifying",
    "embeddings",
    "reporting",
    "planning",
    "training",
    "evaluation",
    "runs",
    "recipes",
    "features",
    "methods",
    "models",
    "analysis",
    "nn",
    "functional",
    "data",
    "papers",
    "runtime",
]
# Inside data, a package or file imports only itself and these: sources know no views, loading knows no source.
DATA = {
    "options": {"sources"},
    "preview": {"augmentation", "images", "pixel_format", "shown_pixels"},
    "loading": {"splits", "augmentation", "streams", "images", "pixel_format", "decoding"},
    "sources": {
        "splits",
        "streams",
        "images",
        "measured_pixels",
        "number_files",
        "numbers",
        "pixel_format",
        "fingerprints",
        "decoding",
    },
    "augmentation": {"pixel_format"},
    "range_notes": {"measured_pixels", "splits", "images", "numbers", "pixel_format"},
    "measured_pixels": {"splits", "images", "numbers", "pixel_format", "decoding"},
    "splits": {"streams", "images", "pixel_format", "decoding"},
    "streams": {"images", "number_files", "numbers", "decoding"},
    "images": {"number_files", "numbers", "shown_pixels", "pixel_format", "decoding", "fingerprints"},
    "number_files": {"numbers", "pixel_format", "decoding"},
    "numbers": {"pixel_format"},
    "shown_pixels": {"pixel_format"},
    "pixel_format": set(),
    "decoding": set(),
    "fingerprints": set(),
}
ONLY_IN = {
    "tyro": {"cli/__init__.py", "cli/classify.py", "cli/command.py", "cli/command_class.py", "cli/evaluate.py"},
    "timm": {
        "exporting/formats/timm.py",
        "models/encoders.py",
        "models/input_channels.py",
        "models/library_backbones.py",
        "models/pretrained.py",
        "models/stages.py",
        "nn/batch_norm.py",
    },
    "sklearn": {
        "data/sources/arrays.py",
        "evaluation/clusters.py",
        "evaluation/transfer.py",
        "features/map_layout.py",
        "figures/catalogue/tsne.py",
    },
    "matplotlib": {
        "classifying/confusion.py",
        "experiments/sweep_results.py",
        "figures/figure.py",
        "figures/make.py",
        "runtime/figure_style.py",
    },
    "torch.distributed": {"runtime/collectives.py"},
    "torch.multiprocessing": {"runtime/ranks.py"},
    "torch.utils.tensorboard": {"training/loggers/tensorboard.py"},
    "wandb": {"training/loggers/wandb.py"},
    "mlflow": {"training/loggers/mlflow.py"},
    "trackio": {"training/loggers/trackio.py"},
    "yaml": {"cli/options_file.py"},
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


def relative(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("file", [f for f in FILES if relative(f) != "__init__.py"], ids=relative)
def test_imports_point_downwards(file):
    own = relative(file).removesuffix(".py").split("/")
    for name in imports(file):
        if name.startswith("infomax."):
            other = name.split(".")[1:]
            assert PACKAGES.index(own[0]) <= PACKAGES.index(other[0]), f"{relative(file)} imports {name}"
            if own[0] == other[0] == "data" and len(other) > 1 and own[1] != "__init__":
                assert other[1] in {own[1], *DATA[own[1]]}, f"{relative(file)} imports {name}"


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions count too; a package stands for its __init__ file."""
    modules = {relative(f).removesuffix(".py").removesuffix("/__init__").replace("/", "."): f for f in FILES}
    imported = {
        name: {other.removeprefix("infomax.") for other in imports(file)} & (modules.keys() - {name})
        for name, file in modules.items()
        if name != "__init__"
    }
    while leaves := {name for name, others in imported.items() if not others & imported.keys()}:
        imported = {name: others for name, others in imported.items() if name not in leaves}
    assert not imported, f"these files import each other, or stand above such files: {sorted(imported)}"


def test_no_file_stands_beside_the_packages():
    assert {path.name for path in SOURCE.glob("*.py")} == {"__init__.py", "__main__.py", "functional.py"}


def test_whatever_is_printed_is_escaped():
    """Names of files and classes may hold escapes of a terminal: infomax.runtime.text prints them, and nothing else."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and relative(file) != "runtime/text.py":
                called = ast.unparse(node.func)
                printing = called in ("print", "tqdm.write", "sys.stderr.write", "sys.stdout.write")
                assert not printing, f"{relative(file)}, line {node.lineno}: note() or show() of runtime/text.py prints"


def test_evaluation_knows_no_method():
    for file in FILES:
        if relative(file).startswith(("evaluation", "features")):
            assert not [name for name in imports(file) if name.startswith(("infomax.methods", "infomax.recipes"))]


def test_training_knows_no_method_by_name():
    text = " ".join(name for file in (SOURCE / "training").glob("*.py") for name in imports(file))
    assert not [name for name in ("mira", "corinfomax", "carl", "mveb") if name in text]


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_where_they_are_needed(library):
    users = {relative(f) for f in FILES if any(n == library or n.startswith(f"{library}.") for n in imports(f))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_functions_stay_short(file):
    tree = ast.parse(file.read_text())
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
        ("import infomax.cli, infomax.reporting.watch.follow", ("torch", "numpy", "PIL")),
        ("from infomax.methods import mira, corinfomax, carl, mveb", ("torchvision", "timm", "sklearn", "tensorboard")),
        (
            "import infomax.training.opening, infomax.training.preview, infomax.evaluation.run",
            ("torch", "numba", "matplotlib", "scipy", "sklearn", "pandas"),
        ),
        ("import infomax.features.cache, infomax.features.extraction, infomax.training.loop", ("numba", "tensorboard")),
        ("import infomax.evaluation.protocols, infomax.evaluation.knn_vote", ("timm", "torchvision", "tensorboard")),
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
