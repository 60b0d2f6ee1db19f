"""What commands import, and what they have printed before they import torch, which takes seconds."""

import json
import os
import subprocess
import sys
from shutil import copytree

import numpy as np
import pytest

HEAVY = (
    *("onnx", "onnxscript", "onnxruntime", "huggingface_hub", "wandb", "mlflow", "trackio"),
    *("torch", "torch._dynamo", "torch._inductor", "torch.utils.tensorboard", "torchvision", "timm", "transformers"),
    *("numba", "scipy.special", "scipy.stats", "scipy.optimize", "sklearn", "pandas", "matplotlib", "sympy", "pyarrow"),
)
"""Libraries that take a tenth of a second to some seconds to import."""
WATCH = """
import io, os, sys

class Watched(io.TextIOWrapper):
    "A stream that tells at its first character whether torch is imported."
    first = True

    def write(self, text):
        if Watched.first and text:
            Watched.first = False
            print(f"TORCH AT THE FIRST LINE: {'torch' in sys.modules}", file=report, flush=True)
            if os.environ.get("STOPS_AT_FIRST_LINE"):
                os._exit(0)
        return super().write(text)

report = os.fdopen(int(os.environ.pop("REPORT")), "w")
sys.stdout, sys.stderr = (Watched(stream.detach(), line_buffering=True) for stream in (sys.stdout, sys.stderr))
from infomax.cli import main
try:
    main()
finally:
    print(*[name for name in sys.argv.pop().split(",") if name in sys.modules], file=report, flush=True)
"""


def watch(folder, *words: str, stops: bool, exit_code: int = 0) -> tuple[str, set[str]]:
    """Runs ``infomax WORDS`` in a process; returns what it tells at its first line, and the heavy modules at its end.

    Args:
        folder: The working folder.
        words: The words of the command.
        stops: Whether the process ends at its first line.
        exit_code: With which the process should end.
    """
    reader, writer = os.pipe()
    environment = {**os.environ, "REPORT": str(writer), "STOPS_AT_FIRST_LINE": "1" if stops else ""}
    code = WATCH.replace("sys.argv.pop()", repr(",".join(HEAVY)))
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment,
        pass_fds=[writer],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader) as report:
        first, *modules = report.read().splitlines() or [done.stderr]
    assert done.returncode == exit_code, done.stderr
    return first, set(" ".join(modules).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a few images, and a run that was trained on them for a step or two."""
    from PIL import Image

    from infomax import evaluate, pretrain

    folder = tmp_path_factory.mktemp("start")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.jpg")
    settings = {"batch_size": 16, "epochs": 1, "image_size": 16, "workers": 0, "quiet": True}
    run = pretrain(data=folder / "photos", out=folder / "run", **settings)
    evaluate("knn", run, no_baselines=True)
    copytree(folder / "run", folder / "copy")
    return folder


FIRST_LINES = {
    "pretrain": ("pretrain", "--data", "photos", "--out", "new", "--batch-size", "16"),
    "resume": ("pretrain", "--resume", "--out", "run"),
    "views": ("views", "--data", "photos"),
    "knn": ("evaluate", "knn", "run"),
    "cluster": ("evaluate", "cluster", "run"),
    "finetune": ("evaluate", "finetune", "run"),
    "plan": ("plan", "--data", "photos"),
    "demo": ("demo", "--out", "demo"),
    "replay": ("replay", "run"),
    "sweep": ("sweep", "mira/digits", "--out", "sweep"),
    "compare": ("compare", "--data", "photos"),
    "report": ("report", "run"),
    "report --out": ("report", "run", "--out", "report.html"),
    "watch": ("watch", "run", "--once"),
    "choose": ("choose", "run", "copy"),
    "export": ("export", "run", "--format", "safetensors", "--out", "a.safetensors"),
    "classify fit": ("classify", "fit", "run", "--data", "photos", "--out", "first"),
    "recipes": ("recipes",),
    "doctor": ("doctor",),
    "figure": ("figure",),
}


@pytest.mark.process
@pytest.mark.parametrize("command", sorted(FIRST_LINES))
def test_a_line_of_any_command_is_printed_before_torch_is_imported(folder, command):
    first, _ = watch(folder, *FIRST_LINES[command], stops=True)
    assert first == "TORCH AT THE FIRST LINE: False"


VALID = {
    **FIRST_LINES,
    **{f"evaluate {name}": ("evaluate", name, "run") for name in ("knn", "linear", "few-shot", "cluster", "finetune")},
    "embed": ("embed", "run", "--out", "features.npz"),
    "figure": ("figure", "spectrum", "run"),
    "options": ("options", "run"),
}
"""Words of commands, each of which is refused if one of its values is made impossible."""
TRIES = """
import contextlib, io, json, sys

class Imported(BaseException):
    pass

class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise Imported

sys.meta_path.insert(0, Torch())
from infomax import cli

NUMBERS = (int, float, int | None, float | None)
ANY_VALUE = {"--options", "--out", "--no-data", "--serve", "--port", "--log"}  # or none that is wrong everywhere
valid, missed, tried = json.load(sys.stdin), [], 0
for name, fields in cli.command_options().items():
    for field in fields if name in valid else ():
        if field.shown.positional or field.type is bool or field.word in ANY_VALUE:
            continue
        words = list(valid[name])
        if field.word in words:
            place = words.index(field.word)
            del words[place : place + 2]
        sys.argv = ["infomax", *words, field.word, "-3" if field.type in NUMBERS else "nonsense"]
        end, tried = None, tried + 1
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                cli.main()
            except SystemExit as stop:
                end = stop.code
            except Imported:
                end = "imports torch"
        if end != 2:
            missed.append((*sys.argv, end))
print(json.dumps([tried, missed]))
"""


@pytest.mark.process
def test_every_command_refuses_wrong_values_of_its_options_before_torch_is_imported(folder):
    words = json.dumps(VALID)
    done = subprocess.run([sys.executable, "-c", TRIES], cwd=folder, input=words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tried, missed = json.loads(done.stdout)
    assert missed == []
    assert tried > 200


REFUSED_IMAGES = {
    "one image to train on": ("pretrain", "--data", "photos/cat/0.jpg", "--out", "one"),
    "one image to compare on": ("compare", "--data", "photos/cat/0.jpg", "--out", "two"),
    "no labels to evaluate by": ("evaluate", "knn", "run", "--data", "photos/cat"),
    "no labels to fit by": ("classify", "fit", "run", "--data", "photos/cat", "--out", "third"),
}


@pytest.mark.process
@pytest.mark.parametrize("words", REFUSED_IMAGES.values(), ids=REFUSED_IMAGES)
def test_images_that_do_not_serve_are_refused_before_torch_is_imported(folder, words):
    _, modules = watch(folder, *words, stops=False, exit_code=2)
    assert modules == set()


TRAINS = {"torch", "numba", "torch.utils.tensorboard"}
IMPORTS = {
    "recipes": (("recipes",), set()),
    "figure": (("figure",), set()),
    "figure --about": (("figure", "spectrum", "--about"), set()),
    "report": (("report", "run"), set()),
    "report --out": (
        ("report", "run", "--out", "report.html"),
        {"torch", "numba", "sklearn", "pandas", "pyarrow", "scipy.special", "scipy.stats", "scipy.optimize"},
    ),
    "watch": (("watch", "run"), set()),
    "sweep --commands": (("sweep", "mira/digits", "--out", "sweep", "--commands"), set()),
    "views": (("views", "--data", "photos"), {"torch", "numba"}),
    "pretrain": (
        ("pretrain", "--data", "photos", "--out", "new", "--batch-size", "16", "--epochs", "1", "--workers", "0"),
        TRAINS,
    ),
    "pretrain in microbatches": (
        (
            *("pretrain", "--data", "photos", "--out", "micro", "--batch-size", "16", "--micro-batch-size", "8"),
            *("--epochs", "1", "--workers", "0"),
        ),
        TRAINS,
    ),
    "pretrain digits": (("pretrain", "--data", "digits", "--out", "digits", "--epochs", "1"), TRAINS),
    "evaluate knn": (("evaluate", "knn", "run"), {"torch"}),
    "export": (("export", "run", "--format", "safetensors", "--out", "b.safetensors"), {"torch"}),
    "evaluate linear": (("evaluate", "linear", "run"), {"torch"}),
    "classify fit": (("classify", "fit", "run", "--data", "photos", "--out", "second"), {"torch"}),
    "evaluate few-shot": (("evaluate", "few-shot", "run"), {"torch", "scipy.special"}),
    "evaluate cluster": (
        ("evaluate", "cluster", "run"),
        {"torch", "sklearn", "pandas", "pyarrow", "scipy.special", "scipy.stats", "scipy.optimize"},
    ),
}
"""For some commands the words, and the heavy libraries that they may import."""


@pytest.mark.process
@pytest.mark.parametrize("command", IMPORTS)
def test_a_command_imports_no_more_than_it_needs(folder, command):
    words, allowed = IMPORTS[command]
    first, modules = watch(folder, *words, stops=False)
    assert first == "TORCH AT THE FIRST LINE: False"
    assert modules <= allowed
    assert ("torch" in modules) == ("torch" in allowed)
