"""Times the map of a page: its layout, its file, and how it moves in a browser. For Linux.

python benchmarks/pages.py                   some twenty minutes on two cores that do nothing else
python benchmarks/pages.py --sizes 1000      a minute, to see that it works; keeps nothing
python benchmarks/pages.py --parts browser   some parts; docs/results/pages.json keeps the others

file      Seconds and peak memory of the layout of made embeddings, and of the page with 4,000 pictures; each size is a
          process of its own. The embeddings are 128 numbers in 50 clusters, of which some are near each other.
browser   First paint, hovering and panning in headless Chromium, by Playwright (uv sync --group browser), on pages
          of as many images whose places are made, too. It draws by WebGL in software, as there is no GPU: a laptop is
          faster.
projector TensorBoard's log of the same embeddings and names, which its projector reads; pictures are left out, because
          its one sheet for them ends at 8,192 pixels. Nothing of it is laid out yet: its page does that.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from infomax.features.map_layout import Layout, map_layout
from infomax.reporting.pages.atlas import MAX_IMAGES, pack_atlas, spread_order
from infomax.reporting.pages.embedding_map import EmbeddingMap, MapLayer, MapPoints
from infomax.reporting.pages.page import Page, Section
from infomax.runs.provenance import provenance
from infomax.runtime.threads import thread_variables_in_children

OUT = Path(__file__).parents[1] / "docs" / "results" / "pages.json"
SIZES = (1_000, 50_000, 200_000)
DIMENSION, CLUSTERS, CLASSES = 128, 50, 100
SECONDS_OF_PANNING = 5
PARTS = ("file", "browser", "projector")
Row = dict[str, Any]

HOVER = """async () => {
  const map = document.querySelector("[data-map]").embeddingMap, corner = map.box.getBoundingClientRect();
  const handlers = [], frames = [];
  for (let k = 0; k < 300; k += 1) {
    const place = map.screenOf((k * 7919) % map.count);
    const event = new PointerEvent("pointermove", {
      pointerType: "mouse", bubbles: true, clientX: corner.left + place[0], clientY: corner.top + place[1],
    });
    const start = performance.now();
    map.box.dispatchEvent(event);
    map.card.getBoundingClientRect();  // with the layout of the card
    handlers.push(performance.now() - start);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - start);
  }
  map.hover(-1);
  return { handlers, frames };
}"""
PAN = """async (seconds) => {
  const map = document.querySelector("[data-map]").embeddingMap, start = performance.now();
  map.view.zoom = 2;
  let frames = 0;
  while (performance.now() - start < 1000 * seconds) {
    const t = (performance.now() - start) / 300;
    map.pan(4 * Math.cos(t), 4 * Math.sin(t));
    await new Promise(requestAnimationFrame);
    frames += 1;
  }
  return [frames / ((performance.now() - start) / 1000), map.share];
}"""


def made_embeddings(n: int) -> tuple[torch.Tensor, np.ndarray, list[str]]:
    """Returns features, their clusters and names."""
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((10, DIMENSION))
    centres = groups[np.arange(CLUSTERS) % 10] + 0.6 * rng.standard_normal((CLUSTERS, DIMENSION))
    cluster = rng.choice(CLUSTERS, n, p=np.linspace(1, 3, CLUSTERS) / np.linspace(1, 3, CLUSTERS).sum())
    features = (centres[cluster] + 0.5 * rng.standard_normal((n, DIMENSION))).astype(np.float32)
    names = [f"train/class_{k % CLASSES:03}/IMG_{k:08}.jpg" for k in range(n)]
    return torch.from_numpy(features), cluster, sorted(names)


def made_pictures(count: int) -> Iterator[Image.Image]:
    """Yields pictures of soft colours with some noise, whose JPEGs are about as large as those of photographs."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        colours = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        soft = colours.resize((96, 96), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 22, (96, 96, 1))
        yield Image.fromarray((np.asarray(soft) + noise).clip(0, 255).astype(np.uint8))


def write_page(n: int, file: Path, lay_out: Callable[[torch.Tensor], Layout]) -> Row:
    """Writes the page of so many images, and returns the seconds of its parts; for a process of its own."""
    features, cluster, names = made_embeddings(n)
    times, processor = [time.perf_counter()], time.process_time()
    layout = lay_out(features)
    times.append(time.perf_counter())
    processor = time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = spread_order(layout.points, MAX_IMAGES)
    atlas = pack_atlas(made_pictures(len(rows)))
    index = np.full(n, -1)
    index[rows[: atlas.count]] = np.arange(atlas.count)
    times.append(time.perf_counter())
    layers = (
        MapLayer("cluster", cluster, tuple(f"cluster {k}" for k in range(CLUSTERS))),
        MapLayer("class", np.arange(n) * CLASSES // n, tuple(f"class_{k:03}" for k in range(CLASSES))),
    )
    block = EmbeddingMap("Images", MapPoints(layout.points, index), layers, atlas, names, layout.method)
    html = Page("Map", sections=(Section("Map", blocks=(block,)),)).html()
    times.append(time.perf_counter())
    file.write_text(html, encoding="utf-8")
    layout_seconds, atlas_seconds, page_seconds = np.diff(times).tolist()
    return {
        "images": n,
        "layout_seconds": layout_seconds,
        "layout_processor_seconds": processor,
        "atlas_seconds": atlas_seconds,
        "page_seconds": page_seconds,
        "bytes": file.stat().st_size,
        "pictures": atlas.count,
        "layout_memory": 1024 * memory,
        "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "kept_neighbours": kept_neighbours(features, layout.points),
    }


def kept_neighbours(features: torch.Tensor, points: np.ndarray, k: int = 15, rows: int = 500) -> float:
    """Returns the share of the k nearest images of some that are among the 1 % nearest points of the map."""
    chosen = torch.from_numpy(np.random.default_rng(1).choice(len(points), rows, replace=False))
    unit, places = torch.nn.functional.normalize(features), torch.from_numpy(points)
    by_features = (unit[chosen] @ unit.T).topk(k + 1).indices[:, 1:]
    distances = torch.cdist(places[chosen], places)
    limit = distances.kthvalue(max(k + 1, len(points) // 100), dim=1).values
    return float((distances.gather(1, by_features) <= limit[:, None]).float().mean())


def made_layout(features: torch.Tensor) -> Layout:
    """Returns places in a moment: round clusters, for pages that are opened and not read."""
    rng = np.random.default_rng(0)
    middles = 4 * rng.standard_normal((CLUSTERS, 2))
    places = middles[rng.integers(0, CLUSTERS, len(features))] + 0.5 * rng.standard_normal((len(features), 2))
    return Layout(places.astype(np.float32), "Places at random.")


def measure_file(n: int, file: Path) -> Row:
    """Returns what :func:`write_page` returns, of a new process."""
    with thread_variables_in_children():  # as the command sets them
        words = [sys.executable, __file__, "--write", str(n), str(file)]
        done = subprocess.run(words, capture_output=True, check=True)
    return json.loads(done.stdout)


def measure_browser(n: int, file: Path) -> Row:
    """Returns what a reader waits for, in a window of 1280 x 900 pixels."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        paints, ready = [], []
        for _ in range(3):
            page.goto(file.as_uri())
            page.wait_for_selector("figure[data-map-state=ready]", timeout=60_000)
            page.wait_for_timeout(500)
            entries = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(page.evaluate(entries))
            ready.append(page.evaluate("performance.getEntriesByName('map-ready')[0].startTime"))
        page.locator("[data-map-box]").scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        hover = page.evaluate(HOVER)
        frames, share = page.evaluate(PAN, SECONDS_OF_PANNING)
        drawn = page.evaluate("document.querySelector('[data-map]').dataset.mapDrawn")
        page.evaluate(
            "document.querySelector('[data-map]').embeddingMap.webGl.gl.getExtension('WEBGL_lose_context').loseContext()"
        )
        page.wait_for_selector("[data-map-drawn=canvas]")
        plain_frames, _ = page.evaluate(PAN, SECONDS_OF_PANNING)
        version = browser.version
        browser.close()
    handlers = sorted(hover["handlers"])
    return {
        "images": n,
        "chromium": version,
        "drawn": drawn,
        "first_paint": median(paints) / 1000,
        "map_ready": median(ready) / 1000,
        "hover": median(handlers) / 1000,
        "slow_hover": handlers[int(0.95 * len(handlers))] / 1000,
        "hover_to_frame": median(hover["frames"]) / 1000,
        "frames_per_second": frames,
        "share": share,
        "plain_frames_per_second": plain_frames,
    }


def measure_projector(n: int, folder: Path) -> Row:
    """Returns the seconds and bytes of TensorBoard's log."""
    from torch.utils.tensorboard import SummaryWriter

    features, _, names = made_embeddings(n)
    start = time.perf_counter()
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(features, metadata=names)
    seconds = time.perf_counter() - start
    return {"images": n, "seconds": seconds, "bytes": sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(json.dumps(write_page(int(options.write[0]), Path(options.write[1]), map_layout)))
        return
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for part in options.parts:
            results[part] = {**provenance(), "load": os.getloadavg()[0], "rows": []}
            results[part]["command"] = f"python benchmarks/pages.py --parts {part}"
            for n in options.sizes:
                file = Path(temporary) / f"{n}.html"
                if part == "projector":
                    row = measure_projector(n, Path(temporary) / f"projector-{n}")
                elif part == "file":
                    row = measure_file(n, file)
                else:
                    write_page(n, file, made_layout)
                    row = measure_browser(n, file)
                print(part, json.dumps(row), flush=True)
                results[part]["rows"].append(row)
    if tuple(options.sizes) == SIZES:
        OUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
