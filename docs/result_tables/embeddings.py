"""Tables of embeddings and of the pages made from them."""

from collections.abc import Callable
from statistics import median
from typing import Any

from result_tables.kept import MEASUREMENTS, NOT_MEASURED, made_by, markdown, read, where

from infomax.data.splits import counted


def embeddings(part: str) -> dict[str, Any] | None:
    """Returns what is kept of a part of benchmarks/embeddings.py; None if it was not measured yet."""
    return (read("embeddings.json") or {}).get(part)


def embed_throughput_table() -> str:
    kept = embeddings("throughput")
    if kept is None:
        return NOT_MEASURED
    others, rows = ["timm", "lightly-train", "encoder alone"], []
    for row in kept["rows"]:
        rates = row["rates"]
        cells = [f"{median(rates['infomax']):,.0f}"]
        for name in others:
            cells.append(f"{median(rates[name]):,.0f}" if name in rates else "")
        for name in others:
            cells.append(f"{times_faster(rates['infomax'], rates[name]):.2f}" if name in rates else "")
        rows.append([f"{row['encoder']}, {row['images']:,} JPEGs of {row['files']}", *cells])
    header = ["images/s", "infomax", *others, *(f"infomax / {name}" for name in others)]
    difference = max(row["largest_difference"] for row in kept["rows"])
    return (
        f"{markdown(header, rows)}\n\nMedians of {counted(len(kept['rows'][0]['rates']['infomax']), 'turn')}, and of "
        f"the ratios within a turn. Our features differ from those of timm's loop by at most {difference:.0e} of the "
        f"largest one. {made_by(kept)}"
    )


def times_faster(ours: list[float], others: list[float]) -> float:
    """Returns the median of the ratios of two rates within a turn."""
    return median(a / b for a, b in zip(ours, others, strict=True))


def search_table() -> str:
    kept = embeddings("search")
    if kept is None:
        return NOT_MEASURED
    (row,) = kept["rows"]
    seconds = {name: median(row["seconds"][name]) for name in ("infomax", "faiss")}
    sizes = f"{row['queries']:,} queries among {row['bank']:,} x {row['dimension']}, {row['k']} neighbours"
    cells = [f"{seconds['infomax']:.1f}", f"{seconds['faiss']:.1f}", f"{seconds['faiss'] / seconds['infomax']:.2f}"]
    header = ["processor time in seconds, one core", "infomax", "faiss IndexFlatIP", "times faster"]
    return (
        f"{markdown(header, [[sizes, *cells]])}\n\nFrom features in float16 to neighbours. "
        f"{100 * row['same_rows']:.2f} % of the neighbours are the same rows in the same order, and cosines differ by "
        f"at most {row['largest_difference']:.0e}: the rest are equal up to rounding. {made_by(kept)}"
    )


def duplicates_table() -> str:
    kept = embeddings("duplicates")
    if kept is None:
        return NOT_MEASURED
    (row,) = kept["rows"]
    right = "exactly those that were put there" if row["as_planted"] else "not those that were put there"
    return (
        f"Among {row['images']:,} x {row['dimension']} features, {row['groups']:,} groups, {right}, in "
        f"{median(row['seconds']):.1f} s on {counted(row['threads'], 'core')}. {made_by(kept)}"
    )


def embed_memory_table() -> str:
    kept = embeddings("memory")
    if kept is None:
        return NOT_MEASURED
    rows = [[f"{row['images']:,}", f"{row['bytes'] / 1e6:,.0f}", f"{row['seconds']:,.0f}"] for row in kept["rows"]]
    first, last = kept["rows"][0], kept["rows"][-1]
    slope = (last["bytes"] - first["bytes"]) / (last["images"] - first["images"])
    return (
        f"{markdown(['images of 8 pixels', 'MB at the peak', 'seconds'], rows)}\n\n{slope:,.0f} bytes more for an "
        f"image more. {made_by(kept)}"
    )


def page_table() -> str:
    kept = embeddings("page")
    if kept is None:
        return NOT_MEASURED
    (row,) = kept["rows"]
    seconds = {name: median(times) for name, times in row["seconds"].items()}
    return (
        f"Of {row['images']:,} JPEGs of {row['files']} by the encoder `{row['encoder']}`: `infomax embed` "
        f"{seconds['embed']:.1f} s, `infomax search --out like.html` {seconds['search']:.1f} s. {made_by(kept)}"
    )


def pages(part: str, header: list[str], cells: Callable[[dict[str, Any]], list[str]]) -> str:
    """Returns the table of a part of benchmarks/pages.py, and where it was measured."""
    kept = (read("pages.json") or {}).get(part)
    if kept is None:
        return NOT_MEASURED
    rows = [[f"{row['images']:,}", *cells(row)] for row in kept["rows"]]
    return (
        f"{markdown(['images', *header], rows)}\n\nMeasured by `{kept['command']}` on {where(kept)}; other programs "
        f"gave the machine a load of {kept['load']:.1f} before."
    )


def map_file_table() -> str:
    header = [
        "layout, s",
        "of a core, s",
        "pictures, s",
        "page, s",
        "page, MB",
        "memory, layout, MB",
        "memory, MB",
        "kept, %",
    ]
    return pages(
        "file",
        header,
        lambda row: [
            f"{row['layout_seconds']:.0f}",
            f"{row['layout_processor_seconds']:.0f}",
            f"{row['atlas_seconds']:.1f}",
            f"{row['page_seconds']:.1f}",
            f"{row['bytes'] / 1e6:.1f}",
            *(f"{row[name] / 1e6:,.0f}" for name in ("layout_memory", "memory")),
            f"{100 * row['kept_neighbours']:.0f}",
        ],
    )


def map_browser_table() -> str:
    header = [
        "first paint, s",
        "map, s",
        "hover, ms",
        "of 95 %, ms",
        "to the frame, ms",
        "frames/s",
        "drawn, %",
        "without WebGL",
    ]
    return pages(
        "browser",
        header,
        lambda row: [
            *(f"{row[name]:.2f}" for name in ("first_paint", "map_ready")),
            *(f"{1000 * row[name]:.1f}" for name in ("hover", "slow_hover", "hover_to_frame")),
            f"{row['frames_per_second']:.0f}",
            f"{100 * row['share']:.0f}",
            f"{row['plain_frames_per_second']:.0f}",
        ],
    )


def map_projector_table() -> str:
    return pages("projector", ["s", "MB"], lambda row: [f"{row['seconds']:.1f}", f"{row['bytes'] / 1e6:,.1f}"])


def watch_table() -> str:
    kept = read("watch.json")
    if kept is None:
        return NOT_MEASURED
    names = {"infomax": "infomax watch --serve", "spt": f"spt web {kept.get('spt', '')}".rstrip()}
    rows = [
        [
            f"{row['rows']:,}",
            names[row["viewer"]],
            f"{row['first_answer']:.1f}",
            f"{row['first_paint']:.2f}",
            f"{row['bytes'] / 1e3:,.0f}",
            f"{row['memory'] / 1e6:,.0f}",
        ]
        for row in kept["rows"]
    ]
    return (
        f"{markdown(['rows', 'viewer', 'first answer, s', 'first paint, s', 'kB', 'memory, MB'], rows)}\n\nMedians of "
        f"{counted(kept['turns'], 'turn')}, one viewer after the other. Measured by `{kept['command']}` on "
        f"{where(kept)}."
    )


TABLES = {
    "embed-throughput": (MEASUREMENTS / "embeddings.md", embed_throughput_table),
    "search": (MEASUREMENTS / "embeddings.md", search_table),
    "duplicates": (MEASUREMENTS / "embeddings.md", duplicates_table),
    "embed-memory": (MEASUREMENTS / "embeddings.md", embed_memory_table),
    "map-file": (MEASUREMENTS / "pages.md", map_file_table),
    "map-browser": (MEASUREMENTS / "pages.md", map_browser_table),
    "map-projector": (MEASUREMENTS / "pages.md", map_projector_table),
    "watch": (MEASUREMENTS / "pages.md", watch_table),
    "like-this-one": (MEASUREMENTS / "embeddings.md", page_table),
}
