"""Times the crops of photographs that are read from JPEG files, epoch by epoch. For Linux.

python benchmarks/from_disk.py                              6 minutes, on two cores that do nothing else
python benchmarks/from_disk.py --before ../old --photos DIR  beside the code of another checkout; of photographs
python benchmarks/from_disk.py --toy                        seconds, to see that it works; keeps nothing

3,000 JPEG files of 128x128 and of 500x375 pixels are trained on: two workers read them in batches of 250, for two views
(``byol``) of 32, 96 and 224 pixels. Contestants: the code of ``--before``; --keep-decoded off; and auto. What a device
does with the crops is left out. The floor is decoding alone, in two processes, at the sizes at which these crops need
the files, by Pillow and by libjpeg-turbo through simplejpeg.

Contestants take turns, each in a process of its own. Rates are by wall time: the first epoch from its first batch on,
as workers have to start, and the later ones as a whole.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[1] / "docs" / "results" / "from_disk.json"
SOURCE = Path(__file__).parents[1] / "src"
WORKERS, MADE, QUALITY = 2, 48, 90
SIZES = {"128x128": (128, 128), "500x375": (500, 375)}
CASES = (("128x128", 32), ("128x128", 96), ("500x375", 32), ("500x375", 96), ("500x375", 224))
SIZE = {"images": 3000, "batch": 250, "epochs": 4, "repeats": 3, "room": 4_000_000_000}
TOY = {"images": 24, "batch": 6, "epochs": 2, "repeats": 1, "room": 100_000_000}
Row = dict[str, Any]


def write_photographs(folder: Path, count: int, photos: str | None) -> None:
    """Writes ``count`` JPEG files of each size: crops of photographs, or of pictures with their spectrum."""
    from PIL import Image
    from views import natural

    files = sorted(x for x in Path(photos).rglob("*") if x.suffix.lower() in (".jpg", ".jpeg")) if photos else []
    pictures = files or [Image.fromarray(pixels) for pixels in natural(min(MADE, count), 525, 700)]
    rng = np.random.default_rng(0)
    for name in SIZES:
        (folder / name).mkdir()
    for number in range(count):
        picture: Any = pictures[number % len(pictures)]
        image = picture if isinstance(picture, Image.Image) else Image.open(picture).convert("RGB")
        width, height = (int(side * rng.uniform(0.75, 1)) for side in image.size)
        left, top = (int(rng.integers(a - b + 1)) for a, b in zip(image.size, (width, height), strict=True))
        part = image.crop((left, top, left + width, top + height))
        for name, size in SIZES.items():
            part.resize(size, Image.Resampling.BICUBIC).save(folder / name / f"{number:05}.jpg", quality=QUALITY)


def epochs_of(folder: str, side: int, way: str, args: argparse.Namespace) -> Row:
    """Returns images per second in the first epoch and in the later ones."""
    from infomax.data.augmentation.views import ViewSet, byol
    from infomax.data.loading.training import training_batches
    from infomax.data.sources.location import open_source

    steps = args.images // args.batch
    options: dict[str, Any] = {"keep_bytes": args.room} if way == "kept" else {}
    batches = training_batches(
        open_source(folder).train,
        ViewSet(global_crops=byol(side)),
        batch_size=args.batch,
        seed=0,
        steps=range(steps * args.epochs),
        workers=WORKERS,
        **options,
    )
    times = []
    for _ in batches:
        times.append(time.perf_counter())
    first = args.batch * (steps - 1) / (times[steps - 1] - times[0])
    return {"first": first, "later": args.images * (args.epochs - 1) / (times[-1] - times[steps - 1])}


def needed_divisors(folder: str, side: int, count: int) -> list[int]:
    """Returns by how much the sides of each file may be divided for its crops in the first epoch."""
    from infomax.data.augmentation.draws import draw_uniform
    from infomax.data.augmentation.views import byol
    from infomax.data.loading.workers import plan_crops

    random = np.stack([draw_uniform(0, 0, np.arange(count), number) for number in range(2)])
    width, height = SIZES[Path(folder).name]
    return [plan_crops(random[:, i], width, height, byol(side))[1] for i in range(count)]


def decode_by_pillow(files: list[tuple[str, int]]) -> None:
    from PIL import Image

    for file, divisor in files:
        with Image.open(file) as image:
            image.draft(None, (image.width // divisor, image.height // divisor))
            image.convert("RGB")


def decode_by_turbojpeg(files: list[tuple[str, int]]) -> None:
    from simplejpeg import decode_jpeg

    width, height = SIZES[Path(files[0][0]).parent.name]
    memory = np.empty(3 * width * height, np.uint8)
    for file, divisor in files:
        size = {"min_width": -(-width // divisor), "min_height": -(-height // divisor)}
        decode_jpeg(Path(file).read_bytes(), "RGB", buffer=memory, **size)


def decoding_rates(folder: str, side: int, args: argparse.Namespace) -> Row:
    """Returns images per second of decoding alone, by each package that is there."""
    files = sorted(map(str, Path(folder).iterdir()))
    shares = [
        list(zip(files, needed_divisors(folder, side, len(files)), strict=True))[i::WORKERS] for i in range(WORKERS)
    ]
    rates = {}
    with ProcessPoolExecutor(WORKERS) as pool:
        for name, decode in (("Pillow", decode_by_pillow), ("libjpeg-turbo", decode_by_turbojpeg)):
            try:
                list(pool.map(decode, [share[:2] for share in shares]))  # imports
            except ImportError:
                continue
            start = time.perf_counter()
            list(pool.map(decode, shares))
            rates[name] = args.images / (time.perf_counter() - start)
    return rates


def measure(way: str, folder: str, args: argparse.Namespace) -> Iterator[Row]:
    """Yields a row for each case, in this process."""
    for name, side in CASES:
        rates_of = decoding_rates if way == "decoding" else partial(epochs_of, way=way)
        yield {"files": name, "side": side, "way": way, **rates_of(f"{folder}/{name}", side, args=args)}


def in_a_process(way: str, folder: str, args: argparse.Namespace) -> list[Row]:
    """Returns the rows of :func:`measure` in a new process, with the code that the contestant is."""
    source = Path(args.before) / "src" if way == "before" else SOURCE
    command = [
        sys.executable,
        __file__,
        "--measure",
        way,
        folder,
        f"--images={args.images}",
        *(["--toy"] if args.toy else []),
    ]
    path = os.pathsep.join([str(source.resolve()), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="DIR", help="a checkout of infomax to measure too")
    parser.add_argument("--photos", metavar="DIR", help="JPEG files to make the files from, instead of made pictures")
    parser.add_argument("--images", type=int, help="files of each size, instead of 3,000; a multiple of 250")
    parser.add_argument("--repeats", type=int, help="turns, instead of 3")
    parser.add_argument("--toy", action="store_true", help="next to nothing of each")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in ("images", "repeats") if getattr(args, name)}
    settings = {**(TOY if args.toy else SIZE), **given}
    vars(args).update(settings)
    if args.measure:
        for row in measure(*args.measure, args):
            print(json.dumps(row), flush=True)
        return
    ways = [*(["before"] if args.before else []), "off", "kept", "decoding"]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), args.images, args.photos)
        for turn in range(args.repeats):
            for way in ways[:: -1 if turn % 2 else 1]:
                for row in in_a_process(way, folder, args):
                    print(json.dumps(row), flush=True)
                    rows.append({**row, "turn": turn})
    if not args.toy:
        from infomax.runs.provenance import provenance

        origin = provenance()
        packages = {x.name: x.version for x in distributions() if x.name in ("pillow", "simplejpeg")}
        origin["versions"] |= packages
        command = " ".join(x for x in ("python benchmarks/from_disk.py", args.before and "--before DIR") if x)
        command += " --photos DIR" if args.photos else ""  # without the folders of this machine
        data = "photographs" if args.photos else "made pictures"
        kept = {**origin, "command": command, "data": data, **settings, "rows": rows}
        args.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
