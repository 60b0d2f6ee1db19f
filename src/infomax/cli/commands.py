"""What each command does and prints, by the words of its options. Torch is imported by those that compute."""

import os
from itertools import count
from pathlib import Path
from typing import Any

from infomax.runtime.failures import MachineError


def pretrain(*, out: Path, **options: Any) -> None:
    """``infomax pretrain``."""
    from infomax.training.pretrain import pretrain

    try:
        run = pretrain(out=out, **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; infomax pretrain --out {out} --resume goes on") from None
    if os.environ.get("RANK", "0") == os.environ.get("SLURM_PROCID", "0") == "0":  # under torchrun or srun, once
        print(f"{run.path} is done; infomax evaluate knn {run.path} says how good the encoder is")


def plan(**options: Any) -> None:
    """``infomax plan``; a run that does not fit fails here instead of later."""
    from infomax.planning.plan import plan
    from infomax.reporting.plan_text import misfit, text

    planned = plan(**options)
    print(text(planned), flush=True)
    if warning := misfit(planned):
        raise MachineError(warning)


def views(*, out: Path, method: str | None, **options: Any) -> None:
    """``infomax views``."""
    from infomax.recipes.registry import parse_recipe_choice
    from infomax.runtime.files import write_atomic
    from infomax.training.pretrain import picture_of_views

    if not out.name or out.is_dir() or any(parent.is_file() for parent in out.parents):
        raise ValueError(f"--out {out} must be a file to write")
    options["data"] = options["data"] or parse_recipe_choice(options["recipe"], method).data
    where = location(options)
    picture = picture_of_views(where, method, **options)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, picture)
    print(f"{out} shows images of {where.data} and their views")


def recipes(*, names: tuple[str, ...], gpu: str, overrides: tuple[str, ...], **filters: Any) -> None:
    """``infomax recipes``."""
    from infomax.reporting.recipe_list import as_list, in_full, listed

    found = listed(names, gpu=gpu, **filters)
    if len(found) == 1 and names:
        print(in_full(found[0], overrides))
        return
    if overrides:
        raise ValueError("--set is for one recipe; give its name, as mira/cifar10")
    print(as_list(found, gpu=gpu))


def sweep(
    *,
    what: tuple[str, ...],
    out: Path,
    vary: tuple[str, ...],
    seeds: int,
    evaluate: tuple[str, ...],
    commands: bool,
    **options: Any,
) -> None:
    """``infomax sweep``."""
    from infomax.experiments import sweep_runner as sweeping
    from infomax.experiments.sweep import sweep
    from infomax.experiments.sweep_results import figure, places, sweep_table

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} must be a folder")
    changes = (
        "backbone",
        "views",
        "image_size",
        "epochs",
        "batch_size",
        "micro_batch_size",
        "learning_rate",
        "precision",
    )
    custom = {key: options[key] for key in (*changes, "overrides")}
    common = to_argv({**custom, **{key: options[key] for key in ("data", "classes", "subset")}})
    one = sweep(what, out, vary=vary, seeds=seeds, evaluate=evaluate, options=custom, train=to_argv(options))
    if commands:
        print("\n".join(sweeping.commands(one)))
        return
    failed = []
    try:
        failed = sweeping.run(one)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command goes on") from None
    finally:
        if any(place.scores for place in places(one)):
            sweeping.write(one, figure(one, common))
            print(sweep_table(one, common).text())
            print(f"{out} has sweep.json with all runs, and sweep.png")
    if failed:
        raise MachineError("; ".join(failed))


def to_argv(options: dict[str, Any]) -> list[str]:
    """Options as words of the command; those that are left out have their default there too."""
    words: list[str] = []
    defaults = {"device": "auto", "devices": 1, "skip_nonfinite": 0, "skip_unreadable": 0.01}
    for name, value in options.items():
        key = "--set" if name == "overrides" else f"--{name.replace('_', '-')}"
        if value is True:
            words.append(key)
        elif isinstance(value, tuple):
            words += [word for item in value for word in (key, item)]
        elif value is not None and value is not False and value != defaults.get(name):
            words += [key, str(value)]
    return words


def location(options: dict[str, Any]) -> Any:
    """Where the images are, by the words for it, which are taken from ``options``."""
    from infomax.data.sources.location import DataLocation

    return DataLocation(**{name: options.pop(name) for name in ("data", "data_dir", "classes", "subset")})


def replay(*, folder: Path, device: str) -> None:
    """``infomax replay``."""
    from infomax.training.replay import replay

    found = replay(folder, device=device)
    print(f"then: {found['reason']}")
    print(f"now: {found['error'] or 'the loss is ' + format(found['loss'], '.6g')}")
    first = found["first"]
    print(f"first layer to make infinite or NaN of finite numbers: {first or 'none'}")
    for what in ("parameters", "gradients"):
        names = found[what]
        print(f"{what} that are not finite: {len(names)}{': ' + ', '.join(names[:5]) if names else ''}")


def demo(*, out: Path | None) -> None:
    """``infomax demo``."""
    from infomax.experiments.demo import demo, demo_table

    out = out or _free_folder(Path("runs/demo"))
    if out.exists():
        raise ValueError(f"--out {out} exists; choose another, or leave --out away")
    rows = []
    for row in demo(out):
        rows.append(row)
        if "run" in row:
            print(f"{row['name']}: {row['seconds']:.0f} s, 1-label k-NN accuracy {row['knn_1']:.1%}, in {row['run']}")
    print(f"\n{demo_table(rows).text()}")


def _free_folder(first: Path) -> Path:
    if not first.exists():
        return first
    return next(path for i in count(2) if not (path := first.with_name(f"{first.name}-{i}")).exists())
