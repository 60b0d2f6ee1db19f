"""``infomax doctor`` describes an installation for an issue report, and finds what is wrong with it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from command import run_command
from infomax.diagnosis import caches, doctor, machine, software
from infomax.diagnosis.entries import WIDTH, Entry, Section, anonymous, describe_size
from infomax.runtime import extras
from infomax.runtime.extras import EXTRAS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_cache(tmp_path, monkeypatch):
    """Lets all caches be in a folder with three files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("INFOMAX_DATA", "HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "infomax" / "features" / "deep").mkdir(parents=True)
    for number, folder in enumerate(("infomax", "infomax/features", "infomax/features/deep")):
        (tmp_path / folder / "file").write_bytes(bytes(1000 * (number + 1)))
    return tmp_path


def test_the_text_has_all_sections_fits_a_report_and_names_no_user(monkeypatch, capsys, small_cache):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "engine7")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("HF_HOME", "/scratch/ada/hf-engine7")
    code, out, _ = run_command(monkeypatch, capsys, "doctor")
    lines = out.splitlines()
    assert max(map(len, lines)) <= WIDTH < 80
    assert lines[0].startswith("infomax 0.")
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[1:-1] == ["packages", "devices", "threads", "free", "caches", "extras", "environment"]
    assert "ada" not in out.replace("cuda", "")
    assert "engine7" not in out
    assert "/scratch/USER/hf-HOST" in out
    assert f"torch         {torch.__version__.partition('+')[0]}" in out
    assert code == (0 if lines[-1] == "no problems found" else 1)


@pytest.mark.parametrize(("load", "is_busy"), [(0.5, False), (1.0, False), (1.6, True)])
def test_a_busy_machine_is_named(monkeypatch, load, is_busy):
    monkeypatch.setattr("os.getloadavg", lambda: (load * os.cpu_count(), 0.0, 0.0), raising=False)
    entry = {entry.name: entry for entry in machine.describe_threads().entries}["load"]
    assert ("other work slows infomax down" in entry.text) == is_busy
    assert entry.problem is None


def test_json_has_the_same_sections_with_numbers(monkeypatch, capsys, small_cache):
    _, out, _ = run_command(monkeypatch, capsys, "doctor", "--json")
    told = json.loads(out)
    assert list(told) == [
        *("infomax", "packages", "devices", "threads", "free", "caches", "extras", "environment", "problems")
    ]
    assert told["caches"]["infomax"]["bytes"] == 6000
    assert told["caches"]["features"]["files"] == 2
    assert told["caches"]["hugging face"]["bytes"] == 0
    assert told["threads"]["cores"]["machine"] == os.cpu_count()
    assert told["free"]["memory"]["total"] > told["free"]["memory"]["free"] > 0
    assert told["extras"]["parquet"]["installed"] is True


@pytest.mark.process
def test_it_says_something_within_a_second_and_before_torch(tmp_path):
    """Two seconds here, as the machine may be busy; importing torch alone takes longer on it."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "from infomax.cli import main; main()", "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        text=True,
    )
    assert process.stdout.readline().startswith("infomax ")
    assert time.monotonic() - start < 2
    process.kill()
    process.communicate()


def test_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert EXTRAS.keys() == project["optional-dependencies"].keys()
    page = (ROOT / "docs" / "guide" / "install.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.M)
    assert {name: text.replace("`", "") for name, text in rows} == EXTRAS


def test_a_missing_extra_is_named_with_its_use_and_its_command(monkeypatch):
    monkeypatch.setattr(software, "_version", lambda name: None if name == "faiss-cpu" else "1.0")
    lines = {entry.name: entry for entry in software.describe_extras().entries}
    assert lines["faiss"].text == "no, for infomax search --engine faiss"
    assert lines["to add one"].text == extras.how_to_install("NAME")
    assert lines["faiss"].json_value == {"installed": False, "packages": {"faiss-cpu": None}}
    assert lines["parquet"].text == "yes: pyarrow 1.0"


def test_a_missing_package_is_a_problem(monkeypatch):
    monkeypatch.setattr(software, "_version", lambda name: None if name == "timm" else "1.0")
    sections = [software.describe_packages()]
    assert [entry.text for entry in doctor.find_problems(sections).entries] == [
        "the package timm is missing: install infomax again, with its dependencies"
    ]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ('{"url": "file:///home/ada/infomax", "dir_info": {"editable": true}}', "from a clone, which it runs from"),
        ('{"url": "file:///home/ada/infomax", "dir_info": {}}', "from a folder, of which it is a copy"),
        ('{"url": "file:///home/ada/infomax-0.1.0-py3-none-any.whl"}', "from infomax-0.1.0-py3-none-any.whl"),
        (None, "a wheel from a package index"),
    ],
)
def test_how_infomax_was_installed(monkeypatch, url, text):
    monkeypatch.setattr(software, "distribution", lambda name: SimpleNamespace(read_text=lambda file: url))
    assert software._origin() == text


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch):
    """As with a torchvision that was built for another torch."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    (entry,) = machine.describe_devices().entries
    assert "torch and torchvision must be a pair" in entry.problem


@pytest.mark.parametrize(
    ("built", "problem"),
    [("13.2", "the driver 470.1 may be too old for torch's CUDA 13.2"), (None, "this torch is for CPUs alone")],
)
def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch, built, problem):
    monkeypatch.setattr(machine, "_nvidia_driver", lambda: "470.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    problems = [entry.problem for entry in machine.describe_devices().entries if entry.problem]
    assert [problem in text for text in problems] == [True]


def test_a_gpu_is_described_after_it_has_added(monkeypatch):
    properties = SimpleNamespace(name="H9", total_memory=80e9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (60e9, 80e9))
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.full(shape, 1.0))
    assert machine._gpu(torch, 0).text == "H9, 60 GB free of 80 GB, capability 9.0"

    def broken(*shape, device):
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    problem = machine._gpu(torch, 0).problem
    assert problem == (
        "GPU 0 cannot compute: CUDA error: no kernel image is available; CUDA_VISIBLE_DEVICES can leave it out"
    )


def test_little_shared_memory_or_disk_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=60_000_000, total=64_000_000))
    found = doctor.find_problems([machine.describe_memory()])
    texts = [entry.text for entry in found.entries]
    assert texts[0].startswith("workers need 268 MB of shared memory: docker run --shm-size 2g")
    assert len(texts) == 4
    assert all(text.startswith("less than 1.1 GB of disk is left at ") for text in texts[1:])


def test_shared_memory_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    texts = [entry.text for entry in doctor.find_problems([machine.describe_memory()]).entries]
    assert f"workers need {tmp_path}, which you may not write: infomax pretrain --workers 0" in texts


def test_a_large_cache_is_counted_for_a_while_only(small_cache):
    whole = caches.folder_size(small_cache)
    assert whole == (6000, 3, True)
    part = caches.folder_size(small_cache, patience=-1)
    assert not part.is_whole
    assert part.files < 3
    section = caches.describe_caches({"x": small_cache / "none"})
    assert section.entries[0].text.endswith("none, not there yet")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ada", "~"),
        ("/home/ada/x", "~/x"),
        ("/home/adam/x", "/home/adam/x"),
        ("/scratch/ada/runs", "/scratch/USER/runs"),
        ("/mnt/engine7/data_ada", "/mnt/HOST/data_USER"),
    ],
)
def test_paths_name_no_user_and_no_machine(monkeypatch, path, shown):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "engine7")
    assert anonymous(path) == shown


def test_long_entries_are_wrapped_and_sizes_are_short():
    lines = Section("a", [Entry("name", "word " * 40), Entry("A_LONG_NAME_OF_A_VARIABLE", "value")]).lines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[1].startswith("  name          word")
    assert lines[2].startswith(" " * 16 + "word")
    assert lines[-1] == "  A_LONG_NAME_OF_A_VARIABLE value"
    assert [describe_size(n) for n in (0, 999, 1300, 2.5e9, 25e9)] == [
        "0 bytes",
        "999 bytes",
        "1.3 kB",
        "2.5 GB",
        "25 GB",
    ]
