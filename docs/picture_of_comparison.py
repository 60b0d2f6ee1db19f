"""Makes the figure of docs/measurements/comparison.md: python docs/picture_of_comparison.py

It shows docs/results/comparison.json: a panel for each set of images, a line for each method, a mark for each seed. The
methods of the four papers stand in bold.
"""

import io
import sys
from typing import Any

import matplotlib.pyplot as plt
from pictures import keep
from PIL import Image
from result_tables.compared import comparisons
from result_tables.kept import LOSSES

from infomax.figures.drawing import COLOURS

BUDGETS = {"images": "equal images", "time": "equal time"}


def first_scores(method: dict[str, Any]) -> list[float]:
    """Returns the scores of a method's seeds that rank it, in per cent."""
    return next(iter(method["scores"].values()), [])


def draw() -> Image.Image:
    """Returns the figure."""
    kept = comparisons()
    if not kept:
        sys.exit("docs/results/comparison.json has no comparison yet: benchmarks/comparison.py makes it")
    ranks: dict[str, list[int]] = {}
    for budgets in kept.values():
        for place, method in enumerate(budgets["images"]["methods"]):
            ranks.setdefault(method["method"], []).append(place)
    order = sorted(ranks, key=lambda name: -sum(ranks[name]) / len(ranks[name]))  # the best is drawn at the top
    figure, panels = plt.subplots(1, len(kept), figsize=(3.6 * len(kept) + 1, 7), sharey=True, squeeze=False)
    for axes, (data, budgets) in zip(panels[0], kept.items(), strict=True):
        for (budget, words), colour, shift in zip(BUDGETS.items(), COLOURS, (0.15, -0.15), strict=False):
            methods = budgets.get(budget, {"methods": []})["methods"]
            points = [(score, order.index(m["method"]) + shift) for m in methods for score in first_scores(m)]
            places, heights = zip(*points, strict=True) if points else ((), ())
            axes.plot(places, heights, "o", color=colour, markersize=4, alpha=0.8, label=words)
        for (name, scores), style in zip(budgets["images"]["baselines"].items(), ("--", ":"), strict=False):
            axes.axvline(next(iter(scores.values())), color="0.4", linestyle=style, linewidth=1, label=name)
        axes.set_title(data)
        axes.set_xlabel("k-NN, top-1, %")
        axes.grid(axis="y", color="0.9")
    panels[0][0].set_yticks(range(len(order)), order)
    for label in panels[0][0].get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in LOSSES else "normal")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    file = io.BytesIO()
    figure.savefig(file, dpi=110)
    return Image.open(file).convert("RGB")


if __name__ == "__main__":
    keep(draw(), "comparison")
