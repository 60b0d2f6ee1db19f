"""Defines the commands that train, and those about a training: pretrain, plan, views, replay and options."""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infomax.cli.command import Command
from infomax.planning.options import PlanOptions
from infomax.recipes.registry import parse_recipe_choice
from infomax.runtime.doors import RESUMED_BY_VARIABLE, resumed_by
from infomax.runtime.failures import MachineError
from infomax.runtime.ranks import is_first_rank, rank_from_environment
from infomax.runtime.stages import Stage, importing_torch
from infomax.runtime.text import show
from infomax.training.options import PretrainOptions, ReplayOptions, RunFolderOptions, ViewsOptions

if TYPE_CHECKING:
    from infomax.runs.run_folder import Run


def pretrain(options: PretrainOptions) -> None:
    """Carries out ``infomax pretrain``."""
    from infomax.runs.run_folder import resume_command
    from infomax.training.opening import open_images

    config = options.out / "config.json"
    command = os.environ.get(RESUMED_BY_VARIABLE) or resume_command(options.out)
    before = _change_of(config)
    alone = rank_from_environment() is None  # of several ranks, all learn of a mistake together, and then the images
    opened = open_images(options) if alone else None
    with importing_torch():
        from infomax.runtime.checkpoints import list_checkpoints
        from infomax.training.closing import closing_lines
        from infomax.training.pretrain import run_pretraining
    try:
        with resumed_by(command):
            run = run_pretraining(options, opened)
    except KeyboardInterrupt as interruption:
        if str(interruption):  # the loop says at which step, and how to go on
            raise
        is_as_before = _change_of(config) == before and not options.resume  # no run, or one that was to be replaced
        if is_as_before or not config.is_file():
            raise KeyboardInterrupt("; nothing was trained yet, and the same command begins again") from None
        if list_checkpoints(options.out / "checkpoints"):
            raise KeyboardInterrupt(f"; {command} goes on") from None
        raise KeyboardInterrupt(f"; nothing was trained yet, and {command} begins") from None
    if is_first_rank():
        for line in closing_lines(run):
            show(line)
        if run.collapsed:
            show(f"{run.path} is done, but its encoder has collapsed: all images have the same representation")
        else:
            show(f"{run.path} is done; {_what_is_next(run)}")


def _change_of(file: Path) -> int | None:
    """Returns when a file was last changed, in nanoseconds; None if there is none."""
    return file.stat().st_mtime_ns if file.is_file() else None


def _what_is_next(run: "Run") -> str:
    """Returns words for what a user can do with a finished run; without labels, clusters are all that it has."""
    folder = shlex.quote(str(run.path))
    if not run.config.get("no_labels_reason"):
        return f"infomax evaluate knn {folder} says how good the encoder is"
    if run.location.data.startswith(("hf-stream:", "wds:")):  # streams, whose images cannot be counted off
        return f"infomax evaluate knn {folder} --data LABELLED says how good the encoder is"
    return f"infomax report {folder} --out report.html shows its groups of images, and which it finds alike"


def plan(options: PlanOptions) -> None:
    """Carries out ``infomax plan``; a run that does not fit fails here instead of later."""
    from infomax.planning.opening import open_images

    opened = open_images(options)
    with importing_torch():
        from infomax.planning.plan import make_plan
        from infomax.reporting.plan_text import misfit_text, plan_text

    planned = make_plan(options, opened)
    show(plan_text(planned))
    if warning := misfit_text(planned):
        raise MachineError(warning)


def views(options: ViewsOptions) -> None:
    """Carries out ``infomax views``."""
    from infomax.training.preview import draw_views_of_run

    data = options.named_data(parse_recipe_choice(options.recipe, options.method).data)
    out = options.out or Path("views.png")
    replaced = " (it has replaced the picture that was there)" if out.is_file() else ""
    draw_views_of_run(replace(options, out=out))
    show(f"{out} shows images of {data} and their views{replaced}")


def replay(options: ReplayOptions) -> None:
    """Carries out ``infomax replay``."""
    with importing_torch():
        from infomax.training.replay import replay

    with Stage(f"repeating the step of {options.folder}"):
        result = replay(options.folder, device=options.device)
    show(f"then: {result.reason}")
    show(f"now: {result.error or f'the loss is {result.loss:.6g}'}")
    show(f"first layer to make infinite or NaN of finite numbers: {result.first_layer or 'none'}")
    for kind, names in (("parameters", result.parameters), ("gradients", result.gradients)):
        show(f"{kind} that are not finite: {len(names)}{': ' + ', '.join(names[:5]) if names else ''}")
    from infomax.runs.run_folder import resume_command

    show(
        "a new run with a smaller --learning-rate is the usual cure; "
        f"{resume_command(options.folder.resolve().parent.parent)} --skip-nonfinite N goes on with this run, without "
        "up to N such steps"
    )


def options(options: RunFolderOptions) -> None:
    """Carries out ``infomax options``."""
    from infomax.runs.run_folder import Run
    from infomax.training.saved_options import saved_options

    show(saved_options(Run(options.run)).toml())


PRETRAIN, PLAN, VIEWS, REPLAY, OPTIONS = (
    Command(
        "pretrain",
        PretrainOptions,
        "Train an encoder without labels, and keep everything about it in a run folder.",
        pretrain,
    ),
    Command(
        "plan",
        PlanOptions,
        "Say what pretrain with the same options will cost before it starts: steps, FLOPs, memory and time.",
        plan,
    ),
    Command("views", ViewsOptions, "Draw some images beside the views that a recipe makes of them.", views),
    Command(
        "replay",
        ReplayOptions,
        "Repeat a step whose loss or gradient was infinite or NaN, and show where that arises.",
        replay,
    ),
    Command(
        "options",
        RunFolderOptions,
        "Print the options that train a run again, as a file for infomax pretrain --options FILE.",
        options,
    ),
)
