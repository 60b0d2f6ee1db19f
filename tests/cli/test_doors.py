"""A function of Python, its options class and its command have the same words, defaults and documentation."""

import inspect
import pickle
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from os import PathLike
from typing import get_args

import pytest
from PIL import Image

import infomax
from infomax import cli
from infomax.experiments.options import CompareOptions, SweepOptions
from infomax.exporting.options import ExportOptions
from infomax.planning.options import PlanOptions
from infomax.runtime.doors import command_door, in_callers_words, python_door
from infomax.runtime.options import option_fields
from infomax.training.options import PretrainOptions, ViewsOptions

DOORS = {
    "pretrain": (infomax.pretrain, PretrainOptions),
    "plan": (infomax.plan, PlanOptions),
    "views": (infomax.views, ViewsOptions),
    "sweep": (infomax.sweep, SweepOptions),
    "compare": (infomax.compare, CompareOptions),
    "export": (infomax.export, ExportOptions),
}
PYTHON_ALONE = {"pretrain": ("on_step",)}
"""Arguments that a command cannot have, because they are functions."""


def documented_arguments(function) -> dict[str, str]:
    """The texts below ``Args:`` by the names of the arguments, each in one line."""
    text = re.search(r"\nArgs:\n(.*?)\n\n", inspect.getdoc(function) or "", re.S)
    assert text is not None
    items = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", text[1] + "\n", re.S | re.M)
    return {name: " ".join(words.split()) for name, words in items}


@pytest.mark.parametrize("name", DOORS)
def test_names_and_defaults_are_those_of_the_options_and_of_the_command(name):
    function, options = DOORS[name]
    parameters = {key: parameter.default for key, parameter in inspect.signature(function).parameters.items()}
    for key in PYTHON_ALONE.get(name, ()):
        assert parameters.pop(key) is None
    described = {field.name: field.default for field in option_fields(options)}
    parameters = {
        key: MISSING if default is inspect.Parameter.empty else default for key, default in parameters.items()
    }
    assert parameters == described
    positional = [field.name for field in option_fields(options) if field.shown.positional]
    assert list(parameters) == [*positional, *(key for key in described if key not in positional)]
    assert cli.COMMANDS[name].options is options
    command = {field.name: field.default for field in fields(cli.COMMANDS[name].parsed_class)}
    assert command == {**described, "options": None}
    for key, parameter in inspect.signature(function).parameters.items():
        assert parameter.kind is (parameter.POSITIONAL_OR_KEYWORD if key in positional else parameter.KEYWORD_ONLY)


@pytest.mark.parametrize("name", DOORS)
def test_each_argument_is_documented_as_the_command_explains_it(name):
    function, options = DOORS[name]
    texts = {
        field.name: field.text + (f" Default: {field.shown.default}." if field.shown.default else "")
        for field in option_fields(options)
    }
    assert all(field.text for field in option_fields(options))
    documented = documented_arguments(function)
    for key in PYTHON_ALONE.get(name, ()):
        assert documented.pop(key)
    assert documented == texts
    for part in ("Returns:", "Raises:", "Example:"):
        assert f"\n{part}\n" in inspect.getdoc(function)


@pytest.mark.parametrize("name", DOORS)
def test_types_are_those_of_the_options_or_wider(name):
    function, options = DOORS[name]
    signature = inspect.signature(function)
    for field in option_fields(options):
        accepted, own = signature.parameters[field.name].annotation, field.type
        if accepted == own:
            continue
        if getattr(own, "__origin__", None) is tuple:
            assert accepted == Sequence[get_args(own)[0]]
        else:  # a path, or the name of something that may be a path
            assert accepted in (str | PathLike[str], str | PathLike[str] | None)


def test_a_picture_of_views_is_returned_and_written_only_if_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = infomax.views(data="digits", recipe="carl/digits", views="dino:2+1", image_size=16)
    assert isinstance(picture, Image.Image)
    assert not list(tmp_path.iterdir())
    again = infomax.views(
        data="digits", recipe="carl/digits", views="dino:2+1", image_size=16, out=tmp_path / "new" / "a.png"
    )
    with Image.open(tmp_path / "new" / "a.png") as written:
        assert written.tobytes() == picture.tobytes() == again.tobytes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--method must be one of mira, carl", "method= must be one of mira, carl"),
        ("--data photos: no such folder", "data=photos: no such folder"),
        ("--data-dir . is for data sets", "data_dir=. is for data sets"),
        ("--set method.bta: no such setting", "overrides=['method.bta']: no such setting"),
        ("give a --batch-size of at most 100", "give a batch_size= of at most 100"),
        ("--download fetches it", "download=True fetches it"),
        ("; --resume goes on from there", "; resume=True goes on from there"),
        ("--out x is not empty; --overwrite, or --seed 3", "out=x is not empty; overwrite=True, or seed=3"),
        ("infomax pretrain --out x --resume goes on", "infomax pretrain --out x --resume goes on"),
        ("infomax recipes lists them; --recipe x", "infomax recipes lists them; recipe=x"),
        ("without --batch-size there are 9 steps", "without batch_size= there are 9 steps"),
        ("a--b -- ---c", "a--b -- ---c"),
    ],
)
def test_a_message_to_python_names_its_arguments(text, expected):
    infomax.pretrain  # noqa: B018 - its flags are then known
    lines = []

    def public():
        lines.append(in_callers_words(text))
        raise ValueError(text)

    with pytest.raises(ValueError, match=re.escape(expected)):
        python_door(public, "public")()
    with pytest.raises(ValueError, match=re.escape(text)), command_door():
        python_door(public, "public")()
    assert lines == [expected, text]
    assert in_callers_words(text) == text


def test_an_argument_that_is_a_flag_of_another_function_alone_is_named_with_its_value():
    infomax.choose  # noqa: B018 - its epochs are True or False
    with pytest.raises(ValueError, match=r"^epochs= must be at least 1, but is 0$"):
        infomax.pretrain(method="mira", data="digits", out="o", epochs=0)

    def of_epochs(epochs: bool = False):
        raise ValueError("without --epochs")

    with pytest.raises(ValueError, match=r"^without epochs=True$"):
        python_door(of_epochs, "of_epochs")()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: infomax.pretrain(method="x", out="o", data="digits"), "^method= must be one of mira, "),
        (lambda: infomax.pretrain(out="o"), "^data= is missing: .* data=digits is the embedded one"),
        (lambda: infomax.pretrain(out="o", data="nowhere"), "^data=nowhere: no such folder"),
        (lambda: infomax.pretrain(out="o", data=".", data_dir="."), "^data_dir=. is for data sets by name"),
        (lambda: infomax.pretrain(out="o", data="digits", overrides=["lr=1"]), r"^overrides=\['lr'\]: the"),
        (lambda: infomax.plan(data="digits", gpu=["A1"]), "^gpu= must be one of "),
        (lambda: infomax.views(data="digits", out="."), r"^out=\. must be a file to write"),
        (lambda: infomax.sweep(["carl/digits"], out="o", seeds=0), "^seeds= must be a whole number"),
        (lambda: infomax.export("nowhere", format="onx", out="a"), "^format= must be one of .*did you mean onnx"),
        (lambda: infomax.evaluate("knn", "nowhere", k=(0,)), "^k= must be a whole number"),
    ],
)
def test_mistakes_in_python_are_in_the_words_of_python(tmp_path, monkeypatch, call, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "--" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: infomax.pretrain(epoch=2), "infomax.pretrain has no argument epoch=; did you mean epochs=?"),
        (lambda: infomax.pretrain(set=["a=1"]), "infomax.pretrain has no argument set=; did you mean overrides=?"),
        (
            lambda: infomax.pretrain(weight_decay=1),
            "has no argument weight_decay=; did you mean overrides=['optimizer.weight_decay=X']?",
        ),
        (lambda: infomax.embed("a", dat="digits"), "infomax.embed has no argument dat=; did you mean data=?"),
        (lambda: infomax.load(qqq=1), "infomax.load has no argument qqq=; its arguments are folder"),
        (lambda: infomax.load(), "infomax.load: missing a required argument: 'folder'"),
        (lambda: infomax.pretrain("x"), "infomax.pretrain takes its arguments by name, as data='x'"),
        (lambda: infomax.pretrain("x" * 99), "by name, as data=..."),
        (
            lambda: infomax.search("f", "q", 3),
            "infomax.search takes features, query by place and all else by name, as k=",
        ),
        (lambda: infomax.load("a", "b"), "infomax.load: too many positional arguments"),
    ],
)
def test_unknown_arguments_in_python_name_the_one_that_is_near(call, message):
    with pytest.raises(TypeError) as raised:
        call()
    assert message in str(raised.value)


def test_public_functions_keep_their_names_and_can_be_pickled():
    for name in ("pretrain", "plan", "views", "sweep", "compare", "evaluate", "embed", "export", "load", "report"):
        function = getattr(infomax, name)
        assert pickle.loads(pickle.dumps(function)) is function is getattr(infomax, name)
        assert repr(function).startswith(f"<function {name} ")
