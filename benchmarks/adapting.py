"""Measures what continued training gains over the encoder that it starts from: rates, frozen stages, epochs, methods.

python benchmarks/adapting.py --labelled cifar10.npz --photographs DIR      an hour on two cores; see --budget-seconds
python benchmarks/adapting.py ... --initial mveb                            from a self-supervised encoder
python benchmarks/adapting.py ... --targets other-half                     adapts to the labelled data's other half
python benchmarks/adapting.py --toy                                        some minutes, to see that it works

The initial encoder is the one of the recipe ``small``. It learns from 5,000 of 10,000 labelled images, by cross-entropy
or by MVEB without the labels. ``infomax.pretrain(init=...)`` then adapts it to the target by each method, with the
recipe ``small``: to photographs in folders of their classes, as squares of 64 pixels, or to the other 5,000 images. No
label of the target is used. The score is that of k-NN (k 20), each image of the target classified by the
others: of the initial encoder, and of each adapted one.

Each result is a line in docs/results/adapting.json as soon as it is known. What is there is not computed again, so the
command goes on where it was ended. Seeds come one after the other, so that an early end leaves a smaller study and no
half of one.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from study_runs import Results, add_run_options, run_jobs

OUT = Path(__file__).parents[1] / "docs" / "results" / "adapting.json"
METHODS = ("mira", "corinfomax", "carl", "mveb")
RATES, FROZEN, SEEDS = (0.01, 0.1, 1.0), (0, 2, 3), 3
MIDDLE, OTHERS = {"photographs": 24, "other-half": 4}, {"photographs": (8, 72), "other-half": (1, 12)}
"""Epochs of the runs with each rate and each number of frozen stages, and of further runs without frozen stages."""
SIDE, HALF, SUPERVISED_EPOCHS = 64, 5000, 30


@dataclass(frozen=True)
class Job:
    """A frozen dataclass that says which encoder is adapted, to what and how."""

    initial: str
    target: str
    seed: int
    method: str
    backbone_rate: float
    freeze: int
    epochs: int


def jobs(initial: str, targets: list[str], seeds: int) -> list[Job]:
    """Returns all runs of the study, seed by seed."""
    result = []
    for seed, target, method in product(range(seeds), targets, METHODS):
        settings = [(rate, freeze, MIDDLE[target]) for rate, freeze in product(RATES, FROZEN)]
        settings += [(rate, 0, epochs) for rate, epochs in product(RATES, OTHERS[target])]
        result += [Job(initial, target, seed, method, *setting) for setting in settings]
    return result


def read_labelled(file: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first 10,000 images and labels of an .npz file; without a file, made ones."""
    if file is None:
        rng = np.random.default_rng(0)
        labels = np.arange(400) % 4
        pixels = rng.integers(0, 128, (400, 32, 32, 3)) + 30 * labels[:, None, None, None]
        return pixels.astype(np.uint8), labels
    with np.load(file) as arrays:
        return arrays["train_x"][: 2 * HALF], arrays["train_label"][: 2 * HALF].astype(np.int64)


def read_photographs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the photographs below a folder as squares, and their classes, which are the names of their folders."""
    from PIL import Image, ImageOps

    files = sorted(x for x in folder.rglob("*") if x.suffix.lower() in (".jpg", ".jpeg", ".png"))
    names = sorted({file.parent.name for file in files})
    if len(names) < 2:
        sys.exit(f"--photographs {folder}: there are {len(names)} folders with images; want one for each class")
    squares = []
    for file in files:
        with Image.open(file) as image:
            squares.append(np.asarray(ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)))
    return np.stack(squares), np.array([names.index(file.parent.name) for file in files])


def write_data(folder: Path, name: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Writes images with labels, to be scored, and without, to be trained on.

    Some stand for test images, so that none of those that classify each other are taken away for a test.
    """
    arrays = {"train_x": pixels, "train_y": labels, "test_x": pixels[:2], "test_y": labels[:2]}
    np.savez(folder / f"{name}-labelled.npz", **arrays)
    np.savez(folder / f"{name}.npz", x=pixels)


def train_supervised(folder: Path, pixels: np.ndarray, labels: np.ndarray, *, epochs: int) -> None:
    """Trains the small encoder by cross-entropy on flipped and shifted images, and saves it as a run's is saved."""
    import torch
    from torch.nn import functional as F

    from infomax.models.encoders import build_encoder, save_encoder
    from infomax.nn.schedules import warmup_cosine_by_step
    from infomax.recipes.registry import get_recipe

    recipe, batch = get_recipe("mveb", "small"), min(128, len(pixels))
    torch.manual_seed(0)
    encoder = build_encoder(**recipe.encoder.architecture(), seed=0)
    head = torch.nn.Linear(encoder.width, int(labels.max()) + 1)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    mean, std = (torch.tensor(x)[:, None, None] for x in (recipe.preprocessing.mean, recipe.preprocessing.std))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    classes, steps = torch.from_numpy(labels), len(pixels) // batch
    for step in range(epochs * steps):
        if step % steps == 0:
            order = torch.randperm(len(images))
        rows = order[step % steps * batch :][:batch]
        top, left = torch.randint(9, (2,)).tolist()
        views = F.pad(images[rows], (4, 4, 4, 4))[:, :, top : top + 32, left : left + 32]
        views = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, views.flip(3), views)
        loss = F.cross_entropy(head(encoder(views.contiguous())), classes[rows], label_smoothing=0.1)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine_by_step(
                step, steps=epochs * steps, warmup_steps=steps, peak=0.1, start=0.0, end=0.0
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder.mkdir(exist_ok=True)
    save_encoder(encoder, asdict(encoder.settings), recipe.preprocessing, folder)


def make_initial(work: Path, initial: str, labelled: tuple[np.ndarray, np.ndarray], *, toy: bool) -> Path:
    """Returns the folder of the initial encoder, which is trained on one half if it is not there yet."""
    import infomax

    folder, (pixels, labels) = work / f"initial-{initial}", labelled
    half = len(pixels) // 2
    if (folder / "encoder.safetensors").exists():
        return folder
    if initial == "supervised":
        train_supervised(folder, pixels[:half], labels[:half], epochs=2 if toy else SUPERVISED_EPOCHS)
        return folder
    write_data(work, "first-half", pixels[:half], labels[:half])
    epochs = {"epochs": 2, "batch_size": 64} if toy else {}
    infomax.pretrain(
        data=work / "first-half.npz", method=initial, recipe="small", out=folder, resume=True, quiet=True, **epochs
    )
    return folder


def knn(encoder: Path, work: Path, target: str, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Returns the k-NN scores on the images of the target: of an encoder, and of its baselines too."""
    import infomax

    rows = infomax.evaluate(
        "knn",
        encoder,
        data=work / f"{target}-labelled.npz",
        leave_one_out=True,
        no_cache=True,
        no_baselines=not baselines,
        out=os.devnull,
        workers=0,
    )
    return [{"reference": row.representation, "knn_top1": row.top1, "test_images": row.test_images} for row in rows]


def adapt(job: Job, work: Path, toy: bool) -> dict[str, Any]:
    """Adapts the initial encoder, and returns its score and what it took. It is called in a process of its own."""
    import infomax

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run = infomax.pretrain(
            data=work / f"{job.target}.npz",
            init=work / f"initial-{job.initial}",
            method=job.method,
            recipe="small",
            epochs=job.epochs,
            seed=job.seed,
            freeze=job.freeze,
            backbone_rate=job.backbone_rate,
            batch_size=64 if toy else None,
            overrides=("method.prototypes=50",) if toy and job.method in ("mira", "carl") else (),
            device="cpu",
            workers=0,
            out=Path(folder) / "run",
            quiet=True,
        )
        trained = time.perf_counter() - start
        (row,) = knn(run.path, work, job.target, baselines=False)
        return {**asdict(job), "knn_top1": row["knn_top1"], "steps": run.trained_steps, "seconds": round(trained, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs in folders of their classes")
    parser.add_argument("--initial", choices=("supervised", *METHODS), default="supervised")
    parser.add_argument("--targets", help="photographs, other-half or both with a comma; default: those that are given")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    add_run_options(parser)
    parser.add_argument(
        "--work", type=Path, help="folder of the initial encoder and the images; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    if args.labelled is None and not args.toy:
        parser.error("--labelled is needed, an .npz file as of CIFAR-10; or --toy")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        study(args, work, Path(temporary) / "results.json" if args.toy else args.out)


def study(args: argparse.Namespace, work: Path, out: Path) -> None:
    """Makes the initial encoder and the references, and then the runs."""
    from infomax.models.encoders import fingerprint, load_encoder

    usual = ["photographs"] if args.photographs else ["other-half"]
    targets = args.targets.split(",") if args.targets else usual
    labelled, results = read_labelled(args.labelled), Results(out)
    results.begin("python benchmarks/adapting.py")
    half = len(labelled[0]) // 2
    for target in targets:
        images = read_photographs(args.photographs) if target == "photographs" else [x[half:] for x in labelled]
        write_data(work, target, *images)
    folder = make_initial(work, args.initial, labelled, toy=args.toy)
    for target in targets:
        known = {"initial": args.initial, "target": target}
        weights = {"fingerprint": fingerprint(load_encoder(folder))}
        if results.has(known) and not results.has({**known, **weights}):
            sys.exit(f"{out} has results of another {args.initial} encoder: remove it, or name another --out")
        if not results.has({**known, "reference": "untrained encoder"}):
            for row in knn(folder, work, target):
                reference = "initial encoder" if row["reference"] == "trained encoder" else row["reference"]
                results.add({**known, **row, "reference": reference, **weights})
    queue = jobs(args.initial, targets, args.seeds)
    if args.toy:
        queue = [job for job in queue if (job.seed, job.backbone_rate) == (0, 0.1) and job.epochs <= 4]
    left = [job for job in queue if not results.has(asdict(job))]
    run_jobs(adapt, left, (work, args.toy), results.add, args)


if __name__ == "__main__":
    main()
