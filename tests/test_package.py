"""The wheel and the source archive hold what a user needs and nothing else, and the wheel works without a clone."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "infomax"
JUNK = (
    *("images/a.jpg", "photos.npz", "runs/a/config.json", "features.parquet", ".hypothesis/x", ".venv/bin/python"),
    *("site/index.html", "dist/infomax-0.0.1.tar.gz", "src/infomax/__pycache__/x.pyc", ".env", "tests/.pytest_cache/x"),
)
"""Files that a clone may hold, and no package."""
MOST_BYTES = 6_000_000


def names_below(folder: Path) -> set[str]:
    """Returns the files of the package in a folder, without what Python makes of them."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds both archives in a copy of the clone that holds files of a user; returns their folder."""
    pytest.importorskip("hatchling")
    clone = tmp_path_factory.mktemp("clone")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    for name in (*listed, "LICENSE", "README.md", "pyproject.toml", ".gitignore"):
        if (ROOT / name).is_dir():
            copytree(ROOT / name, clone / name, ignore=ignore_patterns("__pycache__", ".pytest_cache"))
        else:
            (clone / name).write_bytes((ROOT / name).read_bytes())
    for name in JUNK:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(b"x")
    out = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(out)]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.process
def test_the_wheel_holds_the_package_whole_and_nothing_else(built):
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licence = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    assert names == {f"infomax/{name}" for name in names_below(SOURCE)}
    for kept in ("py.typed", "papers/mira.toml", "reporting/pages/assets/map.js", "data/sources/flowers102.txt"):
        assert f"infomax/{kept}" in names
    assert licence
    assert file.stat().st_size < MOST_BYTES


@pytest.mark.process
def test_the_source_archive_holds_no_data_and_no_caches(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        members = {PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix(): member.size for member in archive}
    assert not members.keys() & set(JUNK)
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    places = {*listed["only-include"], "LICENSE", "README.md", "pyproject.toml", ".gitignore", "PKG-INFO"}
    assert {PurePosixPath(name).parts[0] for name in members} == places
    assert names_below(SOURCE) <= {name.removeprefix("src/infomax/") for name in members}
    assert max(members.values()) < 1_000_000
    assert file.stat().st_size < MOST_BYTES


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Unpacks the wheel into a folder of its own; returns what runs its command in another, empty one."""
    (file,) = built.glob("*.whl")
    folder, work = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("work")
    with zipfile.ZipFile(file) as wheel:
        wheel.extractall(folder)
    environment = {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}

    def infomax(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "infomax", *words],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return infomax, work


@pytest.mark.process
def test_the_wheels_command_answers_where_there_is_no_clone(installed):
    infomax, _ = installed
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert infomax("--version") == f"infomax {version}\n"
    for shell in ("bash", "zsh"):
        assert "--print-completion" not in infomax("--print-completion", shell)
        assert "pretrain" in infomax("--print-completion", shell)
    assert "--out DIR" in infomax("demo", "--help")
    assert "\nmira-14 " in infomax("report", "--table", "list")  # of a file in the wheel


@pytest.mark.slow
def test_the_wheel_trains_where_there_is_no_clone(installed):
    """Takes a minute, as the kernels of the views are compiled anew for the new place."""
    infomax, work = installed
    two_steps = ("--epochs", "1", "--batch-size", "718", "--workers", "0")
    infomax("pretrain", "--data", "digits", "--method", "mira", "--out", "runs/a", *two_steps)
    infomax("report", "runs/a", "--out", "a.html")  # which reads the scripts and styles of pages
    assert '"commit": null' in (work / "runs" / "a" / "config.json").read_text()
