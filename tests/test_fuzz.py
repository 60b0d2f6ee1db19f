"""Files and settings that anybody may have written: each is fine, or is refused by one ValueError of one line."""

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import infomax
from infomax.evaluation.protocols.online_linear import final_scores
from infomax.recipes.building import build_without_memory, check_memory
from infomax.recipes.customise import customise
from infomax.recipes.registry import METHODS, get_recipe
from infomax.recipes.schema import flat_settings
from infomax.reporting.comparison import report
from infomax.runs.run_folder import Run
from infomax.training.pretrain import pretrain

ODD_VALUES = [
    None, True, False, -1, 0, 1, 2**31, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J",
    "a" * 5000, "../../etc/passwd", "pipe:touch ran", "0", [], [[]], [1, 2, 3], {}, {"a": 1}, {"": None}, [None] * 50,
]  # fmt: skip
ODD_KEYS = ["name", "", "__class__", "\x1b[2J", "steps", "x" * 3000, "\ud800"]
ODD_BYTES = [
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b"[" * 3000,
    b'"',
    b"}",
    b"{}",
    b"1e999",
    b"NaN",
    b"\r\n",
    b"9" * 5000,
]
quick = settings(derandomize=True, deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
long = settings(derandomize=True, deadline=None, max_examples=3000, suppress_health_check=list(HealthCheck))
JSON_FILES = ["config.json", "encoder.json", "results.jsonl", "metrics.jsonl"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of one epoch with results, which no test changes."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"method": "carl", "epochs": 1, "image_size": 8, "batch_size": 700, "overrides": ["method.kl_epochs=1"]}
    infomax.pretrain(data="digits", out=out, quiet=True, device="cpu", **options)
    infomax.evaluate("knn", out, out=out / "results.jsonl", no_baselines=True, k=[1], quiet=True)
    return out


def one_line(door: Callable[[], Any]) -> bool:
    """Goes through a door; returns whether it let the file pass, and fails if it was not refused by one line."""
    try:
        with warnings.catch_warnings(action="ignore"):
            door()
    except ValueError as error:
        refusal = str(error)
    else:
        return True
    assert refusal
    assert "\n" not in refusal
    assert len(refusal) < 2000
    return False


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Lists the paths to all values inside of a value of JSON, its own first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def changed(value: Any, data: st.DataObject) -> Any:
    """Returns a value of JSON in which one value is another one, is left out, or has a new neighbour."""
    value = copy.deepcopy(value)
    *outer, last = data.draw(st.sampled_from(places(value)[1:]))
    table = value
    for key in outer:
        table = table[key]
    kind = data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "nest"]))
    if kind == "replace":
        table[last] = data.draw(st.sampled_from(ODD_VALUES))
    elif kind == "remove":
        del table[last]
    elif kind == "nest":
        table[last] = {data.draw(st.sampled_from(ODD_KEYS)): table[last]}
    elif isinstance(table, dict):
        table[data.draw(st.sampled_from(ODD_KEYS))] = data.draw(st.sampled_from(ODD_VALUES))
    else:
        table.append(data.draw(st.sampled_from(ODD_VALUES)))
    return value


def mutated(content: bytes, data: st.DataObject) -> bytes:
    """Returns the content of a file of JSON, or of lines of JSON, with a change of its values or of its bytes."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    number = data.draw(st.integers(0, len(lines) - 1))
    if data.draw(st.booleans()):
        lines[number] = json.dumps(changed(json.loads(lines[number]), data)).encode()
    else:
        place = data.draw(st.integers(0, len(lines[number])))
        cut = data.draw(st.sampled_from([0, 0, 1, 10, 10**6]))
        odd = data.draw(st.sampled_from([*ODD_BYTES, b""]))
        lines[number] = lines[number][:place] + odd + lines[number][place + cut :]
    return b"\n".join(lines) + b"\n"


def copy_of(run: Path, name: str, content: bytes) -> Path:
    """Makes a copy of a run in which one file has another content."""
    copied = run.with_name("copy")
    shutil.rmtree(copied, ignore_errors=True)
    copied.mkdir()
    for file in run.iterdir():
        if file.is_file() and file.name != name:
            (copied / file.name).symlink_to(file)
    (copied / name).write_bytes(content)
    return copied


def read_everything(folder: Path) -> dict[str, bool]:
    """Reads a run folder by all that reads one, and returns what let it pass."""
    run = Run(folder)
    doors: dict[str, Callable[[], Any]] = {
        "config": lambda: run.config,
        "location": lambda: run.location,
        "recipe": lambda: run.recipe,
        "title": lambda: run.recipe_title,
        "steps": lambda: run.trained_steps,
        "finished": lambda: run.finished,
        "metrics": lambda: run.read_rows("metrics.jsonl"),
        "online": lambda: final_scores(run),
        "load": lambda: infomax.load(folder),
        "report": lambda: str(report(folder)),
    }
    return {name: one_line(door) for name, door in doors.items()}


def test_a_run_that_nobody_changed_passes(run):
    content = (run / "config.json").read_bytes()
    assert all(read_everything(copy_of(run, "config.json", content)).values())


@pytest.mark.parametrize("name", JSON_FILES)
@quick
@given(data=st.data())
def test_json_of_others(run, name, data):
    read_everything(copy_of(run, name, mutated((run / name).read_bytes(), data)))


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON_FILES)
@long
@given(data=st.data())
def test_json_of_others_at_length(run, name, data):
    read_everything(copy_of(run, name, mutated((run / name).read_bytes(), data)))


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON_FILES)
@settings(parent=long, max_examples=60)
@given(data=st.data())
def test_json_of_others_in_resumed_and_evaluated_runs(run, name, data):
    copied = copy_of(run, name, mutated((run / name).read_bytes(), data))
    results = copied.with_name("results-of-copy.jsonl")
    options = {"out": results, "no_baselines": True, "k": [1], "quiet": True, "device": "cpu"}
    one_line(lambda: infomax.evaluate("knn", copied, data="digits", **options))
    one_line(lambda: infomax.pretrain(out=copied, resume=True, quiet=True, device="cpu", data="digits"))


def test_a_folder_in_the_place_of_each_file(run):
    for name in JSON_FILES:
        copied = copy_of(run, name, b"")
        (copied / name).unlink()
        (copied / name).mkdir()
        passed = read_everything(copied)
        assert not all(passed.values()), name


ODD_TEXTS = [
    "inf", "-inf", "nan", "1e309", "1e308", "-1", "0", "1", "1000000000000", "1" * 400, "1" * 5000, "", " ",
    "x" * 10**5,
    "None", "none", "true", "[]", "(1,2)", "1,2", "1,2,3", "1,nan", "{}", "0x10", "1_000", "\ud800", "\x1b[2J", "1.5",
    "chunk:2", "chunk:-1", "chunk:x", "global", "sgd", "vit_small", "resnet18", "__import__('os')", "9" * 19,
]  # fmt: skip


def changed_by(method: str, overrides: list[str]) -> None:
    """Does what a training does with its settings before it makes the run folder."""
    recipe = customise(get_recipe(method, "small"), overrides=overrides)
    built = build_without_memory(recipe)
    check_memory(recipe, built, images=recipe.micro_batch_size or recipe.batch_size, memory=10**10)
    recipe.steps(1000)


def draw_overrides(data: st.DataObject, method: str) -> list[str]:
    keys = [
        *flat_settings(get_recipe(method, "small")),
        "method",
        "views",
        "name",
        "",
        "a.b.c",
        "views.global_crops.-1",
    ]
    drawn = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(ODD_TEXTS)), min_size=1, max_size=3))
    return [f"{key}={text}" for key, text in drawn]


@pytest.mark.parametrize("method", METHODS)
@quick
@given(data=st.data())
def test_settings_of_users(method, data):
    overrides = draw_overrides(data, method)
    one_line(lambda: changed_by(method, overrides))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@long
@given(data=st.data())
def test_settings_of_users_at_length(method, data):
    overrides = draw_overrides(data, method)
    one_line(lambda: changed_by(method, overrides))


@pytest.mark.parametrize(
    ("method", "override", "message"),
    [
        ("mira", "method.prototypes=1000000000000", "prototypes.* GB, but there are"),
        ("mira", "method.hidden=1000000000000000000", "mira cannot be built with these settings: .*overflow"),
        ("carl", "method.prototypes=1000000000000", "GB, but there are"),
        ("mveb", "method.dimension=1000000000", "GB, but there are"),
        ("mira", "epochs=1000000000", "epochs must be at most 1000000, but is 1000000000"),
        ("mira", "epochs=" + "1" * 30, "--set epochs must be a whole number"),
        ("mira", "optimizer.learning_rate=inf", "--set optimizer.learning_rate must be a finite number, but is 'inf'"),
        ("mira", "method.beta=nan", "--set method.beta must be a finite number, but is 'nan'"),
        ("mira", "encoder.stem_padding=1000000", "encoder.stem_padding must be from 0 to 16"),
        ("mira", "views.mean=0,0,inf", "--set views.mean must be a finite number, but is 'inf'"),
        ("mira", "encoder.backbone=" + "x" * 10**6, "encoder.backbone must be one of small, resnet18"),
        ("mira", "views.global_crops.0.size=100000", "size must be from 1 to 16384 pixels"),
    ],
)
def test_impossible_settings_leave_no_folder(tmp_path, method, override, message):
    with pytest.raises(ValueError, match=message) as raised:
        pretrain(data="digits", out=tmp_path / "run", method=method, overrides=[override], device="cpu")
    assert not (tmp_path / "run").exists()
    assert len(str(raised.value)) < 500


def test_views_too_large_for_the_memory_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match="GB of views of 16,000 pixels, but .*; choose a smaller --image-size"):
        pretrain(data="digits", out=tmp_path / "run", method="mira", image_size=16000, device="cpu")
    assert not (tmp_path / "run").exists()
