"""Makes a figure: computes its parts, keeps each as soon as it is known, and writes the picture and the CSV."""

import io
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from textwrap import wrap
from typing import Any

from infomax.figures.catalogue import FIGURES
from infomax.figures.figure import Figure, FigureRequest, Row, parse_settings
from infomax.figures.opening import location_of, open_runs
from infomax.figures.options import ANIMATION_SUFFIX, PICTURE_SUFFIXES, FigureOptions
from infomax.runs.provenance import provenance
from infomax.runs.run_folder import Run
from infomax.runtime.checks import choose
from infomax.runtime.csv_text import csv_text
from infomax.runtime.doors import is_command
from infomax.runtime.figure_style import default_style
from infomax.runtime.files import write_atomic
from infomax.runtime.options import pick
from infomax.runtime.output_files import check_output_file
from infomax.runtime.progress import ProgressBar
from infomax.runtime.stages import importing_torch

DPI = 120
ANIMATION_DPI = 80
READ_OF_RUNS = ("config.json", "encoder.json", "metrics.jsonl", "results.jsonl")
"""Files of a run whose change makes what was kept of an interrupted figure another's."""


@dataclass(frozen=True)
class MadeFigure:
    """A frozen dataclass that holds what one figure computed, and where it was written."""

    rows: tuple[Row, ...]
    """The lines of the CSV."""
    picture: Path
    data: Path
    """The CSV."""


@dataclass(frozen=True)
class FigureSpecification:
    """A frozen dataclass that holds all that decides what a figure computes."""

    figure: str
    settings: dict[str, Any]
    seed: int
    data: str | None
    runs: tuple[tuple[str, tuple[str, ...]], ...]
    """The folder of each run, with the sizes and times of the files that were read."""
    device: str
    commit: str | None


def figure(
    name: str,
    runs: Sequence[str | PathLike[str]] = (),
    *,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    data: str | PathLike[str] | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    feature_precision: str = "32",
    no_cache: bool = False,
) -> MadeFigure:
    """Makes one of the papers' figures, as ``infomax figure`` does.

    Args:
        name: Figure to make, as mira-convergence.
        runs: Run folders, or folders of sweeps, which stand for all of their runs; infomax figure NAME --about says
            which ones the figure takes, and what makes them.
        out: File to write: .png or .svg, or .gif for an animation if the figure has one. A .csv with all numbers is
            written beside it. Default: NAME.png in this folder.
        overwrite: Replace both files if they exist.
        data: The images, if they are elsewhere now, or others: as infomax pretrain takes them. Default: what each run
            was trained on.
        seed: Seed of what the figure draws at random, as batches of images.
        overrides: Setting of the figure, as batches=1000; --about lists them.
        device: Kind of device; auto takes a CUDA GPU if there is one.
        workers: Processes that decode image files. Default: one a core, at most 8.
        feature_precision: Bits of each value of a feature; 16 takes half the memory and disk.
        no_cache: Neither keep features on disk nor use those that are there.

    Returns:
        The rows of the CSV, and the files that were written.

    Raises:
        ValueError: if there is no such figure, it cannot be made of these runs, or a file is there already.

    Example:
        >>> made = infomax.figure("mira-convergence", ["runs/mira"], out="fig2.svg")  # doctest: +SKIP
        >>> made.rows[0]["sse"]  # doctest: +SKIP
    """
    return make_figure(pick(FigureOptions, {**locals(), "runs": tuple(map(Path, runs))}), quiet=True)


def make_figure(options: FigureOptions, *, quiet: bool) -> MadeFigure:
    """Makes a figure, as :func:`figure` explains.

    Args:
        options: The options, which name a figure.
        quiet: Whether to show no progress bar.
    """
    chosen = FIGURES[choose("the figure", options.name, FIGURES)]
    if options.device == "mps":
        raise ValueError("--device mps: figures compute in float64, which Apple's GPU does not have; use --device cpu")
    settings = parse_settings(chosen, options.overrides)
    picture = _check_files(options, chosen)
    request = FigureRequest(options, open_runs(chosen, options.runs), settings)
    chosen.check(request)
    if options.data is not None:  # before torch is imported, which takes seconds
        for location in {location_of(run, request) for run in request.runs}:
            location.open()
    rows = _read(chosen, request) if chosen.reads_only else _compute(chosen, request, quiet)
    if not rows:
        raise ValueError(f"there is nothing to draw: {chosen.name} found no numbers in {_names(request)}")
    content = _draw(chosen, request, rows, picture.suffix)
    data = picture.with_suffix(".csv")
    write_atomic(data, _csv(chosen, request, rows).encode(errors="surrogateescape"))
    write_atomic(picture, content)
    return MadeFigure(tuple(rows), picture, data)


def _check_files(options: FigureOptions, chosen: Figure) -> Path:
    """Returns the file of the picture, which can be written, as the one beside it can."""
    picture = options.out or Path(f"{chosen.name}.png")
    if picture.suffix == ANIMATION_SUFFIX and chosen.animate is None:
        moving = ", ".join(name for name, known in FIGURES.items() if known.animate is not None)
        raise ValueError(f"--out {picture}: {chosen.name} does not move; {moving} can be a .gif")
    moves = () if chosen.animate is None else (ANIMATION_SUFFIX,)
    check_output_file(picture, (*PICTURE_SUFFIXES, *moves), overwrite=options.overwrite)
    data = picture.with_suffix(".csv")
    if data.exists() and not (options.overwrite and data.is_file()):
        raise ValueError(f"--out {picture}: {data}, which would be written beside it, exists; or give --overwrite")
    return picture


def _read(chosen: Figure, request: FigureRequest) -> list[Row]:
    """Returns the rows of all parts of a figure that computes nothing."""
    return [row for part in chosen.parts(request) for row in part.compute()]


def _compute(chosen: Figure, request: FigureRequest, quiet: bool) -> list[Row]:
    """Returns the rows of all parts; those of an earlier, interrupted process are read again.

    Raises:
        KeyboardInterrupt: with words on how to go on.
    """
    with importing_torch():
        from infomax.evaluation.resumable_work import ResumableWork

    parts = chosen.parts(request)
    work = ResumableWork.in_cache(_specification(chosen, request))
    rows, done = [], 0
    try:
        with ProgressBar(chosen.name, len(parts), unit="parts", quiet=quiet) as progress:
            for number, part in enumerate(parts):
                name = f"part-{number}"  # what is kept is a folder's name: no name of a run may be in it
                kept = work.finished_row(name)
                of_part = part.compute() if kept is None else kept["rows"]
                if kept is None:
                    work.finish(name, {"rows": of_part})
                rows += of_part
                done += 1
                progress.show_values([part.name])
                progress.update()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; {done} of {len(parts)} parts are kept, and the same command goes on") from None
    work.discard()
    return rows


def _specification(chosen: Figure, request: FigureRequest) -> FigureSpecification:
    options = request.options
    return FigureSpecification(
        figure=chosen.name,
        settings=vars(request.settings),
        seed=options.seed,
        data=options.data,
        runs=tuple((str(run.path.resolve()), _state(run)) for run in request.runs),
        device=request.device.type,
        commit=provenance()["commit"],
    )


def _state(run: Run) -> tuple[str, ...]:
    """Returns sizes and times of change of the files of a run that figures read."""
    stats = [(run.path / name).stat() for name in READ_OF_RUNS if (run.path / name).is_file()]
    return tuple(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)


def _names(request: FigureRequest) -> str:
    return ", ".join(str(run.path) for run in request.runs) or "no run"


def facts(chosen: Figure, request: FigureRequest, rows: Sequence[Row]) -> dict[str, str]:
    """Returns what the head of the CSV says: seeds, n, commit, machine and command."""
    made = provenance()
    seeds = sorted({run.recipe.seed for run in request.runs})
    command = made["command"] if is_command() else ["infomax.figure", chosen.name]
    return {
        "figure": chosen.name,
        "of": chosen.paper_words,
        "seeds": " ".join(map(str, seeds or [request.options.seed])),
        "n": chosen.count(rows),
        "commit": made["commit"] or "unknown",
        "settings": " ".join(f"{key}={value}" for key, value in vars(request.settings).items()) or "none",
        "machine": f"{made['machine']['cpu']} with {made['machine']['cores']} cores, torch {made['versions']['torch']}",
        "made": made["started"][:10],
        "command": shlex.join(["infomax", *command[1:]]) if is_command() else " ".join(command),
    }


def _csv(chosen: Figure, request: FigureRequest, rows: Sequence[Row]) -> str:
    """Returns the CSV: a line of comment, the columns, and a line for each row."""
    head = "; ".join(f"{key}: {value}" for key, value in facts(chosen, request, rows).items())
    cells = [["" if row.get(column) is None else row[column] for column in chosen.columns] for row in rows]
    return f"# {' '.join(head.split())}\n{csv_text([list(chosen.columns), *cells])}"


@default_style()
def _draw(chosen: Figure, request: FigureRequest, rows: Sequence[Row], suffix: str) -> bytes:
    """Returns the picture as a file of the kind that the suffix names."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=chosen.size, layout="constrained")
    moving = chosen.animate(picture, rows) if suffix == ANIMATION_SUFFIX and chosen.animate else None
    if moving is None:
        chosen.draw(picture, rows)
    known = facts(chosen, request, rows)
    of = f"{known['of']}, ours" if chosen.sources else "ours"
    words = f"{of}: seeds {known['seeds']}; n: {known['n']}; commit {known['commit']}"
    lines = wrap(words, int(17 * chosen.size[0]))
    picture.supxlabel("\n".join(lines), fontsize=7, color="0.4", x=0.01, ha="left", parse_math=False)
    if moving is not None:
        return _gif(picture, moving.frames, moving.show, moving.seconds)
    out = io.BytesIO()
    options: dict[str, Any] = (
        {"metadata": {"Date": None}} if suffix == ".svg" else {"dpi": DPI, "pil_kwargs": {"optimize": True}}
    )
    with mpl.rc_context({"svg.hashsalt": "infomax", "svg.fonttype": "none"}) if suffix == ".svg" else nullcontext():
        picture.savefig(out, format=suffix[1:], **options)
    return out.getvalue()


def _gif(picture: Any, frames: int, show: Any, seconds: float) -> bytes:
    """Returns an animation that goes on for ever."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, images = FigureCanvasAgg(picture), []
    picture.set_dpi(ANIMATION_DPI)
    for frame in range(frames):
        show(frame)
        canvas.draw()
        if frame == 0:
            picture.set_layout_engine("none")  # axes would jump from frame to frame
        image = Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
        images.append(image.convert("RGB").quantize(64, dither=Image.Dither.NONE))
    out = io.BytesIO()
    duration = int(1000 * seconds / frames)
    images[0].save(out, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return out.getvalue()
