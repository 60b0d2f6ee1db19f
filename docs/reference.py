"""Writes docs/reference/options.md from the options classes: python docs/reference.py"""

from dataclasses import MISSING
from pathlib import Path

from infomax.cli import COMMANDS
from infomax.cli.evaluate import option_classes
from infomax.cli.options_file import FileOptions
from infomax.evaluation.protocols import PROTOCOLS
from infomax.runtime.options import OptionField, option_fields

PAGE = Path(__file__).parent / "reference" / "options.md"
INTRODUCTION = """# Options

Each option of the commands, with its default and the commands that take it, as `infomax COMMAND --help` shows them. In
Python the names are the same with underscores: `--batch-size 64` is `batch_size=64`, and `--set KEY=VALUE` is
`overrides=["KEY=VALUE"]`. `python docs/reference.py` writes this page from the options classes.

| option | default | | commands |
|---|---|---|---|
"""


def default_text(field: OptionField) -> str:
    """Returns what the table says of an option's default."""
    if field.shown.default is not None:
        return field.shown.default
    if field.default is MISSING:
        return "required"
    if field.default is False:
        return "off"
    if field.default is None or field.default == ():
        return "none"
    return " ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)


def option_cells(field: OptionField) -> tuple[str, str, str]:
    """Returns the first three cells of an option's row."""
    value = field.shown.metavar or ""
    word = value if field.shown.positional else f"{field.word} {value}".strip()
    text = field.text + (" May be repeated." if field.shown.repeatable else "")
    return f"`{word}`", default_text(field), text


def evaluation_options() -> dict[tuple[str, str, str], list[str]]:
    """Returns the options of ``infomax evaluate``, each with the names of the protocols that take it."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for protocol in PROTOCOLS.values():
        fields = {field.name: field for cls in option_classes(protocol) for field in option_fields(cls)}
        for field in fields.values():
            rows.setdefault(option_cells(field), []).append(protocol.name)
    return rows


def options_page() -> str:
    """Returns the text of docs/reference/options.md; an option that several commands share is one row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for command in COMMANDS.values():
        for field in option_fields(command.options):
            rows.setdefault(option_cells(field), []).append(command.name)
    for cells, protocols in evaluation_options().items():
        every = len(protocols) == len(PROTOCOLS)
        rows.setdefault(cells, []).extend(["evaluate"] if every else [f"evaluate {name}" for name in protocols])
    for field in option_fields(FileOptions):
        rows[option_cells(field)] = ["all"]
    lines = [[*cells, ", ".join(names)] for cells, names in sorted(rows.items(), key=lambda row: row[0][0].lower())]
    escaped = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return INTRODUCTION + "".join(f"| {line} |\n" for line in escaped)


if __name__ == "__main__":
    PAGE.write_text(options_page())
