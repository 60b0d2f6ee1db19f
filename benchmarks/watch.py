"""Times a run in a browser while it trains: `infomax watch --serve` beside `spt web` on the same metrics.

python benchmarks/watch.py --spt-python PYTHON    two minutes; the Python of an environment with stable-pretraining
python benchmarks/watch.py                        infomax alone

Both get a folder with a run of made metrics, in the form that each writes itself. A server is started three times, in
turn with the other's. Measured are the seconds from Enter to the first answer, the first paint and the bytes of the
page in headless Chromium (Playwright: uv sync --group browser), and the server's resident memory then. Writes
docs/results/watch.json.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from infomax.recipes.registry import get_recipe
from infomax.runs.provenance import provenance
from infomax.runs.run_folder import create_run_folder

OUT = Path(__file__).parents[1] / "docs" / "results" / "watch.json"
SIZES, TURNS, PATIENCE = (1_000, 50_000), 3, 60.0
KEYS = ("loss", "gradient_norm", "learning_rate", "images_per_second")
SPT_WRITER = """
import json, sys
from stable_pretraining.registry.logger import RegistryLogger
logger = RegistryLogger(sys.argv[2] + "/run", "run")
logger.log_hyperparams({"recipe": "made"})
for line in open(sys.argv[1]):
    row = json.loads(line)
    logger.log_metrics({key: value for key, value in row.items() if key != "step"}, row["step"])
logger.finalize("success")
"""


def write_run(rows: int, folder: Path) -> Path:
    """Writes a run folder with so many rows of made metrics, as of a run that goes on, and returns it."""
    recipe = get_recipe("mveb", "digits")
    data = {"data": "digits", "images": 20 * rows * recipe.batch_size, "fingerprint": "0"}
    run = create_run_folder(folder, recipe, data=data, launch={}, overwrite=False)
    with open(run.path / "metrics.jsonl", "w") as file:
        for i in range(rows):
            values = {key: 1.0 / (1 + (i + j) % 97) for j, key in enumerate(KEYS)}
            file.write(f"{json.dumps({'step': 10 * i, 'epoch': 0, **values})}\n")
    return run.path


@contextmanager
def served(command: list[str], port: int) -> Iterator[tuple[float, subprocess.Popen]]:
    """Starts a server, and yields the seconds until its first answer, and its process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE).read()
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                    raise RuntimeError(f"no answer from {' '.join(command)}") from None
                time.sleep(0.01)
        yield time.perf_counter() - start, process
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def open_page(port: int) -> tuple[float, int]:
    """Returns the seconds to the first paint, and the bytes that came within two seconds."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_timeout(2000)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        sent = page.evaluate(f"{entries}.reduce((sum, entry) => sum + entry.transferSize, 0)")
        browser.close()
    return paint / 1000, sent


def resident_bytes(process: subprocess.Popen) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(rows: int, spt_python: str | None) -> Iterator[dict[str, Any]]:
    """Yields a row for each viewer."""
    with tempfile.TemporaryDirectory() as temporary:
        run, others = write_run(rows, Path(temporary) / "run"), Path(temporary) / "spt"
        commands = {"infomax": [sys.executable, "-m", "infomax", "watch", str(run), "--serve", "--port"]}
        if spt_python is not None:
            writer = [spt_python, "-c", SPT_WRITER, str(run / "metrics.jsonl"), str(others)]
            subprocess.run(writer, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            commands["spt"] = [str(Path(spt_python).with_name("spt")), "web", str(others), "--port"]
        measured: dict[str, list[tuple[float, float, int, int]]] = {name: [] for name in commands}
        for _ in range(TURNS):
            for name, command in commands.items():
                port = free_port()
                with served([*command, str(port)], port) as (answer, process):
                    measured[name].append((answer, *open_page(port), resident_bytes(process)))
        for name, turns in measured.items():
            answers, paints, sent, memory = (median(values) for values in zip(*turns, strict=True))
            yield {
                "viewer": name,
                "rows": rows,
                "first_answer": answers,
                "first_paint": paints,
                "bytes": sent,
                "memory": memory,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spt-python", metavar="PYTHON")
    options = parser.parse_args()
    result: dict[str, Any] = {**provenance(), "command": "python benchmarks/watch.py --spt-python PYTHON"}
    result |= {"load": os.getloadavg()[0], "turns": TURNS, "rows": []}
    if options.spt_python is not None:
        code = "import importlib.metadata as m; print(m.version('stable-pretraining'))"
        result["spt"] = subprocess.check_output([options.spt_python, "-c", code], text=True).strip()
    for size in SIZES:
        for row in measure(size, options.spt_python):
            print(json.dumps(row), flush=True)
            result["rows"].append(row)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
