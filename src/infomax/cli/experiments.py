"""Defines the commands about recipes and several runs: recipes, sweep, compare and demo."""

import shlex
from pathlib import Path

from infomax.cli.command import Command
from infomax.experiments.options import ChooseFileOptions, CompareOptions, DemoOptions, SweepOptions
from infomax.reporting.options import RecipeListOptions
from infomax.runtime.failures import MachineError
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import note, show

CHOICE_SUFFIXES = (".html", ".jsonl", ".csv")


def recipes(options: RecipeListOptions) -> None:
    """Carries out ``infomax recipes``."""
    from infomax.reporting.recipe_list import describe_recipe, find_recipes, recipe_table

    experiments = find_recipes(options)
    if len(experiments) == 1 and options.names:
        show(describe_recipe(experiments[0], options.overrides))
        return
    if options.overrides:
        raise ValueError("--set is for one recipe; give its name, as mira/cifar10")
    show(recipe_table(experiments, gpu=options.gpu).text())


def sweep(options: SweepOptions) -> None:
    """Carries out ``infomax sweep``; what was measured before an interruption is shown."""
    from infomax.experiments.sweep import define_sweep
    from infomax.experiments.sweep_results import collect_results
    from infomax.experiments.sweep_runner import run_sweep

    planned = define_sweep(options)
    for line in planned.not_measured:
        note(line)
    if options.commands:
        show("\n".join(planned.commands()))
        return
    failures = []
    try:
        failures = run_sweep(planned)
    except KeyboardInterrupt:
        if not any(run.remaining for run in planned.runs):
            raise KeyboardInterrupt("; the sweep was finished, and the same command shows its table again") from None
        raise KeyboardInterrupt("; the same command goes on") from None
    finally:
        result = collect_results(planned, failures)
        if result.has_scores:
            tables = [table.text() for table in (result.table(), *result.difference_tables())]
            show("\n\n".join(tables) + ("\n" if len(tables) > 1 else ""))
            show(f"{options.out} has sweep.json with all runs, sweep.png, and the page sweep.html")
    if failures:
        raise MachineError("; ".join(failures))


def compare(options: CompareOptions) -> None:
    """Carries out ``infomax compare``; what was measured before an interruption is shown."""
    from infomax.experiments.compare_runner import PAGE, RESULTS, CompareWork

    work = CompareWork(options)
    try:
        work.carry_out()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command goes on") from None
    finally:
        result = work.result()
        if any(run.trained for run in result.swept.runs):
            show(result)
            show(f"{options.out} has {RESULTS} with all runs, and the page {PAGE}")
    if work.failures:
        failed = "; ".join(f"{name}: {failure}" for name, failure in work.failures.items())
        raise MachineError(f"{failed}; the same command tries again what failed")


def demo(options: DemoOptions) -> None:
    """Carries out ``infomax demo``."""
    with importing_torch():
        from infomax.experiments.demo import choose_folder, demo, demo_table, is_begun

    out = options.out or choose_folder(Path("runs/demo"))
    if is_begun(out):
        note(f"the demo in {out} goes on; methods that are done are not trained again")
    rows = []
    try:
        for row in demo(out):
            rows.append(row)
            if "run" in row:
                accuracy = f"1-label k-NN accuracy {row['knn_1']:.1%}"
                show(f"{row['name']}: {row['seconds']:.0f} s, {accuracy}, in {row['run']}")
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(str(interruption) or f"; infomax demo --out {shlex.quote(str(out))} goes on") from None
    show(f"\n{demo_table(rows).text()}")


def choose(options: ChooseFileOptions) -> None:
    """Carries out ``infomax choose``."""
    from infomax.experiments.kept_encoders import open_encoders
    from infomax.runtime.output_files import check_output_file

    if options.out is not None:
        check_output_file(options.out, CHOICE_SUFFIXES, overwrite=options.overwrite)
    open_encoders(options)  # before torch is imported, which takes seconds
    with importing_torch():
        from infomax.experiments.choose import rank_runs

    choice = rank_runs(options, quiet=False)
    show(choice)
    if options.out is not None:
        if options.out.suffix == ".html":
            from infomax.experiments.choose_page import write_choice_page

            write_choice_page(options.out, choice)
        else:
            choice.write(options.out)
        show(f"written to {options.out}")


DEMO, RECIPES, SWEEP, COMPARE, CHOOSE = (
    Command(
        "demo",
        DemoOptions,
        "Train all methods on handwritten digits, in minutes on a CPU, and compare what they learned.",
        demo,
    ),
    Command(
        "recipes",
        RecipeListOptions,
        "List the recipes, with what the papers report of them and what they cost; or print one in full.",
        recipes,
    ),
    Command(
        "sweep",
        SweepOptions,
        "Train and evaluate several recipes or values, with several seeds, and compare them with what a paper prints.",
        sweep,
    ),
    Command(
        "compare",
        CompareOptions,
        "Train several methods on your images with equal budgets, and say which is best and how sure that is.",
        compare,
    ),
    Command(
        "choose",
        ChooseFileOptions,
        "Rank runs, and encoders kept on the way, without labels, and say how far to trust the order.",
        choose,
    ),
)
