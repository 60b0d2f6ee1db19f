"""Times embed, search and duplicates beside timm, lightly-train and faiss, and measures memory. For Linux.

python benchmarks/embeddings.py                             fifteen minutes on two cores that do nothing else
python benchmarks/embeddings.py --peer-python ENV/bin/python with lightly-train, of another environment
python benchmarks/embeddings.py --parts search page         some parts; docs/results/embeddings.json keeps the others
python benchmarks/embeddings.py --toy                       a minute, to see that it works; keeps nothing

throughput  Images a second of `infomax embed`, of timm's data loader and model as its inference.py uses them, of
            lightly-train's embed, and of the encoder alone on images that are in memory already: no loader can do more.
            Each is a new process, from its first batch's loading to its last features; they take turns.
search      10,000 queries among 1,000,000 x 256 features in float16, on one core: ours, and faiss's IndexFlatIP.
duplicates  Groups among 100,000 x 256 features, of which some are nearly copies of others.
memory      Anonymous memory of `infomax embed` at its peak, by the number of images, which are mapped from a file.
page        From a trained encoder to the page of images like one: `infomax embed` and `infomax search`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from from_disk import SIZES, write_photographs
from knn import alone
from knn import features as knn_features

from infomax.data.augmentation.views import Preprocessing
from infomax.embeddings.duplicates import duplicates
from infomax.embeddings.feature_file import FeatureOrigin, FeatureTable
from infomax.features.faiss_search import nearest_by_faiss
from infomax.features.nearest_neighbours import nearest
from infomax.models.encoders import build_encoder, save_encoder
from infomax.runs.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "embeddings.json"
WORKERS, K, DIMENSION = 2, 10, 256
FILES = {"small": tuple(SIZES), "resnet18": tuple(SIZES), "vit_small": ("500x375",)}
"""Sizes of the files that each encoder is timed with."""
ENCODERS = {"small": (36, 32), "resnet18": (256, 224), "vit_small": (256, 224)}
"""Sides of the resized image and of its crop, by encoder."""
SIZE = {
    "images": {"small": 3000, "resnet18": 400, "vit_small": 128},
    "repeats": 3,
    "bank": 1_000_000,
    "queries": 10_000,
    "duplicates": 100_000,
    "memory": (100_000, 1_000_000),
    "page": 1000,
}
TOY = {
    "images": {"small": 60, "resnet18": 4, "vit_small": 2},
    "repeats": 1,
    "bank": 40_000,
    "queries": 600,
    "duplicates": 3000,
    "memory": (3000, 6000),
    "page": 40,
}
PEER_ENCODER = "resnet18"  # the one that lightly-train has too
Row = dict[str, Any]

TIMM = f"""
import sys, time
import numpy as np, torch
from timm.data import create_dataset, create_loader
from infomax.models.encoders import load_encoder
model, folder, count = load_encoder(sys.argv[1]).eval(), sys.argv[2], int(sys.argv[3])
steps = model.preprocessing
dataset = create_dataset("", root=folder)
loader = create_loader(
    dataset, input_size=(3, steps.size, steps.size), batch_size=256, num_workers={WORKERS}, device=torch.device("cpu"),
    interpolation="bicubic", mean=steps.mean, std=steps.std, crop_pct=steps.size / steps.resize,
)
start, features = time.perf_counter(), []
with torch.inference_mode():
    for images, _ in loader:
        features.append(model(images).numpy())
print("rate", count / (time.perf_counter() - start))
np.save(sys.argv[4], np.concatenate(features))
"""
FORWARD = """
import sys, time
from infomax.runtime.threads import set_thread_variables
set_thread_variables()  # as the command does it: OpenMP's threads sleep soon
import torch
from infomax.features.extraction import cache_sized_chunks
from infomax.models.encoders import load_encoder
model, count = load_encoder(sys.argv[1]).eval(), int(sys.argv[3])
side = model.preprocessing.size
images = torch.randn(min(count, 256), 3, side, side).contiguous(memory_format=torch.channels_last)
passes = max(1, count // len(images))
with torch.no_grad():
    model(images[:8])
    start = time.perf_counter()
    for _ in range(passes):
        for chunk in cache_sized_chunks(images, model):
            model(chunk)
print("rate", passes * len(images) / (time.perf_counter() - start))
"""
PEER_TRAINS = """
import sys
import lightly_train
lightly_train.train(
    out=sys.argv[2], data=sys.argv[1], model="torchvision/resnet18", method="simclr", epochs=1, batch_size=4,
    accelerator="cpu", num_workers=0, overwrite=True,
)
"""
PEER = f"""
import sys, time
import lightly_train
start = time.perf_counter()
lightly_train.embed(
    out=sys.argv[4], data=sys.argv[2], checkpoint=sys.argv[1], accelerator="cpu", num_workers={WORKERS}, overwrite=True
)
print("rate", int(sys.argv[3]) / (time.perf_counter() - start))
"""


def save(backbone: str, folder: Path) -> Path:
    """Saves an encoder with its initial weights, and returns its folder."""
    resize, size = ENCODERS[backbone]
    encoder = build_encoder(backbone, stem="cifar" if backbone == "small" else "imagenet", seed=0)
    place = folder / backbone
    place.mkdir()
    save_encoder(encoder, asdict(encoder.settings), Preprocessing(resize=resize, size=size), place)
    return place


def output_of(words: list[str], folder: Path) -> str:
    """Runs a command, and returns what it printed.

    Raises:
        RuntimeError: if it fails.
    """
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)[:200]}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def infomax(*words: str) -> list[str]:
    """Returns the words of a command of infomax."""
    return [sys.executable, "-m", "infomax", *words]


def throughput(folder: Path, sizes: Row, peer: str | None) -> Iterator[Row]:
    """Yields images per second of each contestant, for each encoder and size of the files."""
    encoders = {backbone: save(backbone, folder) for backbone in ENCODERS}
    write_photographs(folder, max(sizes["images"].values()), None)
    checkpoint = None if peer is None else train_peer(peer, folder)
    for backbone in ENCODERS:
        count = sizes["images"][backbone]
        for files in FILES[backbone]:
            images = few_of(folder / files, count)
            words = contestants(encoders[backbone], images, count)
            if peer is not None and backbone == PEER_ENCODER:
                words["lightly-train"] = [peer, "-c", PEER, str(checkpoint), str(images), str(count), "peer.pt"]
            rates: dict[str, list[float]] = defaultdict(list)
            for turn in range(sizes["repeats"]):
                for name in list(words)[:: -1 if turn % 2 else 1]:
                    printed = output_of(words[name], folder)
                    rate = re.search(r"rate (\S+)|([\d,.]+) images/s", printed)
                    assert rate is not None, printed
                    rates[name].append(float((rate[1] or rate[2]).replace(",", "")))
            row = {"encoder": backbone, "files": files, "images": count, "rates": dict(rates)}
            yield {**row, "largest_difference": difference(folder)}


def few_of(folder: Path, count: int) -> Path:
    """Returns a folder with links to the first files of a folder."""
    links = folder.with_name(f"{folder.name}-{count}")
    links.mkdir(exist_ok=True)
    for file in sorted(folder.iterdir())[:count]:
        if not (links / file.name).exists():
            os.link(file, links / file.name)
    return links


def contestants(encoder: Path, images: Path, count: int) -> dict[str, list[str]]:
    """Returns the command of each contestant that has this encoder."""
    arguments = [str(encoder), str(images), str(count)]
    out = ["--out", "ours.npz", "--overwrite", "--no-cache", "--workers", str(WORKERS)]
    return {
        "infomax": infomax("embed", str(encoder), "--data", str(images), *out),
        "timm": [sys.executable, "-c", TIMM, *arguments, "timm.npy"],
        "encoder alone": [sys.executable, "-c", FORWARD, *arguments],
    }


def difference(folder: Path) -> float:
    """Returns the largest difference of our features from those by timm's loop, over the largest feature."""
    ours, theirs = np.load(folder / "ours.npz")["features"], np.load(folder / "timm.npy")
    return float(abs(ours - theirs).max() / abs(theirs).max())


def train_peer(peer: str, folder: Path) -> Path:
    """Trains an encoder by lightly-train for a step or two, and returns its checkpoint."""
    output_of([peer, "-c", PEER_TRAINS, str(few_of(folder / "128x128", 8)), str(folder / "peer")], folder)
    return folder / "peer" / "checkpoints" / "last.ckpt"


def search(folder: Path, sizes: Row, peer: str | None) -> Iterator[Row]:
    """Yields the seconds of both searches on one core, from features in float16 to neighbours, and whether they agree.

    It is run in a process of its own, as :func:`alone` leaves it one core.
    """
    source = f"import json, embeddings; print('ROW', json.dumps(embeddings.search_row({sizes!r})))"
    printed = output_of([sys.executable, "-c", source], Path(__file__).parent)
    yield json.loads(printed.split("ROW ")[1])


def search_row(sizes: Row) -> Row:
    """Searches by both, in turns, and returns the result."""
    alone()
    bank, _, queries = knn_features("clusters", sizes["bank"], sizes["queries"], DIMENSION)
    bank, queries = bank.half(), queries.half()
    nearest(torch.randn(40_000, 8), torch.randn(600, 8), K)  # compiles
    nearest_by_faiss(bank[:1000], queries[:10], K)
    engines = {"infomax": nearest, "faiss": nearest_by_faiss}
    seconds: dict[str, list[float]] = defaultdict(list)
    results = {}
    for turn in range(max(1, sizes["repeats"] // 3)):
        for name in list(engines)[:: -1 if turn % 2 else 1]:
            start = time.process_time()
            results[name] = engines[name](bank, queries, K)
            seconds[name].append(time.process_time() - start)
    (ours, our_rows), (theirs, their_rows) = results["infomax"], results["faiss"]
    return {
        "queries": len(queries),
        "bank": len(bank),
        "dimension": DIMENSION,
        "k": K,
        "seconds": dict(seconds),
        "same_rows": float((our_rows == their_rows).double().mean()),
        "largest_difference": float((ours - theirs).abs().max()),
    }


def find_duplicates(folder: Path, sizes: Row, peer: str | None) -> Iterator[Row]:
    """Yields the seconds of finding groups of nearly equal features, on all cores."""
    rows = torch.randn(sizes["duplicates"], DIMENSION, generator=torch.Generator().manual_seed(0))
    copies = len(rows) // 100
    rows[-copies:] = rows[:copies] + 0.02 * torch.randn(copies, DIMENSION, generator=torch.Generator().manual_seed(1))
    steps = Preprocessing(resize=32, size=32)
    described = {"encoder": "", "encoder_hash": "", "preprocessing": steps, "data": {}, "version": ""}
    origin = FeatureOrigin(images=len(rows), dimension=DIMENSION, precision="16", **described)
    table = FeatureTable(rows.half().numpy(), [str(i) for i in range(len(rows))], None, origin)
    seconds = []
    for _ in range(sizes["repeats"]):
        start = time.perf_counter()
        groups = duplicates(table, above=0.98)
        seconds.append(time.perf_counter() - start)
    pairs = {(group.kept.row, *(other.row for other in group.others)) for group in groups}
    planted = {(row, len(rows) - copies + row) for row in range(copies)}
    yield {
        "images": len(rows),
        "dimension": DIMENSION,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "groups": len(groups),
        "as_planted": pairs == planted,
    }


def memory(folder: Path, sizes: Row, peer: str | None) -> Iterator[Row]:
    """Yields the most anonymous memory that the command has at a time, for each number of images."""
    encoder = folder / "tiny"
    encoder.mkdir()
    network = build_encoder("small", stem="imagenet", seed=0)
    save_encoder(network, asdict(network.settings), Preprocessing(resize=8, size=8), encoder)
    for count in sizes["memory"]:
        file = folder / f"{count}.npy"
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (count, 8, 8, 3))
        rng = np.random.default_rng(0)
        for start in range(0, count, 65536):
            part = images[start : start + 65536]
            part[:] = rng.integers(0, 256, part.shape, np.uint8)
        images.flush()
        del images
        words = infomax("embed", str(encoder), "--data", str(file), "--out", f"{count}-features.npy", "--no-cache")
        start = time.perf_counter()
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_memory(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0
        yield {"images": count, "bytes": peak, "seconds": time.perf_counter() - start}


def anonymous_memory(process: int) -> int:
    """Returns the bytes of memory of a process that are not those of a file; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return sum(1024 * int(size) for size in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.M))


def page(folder: Path, sizes: Row, peer: str | None) -> Iterator[Row]:
    """Yields the seconds from Enter of ``infomax embed`` to the page of ``infomax search``."""
    place = folder / "page"
    place.mkdir()
    encoder, count = save("small", place), sizes["page"]
    if not (folder / "128x128").exists():
        write_photographs(folder, count, None)
    images = few_of(folder / "128x128", count)
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(sizes["repeats"]):
        out, like = f"{turn}.parquet", f"{turn}.html"
        start = time.perf_counter()
        output_of(infomax("embed", str(encoder), "--data", str(images), "--out", out, "--no-cache"), place)
        seconds["embed"].append(time.perf_counter() - start)
        start = time.perf_counter()
        output_of(infomax("search", out, "--query", "00003.jpg", "--out", like), place)
        seconds["search"].append(time.perf_counter() - start)
        assert (place / like).read_text().count("<img") == 13
    yield {"images": len(list(images.iterdir())), "encoder": "small", "files": "128x128", "seconds": dict(seconds)}


PARTS = {
    "throughput": throughput,
    "search": search,
    "duplicates": find_duplicates,
    "memory": memory,
    "page": page,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, and nothing is kept")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--peer-python", help="Python of an environment with lightly-train")
    parser.add_argument("--repeats", type=int, help="turns of each contestant")
    args = parser.parse_args()
    sizes: Row = {**(TOY if args.toy else SIZE), **({"repeats": args.repeats} if args.repeats else {})}
    kept: Row = json.loads(OUT.read_text()) if OUT.exists() and not args.toy else {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")
        for part in args.parts:
            rows = []
            for row in PARTS[part](Path(temporary), sizes, args.peer_python):
                print(f"{part}{' (toy)' if args.toy else ''}: {json.dumps(row)}", flush=True)
                rows.append(row)
            kept[part] = {**provenance(), "command": "python benchmarks/embeddings.py", "rows": rows}
            if not args.toy:
                OUT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
