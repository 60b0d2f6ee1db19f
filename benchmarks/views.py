"""Times the making of views beside other libraries' pipelines, and the opening of a million files. For Linux.

uv run --with lightly --with kornia benchmarks/views.py           an hour, on a machine that does nothing else
uv run --with lightly --with kornia benchmarks/views.py --toy     minutes, to see that it works; keeps nothing

or in an environment of its own:

uv venv ../bench && uv pip install -p ../bench lightly kornia -e .
../bench/bin/python benchmarks/views.py

A: two views of 32x32 images; B: two of 224x224 from JPEG files, decoding included; C: two of 224 and six of 96; D: the
blur alone; E: opening a folder of files; F: views on a GPU beside a training step; G: two views of images with other
numbers of channels, as bytes or 16 bits. C to G need no other library.

A to D and G run with one thread on one core. Contestants take turns with the same images and are compared within each
turn, by processor time: nothing waits for a disk or a thread, so on a quiet machine it is the wall time, which is kept
too, and elsewhere what other processes take does not count. All make stacked, normalised float32 batches except where a
row says otherwise. lightly resizes by linear instead of cubic interpolation, which cannot be chosen; kornia blurs with
13x13 pixels, and jitters the colours of a batch in one order.
"""

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.multiprocessing as mp
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import View, ViewSet, byol, dino
from infomax.data.loading.workers import TrainingImages, load_kernels
from infomax.data.sources.location import open_source
from infomax.models.encoders import build_encoder
from infomax.runs import run_folder as runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "views.json"
FULL, LOCAL = dino(224, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
MULTI_CROP, TINY = ViewSet(global_crops=FULL, local_crops=LOCAL), ViewSet(global_crops=(View(size=1), View(size=1)))
# Images of 32 pixels and photographs in a turn; photographs made; files to open, their folders, and how many of them a
# worker reads; images a step at 32 and at 224 pixels on a GPU, calls that nothing waits between, images of an epoch.
SIZE = {"repeats": 15, "batch": 256, "photographs": 64, "made": 256, "paths": 1_281_167, "folders": 1000}
SIZE |= {"read": 100_000, "step_32": 512, "step_224": 256, "calls": 20, "epoch": 50_000}
TOY = {"repeats": 2, "batch": 8, "photographs": 4, "made": 6, "paths": 2000, "folders": 10}
TOY |= {"read": 100, "step_32": 4, "step_224": 2, "calls": 1, "epoch": 8}
Contestant = Callable[[int], object]  # given the number of the turn, makes the views of all images
Transform = Callable[[Image.Image], Tensor]
Row = dict[str, Any]
Given = argparse.Namespace


def natural(count: int, height: int, width: int) -> np.ndarray:
    """Returns images [count, height, width, 3] of clouds with the spectrum of photographs, and a camera's noise."""
    rng, images = np.random.default_rng(0), np.empty((count, height, width, 3), np.uint8)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -1.2
    for image in images:
        clouds = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((4, height, width))) * amplitude, (height, width))
        gray, *colours = clouds / clouds.std((1, 2), keepdims=True)
        pixels = 120 + 45 * gray[..., None] + 25 * np.stack(colours, 2) + rng.normal(0, 6, (height, width, 3))
        image[:] = pixels.clip(0, 255)
    return images


@torch.no_grad()
def compared(contestants: dict[str, Contestant], images: int, repeats: int) -> list[Row]:
    """Returns images per second of each contestant, and their ratio to those of the first one in the same turn."""
    seconds, wall = (np.empty((len(contestants), 1 + repeats)) for _ in range(2))
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(cores)})  # the first ones serve the machine's interrupts
    for turn, place in itertools.product(range(1 + repeats), range(len(contestants))):
        number = (turn + place) % len(contestants)
        starts = time.process_time(), time.perf_counter()
        list(contestants.values())[number](turn)
        seconds[number, turn], wall[number, turn] = time.process_time() - starts[0], time.perf_counter() - starts[1]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
    rows, seconds, wall = [], seconds[:, 1:], wall[:, 1:]  # the first turn warms up
    for name, mine, waited in zip(contestants, seconds, wall, strict=True):
        low, ratio, high = np.quantile(seconds[0] / mine, [0.25, 0.5, 0.75]).tolist()
        row = {"name": name, "images_per_second": images / float(np.median(mine)), "ratio": ratio}
        row |= {"quartiles": [low, high], "images_per_second_wall": images / float(np.median(waited))}
        rows.append({**row, "images": images, "repeats": repeats})
    return rows


def pil(view: View, views: ViewSet) -> Transform:
    """Returns solo-learn's transform for a view: torchvision's transforms and PIL's filters, one after another."""
    steps = [
        T.RandomResizedCrop(view.size, scale=view.scale, interpolation=T.InterpolationMode.BICUBIC),
        T.RandomApply([T.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)], p=view.jitter),
        T.RandomGrayscale(p=view.grayscale),
        T.RandomApply([pil_blur], p=view.blur),
        T.RandomApply([ImageOps.solarize], p=view.solarize),
        T.RandomHorizontalFlip(p=view.flip),
        T.ToTensor(),
        T.Normalize(views.mean, views.std),
    ]
    return T.Compose(steps)


def pil_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def lightly(view: View) -> Transform:
    from lightly.transforms.byol_transform import BYOLView1Transform  # the second differs in its defaults alone

    return BYOLView1Transform(view.size, gaussian_blur=view.blur, solarization_prob=view.solarize)


def kornia(view: View, views: ViewSet) -> Callable[[Tensor], Tensor]:
    """Returns kornia's transform of a batch, with separate parameters for each image and the faster way of cropping."""
    from kornia import augmentation as K

    steps = [
        K.RandomResizedCrop((view.size,) * 2, view.scale, view.ratio, resample="BICUBIC", cropping_mode="resample"),
        K.RandomHorizontalFlip(p=view.flip),
        K.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue, p=view.jitter),
        K.RandomGrayscale(p=view.grayscale),
        K.RandomGaussianBlur(13, view.blur_sigma, p=view.blur),
        K.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=view.solarize),
        K.Normalize(views.mean, views.std),
    ]
    return K.AugmentationSequential(*steps, data_keys=["input"])


def one_by_one(images: list[Image.Image], transforms: list[Transform]) -> list[Tensor]:
    """Returns batches of all views, made image by image, as a worker of a DataLoader does."""
    each = [[transform(image) for transform in transforms] for image in images]
    return [torch.stack(column) for column in zip(*each, strict=True)]


def two_views_32(args: Given) -> Iterator[Row]:
    views, index = ViewSet(global_crops=byol(32)), np.arange(args.batch)
    images: Any = open_source(args.cifar).train if args.cifar else None
    pixels = np.stack([np.asarray(images.open(i)) for i in index]) if args.cifar else natural(args.batch, 32, 32)
    batch, pictures = torch.from_numpy(pixels), [Image.fromarray(x) for x in pixels]
    solo, light = [pil(view, views) for view in views.global_crops], [lightly(view) for view in views.global_crops]
    batched = [kornia(view, views) for view in views.global_crops]

    def with_kornia(turn: int) -> list[Tensor]:
        floats = batch.permute(0, 3, 1, 2).float().div_(255)
        return [transform(floats) for transform in batched]

    contestants: dict[str, Contestant] = {
        "solo-learn": lambda turn: one_by_one(pictures, solo),
        "lightly": lambda turn: one_by_one(pictures, light),
        "kornia": with_kornia,
        "infomax": lambda turn: make_views(batch, views, seed=0, epoch=turn, index=index),
    }
    for row in compared(contestants, args.batch, args.repeats):
        yield {"data": "CIFAR" if args.cifar else "made", **row}


def from_files(views: ViewSet, args: Given) -> Iterator[Row]:
    """Times all that is done to a file, decoding alone, and the part of our workers."""
    with tempfile.TemporaryDirectory() as made:
        for i, pixels in enumerate(natural(args.made, 375, 500)):
            Image.fromarray(pixels).save(f"{made}/{i:04}.jpg", quality=90)
        for folder in [made, args.photos] if args.photos else [made]:
            for row in compared(with_files(views, folder, args.photographs), args.photographs, args.repeats):
                yield {"data": "made" if folder == made else "photographs", **row}


def with_files(views: ViewSet, folder: str, count: int) -> dict[str, Contestant]:
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    training, solo = TrainingImages(open_source(folder).train, views, 0), [pil(x, views) for x in views.global_crops]
    solo += [pil(view, views) for view in views.local_crops]

    def index(turn: int) -> np.ndarray:
        return np.arange(turn * count, (turn + 1) * count) % len(files)

    def decoded(turn: int) -> list[Image.Image]:
        return [Image.open(files[i]).convert("RGB") for i in index(turn)]  # which closes the file

    def cut(turn: int) -> Any:
        return training[(turn, index(turn))].images

    contestants: dict[str, Contestant] = {"solo-learn": lambda turn: one_by_one(decoded(turn), solo)}
    if not views.local_crops:
        light = [lightly(view) for view in views.global_crops]
        contestants["lightly"] = lambda turn: one_by_one(decoded(turn), light)
    return contestants | {
        "infomax": lambda turn: make_views(cut(turn), views, seed=0, epoch=turn, index=index(turn)),
        "infomax, a worker's part: bytes": cut,
        "decoding alone, by Pillow": decoded,
    }


def blur(args: Given) -> list[Row]:
    """Times a blur of images of 224x224; ours is the difference between two views with it and without."""
    count = max(1, args.photographs // 4)
    pixels, index = torch.from_numpy(natural(count, 224, 224)), np.arange(count)
    pictures, images = [Image.fromarray(x) for x in pixels.numpy()], pixels.permute(0, 3, 1, 2).float().div_(255)
    torchvision = T.GaussianBlur(23, (0.1, 2.0))

    def two_views(probability: float) -> Contestant:
        view = View(size=224, flip=0, jitter=0, grayscale=0, blur=probability)
        return lambda turn: make_views(
            [pixels] * 2, ViewSet(global_crops=(view, view)), seed=0, epoch=turn, index=index
        )

    contestants: dict[str, Contestant] = {
        "PIL": lambda turn: [pil_blur(image) for image in pictures],
        "torchvision, 23x23": lambda turn: [torchvision(image) for image in images],
        "infomax, two views with blur": two_views(1.0),
        "infomax, two views without": two_views(0.0),
    }
    rows = compared(contestants, count, args.repeats)
    milliseconds = [1e3 / row["images_per_second"] for row in rows]
    return [*rows, {"name": "infomax", "milliseconds": (milliseconds[2] - milliseconds[3]) / 2}]


class Reading(Dataset):
    """A data set that reads files and returns the private memory of the process, in bytes."""

    def __init__(self, images: Any, keys: list[Any]):
        self.images, self.keys = images, keys

    def __getitem__(self, _: int) -> int:
        for key in self.keys:
            self.images[key]
        return memory("smaps_rollup", "Private_Clean") + memory("smaps_rollup", "Private_Dirty")


def of_channels(args: Given) -> Iterator[Row]:
    """Times two views of images of uint8 and uint16 with several numbers of channels, and the last operations."""
    for side, count in ((32, args.batch), (224, max(1, args.photographs // 4))):
        contestants: dict[str, Contestant] = {}
        for channels, kind in ((3, np.uint8), (3, np.uint16), (1, np.uint16), (4, np.uint16), (13, np.uint16)):
            made = [natural(count, side, side) for _ in range(-(-channels // 3))]
            wide = np.concatenate(made, axis=3)[..., :channels].astype(kind)
            pixels = torch.from_numpy(np.ascontiguousarray(wide if kind == np.uint8 else 257 * wide))
            settings = {"mean": (0.47,) * channels, "std": (0.2,) * channels}
            views = ViewSet(global_crops=byol(side), **settings)
            contestants[f"{channels} of {kind.__name__}"] = partial(views_of_turn, pixels, views)
            if kind == np.uint8:
                on = {"rotate90": 1.0, "noise": 1.0, "drop_channels": 0.1}
                varied = ViewSet(global_crops=tuple(replace(view, **on) for view in byol(side)), **settings)
                contestants["3 of uint8, noise, missing channels and turns"] = partial(views_of_turn, pixels, varied)
        for row in compared(contestants, count, args.repeats):
            yield {"side": side, "busy": os.getloadavg()[0] > 1.5, **row}


def views_of_turn(pixels: Tensor, views: ViewSet, turn: int) -> list[Tensor]:
    return make_views(pixels, views, seed=0, epoch=turn, index=np.arange(len(pixels)))


def memory(file: str, name: str) -> int:
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def opening(folder: str, name: str, worker: str, read: int) -> Row:
    """Measures seconds and memory of opening a folder, or the memory of a worker that is started in this way."""
    # Not getrusage's highest memory, which may be that of the process that this one was forked from.
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew from what is resident now
    before, start = memory("status", "VmRSS"), time.perf_counter()
    images: Any = ImageFolder(folder) if name == "torchvision" else open_source(folder).train
    row = {"seconds": time.perf_counter() - start, "paths": len(images)}
    if not worker:
        peak, kept = (memory("status", what) - before for what in ("VmHWM", "VmRSS"))
        return {**row, "peak_bytes": peak, "kept_bytes": kept}
    keys = np.random.default_rng(0).integers(len(images), size=read).tolist()
    if name == "infomax":
        load_kernels(TINY)  # as the loader does before it starts workers
        images, keys = TrainingImages(images, TINY, 0), [(0, part) for part in np.array_split(keys, -(-read // 64))]
    loader = DataLoader(Reading(images, keys), None, sampler=[0], num_workers=1, multiprocessing_context=worker)
    return {"worker_bytes": next(iter(loader))}


def fresh(*arguments: Any) -> Row:
    """Runs :func:`opening` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
        return pool.submit(opening, *arguments).result()


def tree(root: str, folders: int, paths: int) -> str:
    """Makes a tree of files named as ImageNet's; all files of a folder are links to one picture of one pixel."""
    for number, part in enumerate(np.array_split(np.arange(paths), folders)):
        os.makedirs(folder := f"{root}/n{number:08}")
        Image.new("RGB", (1, 1)).save(first := f"{folder}/n{number:08}_{part[0]}.JPEG")
        for i in part[1:]:
            os.link(first, f"{folder}/n{number:08}_{i}.JPEG")
    return root


def opening_files(args: Given) -> Iterator[Row]:
    """Measures seconds and memory, and the private memory of a worker above that with only 1,000 files."""
    with tempfile.TemporaryDirectory() as root, patch.dict(os.environ):
        many, few = tree(f"{root}/many", args.folders, args.paths), tree(f"{root}/few", 10, 1000)
        for repeat in range(3):
            os.environ["XDG_CACHE_HOME"] = f"{root}/cache{repeat}"
            for name, how in (("infomax", "first"), ("infomax", "again"), ("torchvision", "")):
                yield {"name": name, "how": how, **fresh(many, name, "", 0)}
        for name, start in itertools.product(("infomax", "torchvision"), ("fork", "forkserver", "spawn")):
            private, base = (fresh(folder, name, start, args.read)["worker_bytes"] for folder in (many, few))
            yield {"name": name, "start": start, "worker_bytes": private, "because_of_the_paths": private - base}


def lasts(function: Callable[[], object], calls: int, device: torch.device) -> float:
    """Returns the milliseconds of one call, in a row of calls without a synchronisation."""
    begin = time.perf_counter()
    if device.type == "cpu":
        for _ in range(calls):
            function()
        return 1e3 * (time.perf_counter() - begin) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def beside_a_step(backbone: str, views: ViewSet, batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Returns functions that make views of a batch, train a network on views in bfloat16, and do both."""
    small, sides = backbone == "resnet18", [view.size for view in (*views.global_crops, *views.local_crops)]
    images: Any = [torch.from_numpy(natural(batch, side, side)).to(device) for side in sides[: 1 if small else None]]
    encoder = build_encoder(backbone, stem="cifar" if small else "imagenet", seed=0)
    encoder = encoder.to(device, memory_format=torch.channels_last)
    images, epoch = images[0] if small else images, itertools.count()  # small ones are cropped on the device too

    @torch.no_grad()
    def make() -> list[Tensor]:
        return make_views(images, views, seed=0, epoch=next(epoch), index=np.arange(batch))

    def step(made: list[Tensor]) -> None:
        encoder.zero_grad()
        for side in sorted(set(sides)):
            x = torch.cat([view for view in made if view.shape[-1] == side])
            with torch.autocast(device.type, torch.bfloat16):
                features = encoder(x)
            features.float().square().mean().backward()

    return {"views": make, "step": partial(step, make()), "views and step": lambda: step(make())}


def on_a_gpu(args: Given) -> Iterator[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.toy:
        return
    torch.backends.cudnn.benchmark = True  # the fastest step there is
    small, times = ViewSet(global_crops=byol(32)), 1 + args.repeats  # the first warms up
    for backbone, views, batch in (("resnet18", small, args.step_32), ("resnet50", MULTI_CROP, args.step_224)):
        functions = beside_a_step(backbone, views, batch, device)
        measured = [[lasts(function, args.calls, device) for function in functions.values()] for _ in range(times)]
        quartiles = np.quantile(measured[1:], [0.25, 0.5, 0.75], axis=0).T.tolist()
        for name, (low, median, high) in zip(functions, quartiles, strict=True):
            row = {"name": name, "backbone": backbone, "batch": batch, "views": 2 + len(views.local_crops)}
            yield {**row, "milliseconds": median, "quartiles": [low, high], "repeats": args.repeats}
    pixels, parts = torch.from_numpy(natural(args.epoch, 32, 32)).to(device), -(-args.epoch // args.step_32)

    @torch.no_grad()
    def epoch() -> None:
        for index in np.array_split(np.random.default_rng(0).permutation(args.epoch), parts):
            make_views(pixels[torch.from_numpy(index).to(device)], small, seed=0, epoch=0, index=index)

    seconds = [lasts(epoch, 1, device) / 1e3 for _ in range(times)][1:]
    row = {"name": "views of an epoch", "images": args.epoch, "batch": args.step_32, "repeats": args.repeats}
    yield {**row, "seconds": float(np.median(seconds)), "quartiles": np.quantile(seconds, [0.25, 0.75]).tolist()}


SECTIONS: dict[str, Callable[[Given], Any]] = {
    "A": two_views_32,
    "B": partial(from_files, ViewSet(global_crops=byol(224))),
    "C": partial(from_files, MULTI_CROP),
    "D": blur,
    "E": opening_files,
    "F": on_a_gpu,
    "G": of_channels,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="A,B,C,D,E,F,G", help="some of A to G; what the file has of others stays")
    parser.add_argument("--cifar", metavar="FILE.npz", help="32x32 images for A, instead of ones that are made")
    parser.add_argument("--photos", metavar="DIR", help="JPEG files for B and C, besides ones that are made")
    parser.add_argument("--paths", type=int, help="files for E, unless as many as ImageNet's")
    parser.add_argument("--toy", action="store_true", help="next to nothing of each, and F on a CPU too")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    vars(args).update({**(TOY if args.toy else SIZE), **({"paths": args.paths} if args.paths else {})})
    provenance, peers = runs.provenance(), ("pillow", "lightly", "kornia")
    provenance["versions"] |= {x.name: x.version for x in distributions() if x.name in peers}
    if torch.cuda.is_available():
        provenance["machine"]["gpu"] = torch.cuda.get_device_name()
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    for letter in args.only.split(","):
        rows = []
        for row in SECTIONS[letter](args):
            print(f"{letter}{' (toy)' if args.toy else ''}: {json.dumps(row)}", flush=True)
            rows.append(row)
        if rows:
            result[letter] = {**provenance, "rows": rows}
        if not args.toy:
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
