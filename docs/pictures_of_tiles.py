"""Makes the picture of docs/guide/images-that-are-not-rgb.md: python docs/pictures_of_tiles.py FOLDER

The tiles are drawn by tests/deep_files.py into FOLDER/tiles, and the commands of the page's first part are run there;
what they print is written to FOLDER/printed.txt, for the page's text. The picture is the run's views.png.
"""

import subprocess
import sys
from pathlib import Path

from pictures import DOCS, keep
from PIL import Image

SHOWN_SHARE = 0.3  # of the picture, from its top
sys.path.insert(0, str(DOCS.parent / "tests"))
COMMANDS = (
    "infomax pretrain --data tiles/ --out runs/a --epochs 10 --show 3,2,1",
    "infomax embed runs/a --data tiles/ --out tiles.npz",
)


def main(folder: Path) -> None:
    """Draws the tiles, trains on them and keeps the picture of the views."""
    from deep_files import make_tiles

    make_tiles(folder / "tiles", count=200, side=64)
    with (folder / "printed.txt").open("w") as printed:
        for words in COMMANDS:
            done = subprocess.run(
                [sys.executable, "-m", *words.split()],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            printed.write(f"$ {words}\n{done.stdout}\n")
            if done.returncode:
                sys.exit(f"{words} failed: {done.stdout}")
    with Image.open(folder / "runs" / "a" / "views.png") as image:
        keep(image.convert("RGB").crop((0, 0, image.width, int(SHOWN_SHARE * image.height))), "tiles")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
