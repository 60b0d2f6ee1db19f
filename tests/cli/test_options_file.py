"""Options in files: what they become, what wins, and what is refused; nothing in a file is run."""

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command import run_command
from infomax import cli
from infomax.cli.options_file import insert_options_file, read_entries
from infomax.runs.run_folder import Run

TOML = """
data = "digits"
epochs = 2
batch-size = 64  # as typed
learning_rate = 1e-1
image_size = 8
quiet = true
resume = false
log = ["none"]

[set]
method.beta = 0.5
optimizer.weight_decay = 0
"method.momentum" = "none"
views.global_crops.0.scale = [0.2, 1.0]
"""
YAML = """
data: digits
epochs: 2
batch-size: 64
learning_rate: 1e-1
image_size: 8
quiet: true
resume: false
init: null
log: [none]
set:
  method: {beta: 0.5}
  optimizer.weight_decay: 0
  method.momentum: none
  views.global_crops.0.scale: [0.2, 1.0]
"""
WORDS = [
    *("--data=digits", "--epochs=2", "--batch-size=64", "--learning-rate=0.1", "--image-size=8", "--quiet"),
    *("--log=none", "--set=method.beta=0.5", "--set=optimizer.weight_decay=0", "--set=method.momentum=none"),
    "--set=views.global_crops.0.scale=0.2,1.0",
]


@pytest.fixture
def infomax(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_command(monkeypatch, capsys, *words)


def words_of(file, *typed, command="pretrain"):
    return insert_options_file([command, "--options", str(file), *typed], cli.command_options())


@pytest.mark.parametrize(("suffix", "text"), [(".toml", TOML), (".yaml", YAML), (".yml", "\ufeff" + YAML)])
def test_a_file_stands_for_the_words_that_one_would_type(tmp_path, capsys, suffix, text):
    file = tmp_path / f"options{suffix}"
    file.write_text(text, encoding="utf-8")
    words = [word.replace("1e-1", "0.1") for word in words_of(file)]
    assert words == ["pretrain", *WORDS]
    assert f"infomax: options of {file}: --data=digits --epochs=2" in capsys.readouterr().err


def test_the_command_line_wins_and_a_line_says_so(tmp_path, capsys):
    file = tmp_path / "a.toml"
    file.write_text('epochs = 2\ndata = "x"\nset = ["method.beta=0.5", "seed=1"]\n')
    words = words_of(file, "--epochs", "3", "--set", "method.beta=0.6", "--out", "o")
    assert words == [
        *("pretrain", "--data=x", "--set=method.beta=0.5", "--set=seed=1"),
        *("--epochs", "3", "--set", "method.beta=0.6", "--out", "o"),
    ]
    line = "--data=x --set=method.beta=0.5 --set=seed=1; the command line has its own epochs"
    assert capsys.readouterr().err == f"infomax: options of {file}: {line}\n"


def test_words_that_stand_in_their_place_may_come_from_a_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("what: [carl/digits, mira/digits]\nvary:\n  method.beta: [0.5, 0.6]\nseeds: 2\n")
    words = words_of(file, "--out", "o", command="sweep")
    assert words[:4] == ["sweep", "carl/digits", "mira/digits", "--vary=method.beta=0.5,0.6"]
    assert words_of(file, "mveb/digits", "--out", "o", command="sweep")[:2] == ["sweep", "mveb/digits"]
    file.write_text("k: [5, 20]\n")
    words = insert_options_file(["evaluate", "knn", "runs/a", f"--options={file}"], cli.command_options())
    assert words == ["evaluate", "knn", "runs/a", "--k", "5", "20"]


def test_plan_and_views_take_the_file_of_a_training(tmp_path, capsys):
    file = tmp_path / "a.toml"
    file.write_text('data = "digits"\nimage_size = 32\nkeep_decoded = "off"\nlog = "none"\n')
    assert words_of(file, command="plan") == ["plan", "--data=digits", "--image-size=32"]
    assert "; left out, as they are of pretrain alone: keep_decoded, log\n" in capsys.readouterr().err
    with pytest.raises(ValueError, match="line 2: image_size is no option of infomax evaluate knn"):
        insert_options_file(["evaluate", "knn", "--options", str(file)], cli.command_options())


SIGNS = "ab:-=[]{}'\"#&*!|>%@,.?\\ \n\t\x00\u2028\ufeff1"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=SIGNS, max_size=40), st.sampled_from([".toml", ".yaml"]))
def test_whatever_stands_in_a_file_is_read_or_refused(tmp_path, text, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_text(text, encoding="utf-8")
    with suppress(ValueError):
        read_entries(file)


def test_the_home_folder_is_that_of_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    file = tmp_path / "a.toml"
    file.write_text('out = "~/runs/a"\n')
    assert words_of(file) == ["pretrain", "--out=/home/me/runs/a"]


def test_a_run_keeps_the_options_of_its_file(infomax, tmp_path):
    (tmp_path / "a.toml").write_text(TOML.replace("epochs = 2", "epochs = 1") + "[unused]\n".replace("[unused]\n", ""))
    code, _, err = infomax("pretrain", "--options", "a.toml", "--out", "run", "--method", "mira")
    assert code == 0, err
    config = Run(tmp_path / "run").config
    assert "--epochs=1" in config["command"]
    assert "--options" not in config["command"]
    assert {"epochs=1", "method.beta=0.5", "batch_size=64"} <= {*config["changes"]}


DEEP = "a: " + "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.toml", b"epochs = 2\nepocs = 3\n", "a.toml, line 2: epocs is no option of infomax pretrain; did you mean "
         "epochs?"),
        ("a.toml", b"lr = 3\n", "a.toml, line 1: lr is no option of infomax pretrain; did you mean learning_rate?"),
        ("a.yaml", b"epochs: 2\nwd: 3\n", "a.yaml, line 2: wd is no option of infomax pretrain; did you mean set "
         "optimizer.weight_decay=X?"),
        ("a.toml", b"zzz = 3\n", "a.toml, line 1: zzz is no option of infomax pretrain"),
        ("a.toml", b"\nepochs = 'ten'\n", "a.toml, line 2: epochs must be a whole number, but is 'ten'"),
        ("a.yaml", b"data: x\nepochs: [1, 2]\n", "a.yaml, line 2: epochs takes one value, and no list"),
        ("a.yaml", b"epochs: {a: 2}\n", "a.yaml, line 1: epochs takes a value, and no table"),
        ("a.toml", b"quiet = 3\n", "a.toml, line 1: quiet must be true or false, but is '3'"),
        ("a.toml", b"epochs = true\n", "a.toml, line 1: epochs must be a whole number, but is 'true'"),
        ("a.toml", b"epochs = 2\nepochs = 3\n", "a.toml is no TOML: Cannot overwrite a value (at line 2, column 11)"),
        ("a.toml", b"image_size = 2\nimage-size = 3\n", "a.toml, line 2: image-size is there twice"),
        ("a.yaml", b"epochs: 2\ndata: x\nepochs: 3\n", "a.yaml, line 3: epochs is there twice"),
        ("a.yaml", b"set:\n  a: 1\n  a: 2\n", "a.yaml, line 3: a is there twice"),
        ("a.toml", b"epochs = = 3\n", "a.toml is no TOML: Invalid value (at line 1, column 10)"),
        ("a.yaml", b"epochs: 2\n  data: x\n", "a.yaml, line 2: is no YAML: mapping values are not allowed here"),
        ("a.yaml", b"- a\n- b\n", "a.yaml must be options with values, as epochs: 10"),
        ("a.yaml", b"data: !!python/object/apply:os.system ['touch ran']\n", "a.yaml, line 1: the tag "
         "tag:yaml.org,2002:python/object/apply:os.system is refused; options are plain values"),
        ("a.yaml", b"? !!python/name:os.system x\n: 1\n", "a.yaml, line 1: a key must be a name"),
        ("a.yaml", b"data: !mine x\n", "a.yaml, line 1: the tag !mine is refused; options are plain values"),
        ("a.yaml", b"set: &a {x: 1}\nlog: *a\n", "a.yaml, line 1: an alias is refused; write the value out"),
        ("a.yaml", DEEP.encode(), "a.yaml is nested too deep"),
        ("a.toml", b"\xff\xfe", "--options a.toml is no text in UTF-8: byte 0 is none"),
        ("a.toml", b"out = 2026-11-02\n", "a.toml: out is a date or a time; put quotes around it"),
        ("a.ini", b"", "--options a.ini must end in .toml, .yaml or .yml"),
        ("config.json", b"{}", "--options config.json must end in .toml, .yaml or .yml; infomax options . prints the "
         "options of a run so"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(infomax, tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    code, out, err = infomax("pretrain", "--options", name, "--data", "digits", "--out", "x")
    assert (code, out, err) == (2, "", f"infomax: {line}\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_is_not_there_has_a_near_name(infomax, tmp_path):
    (tmp_path / "options.toml").touch()
    for words, line in (
        (("--options", "optoins.toml"), "--options optoins.toml: no such file; did you mean options.toml?"),
        (("--options",), "--options wants one value, but is followed by none"),
        (
            ("--options", "options.toml", "--options=b.toml"),
            "--options is given 2 times, but options are read from one file",
        ),
    ):
        assert infomax("pretrain", *words) == (2, "", f"infomax: {line}\n")


def test_help_and_unknown_commands_do_not_read_the_file(infomax):
    assert "--options FILE" in infomax("pretrain", "--options", "nowhere.toml", "--help")[1]
    assert "there is no command" in infomax("pretrian", "--options", "nowhere.toml")[2]


def test_a_yaml_of_json_is_read_too(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps({"epochs": 2, "set": {"method.beta": 0.5}}))
    assert words_of(file) == ["pretrain", "--epochs=2", "--set=method.beta=0.5"]
