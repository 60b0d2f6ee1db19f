"""Options classes: their fields are described once, and become words of the command and back."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from infomax.cli.command_class import command_class
from infomax.runtime.options import Shown, from_argv, option_fields, option_names, pick, to_argv


@dataclass(frozen=True, kw_only=True)
class DataWords:
    """Choose the images."""

    data: Annotated[str | None, Shown(metavar="DIR", default="the recipe's")] = None
    """The images
    to read."""
    download: bool = False
    """Fetch them."""


@dataclass(frozen=True, kw_only=True)
class TrainWords(DataWords):
    """Train something."""

    names: Annotated[tuple[str, ...], Shown(metavar="[NAME ...]", positional=True)] = ()
    """Which."""
    k: tuple[int, ...] = (20,)
    overrides: Annotated[tuple[str, ...], Shown(name="set", repeatable=True)] = ()
    """Changes."""
    out: Path
    epochs: Annotated[int | None, Shown(metavar="N")] = None


def parse(*words: str) -> object:
    return tyro.cli(command_class("Train", TrainWords), args=words, config=(tyro.conf.FlagCreatePairsOff,))


def test_fields_carry_their_texts_also_from_base_classes():
    texts = {field.name: field.text for field in option_fields(TrainWords)}
    assert texts["data"] == "The images to read."
    assert texts["overrides"] == "Changes."
    assert texts["k"] == ""
    assert option_names(TrainWords) == ("data", "download", "names", "k", "overrides", "out", "epochs")


@pytest.mark.parametrize(
    "options",
    [
        TrainWords(out=Path("runs/a")),
        TrainWords(out=Path("a b"), data="images/", download=True, k=(1, 5), overrides=("a=1", "b=2,3"), epochs=3),
        TrainWords(out=Path("x"), names=("a", "b")),
    ],
)
def test_words_of_the_command_give_the_same_options_again(options):
    assert pick(TrainWords, asdict(parse(*to_argv(options)))) == options


def test_defaults_are_left_out():
    assert to_argv(TrainWords(out=Path("x"), k=(20,))) == ["--out", "x"]


def test_help_shows_texts_names_and_defaults(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Train something.",
        "--data DIR",
        "The images to read. (default: the recipe's)",
        "--set",
        "(repeatable)",
    ):
        assert part in text


def test_pick_takes_the_fields_of_the_class_alone():
    assert pick(DataWords, {"data": "x", "out": "y", "epochs": 3}) == DataWords(data="x")


@dataclass(frozen=True, kw_only=True)
class ProbeWords:
    """Some options without a positional one."""

    k: tuple[int, ...] = (20,)
    rate: float | None = None
    folder: Path | None = None
    fast: bool = False
    overrides: Annotated[tuple[str, ...], Shown(name="set", repeatable=True)] = ()


@pytest.mark.parametrize(
    "options",
    [
        ProbeWords(),
        ProbeWords(k=(1, 5), rate=0.5, folder=Path("a b"), fast=True, overrides=("a=1", "b=2,3")),
        ProbeWords(rate=-1e-3),
    ],
)
def test_options_are_built_of_words_without_a_parser(options):
    assert from_argv(to_argv(options), ProbeWords) == (options,)


def test_words_are_shared_out_to_several_classes():
    options, data = from_argv(["--k=3", "--data", "x", "--rate", "2", "--download"], ProbeWords, DataWords)
    assert options == ProbeWords(k=(3,), rate=2.0)
    assert data == DataWords(data="x", download=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rat", "1"], "there is no option --rat; did you mean --rate"),
        (["1", "--rate"], "'1' follows no option"),
        (["--rate"], "--rate wants one value, but is followed by none"),
        (["--rate", "1", "2"], "--rate wants one value, but is followed by 1 2"),
        (["--rate", "high"], "--rate must be a number, but is 'high'"),
        (["--k", "1.5"], "--k must be a whole number, but is '1.5'"),
        (["--k"], "--k wants at least one value"),
        (["--fast", "yes"], "--fast takes no value, but is followed by 'yes'"),
    ],
)
def test_words_that_stand_for_nothing_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        from_argv(words, ProbeWords)


def test_values_from_python_become_what_the_field_holds():
    words = pick(TrainWords, {"out": "a/b", "data": Path("x"), "k": [1, 2], "names": "alone"})
    assert words == TrainWords(out=Path("a/b"), data="x", k=(1, 2), names=("alone",))
