"""Mistakes in the words of a command are one line that names what is near, before anything is imported or parsed."""

import importlib.metadata
import re
import subprocess
import sys

import pytest

from command import run_command
from infomax import cli
from infomax.cli.evaluate import images_overlap
from infomax.cli.words import SYNONYMS_OF_COMMANDS, check_words
from infomax.evaluation.protocols import PROTOCOLS
from infomax.recipes.registry import METHODS
from infomax.runtime.near_names import SYNONYMS, nearest, nearest_option, nearest_path
from infomax.runtime.options import parse_option

NO_SUCH_RUN = "no such folder or file; did you mean runs/first?"
OUT = ("pretrain", "--data", "digits", "--out", "x")
AFTER_EVALUATE = (
    "report, choose, figure, embed, search, duplicates, clusters, classify, export, replay, options, doctor"
)
ALL = f"demo, pretrain, watch, recipes, sweep, compare, plan, views, evaluate, {AFTER_EVALUATE}"


@pytest.fixture
def infomax(monkeypatch, capsys):
    return lambda *words: run_command(monkeypatch, capsys, *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), f"a command is missing: {ALL}; infomax --help explains them"),
        (("pretrian",), f"there is no command 'pretrian'; did you mean pretrain? They are {ALL}"),
        (("train",), f"there is no command 'train'; did you mean pretrain? They are {ALL}"),
        (("knn", "runs/a"), "there is no command 'knn'; did you mean evaluate knn?"),
        (("xyz",), f"there is no command 'xyz'; they are {ALL}"),
        (("--data", "x"), f"a command comes before --data: {ALL}; infomax --help explains them"),
        (("evaluate",), f"evaluate wants a protocol first: {', '.join(PROTOCOLS)}"),
        (("evaluate", "runs/a"), f"evaluate wants a protocol before runs/a: {', '.join(PROTOCOLS)}"),
        (("evaluate", "kn"), f"there is no protocol 'kn'; did you mean knn? They are {', '.join(PROTOCOLS)}"),
        (("classify",), "classify wants a step first: fit, run, test"),
        (("classify", "runs/a"), "classify wants a step before runs/a: fit, run, test"),
        (("classify", "fti"), "there is no step 'fti'; did you mean fit? They are fit, run, test"),
        ((*OUT, "--lr", "3"), "--lr: did you mean --learning-rate? infomax pretrain --help lists the options"),
        ((*OUT, "--lr=3"), "--lr: did you mean --learning-rate? infomax pretrain --help lists the options"),
        ((*OUT, "--wd", "3"), "--wd: did you mean --set optimizer.weight_decay=X? infomax pretrain --help lists "
         "the options"),
        ((*OUT, "-b", "3"), "-b: did you mean --batch-size? infomax pretrain --help lists the options"),
        ((*OUT, "--foo", "3"), "--foo is no option of infomax pretrain; infomax pretrain --help lists them"),
        ((*OUT, "--k", "3"), "--k is no option of infomax pretrain, but of evaluate, search, clusters; "
         "infomax pretrain --help lists them"),
        (("recipes", "--workers", "3"), "--workers is no option of infomax recipes, but of pretrain, sweep, compare, "
         "plan, evaluate, report, choose, figure, embed, classify; infomax recipes --help lists them"),
        ((*OUT, "--epochs"), "--epochs wants one value, but is followed by none"),
        ((*OUT, "--epochs", "three"), "--epochs must be a whole number, but is 'three'"),
        ((*OUT, "--epochs", "3", "4"), "'4' follows no option; infomax pretrain --help lists the options"),
        ((*OUT, "--resume", "true"), "'true' follows no option; infomax pretrain --help lists the options"),
        (("pretrain", "photos", "--out", "x"), "'photos' follows no option; did you mean --data photos?"),
        (("evaluate", "knn", "a", "--data", "1.jpg", "2.jpg", "3.jpg"), "--data takes one word, in which several files "
         "or folders have commas between: 1.jpg,2.jpg"),
        (("--verison",), "--verison: did you mean --version?"),
        (("embed", "--encoder", "x"), "ENCODER is given without --encoder: infomax embed ENCODER ..."),
        (("pretrain", "--data", "x"), "--out DIR is missing: Run folder to make, as runs/a."),
        (("replay",), "FOLDER is missing: Folder that a run wrote when a step failed, as "
         "runs/a/nonfinite/step-00000123."),
        (("evaluate", "knn", "--k", "five"), "--k must be a whole number, but is 'five'"),
        (("evaluate", "knn", "a", "b", "--data", "c"), "'b' follows no option; infomax evaluate knn --help lists the "
         "options"),
        (("evaluate", "knn", "a", "--neighbors", "5"), "--neighbors: did you mean --k? infomax evaluate knn --help "
         "lists the options"),
        ((*OUT, "--method", "ibot"), "--method ibot: ibot is not one of infomax's methods, which are "
         + ", ".join(METHODS)),
        ((*OUT, "--method", "SIGReg"), "--method SIGReg: SIGReg is no method's name; did you mean --method lejepa, "
         "which has this loss?"),
        ((*OUT, "--recipe", "infomin/small"), "there is no recipe infomin/small: infomin is "
         "no method's name; did you mean --recipe moco/imagenet_infomin_200, which has its views?"),
        ((*OUT, "--method", "MIRA"), f"--method must be one of {', '.join(METHODS)}, but is 'MIRA'; did you mean "
         "mira?"),
        (("pretrain", "--recipe", "ibot/cifar10", "--out", "x"), "there is no recipe ibot/cifar10: ibot is not one of "
         "infomax's methods, which are " + ", ".join(METHODS)),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(infomax, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, out, err = infomax(*words)
    assert (code, out, err) == (2, "", f"infomax: {line}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=1", "--set lr: there is no setting 'lr'; did you mean optimizer.learning_rate?"),
        ("wd=1", "--set wd: there is no setting 'wd'; did you mean optimizer.weight_decay?"),
        ("optimizer.wd=0", "--set optimizer.wd: there is no setting 'wd'; did you mean weight_decay?"),
        ("optimizer.lr=1", "--set optimizer.lr: there is no setting 'lr'; did you mean learning_rate?"),
        ("weight_decay=1", "there is no setting 'weight_decay'; did you mean optimizer.weight_decay?"),
        ("beta=1", "there is no setting 'beta'; did you mean method.beta?"),
        ("epoch=1", "there is no setting 'epoch'; did you mean epochs?"),
        ("encoder.backbone=resnet20", "is 'resnet20'; did you mean resnet18?"),
        ("encoder.backbone=resnet152", "is 'resnet152'; did you mean resnet101?"),
        ("encoder.backbone=vit", "is 'vit'; did you mean vit_small?"),
    ],
)
def test_settings_and_backbones_have_near_names(infomax, setting, message):
    code, _, err = infomax("recipes", "mira/digits", "--set", setting)
    assert code == 2
    assert message in err


def values(field):
    kinds = [kind for kind in (int, float, str) if kind.__name__ in str(field.type)]
    return [] if field.type is bool else ["1" if kinds and kinds[0] is not str else "x"]


@pytest.mark.parametrize("command", cli.command_options())
def test_all_options_pass_the_check_and_the_parser(command):
    """In any order; a value may begin with one dash."""
    fields = cli.command_options()[command]
    options = [field for field in fields if not field.shown.positional]
    words = [
        word
        for field in reversed(options)
        for word in ("--" + field.word.removeprefix("--").replace("-", "_"), *values(field))
    ]
    first = [field for field in fields if field.shown.positional]
    words = [*command.split(), *(["x"] if first else []), *words]
    check_words(words, cli.command_options())
    parsed = cli.parse_words(words)
    for field in options:
        expected = parse_option(field, values(field))
        assert getattr(parsed, field.name) == expected, field.name


def test_values_may_look_like_numbers_and_equations(monkeypatch):
    words = [*OUT, "--set", "method.beta=-1", "--set=a=--b", "--workers", "-1", "--learning-rate", "-1e-3"]
    check_words(words, cli.command_options())
    parsed = cli.parse_words(words)
    assert (parsed.overrides, parsed.workers, parsed.learning_rate) == (("method.beta=-1", "a=--b"), -1, -1e-3)


def test_every_synonym_leads_to_an_option_that_there_is():
    fields = [field for options in cli.command_options().values() for field in options]
    words = {field.word.removeprefix("--") for field in fields}
    for option, synonyms in SYNONYMS.items():
        assert option.partition(" ")[0] in words
        for synonym in synonyms.split():
            assert nearest_option(synonym.upper(), [option.partition(" ")[0]]) == option
    assert {*SYNONYMS_OF_COMMANDS} <= {name.partition(" ")[0] for name in cli.command_options()}
    assert nearest_option("zzz", words) is None


def test_nearest_names():
    assert nearest("Resnet50", ["resnet18", "resnet50"]) == "resnet50"
    assert nearest("resnet20", ["small", "resnet18", "resnet50"]) == "resnet18"
    assert nearest("resnet20", ["small"]) is None
    assert nearest("resnet" + "1" * 10**6, ["resnet18"]) in (None, "resnet18")
    assert nearest("im", ["images"]) is None
    assert nearest("ima", ["images", "classes"]) == "images"
    assert nearest("mvbe", ["mveb", "mvib"]) == "mveb"  # two letters in the wrong order
    assert nearest("mvb", ["mveb", "mvib"]) == "mveb"  # of two that are as near the first


def test_files_are_not_alike_by_their_suffix_alone(tmp_path):
    for name in ("bad.jpg", "cat-1.jpg", "house.jpeg"):
        (tmp_path / name).touch()
    assert nearest_path(tmp_path / "dog.jpg") is None
    assert nearest_path(tmp_path / "cat1.jpg") == str(tmp_path / "cat-1.jpg")
    assert nearest_path(tmp_path / "house.jpg") == str(tmp_path / "house.jpeg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pretrain", "--data", "phtos", "--out", "x"), "--data phtos: no such folder or file; did you mean photos?"),
        (
            ("pretrain", "--data", "photos/trian", "--out", "x"),
            "no such folder or file; did you mean photos/train?",
        ),
        (("pretrain", "--data", "phtos/trian,photos", "--out", "x"), "phtos/trian; did you mean photos/train?"),
        (
            ("views", "--data", "cifra10", "--data-dir", "."),
            "no such folder or file; did you mean cifar",
        ),
        (("views", "--data", "photos", "--data-dir", "."), "--data-dir . is for data sets by name"),
        (("pretrain", "--out", "runs/frist", "--resume"), f"runs/frist is not a run folder: {NO_SUCH_RUN}"),
        (("evaluate", "knn", "runs/frist"), f"runs/frist is no encoder: {NO_SUCH_RUN}; want"),
        (("evaluate", "knn", "rusn/first", "--data", "photos"), f"rusn/first is no encoder: {NO_SUCH_RUN}; want"),
        (("report", "runs/frist"), f"runs/frist: {NO_SUCH_RUN}"),
        (("replay", "runs/frist"), f"a failed step was kept in: {NO_SUCH_RUN}"),
    ],
)
def test_a_path_that_does_not_exist_is_said_first_with_the_nearest_one(infomax, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/train", "photos/test", "runs/first"):
        (tmp_path / folder).mkdir(parents=True)
    code, _, err = infomax(*words)
    assert code == 2
    assert message in err.splitlines()[-1]


def test_the_nearest_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert nearest_path("rusn/frist") == "runs/first"
    assert nearest_path(tmp_path / "runs" / "frist") == str(tmp_path / "runs" / "first")
    assert nearest_path("runs/first") is None
    assert nearest_path("runs/zzz") is None
    assert nearest_path("runs/first/x/y") is None
    assert nearest_path("") is None
    assert nearest_path("\0" * 3) is None


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_has_the_public_names_alone(infomax, shell):
    code, script, err = infomax("--print-completion", shell)
    assert (code, err) == (0, "")
    options = {*re.findall(r"--[a-z][a-z-]+", script.replace("\\-", "-"))}
    fields = [field for fields in cli.command_options().values() for field in fields]
    public = {field.word for field in fields if not field.shown.positional}
    assert public - {"--k"} <= options
    assert not [option for option in options if "tyro" in option]
    code, out, err = infomax("--print-completion", "fish")
    assert (code, out, err) == (
        2, "", "infomax: --print-completion must be one of bash, zsh, but is 'fish'\n"
    )  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("ev", ["evaluate"]),
        ("evaluate fe", ["few-shot"]),
        ("pretrain --learn", ["--learning-rate"]),
        ("replay --", ["--help", "--device", "--options"]),
    ],
)
def test_bash_completes_commands_and_options(infomax, tmp_path, words, completions):
    (tmp_path / "infomax.bash").write_text(infomax("--print-completion", "bash")[1])
    line = f"COMP_WORDS=(infomax {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _tyro_infomax"
    script = f'source {tmp_path / "infomax.bash"}; {line}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == completions


def test_python_completes_the_public_names_alone():
    import infomax

    assert dir(infomax) == sorted([*infomax.__all__, "__version__", "functional", "methods"])
    assert all(hasattr(infomax, name) for name in dir(infomax))


@pytest.mark.process
@pytest.mark.parametrize("start", [["-m", "infomax"], ["-c", "from infomax.cli import main; main()"]])
def test_version_is_printed_without_torch(start):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *start, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"infomax {importlib.metadata.version('infomax')}\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported or start[0] == "-m"
    assert not {"torch", "numpy", "PIL", "scipy"} & imported


@pytest.mark.process
def test_ctrl_c_while_the_command_is_imported_is_one_line(tmp_path):
    hooked = "import sys, signal, os\nclass Hook:\n    def find_spec(self, name, path=None, target=None):\n" + (
        "        if name == 'tyro':\n            os.kill(os.getpid(), signal.SIGINT)\n"
    )
    code = f"{hooked}sys.meta_path.insert(0, Hook())\nfrom infomax.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninfomax: interrupted\n")


def test_images_of_a_folder_within_that_of_the_training_are_not_other_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert images_overlap("photos", "photos/train")
    assert images_overlap(str(tmp_path / "photos/train"), "photos")
    assert not images_overlap("photos2", "photos")
    assert not images_overlap("digits", "cifar10")
