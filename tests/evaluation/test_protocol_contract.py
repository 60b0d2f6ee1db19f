"""Every protocol keeps the contract; one of another package is a file and an entry point, and every door knows it."""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, FrozenInstanceError, fields
from importlib.metadata import EntryPoint
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints, is_typeddict

import pytest

import infomax as library
from command import run_command
from infomax.cli.evaluate import EncoderOptions, option_classes
from infomax.data.augmentation.views import Preprocessing
from infomax.evaluation.options import EvaluationData, EvaluationOptions
from infomax.evaluation.protocol import Protocol, ProtocolOptions
from infomax.evaluation.protocols import ENTRY_POINTS, PROTOCOLS, protocol_of, row_classes
from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.result_row import Condition, ResultRow, Score, row_fields
from infomax.evaluation.results import append_result, read_results
from infomax.models.encoders import build_encoder, save_encoder
from infomax.papers import published
from infomax.reporting import comparison
from infomax.reporting.results import results_table
from infomax.runtime.options import option_fields
from infomax.runtime.plugins import installed, registry

ROWS = [row for protocol in PROTOCOLS.values() for row in protocol.rows]
TOY = '''
"""Nearest mean: an image belongs to the class whose mean feature is nearest."""

from dataclasses import dataclass
from typing import Annotated

from infomax.evaluation.protocol import Protocol, ProtocolOptions
from infomax.evaluation.result_row import Condition, ResultRow, Score


@dataclass(frozen=True, kw_only=True)
class NearestMeanOptions(ProtocolOptions):
    """Classifies by the nearest mean of a class."""

    power: float = 1.0
    """Power that features are raised to."""


@dataclass(frozen=True, kw_only=True)
class NearestMeanRow(ResultRow):
    """A frozen dataclass that holds the accuracy of the nearest mean."""

    protocol: str = "nearest-mean"
    power: Annotated[float, Condition("power")]
    top1: Annotated[float, Score("top-1")]
    top5: Annotated[float, Score("top-5")]


def run(encoder, source, options, evaluation):
    """Yields a row for each representation."""
    import torch

    from infomax.evaluation.representations import evaluate_representations
    from infomax.evaluation.scores import judge

    def classify(features):
        train, test = (x.sign() * x.abs() ** options.power for x in (features.train, features.test))
        means = torch.stack([train[features.train_labels == label].mean(0) for label in range(features.classes)])
        yield {"power": options.power, **judge(-torch.cdist(test, means), features.test_labels)}

    return evaluate_representations(NearestMeanRow, classify, encoder, source, evaluation)


PROTOCOL = Protocol(
    name="nearest-mean",
    title="nearest mean",
    options=NearestMeanOptions,
    rows=(NearestMeanRow,),
    run=run,
    baselines=True,
)
'''


def example_value(hint):
    """A value that a field of this type may hold."""
    if get_origin(hint) is UnionType:
        return example_value(next(kind for kind in get_args(hint) if kind is not NoneType))
    if get_origin(hint) is tuple:
        return tuple(example_value(kind) for kind in get_args(hint) if kind is not Ellipsis)
    if is_typeddict(hint):
        return {key: example_value(kind) for key, kind in get_type_hints(hint).items()}
    return {str: "x", int: 3, float: 0.25, bool: True}[hint]


def main_score(row: type[ResultRow]) -> str:
    """The name of the first score of a row."""
    return next(f.name for f in row_fields(row) if isinstance(f.mark, Score) and f.name != "interval")


def example_row(row: type[ResultRow]) -> ResultRow:
    """A row with a value in every field."""
    values = {field.name: example_value(field.type) for field in row_fields(row) if field.name != "protocol"}
    return row(**{**values, "metric": main_score(row), "data": "digits", "classes": 10})


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_options_are_frozen_documented_and_have_defaults(protocol):
    assert issubclass(protocol.options, ProtocolOptions)
    options = protocol.options()
    assert inspect.getdoc(protocol.options).endswith(".")
    for field in option_fields(protocol.options):
        assert field.text.endswith("."), field.name
        assert field.default is not MISSING, field.name
        with pytest.raises(FrozenInstanceError):
            setattr(options, field.name, field.default)
    assert isinstance(protocol.default_data(options), tuple)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_help_shows_each_option_with_its_text(protocol, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run_command(monkeypatch, capsys, "evaluate", protocol.name, "--help")
    assert code == 0
    shown = "".join(re.findall(r"[^\s│]", out))  # lines are broken anywhere, even in a word with a hyphen
    for field in (field for cls in option_classes(protocol) for field in option_fields(cls)):
        if field.name == "data" and protocol.data is not EvaluationData:
            assert "".join(protocol.data.__dataclass_fields__["data"].type.__metadata__[0].metavar.split()) in shown
        assert "".join(field.text.split()) in shown, field.name
        assert field.shown.positional or field.word in shown
    assert ("--no-baselines" in shown) == protocol.baselines


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_a_row_is_the_same_after_the_file(row, tmp_path):
    whole = example_row(row)
    required = {f.name: example_value(f.type) for f in row_fields(row) if f.required}
    least = row(**required | {"metric": main_score(row), main_score(row): 0.25})
    for written in (whole, least):
        append_result(tmp_path / "results.jsonl", written)
    assert read_results(tmp_path / "results.jsonl") == [whole, least]
    assert None not in whole.to_json().values()
    assert json.loads(json.dumps(whole.to_json())) == whole.to_json()
    assert isinstance(whole, protocol_of(whole).rows)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_columns_follow_from_the_fields(row):
    whole = example_row(row)
    scores = [field.mark for field in row_fields(row) if isinstance(field.mark, Score)]
    labels = [f"{score.label} ({score.scale})" if score.scale else score.label for score in scores]
    table = results_table("title", [whole])
    assert sorted(table.columns[1:]) == sorted(labels)
    assert table.rows[0][0].text == whole.title
    conditions = [field for field in row_fields(row) if isinstance(field.mark, Condition) and field.name != "data"]
    for field in conditions:
        value = getattr(whole, field.name)
        assert (field.mark.label if value is True else f"{field.mark.label} {value}") in table.title
    for field in conditions[:1]:  # two rows that differ in it have a column for it
        other = row(**{**vars(whole), field.name: False if getattr(whole, field.name) is True else 7})
        assert field.mark.label in results_table("title", [whole, other]).columns


def test_rows_of_two_protocols_have_two_names():
    assert len(row_classes()) == len(ROWS)
    assert all(row.protocol == name for name, row in row_classes().items())


def test_each_published_column_is_measured_by_at_most_one_protocol():
    measured = ("linear", "online-linear", "knn", "finetune", "transfer", "transfer-finetune")
    measured += ("detection", "segmentation")
    for table in published.tables():
        for column in table.columns:
            options = [p.options_for(column) for p in PROTOCOLS.values() if p.options_for(column) is not None]
            wanted = int(column.protocol in measured and column.data != "average")
            assert len(options) == wanted, (table.id, column.name)


KNN = {
    "protocol": "knn",
    "data": "digits",
    "representation": "x",
    "encoder": "",
    "metric": "top1",
    "classes": 10,
    "test_images": 3,
    "seconds": 1.0,
    "k": 1,
    "temperature": 0.1,
    "top1": 0.5,
    "top5": 1.0,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"k": None}, "row 2: the key 'k' must be a whole number, but is None"),
        ({"k": 1.5}, "row 2: the key 'k' must be a whole number, but is 1.5"),
        ({"interval": [0.1]}, r"row 2: the key 'interval' must be .*, but is \[0.1\]"),
        ({"leave_one_out": 1}, "row 2: the key 'leave_one_out' must be true or false, but is 1"),
        ({"top_1": 0.5}, "row 2: 'top_1' is no key of a KnnRow; did you mean top1"),
        ({"protocol": "knnn"}, "row 2: the key 'protocol' must be one of knn, .*, but is 'knnn'; did you mean knn"),
    ],
)
def test_a_damaged_row_is_named_by_file_row_and_key(tmp_path, changes, message):
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (KNN, {**KNN, **changes})))
    if not message:
        assert read_results(file) == [KnnRow.from_json(KNN)] * 2
        return
    with pytest.raises(ValueError, match=f"results.jsonl, {message}"):
        read_results(file)


def test_what_is_missing_in_a_row_is_named(tmp_path):
    file = tmp_path / "results.jsonl"
    for key in ("top1", "k", "classes"):
        file.write_text(json.dumps({name: value for name, value in KNN.items() if name != key}) + "\n")
        with pytest.raises(ValueError, match=f"results.jsonl, row 1: the key '{key}' of a KnnRow is missing"):
            read_results(file)
    for line, message in (
        ("3", "line 1 must be an object with keys, but is 3"),
        ('{"name": "mira", "knn_1": 0.5}', "row 1: the key 'protocol' is missing"),
        ('{"protocol": 3}', "row 1: the key 'protocol' is missing"),
        (
            json.dumps(KNN | {"metric": "classes"}),
            "row 1: the key 'metric' must name a score of the row, but is 'classes'",
        ),
        (json.dumps(KNN | {"metric": "fits"}), "must name a score of the row, but is 'fits'"),
    ):
        file.write_text(line + "\n")
        with pytest.raises(ValueError, match=message):
            read_results(file)


def test_rows_of_other_protocols_need_not_be_known_to_read_those_of_one(tmp_path):
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ({"protocol": "of-a-package"}, KNN)))
    assert read_results(file, protocols=["knn"]) == [KnnRow.from_json(KNN)]
    with pytest.raises(ValueError, match="row 1: the key 'protocol' must be one of"):
        read_results(file)


def test_the_last_of_equal_measurements_is_reported(tmp_path):
    """Its scores, its command and the hash of the whole call do not tell a measurement from another one."""
    file = tmp_path / "results.jsonl"
    again = {"top1": 0.25, "seconds": 2.0, "evaluation": "0" * 16, "command": "infomax ...", "interval": [0.1, 0.4]}
    others = [{"k": 5}, {"temperature": 0.2}, {"subset_file": "x.txt"}, {"leave_one_out": True}]
    file.write_text("".join(json.dumps({**KNN, **changes}) + "\n" for changes in ({}, *others, again)))
    rows = [result.row for result in comparison._read_results(file, "file")]
    assert [row.top1 for row in rows] == [0.5] * len(others) + [0.25]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    file = tmp_path / "results.jsonl"
    line = json.dumps(KNN)
    file.write_text(f"{line}\n{line[:40]}\n{line}\n{line[:20]}")
    assert len(read_results(file)) == 2


def test_the_function_and_the_command_have_the_same_words():
    parameters = inspect.signature(library.evaluate).parameters
    names = {field.name: field.default for cls in (EvaluationData, EvaluationOptions) for field in option_fields(cls)}
    of_python = ("protocol", "encoder", "out", "options", "targets")  # targets are of images in memory
    assert {name: p.default for name, p in parameters.items() if name not in of_python} == names
    assert {field.name for field in fields(EncoderOptions)} == {"encoder", "named", "out"}
    text = " ".join(inspect.getdoc(library.evaluate).split())
    for name in parameters:
        assert f" {name}: " in text
    for cls in (EvaluationData, EvaluationOptions):
        for field in option_fields(cls):
            assert f" {field.name}: {field.text}" in text


def test_a_protocol_without_rows_of_its_own_is_refused():
    own = PROTOCOLS["knn"]
    for rows in ((), (ResultRow,), (int,)):
        with pytest.raises(ValueError, match="the protocol toy"):
            Protocol(name="toy", title="toy", options=own.options, rows=rows, run=own.run)


def test_a_broken_package_is_left_out_with_a_warning():
    entries = [EntryPoint("toy", "no_such_package:PROTOCOL", ENTRY_POINTS), EntryPoint("pi", "math:pi", ENTRY_POINTS)]
    with pytest.warns(UserWarning, match="is left out") as warned:
        assert list(installed(Protocol, "protocol", entries)) == []
    assert "the protocol toy (no_such_package:PROTOCOL) is left out: No module" in str(warned[0].message)
    assert "the protocol pi (math:pi) is left out: it is a float, not a Protocol" in str(warned[1].message)
    with pytest.raises(ValueError, match="two protocols are named knn"):
        registry(Protocol, "protocol", [PROTOCOLS["knn"], PROTOCOLS["knn"]], ENTRY_POINTS)


def test_contributing_says_how_long_a_protocol_is():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (row,) = re.findall(r"^\| a protocol in a package of your own \|.*$", text, re.M)
    assert row.endswith(f"| {len(TOY.strip().splitlines())}, and 2 |")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with an installed package, as pip leaves it, and beside it a saved encoder."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_protocol.py").write_text(TOY)
    information = folder / "toy-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nnearest-mean = toy_protocol:PROTOCOL\n")
    settings = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
    preprocessing = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    (folder / "encoder").mkdir()
    save_encoder(build_encoder(**settings), settings, preprocessing, folder / "encoder")
    return folder


def started(package, *words: str) -> subprocess.CompletedProcess:
    """A process beside that package."""
    path = os.pathsep.join([str(Path(library.__file__).parents[1]), str(package)])
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=package,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.process
def test_a_protocol_of_another_package_is_a_protocol_like_any(package):
    """In the help, by the command, in a report, and in Python."""
    out = started(package, "-m", "infomax", "evaluate", "--help").stdout
    assert "nearest-mean" in out
    assert "Classifies by the nearest mean of a class." in out
    words = ("-m", "infomax", "evaluate", "nearest-mean", "encoder", "--data", "digits", "--power", "2.0")
    done = started(package, *words, "--device", "cpu", "--out", "mine.jsonl")
    assert done.returncode == 0, done.stderr
    assert (
        "nearest mean, power 2.0: 1438 labelled and 359 test images of digits in 10 classes; scores in %" in done.stdout
    )
    scores = r"\d+\.\d +\d+\.\d to \d+\.\d +\d+\.\d"
    assert re.search(rf"^raw pixels +{scores} +[+-]\d.*: (not )?clearly \w+$", done.stdout, re.M)
    done = started(package, "-m", "infomax", "report", "mine.jsonl")
    assert re.search(r"^mine.jsonl +2\.0 +\d+\.\d", done.stdout, re.M), done.stderr
    script = (
        "import infomax\n"
        "options = {'data': 'digits', 'device': 'cpu', 'no_baselines': True, 'power': 2.0}\n"
        "rows = infomax.evaluate('nearest-mean', 'encoder', **options)\n"
        "from infomax.evaluation.results import read_results\n"
        "from pathlib import Path\n"
        "kept = read_results(Path('mine.jsonl'))[0]\n"
        "print(len(rows), rows[0].score == kept.top1, rows[0].evaluation == kept.evaluation, type(rows[0]).__name__)\n"
    )
    done = started(package, "-c", script)
    assert done.stdout.split() == ["1", "True", "True", "NearestMeanRow"], done.stderr
    # Without the package its rows are named, not skipped.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "infomax", "report", "mine.jsonl"],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(Path(library.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "mine.jsonl, row 1: the key 'protocol' must be one of" in done.stderr
    assert "A package that adds a protocol is needed" in done.stderr
