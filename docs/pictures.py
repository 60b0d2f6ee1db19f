"""Makes the pictures of docs/guide/first-photographs.md from a real run: python docs/pictures.py FOLDER [--reuse]

FOLDER holds photos/ and labelled/ and new/, as that page says. The commands of the page are run there, in their order,
and what they print is written to FOLDER/printed.txt, for the page's text. --reuse takes the results that are there. The
pages of HTML are photographed by the Chromium that is installed; the pictures go to docs/pictures/, below 150 kB each.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
PAGE = DOCS / "guide" / "first-photographs.md"
MOST_BYTES = 150_000
WIDTH = 1100  # pixels of a picture, at most
WINDOWS = {"photos-report": (1100, 1230), "like-this": (1100, 760), "labels": (1100, 1150)}
"""Width and height of the window in which each page is photographed, in pixels."""
COPIED = {"views.png": (0, 0, 1.0, 0.62), "clothes-test/confusion.png": (0, 0, 1.0, 1.0)}
"""Pictures that a command writes, and the part that is shown: left, top, right and bottom as shares."""


def commands() -> list[list[str]]:
    """Returns the words of each command of the page, in their order, without those that show what goes on meanwhile."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    lines = [line.partition("#")[0].split() for block in blocks for line in block.splitlines()]
    return [words for words in lines if words[:1] in (["infomax"], ["cp"]) and words[1:2] != ["watch"]]


def run(folder: Path) -> None:
    """Runs the commands in the folder, and keeps what they print."""
    with (folder / "printed.txt").open("w") as printed:
        for words in commands():
            command = words if words[0] == "cp" else [sys.executable, "-m", *words]
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            printed.write(f"$ {' '.join(words)}\n{done.stdout}\n")
            if done.returncode:
                sys.exit(f"{' '.join(words)} failed: {done.stdout}")


def photograph(page: Path, size: tuple[int, int]) -> Image.Image:
    """Returns what Chromium shows of a page, in light colours."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
        window = f"--window-size={size[0]},{size[1]}"
        command = [browser, *options, window, f"--screenshot={picture}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        return Image.open(picture).convert("RGB")


def keep(image: Image.Image, name: str) -> None:
    """Writes a picture as WebP, as good as it can be below the limit."""
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    file = DOCS / "pictures" / f"{name}.webp"
    for quality in (85, 75, 65, 50):
        image.save(file, quality=quality, method=6)
        if file.stat().st_size < MOST_BYTES:
            return
    sys.exit(f"{file} is larger than {MOST_BYTES:,} bytes")


def main(folder: Path, *, reuse: bool) -> None:
    """Makes all pictures."""
    if not reuse:
        run(folder)
    for name, window in WINDOWS.items():
        keep(photograph(folder / f"{name}.html", window), name.removeprefix("photos-"))
    for name, (left, top, right, bottom) in COPIED.items():
        with Image.open(folder / name) as image:
            width, height = image.size
            box = (int(left * width), int(top * height), int(right * width), int(bottom * height))
            keep(image.convert("RGB").crop(box), Path(name).stem)


if __name__ == "__main__":
    main(Path(sys.argv[1]), reuse="--reuse" in sys.argv)
