"""Plans comparisons: which methods are trained by which recipe, for how many epochs, so that their budgets are equal.

In: the options of ``infomax compare``. Out: a sweep, whose runs :mod:`infomax.experiments.compare_runner` carries out.
All runs have one encoder, one image size and the same seeds; each method keeps the views, the batch size and the
optimiser of its recipe. Decisions: compare-budget, compare-equal.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.data.splits import Source, counted, preview_images, why_not_labelled
from infomax.experiments.evaluations import Evaluation, parse_evaluation
from infomax.experiments.options import CompareOptions, SweepOptions
from infomax.experiments.sweep import Sweep, SweepRun, Variant, check_same_run, define_run, describe_network
from infomax.experiments.sweep import initial_encoder as open_initial_encoder
from infomax.models.backbone_names import library_of
from infomax.recipes import registry
from infomax.recipes.customise import check_changes
from infomax.recipes.experiment import Experiment
from infomax.recipes.method_spec import SMALL_IMAGES
from infomax.recipes.registry import DEFAULT_METHOD, METHODS
from infomax.recipes.schema import Recipe
from infomax.runtime.checks import check_count, choose
from infomax.runtime.devices import choose_device
from infomax.runtime.durations import duration
from infomax.runtime.options import option_names, pick, to_argv
from infomax.runtime.stages import importing_torch
from infomax.training.closing import trains_little
from infomax.training.opening import check_machine, check_several, open_measured
from infomax.training.options import PretrainOptions, RecipeChangeOptions

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder

DEFAULT_BUDGET = "10m"
DEFAULT_BASELINES = ("byol", "simclr", "vicreg")
"""Baselines that a comparison has if the user names no methods: of each kind, contrastive, with a teacher, and with
statistics of the batch, one that is usual and strong."""
DEFAULT_EVALUATIONS = ("linear", "knn")
UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
ARCHITECTURE = ("backbone", "stem", "stem_padding", "zero_init_residual")
"""Settings of our own networks that are made equal."""
FEWEST_IMAGES = 8  # with fewer, the user says how many a step takes


@dataclass(frozen=True)
class Budget:
    """A frozen dataclass that holds what each run has: training time or passes over the images, one of the two."""

    seconds: float | None = None
    epochs: int | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.epochs} epochs" if self.epochs != 1 else "1 epoch"
        return f"{duration(self.seconds)} of training"


def parse_budget(text: str | None, epochs: int | None = None) -> Budget:
    """Returns the budget that a text stands for.

    Args:
        text: As ``30m``, ``90s``, ``2h`` or ``20epochs``; None takes the default.
        epochs: The number of epochs, if it is given as an option of its own.

    Raises:
        ValueError: if it is none of these, or both are given.
    """
    if epochs is not None and text is not None:
        raise ValueError(f"--epochs {epochs} and --budget {text} say both what each run has; give one of them")
    if epochs is not None:
        check_count("--epochs", epochs, low=1)
        return Budget(epochs=epochs)
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|min|h|epochs?)", (DEFAULT_BUDGET if text is None else text).strip())
    number = float(match[1]) if match else 0.0
    if match and match[2] in UNITS and number > 0:
        return Budget(seconds=number * UNITS[match[2]])
    if match and match[2] not in UNITS and number >= 1 and number.is_integer():
        return Budget(epochs=int(number))
    raise ValueError(f"--budget must be a time, as 90s, 30m or 2h, or whole epochs, as 20epochs, but is {text!r}")


def choose_methods(words: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the methods to compare, those of the four papers first.

    Args:
        words: Names of methods and of groups, also with commas between; none takes the default.

    Raises:
        ValueError: if there is no such method, naming the nearest one; or if one method alone is left.
    """
    groups = registry.method_groups()
    names = [name for word in words for name in word.replace(" ", "").split(",") if name]
    if not names:
        return (*groups["papers"], *(name for name in DEFAULT_BASELINES if name in METHODS))
    chosen = {method for name in names for method in groups.get(name) or [_known_method(name)]}
    if len(chosen) < 2:
        raise ValueError(f"--methods {','.join(names)} leaves nothing to compare: name two or more, as mveb,simclr")
    return tuple(name for name in METHODS if name in chosen)


def _known_method(name: str) -> str:
    return choose("--methods", name, [*METHODS, *registry.method_groups()])


@dataclass(frozen=True)
class Entrant:
    """A frozen dataclass that holds how one method of a comparison is trained, but for its epochs."""

    experiment: Experiment
    options: SweepOptions
    """The changes to the recipe, with those that make the encoders and the image sizes equal."""
    recipe: Recipe
    """The recipe with these changes, and its own epochs."""

    @property
    def method(self) -> str:
        """Returns the method's name."""
        return self.experiment.method

    def with_epochs(self, epochs: int | None) -> SweepOptions:
        """Returns the options with a number of epochs; None leaves the recipe's own."""
        return replace(self.options, epochs=epochs)


@dataclass(frozen=True)
class Contest:
    """A frozen dataclass that holds a comparison before its epochs are known: what is compared, on what."""

    options: CompareOptions
    budget: Budget
    entrants: tuple[Entrant, ...]
    source: Source
    initial: "Encoder | None"
    """The encoder that all runs start from; None for random weights."""

    @property
    def images(self) -> int:
        """Returns the number of images that are trained on."""
        return len(self.source.pretraining)

    @property
    def why_no_labels(self) -> str:
        """Returns why the runs are not judged by labels; empty if they are."""
        return why_not_labelled(self.source)

    @property
    def identity(self) -> dict[str, Any]:
        """Returns all options that decide the results, as plain values; the methods and the seeds may grow."""
        options = self.options
        changes = {name: getattr(options, name) for name in option_names(RecipeChangeOptions) if name != "epochs"}
        location = vars(options.location(None).resolved())
        parts = {"data": location["data"], "classes": location["classes"], "subset": location["subset"]}
        parts |= {"value_range": location["value_range"], "budget": str(self.budget), "recipe": options.recipe}
        parts |= {name: location[name] for name in ("bands", "layout") if location[name] is not None}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in {**parts, **changes}.items()}

    def epochs(self, entrant: Entrant, speed: float | None) -> int:
        """Returns the epochs of a method's runs: those of the budget, or as many as take the time of the budget.

        Args:
            entrant: The method.
            speed: Images that its training takes in a second; a budget of time needs it.
        """
        if self.budget.seconds is None or speed is None:
            return self.budget.epochs or 1
        return max(1, round(self.budget.seconds / self.seconds(entrant, speed, 1)))

    def seconds(self, entrant: Entrant, speed: float, epochs: int) -> float:
        """Returns how long a run of so many epochs is likely to take."""
        batch = entrant.recipe.batch_size
        return self.images // batch * batch * epochs / speed

    def describe(self) -> str:
        """Returns a line on what all runs share, and on what each method keeps of its recipe."""
        recipe = self.entrants[0].recipe
        shared = f"{recipe.encoder.backbone} encoder at {recipe.views.global_crops[0].size} pixels"
        given = [words.removeprefix("--") for words in to_argv(self.changes) if words.startswith("--")]
        kept = f" but for {', '.join(dict.fromkeys(given))}" if given else ""
        return f"all: {shared}, the same seeds; each has its recipe's views, batch size and optimiser{kept}"

    @property
    def changes(self) -> RecipeChangeOptions:
        """Returns the user's changes to all recipes."""
        return pick(RecipeChangeOptions, {**vars(self.options), "epochs": None})

    def sweep(self, epochs: Mapping[str, int]) -> Sweep:
        """Returns the runs, of all methods with one seed before those with the next one.

        Args:
            epochs: The epochs of each method that is trained.

        Raises:
            ValueError: if a run in the folder was trained otherwise.
        """
        evaluations = self.evaluations
        entrants = [entrant for entrant in self.entrants if entrant.method in epochs]
        variants = {entrant.method: Variant(entrant.experiment) for entrant in entrants}
        runs: list[SweepRun] = []
        networks: set[str] = set()
        for seed, entrant in product(range(self.options.seeds), entrants):
            options = entrant.with_epochs(epochs[entrant.method])
            run = define_run(options, variants[entrant.method], seed, evaluations, (), {}, self.initial)
            check_same_run(run)
            network = describe_network(run)
            runs.append(replace(run, measures_baselines=seed == 0 and network not in networks))
            networks.add(network)
        words = tuple(to_argv(self.changes))
        return Sweep(self.options.out, tuple(variants.values()), evaluations, tuple(runs), None, words)

    def trial_sweep(self) -> Sweep:
        """Returns a run of one epoch of each method, to try its settings; nothing in the folder is looked at."""
        options = replace(self.options, out=self.options.out / ".trial", seeds=1)
        entrants = tuple(replace(e, options=replace(e.options, out=options.out)) for e in self.entrants)
        return replace(self, options=options, entrants=entrants).sweep({e.method: 1 for e in entrants})

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Returns how the runs are judged by labels, the one that ranks them first; none without labels."""
        words = self.options.evaluate or (() if self.why_no_labels else DEFAULT_EVALUATIONS)
        return tuple(dict.fromkeys(parse_evaluation(x, self.entrants[0].options) for x in words))


def open_contest(options: CompareOptions) -> Contest:
    """Returns what a comparison is of, and checks that it is possible. Nothing is written.

    Raises:
        ValueError: if there are no such images, methods, recipes or evaluations, or a recipe cannot be changed so.
    """
    methods, budget = choose_methods(options.methods), parse_budget(options.budget, options.epochs)
    check_machine(options)
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} must be a folder")
    if any(override.partition("=")[0] in ("seed", "epochs") for override in options.overrides):
        raise ValueError("--set seed and --set epochs would undo what is compared: give --seeds N and --budget")
    if options.recipe is not None and "/" in options.recipe:
        raise ValueError(f"--recipe {options.recipe} is of one method; name one that all have, as small")
    for name in methods:
        check_changes(name, options.recipe, options.changes())
    as_sweep = pick(SweepOptions, {**vars(options), "what": ()})
    for words in options.evaluate:
        parse_evaluation(words, as_sweep)
    source = open_measured(options.location(None), download=options.download)
    check_several(source)
    recipes = dict(_recipe_names(options, source, {*methods, DEFAULT_METHOD}))
    initial = open_initial_encoder(as_sweep)
    reference = _entrant(recipes[DEFAULT_METHOD], options, source, initial, None)
    entrants = tuple(_entrant(recipes[name], options, source, initial, reference) for name in methods)
    contest = Contest(options, budget, entrants, source, initial)
    if options.evaluate and contest.why_no_labels:
        raise ValueError(f"--evaluate: {options.data} cannot be evaluated on: {contest.why_no_labels}")
    return contest


def _recipe_names(options: CompareOptions, source: Source, methods: set[str]) -> Iterator[tuple[str, Experiment]]:
    """Yields for each method the recipe that ``infomax pretrain`` would choose; of methods without one, ``small``."""
    with importing_torch():
        from infomax.training.image_size import typical_side

    side = typical_side(preview_images(source))
    gpu = choose_device(options.device) == "cuda"
    for name in methods:
        spec = METHODS[name]
        bare = options.recipe or spec.default_recipe(data=source.name, side=side, gpu=gpu)
        too_large = bare == spec.default_for_large_images and (side <= SMALL_IMAGES or not gpu)
        if options.recipe is None and too_large and "small" in spec.recipes:
            bare = "small"
        yield name, registry.get_experiment(bare, name)


def _entrant(
    experiment: Experiment,
    options: CompareOptions,
    source: Source,
    initial: "Encoder | None",
    reference: Entrant | None,
) -> Entrant:
    """Returns how a method is trained, with the encoder and the image size of a reference.

    Args:
        experiment: The method's recipe.
        options: The options of the comparison.
        source: The images; if they are fewer than a step takes, a step takes fewer.
        initial: The encoder that all runs start from; None for random weights.
        reference: How the default method is trained; None for that itself.
    """
    values: dict[str, Any] = {**vars(options), "what": (), "epochs": None, "evaluate": ()}
    recipe = _settle(experiment, values, source, initial)
    if reference is not None:
        wanted = reference.recipe
        size = wanted.views.global_crops[0].size
        if recipe.views.global_crops[0].size != size:
            values["image_size"] = size
        if initial is None and library_of(recipe.encoder.backbone) is None:
            differing = [x for x in ARCHITECTURE if getattr(recipe.encoder, x) != getattr(wanted.encoder, x)]
            overrides = [f"encoder.{x}={getattr(wanted.encoder, x)}" for x in differing]
            values["overrides"] = (*options.overrides, *overrides)
    images = len(source.pretraining)
    if FEWEST_IMAGES <= images < recipe.batch_size and options.batch_size is None:
        values["batch_size"] = 2 ** (images.bit_length() - 1)
    return Entrant(experiment, pick(SweepOptions, values), _settle(experiment, values, source, initial))


def _settle(experiment: Experiment, values: Mapping[str, Any], source: Source, initial: "Encoder | None") -> Recipe:
    """Returns the recipe with the changes among some values."""
    from infomax.training.initial import settle_recipe

    changes = {name: values[name] for name in option_names(RecipeChangeOptions)}
    images = len(source.pretraining)
    return settle_recipe(experiment, images=images, initial=initial, changes=changes, pixels=source.measured)


def full_training(contest: Contest, method: str) -> PretrainOptions:
    """Returns the options that train a method as the comparison did, for as long as its recipe says.

    Args:
        contest: The comparison.
        method: Name of the method.
    """
    entrant = next(entrant for entrant in contest.entrants if entrant.method == method)
    out = Path("runs") / method
    return pick(PretrainOptions, {**vars(entrant.options), "recipe": entrant.experiment.name, "out": out})


def describe_start(contest: Contest, *, measured: bool = False) -> list[str]:
    """Returns lines on what is known before any speed is measured: how long all takes, and what it cannot tell.

    Args:
        contest: The comparison.
        measured: Whether all speeds are known already, so that :func:`describe_plan` says how long all takes.
    """
    lines, methods, seeds = [], len(contest.entrants), contest.options.seeds
    if contest.why_no_labels:
        lines.append(
            f"no labels ({contest.why_no_labels}): no method can be recommended; the runs are trained, and their "
            "health and a measure of their features stand in the table; --methods and --seeds make it shorter"
        )
    if contest.budget.seconds is not None and not measured:
        total = duration(methods * seeds * contest.budget.seconds)
        lines.append(
            f"{_count_runs(contest, methods)}: about {total} in all, beside the start of each run and "
            f"{_after_runs(contest)}; --methods, --seeds and --budget make it shorter"
        )
    return lines


def _count_runs(contest: Contest, methods: int) -> str:
    """Returns what is multiplied, as ``3 methods x 3 seeds x 30 min of training``."""
    seeds = contest.options.seeds
    return f"{methods} method{'s' * (methods != 1)} x {seeds} seed{'s' * (seeds != 1)} x {contest.budget}"


def _after_runs(contest: Contest) -> str:
    return "the measuring of its features" if contest.why_no_labels else "the evaluations"


def describe_plan(contest: Contest, speeds: Mapping[str, float], *, start_seconds: float | None = None) -> list[str]:
    """Returns lines on the epochs and the time of each method, and on how long all of it takes.

    Args:
        contest: The comparison.
        speeds: Images a second of each method that could be tried.
        start_seconds: Seconds that a training takes to start; None if they were not measured.
    """
    lines, total, longest = [contest.describe()], 0.0, 0.0
    for entrant in contest.entrants:
        if (speed := speeds.get(entrant.method)) is None:
            continue
        epochs = contest.epochs(entrant, speed)
        seconds = contest.seconds(entrant, speed, epochs)
        rate = f"{speed:,.0f} images/s"
        images = len(contest.source.pretraining)
        steps = entrant.recipe.steps(images) // entrant.recipe.epochs * epochs
        is_little = trains_little(entrant.recipe, images, steps)
        few = f", {counted(steps, 'step')}, which train almost nothing" if is_little else ""
        count = f"{epochs:,} epoch{'s' if epochs > 1 else ''} in {duration(seconds)}{few}"
        size = f"batches of {entrant.recipe.batch_size}"
        lines.append(f"{entrant.method}: recipe {entrant.experiment.name}, {size}, {rate}: {count}")
        total += contest.options.seeds * seconds
        longest = max(longest, seconds / (contest.budget.seconds or inf))
    in_all = f"about {duration(total)} in all, beside the start of each run and {_after_runs(contest)}"
    if start_seconds is not None:
        processes = len(speeds) * contest.options.seeds * (1 + len(contest.evaluations))
        evaluation = " and each evaluation" if contest.evaluations else ""
        in_all = (
            f"about {duration(total)} of training, and {duration(start_seconds)} for each run{evaluation} to start: "
            f"about {duration(total + processes * start_seconds)} in all"
        )
    lines.append(f"{_count_runs(contest, len(speeds))}: {in_all}; Ctrl-C stops, the same command goes on")
    if longest > 1.1:
        lines.append(
            f"one epoch of some methods takes longer than the budget, up to {longest:.1f} times; --subset FILE trains "
            "on fewer images"
        )
    return lines
