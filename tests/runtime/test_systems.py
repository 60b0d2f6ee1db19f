"""What can be told on Linux about other systems: by hiding what they lack, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infomax.runtime.devices import choose_device, leaves_apple_gpu
from infomax.runtime.systems import ON_WINDOWS_TOO, WINDOWS

WINDOWS_LACKS = """
import sys
import torch, torchvision, numpy, timm, numba  # which look at the system when they are imported
for name in ("fcntl", "termios", "tty", "resource", "pwd", "grp"):
    sys.modules[name] = None
sys.platform = "win32"
"""
LOSSES = """
import infomax
from infomax.methods.carl import consistency_loss
from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.methods.mira import assign, swapped_prediction_loss
from infomax.methods.mveb import alignment
x = torch.randn(8, 4, requires_grad=True)
(swapped_prediction_loss([x, x], [assign(x), assign(x)]) + CorInfoMaxLoss(4)(x, x) + consistency_loss(x, x)).backward()
print(infomax.functional.__name__, infomax.load(sys.argv[1]).width)
infomax.pretrain
"""
MACOS_LACKS = """
import errno, multiprocessing, os, pathlib, sys
for name in ("sched_getaffinity", "memfd_create"):
    if hasattr(os, name):
        delattr(os, name)

def hiding(read):
    def hidden(path, *args, **options):
        if str(path).startswith(("/proc", "/sys", "/dev/shm")):
            raise FileNotFoundError(errno.ENOENT, 'No such file', str(path))
        return read(path, *args, **options)
    return hidden

for name in ("read_text", "read_bytes", "open", "stat"):
    setattr(pathlib.Path, name, hiding(getattr(pathlib.Path, name)))
"""
MACOS_RUN = """
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from infomax.cli import main
    main()
"""


def python(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder, in a process of its own."""
    script = folder / "script.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_without_what_windows_lacks_losses_work_and_the_rest_says_where_it_does(tmp_path):
    from infomax.data.augmentation.views import Preprocessing
    from infomax.models.encoders import build_encoder, save_encoder

    settings = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
    (tmp_path / "a").mkdir()
    preprocessing = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_encoder(build_encoder(**settings), settings, preprocessing, tmp_path / "a")
    done = python(tmp_path, WINDOWS_LACKS + LOSSES, "a")
    assert done.stdout.split() == ["infomax.functional", "128"], done.stderr
    assert done.stderr.splitlines()[-1] == f"ImportError: infomax.pretrain: {WINDOWS}"
    assert set(ON_WINDOWS_TOO) == {"Encoder", "load"}


@pytest.mark.process
def test_the_command_says_on_windows_in_one_line_where_it_runs(tmp_path):
    code = "import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; from infomax.__main__ import main; main()"
    done = python(tmp_path, code, "pretrain", "--data", "digits", "--out", "a")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"infomax: {WINDOWS}\n")
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Makes a folder with 48 small images of two classes."""
    folder, rng = tmp_path_factory.mktemp("macos"), np.random.default_rng(0)
    for number in range(48):
        label = folder / "photos" / "ab"[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(label / f"{number}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)  # ten processes import torch, each in a minute if others keep the cores busy
def test_without_what_macos_lacks_a_run_trains_is_watched_resumed_and_evaluated(photos):
    """Workers are spawned, and keep decoded images in memory that torch shares."""
    begin = ("pretrain", "--data", "photos", "--out", "a", "--batch-size", "16", "--workers", "2", "--epochs", "2")
    for words in (
        (*begin, "--image-size", "16"),
        ("watch", "a", "--once"),
        ("pretrain", "--resume", "--out", "a", "--epochs", "3"),
        ("evaluate", "knn", "a"),
        ("doctor",),
    ):
        done = python(photos, MACOS_LACKS + MACOS_RUN, *words)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_cores_and_memory_are_known_without_linux(monkeypatch):
    from infomax.runtime import memory, threads

    def read_text(self, *args, **options):
        raise FileNotFoundError(self)

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    assert threads.cores_to_run_on() == os.cpu_count()
    assert threads.quota_in_cores() == float("inf")
    assert threads._seconds_of_others() is None
    assert memory.available_memory() == memory.machine_memory() // 2


def test_apples_gpu_is_taken_if_it_is_named_and_there(monkeypatch):
    with pytest.raises(ValueError, match=r"--device mps: torch finds no Apple GPU here; use cpu or auto"):
        choose_device("mps")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("mps") == "mps"
    assert choose_device("auto") == "cpu"
    assert leaves_apple_gpu("auto")
    assert not leaves_apple_gpu("cpu")
