"""Times a new machine: from `git clone` to infomax's first line and its first picture.

python benchmarks/clone.py ADDRESS

It types what README says, in an empty folder with empty caches: `git clone ADDRESS`, `pip install uv` in a new virtual
environment, `uv run infomax demo`, which is ended once it has drawn the views of its first training. All it needs is
Python and git, so that it runs where there is nothing else, as in a new container. The bytes are those that the
machine's network received meanwhile: let nothing else download. Writes docs/results/clone.json; it takes 7 GB on the
disk for some minutes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "docs" / "results" / "clone.json"
NETWORK = Path("/proc/net/dev")
PROVENANCE = "import json; from infomax.runs.provenance import provenance; print(json.dumps(provenance()))"
CACHES = ("UV_CACHE_DIR", "PIP_CACHE_DIR", "XDG_CACHE_HOME")


def received_bytes() -> int | None:
    """Returns the bytes that all interfaces but the loopback have received, or None if the system does not tell."""
    if not NETWORK.is_file():
        return None
    interfaces = re.findall(r"^\s*(\S+):\s*(\d+)", NETWORK.read_text(), re.M)
    return sum(int(count) for name, count in interfaces if name != "lo")


def bytes_below(folder: Path) -> int:
    """Returns the bytes of the files in a folder; one with several names is counted once."""
    files = {status.st_ino: status.st_size for path in folder.rglob("*") if (status := path.lstat())}
    return sum(files.values())


class NewMachine:
    """A NewMachine object types commands in an empty folder, and notes when something appeared for the first time."""

    def __init__(self, folder: Path):
        self.folder, self.events = folder, []
        self.environment = {**os.environ, **{name: str(folder / name.lower()) for name in CACHES}}
        self.start, self.received = time.perf_counter(), received_bytes()

    def note(self, name: str) -> None:
        """Notes an event: seconds and bytes since the start."""
        now = received_bytes()
        received = None if now is None or self.received is None else now - self.received
        self.events.append({"name": name, "seconds": time.perf_counter() - self.start, "received_bytes": received})
        print(self.events[-1], flush=True)

    def type(self, *words: str, cwd: Path) -> Iterator[str]:
        """Runs a command, and yields again and again what it has printed so far; it ends if nobody asks for more."""
        with tempfile.TemporaryFile("w+b") as file:
            process = subprocess.Popen(words, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, env=self.environment)
            try:
                running = True
                while running:
                    running = process.poll() is None
                    yield (printed := os.pread(file.fileno(), 2**20, 0).decode(errors="replace"))
                    time.sleep(0.02)
            finally:
                process.terminate()
                process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: exit code {process.returncode}\n{printed[-2000:]}")


def measure(machine: NewMachine, address: str) -> dict[str, Any]:
    """Returns the events from `git clone` to the picture, and what lies on the disk then."""
    clone, tools = machine.folder / "infomax", machine.folder / "tools"
    for _ in machine.type("git", "clone", address, str(clone), cwd=machine.folder):
        pass
    machine.note("git clone")
    cloned = bytes_below(clone)
    for words in ((sys.executable, "-m", "venv", str(tools)), (str(tools / "bin" / "pip"), "install", "uv")):
        for _ in machine.type(*words, cwd=clone):
            pass
    machine.note("pip install uv")
    signs = {"uv's first line": r"\n", "infomax's first line": r"^infomax: "}
    for printed in machine.type(str(tools / "bin" / "uv"), "run", "infomax", "demo", cwd=clone):
        for name in [name for name, sign in signs.items() if re.search(sign, printed, re.M)]:
            machine.note(name)
            del signs[name]
        if next((clone / "runs").glob("**/views.png"), None):
            machine.note("its first picture, of the views that it trains on")
            break
    made = json.loads(
        subprocess.run(
            [clone / ".venv" / "bin" / "python", "-c", PROVENANCE], cwd=clone, capture_output=True, check=True
        ).stdout
    )
    disk = {"clone": cloned, "environment": bytes_below(clone / ".venv"), "all": bytes_below(machine.folder)}
    return {**made, "events": machine.events, "disk_bytes": disk}


def main() -> None:
    (address,) = sys.argv[1:]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        result = {**measure(NewMachine(Path(folder)), address), "command": "python benchmarks/clone.py", "load": load}
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
