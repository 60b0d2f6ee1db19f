"""Writes the pages options, methods, figures and papers of docs/reference from the code: python docs/reference.py"""

import inspect
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from infomax.cli import COMMANDS
from infomax.cli.evaluate import option_classes
from infomax.cli.options_file import FileOptions
from infomax.evaluation.protocols import PROTOCOLS
from infomax.experiments.options import SweepOptions
from infomax.experiments.sweep import Sweep, define_sweep
from infomax.figures.about import MINUTES_NOTE, minutes_words, needs_words, setting_rows
from infomax.figures.catalogue import FIGURES
from infomax.figures.figure import Figure
from infomax.papers import published
from infomax.recipes.building import build_without_memory
from infomax.recipes.registry import METHODS, baselines, methods_with_papers
from infomax.runtime.options import OptionField, option_fields

PAGE = Path(__file__).parent / "reference" / "options.md"
METHODS_PAGE = PAGE.with_name("methods.md")
FIGURES_PAGE = PAGE.with_name("figures.md")
PAPERS_PAGE = PAGE.with_name("papers.md")
WITHOUT_RECIPE = Path(__file__).with_name("without_recipe.toml")
INTRODUCTION = """# Options

Each option of the commands, with its default and the commands that take it, as `infomax COMMAND --help` shows them. In
Python the names are the same with underscores: `--batch-size 64` is `batch_size=64`, and `--set KEY=VALUE` is
`overrides=["KEY=VALUE"]`. `python docs/reference.py` writes this page from the options classes.

| option | default | | commands |
|---|---|---|---|
"""

METHODS_INTRODUCTION = """# Methods

What each method is, its functions for a loop of your own, and its recipes. The functions check their arguments, compute
the loss of the global batch under torch.distributed, and ignore autocast; `help(function)` prints shapes, units and an
example. Where code and paper of a method differ, [decisions](../decisions.md) say what was taken.
`python docs/reference.py` writes this page from the methods.
"""

FIGURES_INTRODUCTION = """# Figures

Each figure of `infomax figure`: what it shows, the runs that it takes, its settings and the columns of its CSV, as
`infomax figure NAME --about` prints them. [The guide](../guide/figures.md) shows what comes out.
`python docs/reference.py` writes this page from the figures.

"""

PAPERS_INTRODUCTION = """# The papers' figures and tables

Each figure and table of the four papers, the one command that makes it, and what is missing. A sweep trains and
evaluates what it needs; a figure takes trained runs, and `infomax figure NAME --about` prints what trains them. Most
runs of the papers want GPUs: none of these commands has been carried out in full yet. A number without a recipe has its
reason in brackets, with the name of the [decision](../decisions.md) that says more. `python docs/reference.py` writes
this page from the figures, the recipes, the published tables and `docs/without_recipe.toml`.

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


def module_of(method: str) -> ModuleType:
    """Returns the module that holds a method."""
    recipe = next(iter(METHODS[method].recipes.values())).recipe()
    module = inspect.getmodule(type(build_without_memory(recipe)))
    assert module is not None
    return module


def public_functions(module: ModuleType) -> list[tuple[str, str]]:
    """Returns the public functions and loss modules of a module, each with the first sentence of its docstring."""
    functions = []
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        documented = (inspect.getdoc(value) or "").partition("\n\n")
        if not own or name.startswith("_") or "Example:" not in documented[2]:
            continue
        sentence = " ".join(documented[0].split())
        functions.append((name, sentence))
    return functions


def method_section(methods: list[str]) -> str:
    """Returns what the page says of the methods of one module."""
    module = module_of(methods[0])
    text = (module.__doc__ or "").strip()
    counts = [f"`infomax recipes '{name}/*'` lists its {len(METHODS[name].recipes)} recipes." for name in methods]
    rows = [(name, sentence.replace("|", "\\|")) for name, sentence in public_functions(module)]
    functions = "".join(f"| `{name}` | {sentence} |\n" for name, sentence in rows)
    table = f"From `{module.__name__}`:\n\n| function | |\n|---|---|\n{functions}\n" if functions else ""
    return f"### {', '.join(f'`{name}`' for name in methods)}\n\n{text}\n\n{table}{' '.join(counts)}\n"


def methods_page() -> str:
    """Returns the text of docs/reference/methods.md."""
    parts = [METHODS_INTRODUCTION]
    for title, names in (("The methods of the four papers", methods_with_papers()), ("Baselines", baselines())):
        of_module: dict[str, list[str]] = {}
        for name in names:
            of_module.setdefault(module_of(name).__name__, []).append(name)
        parts += [f"## {title}\n", *(method_section(group) for group in of_module.values())]
    return "\n".join(parts)


def figures_page() -> str:
    """Returns the text of docs/reference/figures.md."""
    rows = [(f"[`{x.name}`](#{x.name})", x.title, x.paper_words, minutes_words(x)) for x in FIGURES.values()]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    head = f"{FIGURES_INTRODUCTION}| figure | shows | of | min |\n|---|---|---|---:|\n{table}\n{MINUTES_NOTE}\n"
    return "\n".join([head, *map(figure_section, FIGURES.values())])


def figure_section(figure: Figure) -> str:
    """Returns what the page says of one figure."""
    parts = [f"## {figure.name}", f"{figure.title} ({figure.paper_words}). {figure.text}"]
    commands = "\n".join(figure.needs.commands)
    parts.append(f"Takes {needs_words(figure)}" + (f", as of:\n\n```bash\n{commands}\n```" if commands else "."))
    if settings := setting_rows(figure):
        parts.append("| setting | default | |\n|---|---|---|\n" + _lines(settings, code=1))
    parts.append("| column | |\n|---|---|\n" + _lines([*figure.columns.items()], code=1))
    return "\n\n".join(parts) + "\n"


def _lines(rows: Sequence[Sequence[str]], *, code: int) -> str:
    """Returns the rows of a table, the first ``code`` cells of each as code."""
    cells = [[f"`{cell}`" if i < code else cell.replace("|", "\\|") for i, cell in enumerate(row)] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


@dataclass(frozen=True)
class PaperLine:
    """A line of the page of papers."""

    paper: str
    number: str
    title: str
    commands: tuple[str, ...]
    missing: str
    counts: bool = True
    """Whether it holds results."""
    numbers: int = 0
    """Numbers that a table prints."""
    without_recipe: int = 0
    """Those of them that no recipe is trained for."""

    @property
    def state(self) -> str:
        """Returns whether the commands make all of it, a part, or nothing."""
        if not self.counts:
            return "no data"
        return "nothing" if not self.commands else "a part" if self.missing else "all"


def paper_lines() -> list[PaperLine]:
    """Returns a line for each figure and table of the papers."""
    lines = []
    for paper in published.PAPERS:
        lines += [table_line(table) for table in published.tables() if table.paper == paper]
        lines += [figure_line(figure) for figure in published.figures() if figure.paper == paper]
    return lines


def figure_commands(name: str) -> list[str]:
    """Returns the commands of the figures that are made of a figure or table of a paper."""
    return [f"infomax figure {figure.name}" for figure in FIGURES.values() if name in figure.sources]


def table_line(table: published.Table) -> PaperLine:
    """Returns what is made of a published table: by a sweep, as far as it can measure it, or by a figure."""
    drawn, lacking = figure_commands(f"{table.paper} {table.number}"), list(table.numbers())
    try:
        sweep = define_sweep(SweepOptions(what=(table.id,), out=Path("runs/none")))
    except ValueError as error:
        reason = str(error).replace(f"{table.id}: ", "").partition("; say with --evaluate")[0]
        missing, swept = [reason], []
    else:
        lacking, swept = without_recipe(table, sweep), [f"infomax sweep {table.id}"]
        missing = [line.partition(": ")[2] for line in sweep.not_measured]
        if lacking:
            methods = dict.fromkeys(number.row.method for number in lacking)
            reasons = ", ".join(f"{method} ({why_without_recipe(table.id, method)})" for method in methods)
            missing.append(f"{len(lacking)} of {len(table.numbers())} numbers have no recipe: {reasons}")
    if drawn and is_cost(table):  # what no evaluation measures
        missing = [line for line in missing if "(speed)" not in line and "(other)" not in line]
        missing.append("times and memory are of this machine and of recipes that fit it")
    counts = {"numbers": len(table.numbers()), "without_recipe": len(lacking)}
    return PaperLine(table.paper, table.number, table.title, (*swept, *drawn), "; ".join(missing), **counts)


def without_recipe(table: published.Table, sweep: Sweep) -> list[published.Number]:
    """Returns the numbers of a table that no recipe is trained for, without averages of others."""
    reached = {
        (id(row), column.name)
        for variant in sweep.variants
        for places in (variant.experiment.positions(table.id), variant.experiment.positions_on_the_way(table.id))
        for row, column in places
    }
    averages = {column.name for column in table.columns if column.data == "average"}
    lacking = [number for number in table.numbers() if (id(number.row), number.column.name) not in reached]
    return [number for number in lacking if number.column.name not in averages]


@cache
def reasons_without_recipe() -> dict[tuple[str | None, str], str]:
    """Returns the reasons of docs/without_recipe.toml by table, or None for all tables, and method."""
    reasons = tomllib.loads(WITHOUT_RECIPE.read_text(encoding="utf-8"))["reasons"]
    return {(reason.get("table"), reason["method"]): reason["why"] for reason in reasons}


def why_without_recipe(table: str, method: str) -> str:
    """Returns why numbers of a method in a table have no recipe.

    Raises:
        KeyError: if docs/without_recipe.toml does not say it.
    """
    reasons = reasons_without_recipe()
    return reasons[(table, method) if (table, method) in reasons else (None, method)]


def is_cost(table: published.Table) -> bool:
    """Returns whether a table has times or memory."""
    return any(column.protocol in ("speed", "other") for column in table.columns)


def figure_line(figure: published.PublishedFigure) -> PaperLine:
    """Returns what is made of a figure of a paper."""
    commands, missing = figure_commands(figure.name), figure.missing
    if figure.kind == "diagram":
        missing = "a drawing without numbers"
    elif figure.kind == "settings":
        commands, missing = ["infomax recipes corinfomax/cifar10"], "settings, which each recipe lists under views"
    elif not commands:
        missing = "there is no figure for it"
    return PaperLine(figure.paper, figure.number, figure.title, tuple(commands), missing, figure.kind == "data")


def papers_page() -> str:
    """Returns the text of docs/reference/papers.md."""
    lines = paper_lines()
    states = [line.state for line in lines]
    counted = len(lines) - states.count("no data")
    share = (
        f"Of {counted} figures and tables with results, commands make {states.count('all')} in full and "
        f"{states.count('a part')} in part; {states.count('nothing')} are missing. {states.count('no data')} more hold "
        f"no results. The tables print {sum(line.numbers for line in lines)} numbers, of the papers' own methods and "
        f"of others; recipes are trained for {sum(line.numbers - line.without_recipe for line in lines)} of them.\n\n"
    )
    head = "| | shows | made by | of it | what is missing, and why |\n|---|---|---|---|---|\n"
    rows = ""
    for line in lines:
        commands = "<br>".join(f"`{command}`" for command in line.commands)
        cells = (f"{line.paper} {line.number}", line.title, commands, line.state, line.missing)
        rows += f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"
    return f"{PAPERS_INTRODUCTION}{share}{head}{rows}"


if __name__ == "__main__":
    PAGE.write_text(options_page())
    METHODS_PAGE.write_text(methods_page())
    FIGURES_PAGE.write_text(figures_page())
    PAPERS_PAGE.write_text(papers_page())
