"""Measures how often verdicts are false alarms in healthy runs, and whether and when each one names what is wrong.

python benchmarks/verdicts.py --labelled cifar10.npz        all runs; what is in the results is not run again
python benchmarks/verdicts.py --only provoked              the provocations alone, which need no file
python benchmarks/verdicts.py --work DIR --again           judges the metrics kept in DIR by the rules of now
python benchmarks/verdicts.py --toy                        some minutes, to see that it works

Healthy runs are those of our recipes with each method: the digits at full length, and 2,000 images of CIFAR-10 for 20
epochs of the recipe ``small``; with small batches, bfloat16, two ranks, embeddings wider than the batch, and runs that
are ended and resumed among them. Provocations are trainings of the digits, ended after 15 % of the steps that the
recipe has, with a setting that collapses or diverges, or with images, views or a loader that are made unfit. All go
through ``infomax.pretrain``.

The verdicts of a run are those that ``infomax.analysis.verdicts`` gives for its ``metrics.jsonl``. Each run is a line
in docs/results/verdicts.json as soon as it is known. Seeds come one after the other, so that an early end leaves a
smaller study and no half of one.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import study_runs

from infomax.runtime.json_lines import append_json_line, read_json_lines

OUT = Path(__file__).parents[1] / "docs" / "results" / "verdicts.json"
METHODS = ("mira", "corinfomax", "carl", "mveb")
HEALTHY_SEEDS, PROVOKED_SEEDS = 5, 3
CIFAR_IMAGES, CIFAR_EPOCHS = 2000, 20
ENDED_SHARE = 0.15  # of the steps of a provoked run, whose recipe has its full length: enough to be named
SLEEP, NAN_FROM_STEP = 0.15, 60  # seconds a batch; steps
COMMAND = "python benchmarks/verdicts.py --labelled cifar10.npz"
COLLAPSES = ("total collapse", "cluster collapse", "uniform assignment")


@dataclass(frozen=True)
class Provocation:
    """A frozen dataclass that says what is made wrong in a training, and what must be named."""

    methods: tuple[str, ...]
    named: tuple[str, ...]
    """The names of which one must be said."""
    beside: tuple[str, ...] = ()
    """Names that may be said too, as a cause."""
    options: tuple[tuple[str, Any], ...] = ()
    """Options of ``infomax.pretrain``."""
    data: str = "digits"
    patch: str = ""
    """Name of the function of :data:`PATCHES` that is called in the process before the training."""


def settings(*overrides: str) -> tuple[tuple[str, Any], ...]:
    return (("overrides", overrides),)


NO_AUGMENTATION = settings(
    *(
        f"views.global_crops.{crop}.{key}"
        for crop in (0, 1)
        for key in ("scale=1,1", "ratio=1,1", "flip=0", "jitter=0", "grayscale=0", "blur=0")
    )
)
PROVOCATIONS = {
    "entropy weight 0": Provocation(("mveb",), ("total collapse",), options=settings("method.entropy_weight=0")),
    "entropy weight .001": Provocation(("mveb",), ("total collapse",), options=settings("method.entropy_weight=0.001")),
    "attraction 1e5": Provocation(("corinfomax",), ("total collapse",), options=settings("method.attraction=1e5")),
    "KL weight 0": Provocation(
        ("carl",), ("cluster collapse",), options=settings("method.kl_start=0", "method.kl_end=0")
    ),
    "KL weight 100": Provocation(
        ("carl",), ("cluster collapse",), options=settings("method.kl_start=100", "method.kl_end=100")
    ),
    "beta 0": Provocation(("mira",), ("uniform assignment",), options=settings("method.beta=0", "method.beta_start=0")),
    "last layer of rank 3": Provocation(("corinfomax",), ("dimensional collapse",), patch="rank_3"),
    "rate 20": Provocation(
        METHODS, ("rate too high",), beside=(*COLLAPSES, "divergence"), options=(("learning_rate", 20.0),)
    ),
    "rate 1e4": Provocation(METHODS, ("divergence",), beside=("rate too high",), options=(("learning_rate", 1e4),)),
    "NaN from step 60 on": Provocation(("mveb",), ("divergence",), patch="nan"),
    "loader that sleeps": Provocation(("mveb",), ("starved",), patch="sleeping_loader"),
    "grey images": Provocation(("mveb", "mira"), ("equal images",), data="grey"),
    "no augmentation": Provocation(("mveb", "carl"), ("equal views",), options=NO_AUGMENTATION),
    "each image five times": Provocation(("mveb", "mira"), ("near-duplicates",), data="five-times"),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "batch 64": {"batch_size": 64},
    "bf16": {"precision": "bf16"},
    "2 ranks": {"devices": 2},
    "wider than the batch": {"batch_size": 64, "overrides": ("method.dimension=128",)},
    "ended and resumed": {},
}
"""Options of healthy runs that differ from the recipe's, by their names."""


@dataclass(frozen=True)
class Job:
    """A frozen dataclass that says which training is judged."""

    kind: str
    """``healthy``, or the name of a provocation."""
    method: str
    data: str
    seed: int
    variant: str = ""
    epochs: int | None = None

    @property
    def key(self) -> str:
        words = (self.kind, self.method, self.data, str(self.seed), self.variant)
        return "-".join(word.replace(" ", "_") for word in words if word)


def jobs(*, healthy: bool = True, provoked: bool = True, cifar: bool = True) -> list[Job]:
    """Returns all runs of the study, seed by seed."""
    result = []
    for seed in range(HEALTHY_SEEDS):
        if provoked and seed < PROVOKED_SEEDS:
            for kind, provocation in PROVOCATIONS.items():
                for method in provocation.methods:
                    result.append(Job(kind, method, provocation.data, seed))
        if healthy:
            result += [Job("healthy", method, "digits", seed) for method in METHODS]
            if cifar:
                result += [Job("healthy", method, "cifar10", seed, epochs=CIFAR_EPOCHS) for method in METHODS]
            if seed == 0:
                result += [Job("healthy", method, "digits", 0, variant) for variant in VARIANTS for method in METHODS]
    return result


def planned() -> dict[str, int]:
    """Returns the number of runs of the whole study."""
    return {"healthy": len(jobs(provoked=False)), "provoked": len(jobs(healthy=False))}


def write_data(folder: Path, labelled: Path | None) -> None:
    """Writes the images that are no data set of their own."""
    from infomax.data.sources.arrays import open_digits

    digits = open_digits().pretraining.pixels[:280]  # pyrefly: ignore[missing-attribute]
    np.savez(folder / "five-times.npz", x=np.repeat(digits, 5, axis=0))
    np.savez(folder / "grey.npz", x=np.full((1400, 8, 8, 3), 127, np.uint8))
    if labelled is not None:
        with np.load(labelled) as arrays:
            pixels, labels = arrays["train_x"], arrays["train_label"]
        count = CIFAR_IMAGES
        arrays = {"train_x": pixels[:count], "train_y": labels[:count]}
        arrays |= {"test_x": pixels[count : count + 500], "test_y": labels[count : count + 500]}
        np.savez(folder / "cifar10.npz", **arrays)


def rank_3() -> None:
    """Makes the projector's output lie in three dimensions from the second step on."""

    def with_hook(method: Any) -> None:
        import torch

        directions = torch.randn(method.projector[-1].out_features, 3, generator=torch.Generator().manual_seed(0))
        basis, calls = torch.linalg.qr(directions)[0], [0]

        def project(module: Any, inputs: Any, output: Any) -> Any:
            calls[0] += 1
            return output if calls[0] <= 2 else output @ basis @ basis.T

        method.projector.register_forward_hook(project)

    _change_methods(with_hook)


def nan() -> None:
    """Makes the projector's output NaN from a step on."""

    def with_hook(method: Any) -> None:
        calls = [0]

        def spoil(module: Any, inputs: Any, output: Any) -> Any:
            calls[0] += 1
            return output if calls[0] <= 2 * NAN_FROM_STEP else output * float("nan")

        method.projector.register_forward_hook(spoil)

    _change_methods(with_hook)


def _change_methods(change: Callable[[Any], None]) -> None:
    """Calls a function with each method that an engine of this process builds from now on."""
    from infomax.training import engine

    build_method = engine.build_method

    def build(*args: Any, **kwargs: Any) -> Any:
        method = build_method(*args, **kwargs)
        change(method)
        return method

    engine.build_method = build


def sleeping_loader() -> None:
    """Makes each batch arrive late."""
    from infomax.training import loop

    training_batches = loop.training_batches

    def batches(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for batch in training_batches(*args, **kwargs):
            time.sleep(SLEEP)
            yield batch

    loop.training_batches = batches  # pyrefly: ignore[bad-assignment]


PATCHES = {"rank_3": rank_3, "nan": nan, "sleeping_loader": sleeping_loader}


class EndedError(Exception):
    """Ends a run before its end."""


def train(job: Job, work: Path, toy: bool) -> str:
    """Trains a run, and returns how it ended. It is called in a process of its own.

    What ``infomax.analysis.verdicts`` needs of the run folder, and no more, is kept in the folder ``work``.
    """
    import infomax

    provocation = PROVOCATIONS.get(job.kind)
    options: dict[str, Any] = dict(VARIANTS.get(job.variant, {}))
    options |= dict(provocation.options) if provocation else {}
    if provocation and provocation.patch:
        PATCHES[provocation.patch]()
    options |= {"epochs": 6 if toy else job.epochs, "method": job.method, "seed": job.seed}
    options |= {"recipe": "small" if job.data == "cifar10" else "digits"}
    options |= {"data": "digits" if job.data == "digits" else work / f"{job.data}.npz"}
    options |= {"device": "cpu", "workers": 0, "quiet": True, "log": ("none",)}
    ended = ""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run = Path(folder) / "run"
        try:
            if job.variant == "ended and resumed":
                _end_early(run, options, 0.51)
                options = {"resume": True, "device": "cpu", "workers": 0, "quiet": True}
            if provocation:
                _end_early(run, options, ENDED_SHARE)
            else:
                infomax.pretrain(out=run, **options)
        except FloatingPointError as error:
            ended = str(error).partition(". ")[0]
        kept = work / "runs" / job.key
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "metrics.jsonl"):
            shutil.copy(run / name, kept / name)
    return ended


def _end_early(run: Path, options: dict[str, Any], share: float) -> None:
    """Trains a run until a share of its steps are done."""
    import infomax

    def end(report: Any) -> None:
        if report.step >= share * report.steps:
            raise EndedError

    try:
        infomax.pretrain(out=run, on_step=end, **options)
    except EndedError:
        return


def judge(job: Job, work: Path) -> dict[str, Any]:
    """Returns what the rules say of the metrics that were kept of a run."""
    from infomax.analysis.verdicts import tracker_of

    kept = work / "runs" / job.key
    config, rows = json.loads((kept / "config.json").read_text()), read_json_lines(kept / "metrics.jsonl")
    steps = config["images"] // config["recipe"]["batch_size"] * config["recipe"]["epochs"]
    tracker = tracker_of(kept)
    said = [(verdict, row) for row in rows for verdict in tracker.update(row)]
    scores = [row["knn_top1"] for row in rows if "knn_top1" in row]
    health = [row for row in rows if "health_rows" in row]
    provocation = PROVOCATIONS.get(job.kind)
    return {
        **asdict(job),
        **({"named": provocation.named, "beside": provocation.beside} if provocation else {}),
        "epochs": config["recipe"]["epochs"],
        "steps": steps,
        "health_rows": len(health),
        "images": health[0]["health_rows"] if health else 0,
        "verdicts": [{"name": v.name, "state": v.state, "step": v.step, "evidence": v.evidence} for v, _ in said],
        "watched": sorted({v.name for v in tracker.current if v.state == "watching"}),
        **({"knn_top1": scores[-1]} if scores else {}),
    }


def run_job(job: Job, work: Path, toy: bool) -> dict[str, Any]:
    """Trains and judges a run. It is called in a process of its own, which ends with the run."""
    start = time.perf_counter()
    ended = train(job, work, toy)
    return {**judge(job, work), "seconds": round(time.perf_counter() - start, 1), **({"ended": ended} if ended else {})}


def is_done(job: Job, rows: list[dict[str, Any]]) -> bool:
    """Returns whether there is a line for a run, however many epochs it had."""
    wanted = {name: value for name, value in asdict(job).items() if name != "epochs"}
    return any(wanted.items() <= row.items() for row in rows)


def run_jobs(queue: list[Job], file: Path, work: Path, args: argparse.Namespace) -> None:
    """Computes runs until all are done or the time is over, and prints how many are left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["infomax.training.pretrain"])  # else each run imports torch anew

    def keep(row: dict[str, Any]) -> None:
        append_json_line(file, row)
        verdicts = ", ".join(f"{v['name']} ({v['state']}) at {v['step']}" for v in row["verdicts"])
        print(f"{row['kind']} {row['method']} {row['data']} {row['seed']} {row['variant']}: {verdicts}", flush=True)

    # A process changes itself for some provocations, so it trains one run.
    options = {"niceness": 0, "context": context, "runs_per_process": 1}
    study_runs.run_jobs(run_job, queue, (work, args.toy), keep, args, **options)


def judge_again(file: Path, work: Path) -> None:
    """Replaces the verdicts of all lines by those of the rules as they are now."""
    origin, *rows = read_json_lines(file)
    lines = [origin]
    for row in rows:
        job = Job(**{name: row[name] for name in Job.__dataclass_fields__})
        kept = work / "runs" / job.key
        if not kept.exists():
            sys.exit(f"--again: {kept} is not there; give the --work with which the runs were made")
        lines.append({**judge(job, work), **{name: row[name] for name in ("seconds", "ended") if name in row}})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--only", choices=("healthy", "provoked"), help="a part of the runs")
    study_runs.add_run_options(parser)
    parser.add_argument("--work", type=Path, help="folder that keeps the metrics of all runs; default: a temporary one")
    parser.add_argument("--again", action="store_true", help="judge the metrics in --work anew, and train nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        study(args, work, Path(temporary) / "results.json" if args.toy else args.out)


def study(args: argparse.Namespace, work: Path, out: Path) -> None:
    """Makes all runs that have no line yet, or judges those that have one anew."""
    from infomax.runs.provenance import provenance

    if args.again:
        judge_again(out, work)
        return
    if not out.exists():
        append_json_line(out, {**provenance(), "command": COMMAND, "planned": planned()})
    write_data(work, args.labelled)
    queue = jobs(healthy=args.only != "provoked", provoked=args.only != "healthy", cifar=args.labelled is not None)
    if args.toy:
        queue = [job for job in queue if job.seed == 0 and job.method in ("mveb", "carl")]
    rows = read_json_lines(out)
    run_jobs([job for job in queue if not is_done(job, rows)], out, work, args)


if __name__ == "__main__":
    main()
