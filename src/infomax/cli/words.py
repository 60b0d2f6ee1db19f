"""Checks the words of a command before they are parsed, so that each mistake is one line that names what is near."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

from infomax.runtime.near_names import nearest, nearest_option
from infomax.runtime.options import OptionField, parse_option, split_words

HELP = ("-h", "--help")
GENERAL_OPTIONS = ("--version", "--help", "--print-completion")
"""Options that no command stands before."""
SYNONYMS_OF_COMMANDS = {
    "pretrain": "train training fit learn run ssl",
    "evaluate": "eval test validate score benchmark probe",
    "watch": "monitor follow tail dashboard live status serve top",
    "views": "augment augmentations preview show crops",
    "plan": "estimate cost dry-run profile",
    "recipes": "list configs models methods",
    "report": "results table summary",
    "choose": "rank select pick best",
    "figure": "figures fig plot draw chart",
    "sweep": "grid search hyper tune multirun",
    "compare": "comparison versus vs contest tournament bakeoff",
    "demo": "example quickstart tutorial",
    "export": "convert save onnx push upload",
    "embed": "features extract encode embedding embeddings infer",
    "options": "config dump-config show-config settings args",
    "search": "query retrieve similar neighbours neighbors nearest",
    "duplicates": "dedup dedupe deduplicate near-duplicates",
    "clusters": "cluster kmeans group",
    "doctor": "info env environment diagnose diagnostics check system sysinfo version versions",
    "classify": "classifier classification label predict recognise recognize",
}
"""Other names of commands that are usual in the field."""
SECOND_WORDS = {"evaluate": "protocol", "classify": "step"}
"""What the second word of a command names, by the first."""
NO_ACCUMULATION = (
    "these losses compare the images of a whole batch, so gradients added up over small batches would be those of "
    "another loss; --micro-batch-size N takes --batch-size images through the device N at a time, with the exact "
    "gradient"
)


def lengthen_options(words: Sequence[str], commands: Mapping[str, Sequence[OptionField]]) -> list[str]:
    """Returns the words of a command with two dashes for one before options of a single letter, as ``-k``.

    Args:
        words: The words after ``infomax``.
        commands: The options of each command.
    """
    letters = {field.word for fields in commands.values() for field in fields if len(field.word) == len("--k")}
    return [f"-{word}" if f"-{word}" in letters else word for word in words]


def check_words(words: Sequence[str], commands: Mapping[str, Sequence[OptionField]]) -> None:
    """Checks the words of a command: that there is such a command, and such options, with values of their types.

    Args:
        words: The words after ``infomax``.
        commands: The options of each command, as ``pretrain`` and ``evaluate knn``.

    Raises:
        ValueError: with one line that says what is wrong and what is near.
    """
    if words and words[0] in HELP:
        return
    command, rest = _split_command(words, commands)
    if command not in commands or any(word in HELP for word in rest):
        return
    _check_options(command, rest, commands)


def _split_command(words: Sequence[str], commands: Collection[str]) -> tuple[str, Sequence[str]]:
    """Returns the command, with its second word if it has one, as ``evaluate knn``, and the words after it."""
    names = list(dict.fromkeys(name.partition(" ")[0] for name in commands))
    seconds = {name: [x.partition(" ")[2] for x in commands if x.startswith(f"{name} ")] for name in SECOND_WORDS}
    if not words:
        raise ValueError(f"a command is missing: {', '.join(names)}; infomax --help explains them")
    name, rest = words[0], words[1:]
    if name.startswith("-"):
        if name.startswith("--") and (near := nearest(name, GENERAL_OPTIONS)):
            raise ValueError(f"{name}: did you mean {near}?")
        raise ValueError(f"a command comes before {name}: {', '.join(names)}; infomax --help explains them")
    if name not in names:
        if name in seconds["evaluate"]:
            raise ValueError(f"there is no command {name!r}; did you mean evaluate {name}?")
        usual = next((known for known, others in SYNONYMS_OF_COMMANDS.items() if name.lower() in others.split()), None)
        raise ValueError(_unknown(f"there is no command {name!r}", usual or nearest(name, names), names))
    if name not in seconds or (rest and rest[0] in HELP):
        return name, rest
    kind, possible = SECOND_WORDS[name], seconds[name]
    if not rest or rest[0].startswith("-"):
        raise ValueError(f"{name} wants a {kind} first: {', '.join(possible)}")
    if rest[0] not in possible and re.search("[/:.]", rest[0]):
        raise ValueError(f"{name} wants a {kind} before {rest[0]}: {', '.join(possible)}")
    if rest[0] not in possible:
        raise ValueError(_unknown(f"there is no {kind} {rest[0]!r}", nearest(rest[0], possible), possible))
    return f"{name} {rest[0]}", rest[1:]


def _unknown(problem: str, near: str | None, names: Sequence[str]) -> str:
    hint = f"did you mean {near}? They" if near else "they"
    return f"{problem}; {hint} are {', '.join(names)}"


def _check_options(command: str, words: Sequence[str], commands: Mapping[str, Sequence[OptionField]]) -> None:
    """Checks the options of a command, their values, and the words that follow no option."""
    fields = {field.word: field for field in commands[command] if not field.shown.positional}
    positional = [field for field in commands[command] if field.shown.positional]
    options, others = split_words(words, fields)
    given = {option for option, _ in options}
    for option, _ in options:
        if option not in fields:
            raise ValueError(_describe_unknown_option(option, command, commands))
    for option, texts in options:
        parse_option(fields[option], texts)
    if len(others) > len(positional) and not any(field.takes_several for field in positional):
        stray = others[len(positional)]
        place = list(words).index(stray)
        if place >= 2 and words[place - 2] == "--data":  # as a shell makes of --data photos/*.jpg
            data = f"{words[place - 1]},{stray}"
            raise ValueError(f"--data takes one word, in which several files or folders have commas between: {data}")
        raise ValueError(_describe_stray(stray, command, fields.keys() - given))
    missing = [field for field in fields.values() if field.word not in given]
    missing += [field for field in positional[len(others) :] if not field.takes_several]  # the command says it itself
    for field in missing:
        if field.default is dataclasses.MISSING:
            name = "" if field.shown.positional else f"{field.word} "
            raise ValueError(f"{name}{field.shown.metavar} is missing: {field.text}")


def _describe_unknown_option(option: str, command: str, commands: Mapping[str, Sequence[OptionField]]) -> str:
    """Returns the line about an option that the command does not have."""
    if "accum" in option:
        return f"{option}: {NO_ACCUMULATION}"
    named = next((field for field in commands[command] if field.shown.positional and field.word == option), None)
    if named is not None:
        return f"{named.shown.metavar} is given without {option}: infomax {command} {named.shown.metavar} ..."
    names = [field.word.removeprefix("--") for field in commands[command] if not field.shown.positional]
    if near := nearest_option(option.lstrip("-"), names):
        return f"{option}: did you mean --{near}? infomax {command} --help lists the options"
    owners = [name for name, fields in commands.items() if any(field.word == option for field in fields)]
    if len(owners) > 1:
        owners = list(dict.fromkeys(name.partition(" ")[0] for name in owners))
    of_others = f", but of {', '.join(owners)}" if owners else ""
    return f"{option} is no option of infomax {command}{of_others}; infomax {command} --help lists them"


def _describe_stray(word: str, command: str, left_out: Collection[str]) -> str:
    """Returns the line about a word that follows no option.

    Args:
        word: The word.
        command: The command.
        left_out: Options that are not given.
    """
    if "--data" in left_out and command != "sweep":
        return f"{word!r} follows no option; did you mean --data {word}?"
    return f"{word!r} follows no option; infomax {command} --help lists the options"
