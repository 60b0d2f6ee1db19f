"""Nothing in the folder where a command is started runs or is read, unless the command names it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from infomax.runtime.ranks import safe_path_in_children

MODULES = (
    *("numpy", "torch", "PIL", "numba", "tyro", "yaml", "sitecustomize", "usercustomize"),
    *("random", "socket", "pickle", "struct", "tempfile", "selectors", "multiprocessing", "subprocess", "runpy"),
)
"""Names of modules that some process of a command imports."""


@pytest.fixture
def trapped(tmp_path):
    """Makes a folder whose modules leave a file when they are imported, with images of two classes."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(
            f"import os\nopen(os.path.join({str(tmp_path)!r}, 'ran-{name}'), 'w').close()\n"
        )
    evil = tmp_path / "evil"
    (tmp_path / ".numba_config.yaml").write_text(f"disable_jit: 1\ncache_dir: {evil}\n")
    (tmp_path / "matplotlibrc").write_text("savefig.facecolor: red\nfigure.facecolor: red\n")
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(8):
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path


TRAINING = ("--data", "images", "--method", "carl", "--recipe", "small", "--epochs", "1", "--image-size", "8")
COMMANDS = {
    "pretrain": ("pretrain", *TRAINING, "--batch-size", "8", "--workers", "2", "--out", "a"),
    "ranks": ("pretrain", *TRAINING, "--batch-size", "8", "--devices", "2", "--out", "b"),
    "sweep": ("sweep", "carl/small", *TRAINING[:2], *TRAINING[6:], "--batch-size", "8", "--out", "s"),
}


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory):
    """A cache folder in which kernels are compiled once for all tests of this file."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.process
@pytest.mark.parametrize(("start", "words"), [("module", "pretrain"), ("script", "ranks"), ("script", "sweep")])
def test_nothing_in_the_working_folder_runs(trapped, tmp_path_factory, module_cache, start, words):
    script = tmp_path_factory.mktemp("bin") / "infomax"  # as pip writes it
    script.write_text("from infomax.cli import main\nif __name__ == '__main__':\n    main()\n")
    begin = ["-m", "infomax"] if start == "module" else [script]
    environment = {**os.environ, "XDG_CACHE_HOME": module_cache, "OMP_NUM_THREADS": "1"}
    for name in ("NUMBA_CACHE_DIR", "PYTHONSAFEPATH"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *begin, *COMMANDS[words]],
        cwd=trapped,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in trapped.glob("ran-*")) == []
    assert not (trapped / "evil").exists()
    for picture in trapped.rglob("*.png"):
        if picture.name in ("views.png", "sweep.png"):
            assert Image.open(picture).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_children_of_a_caller_have_its_own_path_again(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with safe_path_in_children():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ
