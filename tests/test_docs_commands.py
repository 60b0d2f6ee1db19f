"""Each command of README and docs is carried out on tiny data, or is listed here with the reason why it is not."""

import re
import shlex
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from PIL import Image

import infomax
from command import run_command
from infomax import cli
from infomax.cli.options_file import insert_options_file
from infomax.cli.words import check_words, lengthen_options
from mask_folders import write_masked

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:uv run (?:--extra \w+ )?|torchrun .* |srun )?infomax (.+)$", re.M)
GENERAL = ("--version", "--print-completion")
NOT_RUN = {
    r"^demo": "takes minutes; tests/experiments runs it smaller",
    r"^compare": "trains for the time that it is given; tests/experiments runs it with a budget of images",
    r"^sweep (mira|corinfomax|carl)-\d|^sweep .*(cifar10|imagenet)": "the papers' encoders and data: hours on a GPU",
    r"^sweep mveb/digits|--recipe \S+/digits|^figure": "minutes for each run; tests of figures run them smaller",
    r"^sweep mira/small": "trains six encoders; tests/experiments runs sweeps on toys",
    r"--recipe (mira|corinfomax)/(cifar10|imagenet)": "a paper's encoder: hours on a GPU",
    r"--recipe \S+/small|cifar10(-10000)?\.npz": "how a measurement was made, in hours",
    r"(timm|torchvision|hf):[^ ]": "weights of another library, which are fetched, or its large networks",
    r"--data (cifar10|imagenet|dtd)|--data-dir": "data sets of the papers, which are fetched",
    r"\.pth\b|\.pth\.tar|#teacher": "files of others; tests/models makes some of each layout",
    r"--log wandb": "an account at that service",
    r"--devices": "as many GPUs",
    r"^replay": "a step that has failed; tests/training makes one",
    r"^evaluate online-linear": "a run by a recipe that has the probe beside it",
    r"^plan .*(cifar10|imagenet)|^plan --images": "tests/planning runs plans for each GPU",
    r"epochs/50": "the epochs that a run of 200 keeps",
    r"^choose runs/a --epochs": "a run that has kept epochs",
    r"^(pretrain|options) .*options.toml": "tests/cli/test_options_file.py makes such files",
    r"^evaluate detect": "needs Mask R-CNN; tests/evaluation runs it on toys",
    r"tiles/": "images with several channels; tests/data makes them",
    r"scans/|list\.txt|some\.txt|/new/place|more/": "folders and lists that a user has; tests/data makes each",
    r"--format (torchvision|huggingface|timm|onnx|torch-export)": "tests/test_docs.py and tests/exporting write each",
}
"""Patterns of commands that are not carried out here, and why."""
SMALL = {"--epochs": "1", "--batch-size": "8", "--image-size": "16", "--workers": "0"}
SMALLER = {"--batch-size": "16", "--micro-batch-size": "8", "--keep-epochs": "1", "--backbone": "small"}
"""Values in place of those of the pages."""


def commands(page: Path) -> list[str]:
    """Returns the commands of a page, without `infomax` and without comments, each once."""
    text = re.sub(r"^```text\n(?:.*\n)*?```", "", page.read_text(), flags=re.M)
    blocks = re.findall(r"^```.*\n((?:.*\n)*?)```", text, re.M) + re.findall(r"^    (.*\n)", text, re.M)
    lines = [re.split(r" +#(?: |$)| > ", line)[0].strip() for line in COMMAND.findall("".join(blocks))]
    return list(dict.fromkeys(line for line in lines if not line.startswith(GENERAL)))


def reason(line: str) -> str | None:
    """Returns why a command is not carried out here; None if it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_words_and_values_of_each_command_are_accepted(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.toml").write_text("")
    options = cli.command_options()
    for line in commands(page):
        check_words(insert_options_file(lengthen_options(shlex.split(line), options), options), options)


def test_each_reason_is_that_of_a_command():
    lines = [line for page in PAGES for line in commands(page)]
    assert len(lines) > 150
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in lines)] == []
    assert sum(reason(line) is None for line in lines) > 60


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Makes the folders that the pages speak of: images of two classes, and runs that were trained on them."""
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    for name in ("images", "photos", "photographs", "labelled", "new", "others"):
        for number in range(24):
            file = folder / name / "cd"[number % 2] / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            shade = 200 * (number % 2) + rng.integers(0, 56, (20, 24, 3))
            Image.fromarray(shade.astype(np.uint8)).save(file)
    write_masked(folder / "scenes")
    (folder / "scenes" / "classes.txt").write_text("ground\nred\ngreen\nblue\n")
    for name in ("cat.jpg", "shoe.jpg"):
        Image.new("RGB", (20, 24), "white").save(folder / name)
    settings = {"epochs": 1, "batch_size": 8, "image_size": 16, "workers": 0, "quiet": True}
    for name in ("a", "b"):
        infomax.evaluate("knn", infomax.pretrain(data=folder / "images", out=folder / "runs" / name, **settings))
    infomax.classify_fit(folder / "runs" / "a", data=folder / "labelled", out=folder / "flowers")
    return folder


def smaller(line: str) -> list[str]:
    """Returns the words of a command with which it takes seconds."""
    words = shlex.split(line)
    if words[0] == "pretrain" and "--resume" in words:  # it goes on with what the run was started with
        return ["2" if before == "--epochs" else word for before, word in zip(["", *words], words, strict=False)]
    values = {**SMALL, **SMALLER} if words[0] == "pretrain" else {}
    words = [values.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    if words[0] == "pretrain":
        words += [part for name, value in SMALL.items() if name not in words for part in (name, value)]
        words.append("--overwrite")
    if words[:2] == ["classify", "fit"]:
        words.append("--overwrite")
    if words[0] == "evaluate" and "--clusters" in words:
        words[words.index("--clusters") + 1] = "2"
    if words[0] == "clusters":
        words[words.index("-k") + 1] = "2"
    if words[:2] == ["plan", "--data"]:
        words += ["--epochs", "1"]
    if "runs/*" in words:
        place = words.index("runs/*")
        words[place : place + 1] = ["runs/a", "runs/b"]
    return words


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a batch of 8 gives a poor covariance")
@pytest.mark.parametrize("page", [page for page in PAGES if any(reason(line) is None for line in commands(page))])
def test_the_commands_of_a_page_are_carried_out_in_their_order(page, prepared, tmp_path, monkeypatch, capsys):
    """A command goes on from what those above it made; all pages together take some minutes."""
    copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for line in commands(page):
        if reason(line) is None:
            code, _, err = run_command(monkeypatch, capsys, *smaller(line))
            assert code == 0, f"infomax {line}: {err}"
