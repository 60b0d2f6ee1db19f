"""Measures how embeddings and features of healthy trainings move in their first steps, and where they end.

python benchmarks/first_steps.py           the four papers' methods, three seeds each: ten minutes of one core
python benchmarks/first_steps.py --toy     one method for two epochs, to see that it works

The runs are those of the recipes ``digits`` on the embedded digits, at full length. What is kept is what a run measures
of itself (``metrics.jsonl``): the mean cosine of different images' embeddings and of their features, and the mean
cosine of the embeddings of two views of an image. ``python docs/results.py tables`` writes the tables of
docs/guide/is-it-learning.md from docs/results/first_steps.json; README's numbers are compared with it by a test.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "docs" / "results" / "first_steps.json"
METHODS = ("mira", "corinfomax", "carl", "mveb")
SEEDS = 3
KEYS = ("embedding_mean_cosine", "feature_mean_cosine")


def measure(method: str, seed: int, folder: Path, *, epochs: int | None) -> dict[str, Any]:
    """Trains a method on the digits, and returns its cosines by the step that they were measured after."""
    import infomax

    options: dict[str, Any] = {"data": "digits", "method": method, "recipe": "digits", "epochs": epochs, "seed": seed}
    run = infomax.pretrain(**options, device="cpu", workers=0, log=["none"], quiet=True, out=folder)
    rows = [row for row in run.read_rows("metrics.jsonl") if "embedding_mean_cosine" in row]
    cosines: dict[str, list[Any]] = {"step": [row["step"] for row in rows]}
    cosines |= {key: [round(row[key], 4) for row in rows] for key in KEYS}
    # What is measured is the squared distance of unit vectors, 2 - 2 cosine.
    cosines["views_mean_cosine"] = [round(1 - row["embedding_alignment"] / 2, 4) for row in rows]
    return {"method": method, "seed": seed, **cosines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from infomax.runs.provenance import provenance

    result: dict[str, Any] = {**provenance(), "command": "python benchmarks/first_steps.py", "rows": []}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(1 if args.toy else SEEDS):
            for method in METHODS[:1] if args.toy else METHODS:
                row = measure(method, seed, Path(temporary) / f"{method}-{seed}", epochs=2 if args.toy else None)
                print(f"{method}, seed {seed}: {row}", flush=True)
                result["rows"].append(row)
    if not args.toy:
        OUT.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
