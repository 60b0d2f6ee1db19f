"""Defines the commands about recipes and several runs: recipes, sweep and demo."""

from itertools import count
from pathlib import Path

from infomax.cli.command import Command
from infomax.experiments.options import DemoOptions, SweepOptions
from infomax.reporting.options import RecipeListOptions
from infomax.runtime.failures import MachineError
from infomax.runtime.text import note, show


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
        raise KeyboardInterrupt("; the same command goes on") from None
    finally:
        result = collect_results(planned, failures)
        if result.has_scores:
            show(result.table().text())
            show(f"{options.out} has sweep.json with all runs, and sweep.png")
    if failures:
        raise MachineError("; ".join(failures))


def demo(options: DemoOptions) -> None:
    """Carries out ``infomax demo``."""
    from infomax.experiments.demo import demo, demo_table

    out = options.out or _free_folder(Path("runs/demo"))
    if out.exists():
        raise ValueError(f"--out {out} exists; choose another, or leave out --out")
    rows = []
    for row in demo(out):
        rows.append(row)
        if "run" in row:
            show(f"{row['name']}: {row['seconds']:.0f} s, 1-label k-NN accuracy {row['knn_1']:.1%}, in {row['run']}")
    show(f"\n{demo_table(rows).text()}")


def _free_folder(first: Path) -> Path:
    """Returns the first of ``runs/demo``, ``runs/demo-2``, ... that does not exist."""
    if not first.exists():
        return first
    return next(path for i in count(2) if not (path := first.with_name(f"{first.name}-{i}")).exists())


DEMO, RECIPES, SWEEP = (
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
)
