"""Makes the figure of each page in docs/methods/ from real runs on digits: python docs/pictures_of_methods.py FOLDER

The commands under "On digits" of a page are run in a folder of its name in FOLDER, half an hour of two cores in all.
What is there is not computed again, and what they print is written to printed.txt beside it.
"""

import re
import subprocess
import sys
from pathlib import Path

from pictures import DOCS, keep
from PIL import Image

METHODS = ("mira", "corinfomax", "carl", "mveb")


def commands(method: str) -> list[list[str]]:
    """Returns the words of each command under "On digits" of a method's page."""
    section = re.search(r"^## On digits\n(.*?)^## ", (DOCS / "methods" / f"{method}.md").read_text(), re.M | re.S)
    block = section and re.search(r"^```bash\n(.*?)^```", section[1], re.M | re.S)
    if not block:
        sys.exit(f'docs/methods/{method}.md has no commands under "On digits"')
    return [line.split() for line in block[1].splitlines()]


def run(words: list[str], folder: Path) -> None:
    """Runs a command in a folder, and keeps what it prints; a run that is there goes on."""
    resumed = ["--resume"] if words[1] == "pretrain" and (folder / words[words.index("--out") + 1]).exists() else []
    with (folder / "printed.txt").open("a") as printed:
        printed.write(f"$ {' '.join(words)}\n")
        printed.flush()
        subprocess.run([sys.executable, "-m", *words, *resumed], cwd=folder, stdout=printed, stderr=printed, check=True)


def main(folder: Path) -> None:
    """Makes all figures."""
    for method in METHODS:
        of_method = folder / method
        of_method.mkdir(parents=True, exist_ok=True)
        for words in commands(method):
            run(words, of_method)
        with Image.open(of_method / f"{method}.png") as image:
            keep(image.convert("RGB"), method)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
