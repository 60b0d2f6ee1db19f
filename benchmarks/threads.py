"""Measures training on an idle machine, on a busy one and under quotas. Writes docs/results/threads.json.

python benchmarks/threads.py            12 minutes, as root, on a Linux machine of two cores that does nothing else
python benchmarks/threads.py --quick    one short turn of each, to see that it works

Processes of `infomax pretrain` with several settings stand still but for one, which makes steps for some seconds; then
it is the next one's turn. Quotas are those of control groups below the first one, which only root can make; without
them, idle and busy machine are measured alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from infomax.runs.provenance import provenance
from infomax.runtime.threads import available_cores, core_count, set_thread_variables

OUT = Path(__file__).parents[1] / "docs" / "results" / "threads.json"
GROUPS = Path("/sys/fs/cgroup")
LIBGOMPS_OWN = 300_000  # turns for which GNU's OpenMP spins if no variable says otherwise: some milliseconds
BATCH = 128  # images of a step, as the recipes have it
PERIOD = 100_000  # microseconds for which a quota holds
WARM_UP = 0.7  # seconds at the beginning of each turn that do not count
PREFETCHED = 2  # steps whose images workers have read before a turn
LEAST = 2  # steps of a turn that count
QUOTAS = {"half a core": 0.5, "one core": 1.0, "two cores": 2.0}
IDLE, BUSY = "idle", "two busy loops"
SECONDS = {IDLE: 3.0, BUSY: 3.0, "half a core": 2.0, "one core": 1.3, "two cores": 1.0}
"""How long a turn takes at least."""


@dataclass(frozen=True)
class Setting:
    """What somebody may set by hand; None leaves it to infomax."""

    threads: int | None = None
    spins: int | None = None
    workers: int | None = None

    @property
    def words(self) -> list[str]:
        return [] if self.workers is None else ["--workers", str(self.workers)]

    @property
    def variables(self) -> dict[str, str]:
        values = {"OMP_NUM_THREADS": self.threads, "GOMP_SPINCOUNT": self.spins}
        return {name: str(value) for name, value in values.items() if value is not None}


@dataclass
class Group:
    """A control group, whose quota can be changed at any time."""

    path: Path

    def limit(self, cores: float) -> None:
        """Sets the quota in cores; infinity is none."""
        quota = -1 if cores == inf else int(cores * PERIOD)
        if (self.path / "cpu.max").exists():
            (self.path / "cpu.max").write_text(f"{'max' if quota < 0 else quota} {PERIOD}")
        else:
            (self.path / "cpu.cfs_quota_us").write_text(str(quota))


@contextmanager
def control_group(number: int) -> Iterator[Group | None]:
    """Makes a control group, of version 1 or 2; yields None if this process may not."""
    first = GROUPS / "cpu" if (GROUPS / "cpu" / "cpu.cfs_quota_us").exists() else GROUPS
    group = first / f"infomax-benchmark-{os.getpid()}-{number}"
    try:
        if first == GROUPS:
            (first / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        yield Group(group)
    finally:
        for _ in range(100):  # the last of its processes may be about to end
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


@dataclass
class Contestant:
    """A process that trains when it is told to."""

    setting: Setting
    quota: float
    group: Group | None
    process: subprocess.Popen
    orders: Any
    answers: Any
    variables: dict[str, str]
    rates: dict[str, list[float]] = field(default_factory=dict)

    def take_turn(self, seconds: float, quota: float) -> float:
        """Returns the steps per second under a quota."""
        if self.group is not None:
            self.group.limit(quota)
        print(seconds, file=self.orders, flush=True)
        rate = float(self.answers.readline())
        if self.group is not None:
            self.group.limit(inf)
        return rate


@contextmanager
def started(number: int, words: list[str], setting: Setting, quota: float) -> Iterator[Contestant]:
    """Starts a process, which sees the quota when it chooses its threads; the start itself is then spared it."""
    with tempfile.TemporaryDirectory() as folder, control_group(number) as group, ExitStack() as files:
        if group is not None:
            group.limit(quota)
        ends = [end for _ in range(2) for end in os.pipe()]
        theirs, mine = (ends[0], ends[3]), (ends[1], ends[2])
        variables = {name: x for name, x in os.environ.items() if name not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
        command = [sys.executable, "-W", "ignore", __file__, "--child", *map(str, theirs), "--"]
        process = subprocess.Popen(
            [*command, "pretrain", *words, *setting.words, "--epochs", "1000000", "--quiet", "--out", f"{folder}/run"],
            env={**variables, **setting.variables},
            pass_fds=theirs,
            preexec_fn=lambda: group and (group.path / "cgroup.procs").write_text(str(os.getpid())),
            start_new_session=True,
        )
        for end in theirs:
            os.close(end)
        orders, answers = files.enter_context(open(mine[0], "w")), files.enter_context(open(mine[1]))
        chosen = json.loads(answers.readline())
        if group is not None:
            group.limit(inf)
        try:
            yield Contestant(setting, quota, group, process, orders, answers, chosen)
        finally:
            process.kill()  # its workers end by themselves
            process.wait()


def child(orders: Any, answers: Any, words: list[str]) -> None:
    """Is a contestant: chooses threads and workers as the command does, and makes steps when it is told to."""
    set_thread_variables()
    names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    chosen = {name: os.environ[name] for name in names if name in os.environ}
    print(json.dumps({**chosen, "cores": available_cores()}), file=answers, flush=True)

    from infomax.cli import main as command
    from infomax.runtime.resumable_loop import ResumableLoop

    step_done, seconds, start = ResumableLoop.step_done, 0.0, time.perf_counter()
    ends: list[float] = []  # of the steps since the warm-up
    steps = 0

    def counted(loop: ResumableLoop) -> None:
        nonlocal seconds, start, steps
        step_done(loop)
        now, steps = time.perf_counter(), steps + 1
        if steps >= PREFETCHED and now >= start + WARM_UP:
            ends.append(now)
        if len(ends) > LEAST and now >= ends[0] + seconds:
            print((len(ends) - 1) / (now - ends[0]), file=answers, flush=True)
            seconds, start = float(orders.readline() or sys.exit()), time.perf_counter()
            steps = 0
            ends.clear()

    ResumableLoop.step_done = counted
    sys.argv = ["infomax", *words]
    command()


def photograph(side: int, random: np.random.Generator) -> Image.Image:
    """Returns an image with structure of all sizes, as photographs have it."""
    total = np.zeros((side, side, 3))
    for cells in (2, 4, 8, 16, 32):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float64) / cells
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def make_photographs(folder: Path) -> tuple[Path, Path]:
    """Writes photographs of 32 pixels as one array, and of 128 pixels as JPEG files."""
    random = np.random.default_rng(0)
    array, files = folder / "photographs.npz", folder / "photographs"
    np.savez(array, images=np.stack([np.asarray(photograph(32, random)) for _ in range(2048)]))
    files.mkdir()
    for number in range(512):
        photograph(128, random).save(files / f"{number:04}.jpg", quality=90)
    return array, files


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keeps cores busy until the block ends."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def settings_by_hand(cores: int, with_workers: bool) -> list[Setting]:
    """Returns a small grid of what somebody could set; the first one is what held before infomax chose."""
    before = Setting(cores, LIBGOMPS_OWN, cores if with_workers else None)
    if with_workers:
        counts = ((cores, 0, cores), (cores, 0, 1), (1, 0, cores), (1, 0, 1), (1, 0, 0))
        return [before, *(Setting(*x) for x in counts)]
    return [before, Setting(cores, 1_000), Setting(cores, 10_000), Setting(cores, 0), Setting(1, 0)]


def measure(name: str, words: list[str], *, turns: int, share: float) -> Iterator[dict[str, Any]]:
    """Yields images per second of each setting in each condition.

    Args:
        name: What is trained on.
        words: The options of ``infomax pretrain``.
        turns: Turns of each setting.
        share: Factor on the seconds of each turn.
    """
    hand = settings_by_hand(core_count(), name == "files")
    with ExitStack() as stack:
        entrants = [(setting, inf) for setting in hand] + [(Setting(), quota) for quota in (inf, *QUOTAS.values())]
        contestants = [stack.enter_context(started(i, words, *entrant)) for i, entrant in enumerate(entrants)]
        has_groups = all(contestant.group is not None for contestant in contestants)
        conditions = {IDLE: inf, BUSY: inf, **(QUOTAS if has_groups else {})}
        for contestant in contestants:
            contestant.answers.readline()  # the first steps are made
        for turn in range(turns):
            for condition, quota in conditions.items():
                taking_part = [x for x in contestants if x.setting != Setting() or x.quota == quota]
                with busy_loops(2 if condition == BUSY else 0):
                    for contestant in taking_part[:: -1 if turn % 2 else 1]:
                        rate = contestant.take_turn(share * SECONDS[condition], quota)
                        contestant.rates.setdefault(condition, []).append(rate)
        for condition in conditions:
            for contestant in (x for x in contestants if condition in x.rates):
                setting, rates = contestant.setting, [BATCH * rate for rate in contestant.rates[condition]]
                kind = "after" if setting == Setting() else "before" if setting == hand[0] else "by hand"
                row = {"data": name, "condition": condition, "kind": kind, **vars(setting)}
                low, high = min(rates), max(rates)
                yield {**row, "chosen": contestant.variables, "images_per_second": median(rates), "range": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="digits,photographs,files", help="some of these")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    args, begin, rows = parser.parse_args(), time.perf_counter(), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that control groups and processes end with this one
    turns, share = (1, 0.2) if args.quick else (args.turns, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        array, files = make_photographs(Path(folder))
        small = ["--recipe", "small", "--batch-size", str(BATCH)]
        workloads = {
            "digits": ["--data", "digits", "--batch-size", str(BATCH)],
            "photographs": ["--data", str(array), *small],
            "files": ["--data", str(files), *small, "--keep-decoded", "off"],
        }
        for name in args.only.split(","):
            for row in measure(name, workloads[name], turns=turns, share=share):
                print(json.dumps(row), flush=True)
                rows.append(row)
    result = {**provenance(), "turns": turns, "seconds": time.perf_counter() - begin, "rows": rows}
    if not args.quick:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        with open(int(sys.argv[2])) as orders, open(int(sys.argv[3]), "w") as answers:
            child(orders, answers, sys.argv[5:])
    else:
        main()
