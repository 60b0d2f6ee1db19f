"""Charts as SVG in a page: curves, bars, and confusion matrices, each with its numbers as a table.

A chart has no size of its own. What must not be stretched, as text and markers, stands at percentages; curves are
paths in a square of :data:`GRID` units that is stretched. Scripts add a crosshair and let curves be hidden.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infomax.reporting.pages.axes import Axis, format_number, linear_axis, log_axis
from infomax.reporting.pages.blocks import LONG, table_lines
from infomax.reporting.pages.page import Ids, json_block, safe
from infomax.reporting.pages.thinning import STRETCHES, kept_points
from infomax.reporting.tables import EMPTY, Cell, Table, make_table

GRID = 10_000
STYLES = 8
"""Number of colours, of dash patterns and of markers."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 1 2 1 2", "1 2", "12 3 5 3")
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.5-3.5h7v7h-7z",
    "M0-4.5L4.5 3.5h-9z",
    "M0-5L5 0L0 5L-5 0z",
    "M0 4.5L4.5-3.5h-9z",
    "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "M-4.5-2.4L-2.4-4.5L0-2.1L2.4-4.5L4.5-2.4L2.1 0L4.5 2.4L2.4 4.5L0 2.1L-2.4 4.5L-4.5 2.4L-2.1 0z",
    "M0-5L1.4-1.6L5-1.5L2.2.7L3.1 4.2L0 2.2L-3.1 4.2L-2.2.7L-5-1.5L-1.4-1.6z",
)
"""Shapes of at most 10 pixels around 0: circle, square, triangles, diamond, plus, cross and star."""
MARKERS_OF_A_CURVE = 7
"""Markers of a curve of many points; of 12 or fewer each has one."""
TABLE_ROWS = 240
"""Rows of the table behind a chart, about."""
MANY_BARS = 40
"""Bars from which on they stand side by side, without their names."""
MAX_COLUMNS = 600
"""Bars that are drawn side by side."""
MAX_CLASSES = 60
"""Rows and columns of a matrix that are shown."""
SHADES = 8
"""Shades of a matrix's cells."""


@dataclass(frozen=True)
class Curve:
    """A frozen dataclass that holds a curve, and perhaps a band around it.

    Raises:
        ValueError: if its numbers are not equally many.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    """None or NaN is a gap."""
    style: int = 0
    """Number of a colour, a dash pattern and a marker, as that of the run."""
    low: Sequence[float | None] | None = None
    """Lower edge of a band around the curve; None if it has none."""
    high: Sequence[float | None] | None = None
    """Upper edge of the band."""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"the band of curve {self.name} needs both a lower and an upper edge")
        lengths = {len(array) for array in (self.x, self.y, self.low, self.high) if array is not None}
        if len(lengths) > 1:
            raise ValueError(f"curve {self.name} has not one value for each x: {sorted(lengths)} numbers")


@dataclass(frozen=True)
class _Drawn:
    """A frozen dataclass that holds a curve as arrays in ascending order, and which of its points are drawn."""

    curve: Curve
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kept: np.ndarray
    """Indices."""

    @property
    def symbol(self) -> int:
        """Returns the number of its dash pattern and marker, which repeat later than the colour."""
        return (self.curve.style + self.curve.style // STYLES) % STYLES


@dataclass(frozen=True)
class LineChart:
    """A frozen dataclass that draws curves over a common axis."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_y: bool = False
    caption: str = ""
    digits: int = 3
    """Significant digits of values."""
    log_x: bool = False
    """Whether the places along the x axis, all above 0, are drawn by their logarithm."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return ("charts.css", "charts.js")

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        drawn = [_prepare(curve) for curve in self.curves]
        heights = np.concatenate([np.zeros(0), *(array for d in drawn for array in (d.y, d.low, d.high))])
        places = np.concatenate([np.zeros(0), *(d.x for d in drawn)])
        x_axis = log_axis(places) if self.log_x else linear_axis(places, count=6)
        y_axis = log_axis(heights) if self.log_y else linear_axis(heights, pad=0.05)
        title = ids.new("title")
        yield f'<figure class="chart" data-chart aria-labelledby="{title}">\n<h3 id="{title}">{safe(self.title)}</h3>'
        if len(drawn) > 1:
            yield from _legend(drawn)
        names = ", ".join(curve.name for curve in self.curves)
        alt = f"{self.y_label} over {self.x_label}, {len(drawn)} {'curve' if len(drawn) == 1 else 'curves'}: {names}"
        yield from _frame(x_axis, y_axis, self.x_label, self.y_label, alt, _curves(drawn, x_axis, y_axis, ids))
        yield from _captions((self.caption, *self._notes(drawn)))
        yield from _data_table(self._table(drawn))
        yield json_block(ids.new("data"), self._data(drawn, x_axis, y_axis))
        yield "</figure>"

    def _notes(self, drawn: Sequence[_Drawn]) -> Iterator[str]:
        """Yields what is not drawn as it is."""
        if thinned := [d for d in drawn if len(d.kept) < len(d.x)]:
            most = max(len(d.x) for d in thinned)
            yield (
                f"Of up to {most:,} points of a curve, the smallest and the largest value of each of {STRETCHES} "
                "stretches are drawn."
            )
        if self.log_y and (count := sum(int((d.y <= 0).sum()) for d in drawn)):
            yield f"Not drawn: {count:,} {_values(count)} of 0 or less, without a place on a logarithmic axis."
        if count := sum(int(np.isinf(d.y).sum()) for d in drawn):
            yield f"Not drawn: {count:,} infinite {_values(count)}."

    def _table(self, drawn: Sequence[_Drawn]) -> Table:
        """Returns the table behind the chart."""
        axes = len({d.x.tobytes() for d in drawn})
        limit = max(20, TABLE_ROWS // max(1, axes))
        rows: dict[float, list[Cell]] = {}
        for column, d in enumerate(drawn):
            for i in np.unique(np.linspace(0, len(d.x) - 1, min(limit, len(d.x))).round().astype(int)):
                row = rows.setdefault(float(d.x[i]), [EMPTY] * len(drawn))
                row[column] = Cell(self._value_text(d, i), None if np.isnan(d.y[i]) else float(d.y[i]))
        is_whole = _is_whole(drawn)
        cells = [(_x_text(x, is_whole), *row) for x, row in sorted(rows.items())]
        longest = max((len(d.x) for d in drawn), default=0)
        notes = [f"Of up to {longest:,} points of a curve, {limit} at equal distances."] if longest > limit else []
        return make_table((self.x_label, *(curve.name for curve in self.curves)), cells, notes=notes)

    def _value_text(self, d: _Drawn, i: int) -> str:
        if np.isnan(d.y[i]):
            return ""
        value = format_number(float(d.y[i]), self.digits)
        if d.curve.low is None or np.isnan(d.low[i]) or np.isnan(d.high[i]):
            return value
        low, high = (format_number(float(edge[i]), self.digits) for edge in (d.low, d.high))
        return f"{value} ({low} to {high})"

    def _data(self, drawn: Sequence[_Drawn], x_axis: Axis, y_axis: Axis) -> dict[str, Any]:
        """Returns what the crosshair needs."""
        curves = [
            {
                "name": d.curve.name,
                "style": d.curve.style % STYLES,
                "x": _rounded(d.x[d.kept], 10),
                "y": _rounded(d.y[d.kept], 6),
                **({} if d.curve.low is None else {"low": _rounded(d.low[d.kept], 6)}),
                **({} if d.curve.high is None else {"high": _rounded(d.high[d.kept], 6)}),
            }
            for d in drawn
        ]
        return {
            "xLabel": self.x_label,
            "xLow": x_axis.low,
            "xHigh": x_axis.high,
            "xWhole": _is_whole(drawn),
            "xLog": x_axis.is_log,
            "yLow": y_axis.low,
            "yHigh": y_axis.high,
            "log": y_axis.is_log,
            "digits": self.digits,
            "curves": curves,
        }


@dataclass(frozen=True)
class BarChart:
    """A frozen dataclass that draws a bar for each name: below each other, and side by side if they are many."""

    title: str
    x_label: str
    """What the names are of."""
    y_label: str
    """What the bars measure."""
    bars: tuple[tuple[str, float], ...]
    caption: str = ""

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return ("charts.css", "charts.js")

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        title = ids.new("title")
        is_long = len(self.bars) > MANY_BARS
        kind = " data-chart" if is_long else ""
        yield f'<figure class="chart"{kind} aria-labelledby="{title}">\n<h3 id="{title}">{safe(self.title)}</h3>'
        values = np.array([value for _, value in self.bars], dtype=np.float64)
        axis = linear_axis(values, pad=0.05 if is_long else 0.0, from_zero=True)
        yield from self._side_by_side(values, axis, ids) if is_long else self._below_each_other(values, axis, title)
        yield "</figure>"

    def _below_each_other(self, values: np.ndarray, axis: Axis, title: str) -> Iterator[str]:
        """Yields a table, whose bars are as long as its numbers are large."""
        zero = float(axis.place(np.zeros(1))[0])
        is_whole = _all_whole(values)
        kind = ' class="long"' if max((len(name) for name, _ in self.bars), default=0) > LONG else ""
        yield f'<div class="scroll" data-scroll role="group" aria-labelledby="{title}">'
        yield '<table class="bars">\n<thead>\n<tr>'
        yield f'<th scope="col">{safe(self.x_label)}</th><th scope="col" colspan="2">{safe(self.y_label)}</th>'
        yield "</tr>\n</thead>\n<tbody>"
        for (name, value), place in zip(self.bars, axis.place(values), strict=True):
            start, stop = (min(zero, place), max(zero, place)) if np.isfinite(value) else (zero, zero)
            bar = f'<rect x="{_percent(start)}" width="{_percent(stop - start)}" height="100%"/>'
            yield (
                f'<tr><th scope="row"{kind}>{safe(name)}</th><td class="bar"><svg width="100%" height="14" '
                f'aria-hidden="true">{bar}</svg></td><td class="number">{_bar_text(value, is_whole)}</td></tr>'
            )
        yield "</tbody>\n</table>\n</div>"
        yield from _captions((self.caption,))

    def _side_by_side(self, values: np.ndarray, axis: Axis, ids: Ids) -> Iterator[str]:
        """Yields columns; of very many, the largest of each few stands for those beside it."""
        count = len(values)
        every = -(-count // MAX_COLUMNS)
        finite = np.where(np.isfinite(values), values, 0.0)
        shown = [start + int(np.abs(finite[start : start + every]).argmax()) for start in range(0, count, every)]
        x_axis = Axis(0.5, count + 0.5, linear_axis(np.array([1, count], dtype=float), count=6).ticks)
        zero, width = float(axis.place(np.zeros(1))[0]), GRID / len(shown)
        path = "".join(
            f"M{column * width:.0f} {GRID * (1 - zero):.0f}v{-GRID * (place - zero):.0f}h{max(1, 0.8 * width):.0f}"
            f"v{GRID * (place - zero):.0f}z"
            for column, place in enumerate(axis.place(finite[shown]))
        )
        drawing = [f'{_STRETCHED}<g class="run-0" data-curve="0"><path class="columns" d="{path}"/></g></svg>']
        alt = f"{self.y_label} of {count:,} {self.x_label}"
        yield from _frame(x_axis, axis, self.x_label, self.y_label, alt, iter(drawing))
        note = f"A column stands for {every} beside each other, and is as long as the longest." if every > 1 else ""
        yield from _captions((self.caption, note))
        is_whole = _all_whole(values)
        picked = np.unique(np.linspace(0, count - 1, min(TABLE_ROWS, count)).round().astype(int))
        rows = [(self.bars[i][0], Cell(_bar_text(values[i], is_whole), float(values[i]))) for i in picked]
        notes = (f"{len(rows)} of {count:,}, at equal distances.",) if len(rows) < count else ()
        yield from _data_table(make_table((self.x_label, self.y_label), rows, notes=notes))
        curve = {
            "name": self.y_label,
            "style": 0,
            "x": [i + 1 for i in shown],
            "y": _rounded(values[shown], 6),
            "labels": [self.bars[i][0] for i in shown],
        }
        ends = {"xLow": x_axis.low, "xHigh": x_axis.high, "yLow": axis.low, "yHigh": axis.high}
        data = {"xLabel": self.x_label, "xWhole": True, "yWhole": is_whole, "log": False, "digits": 4, **ends}
        yield json_block(ids.new("data"), {**data, "curves": [curve]})


@dataclass(frozen=True)
class Matrix:
    """A frozen dataclass that shows counts of two kinds of classes, as a confusion matrix, by numbers and shades.

    Raises:
        ValueError: if the counts are not a row for each name of a row, with a number for each name of a column.
    """

    title: str
    row_names: Sequence[str]
    column_names: Sequence[str]
    counts: Sequence[Sequence[float]]
    caption: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.row_names), len(self.column_names))
        if len(self.counts) != shape[0] or any(len(row) != shape[1] for row in self.counts):
            raise ValueError(f"the counts of matrix {self.title} must be {shape[0]} rows of {shape[1]} numbers")

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return ("charts.css",)

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        title = ids.new("title")
        rows, columns, note = self._shown()
        counts = np.array([[self.counts[i][j] for j in columns] for i in rows], dtype=np.float64)
        totals = np.array([np.sum(self.counts[i]) for i in rows], dtype=np.float64)
        kind = "matrix many" if len(columns) > 6 else "matrix"
        yield f'<figure class="chart" aria-labelledby="{title}">\n<h3 id="{title}">{safe(self.title)}</h3>'
        yield f'<div class="scroll" data-scroll role="group" aria-labelledby="{title}">'
        yield f'<table class="{kind}">\n<thead>\n<tr><td></td>'
        yield from (f'<th scope="col"><span>{safe(self.column_names[j])}</span></th>' for j in columns)
        yield "</tr>\n</thead>\n<tbody>"
        for i, numbers, total in zip(rows, counts, totals, strict=True):
            cells = [f'<th scope="row">{safe(self.row_names[i])}</th>']
            for j, number in zip(columns, numbers, strict=True):
                shade = int(np.ceil(SHADES * number / total)) if total > 0 and number > 0 else 0
                same = " same" if self.row_names[i] == self.column_names[j] else ""
                cells.append(f'<td class="shade-{min(shade, SHADES)}{same}">{f"{number:,.6g}" if number else ""}</td>')
            yield f"<tr>{''.join(cells)}</tr>"
        yield "</tbody>\n</table>\n</div>"
        yield from _captions((self.caption, "A cell's shade is its share of its row.", note))
        yield "</figure>"

    def _shown(self) -> tuple[Sequence[int], Sequence[int], str]:
        """Returns the numbers of the rows and columns that are shown, and what is said of the others."""
        height, width = len(self.row_names), len(self.column_names)
        if max(height, width) <= MAX_CLASSES:
            return range(height), range(width), ""
        if list(self.row_names) == list(self.column_names):
            counts = np.array(self.counts, dtype=np.float64)
            off = counts - np.diag(np.diag(counts))
            shown = np.sort(np.argsort(-(off.sum(0) + off.sum(1)), kind="stable")[:MAX_CLASSES]).tolist()
            return shown, shown, f"Shown are the {MAX_CLASSES} of {height:,} classes with the most confusions."
        note = f"Shown are the first {MAX_CLASSES} of {height:,} rows and {width:,} columns at most."
        return range(min(height, MAX_CLASSES)), range(min(width, MAX_CLASSES)), note


_STRETCHED = f'<svg class="stretched" viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none">'


def _prepare(curve: Curve) -> _Drawn:
    """Returns a curve as arrays, in the order of x, without points whose x is not finite."""
    x = np.array(curve.x, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    order = order[np.isfinite(x[order])]
    y, low, high = (
        np.full(len(order), np.nan) if values is None else _as_floats(values)[order]
        for values in (curve.y, curve.low, curve.high)
    )
    x = x[order]
    drawable = [np.where(np.isfinite(array), array, np.nan) for array in (y, low, high)]
    has_band = curve.low is not None
    return _Drawn(curve, x, y, low, high, kept_points(x, *(drawable if has_band else drawable[:1])))


def _as_floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _is_whole(drawn: Sequence[_Drawn]) -> bool:
    """Returns whether all places on the x axis are whole numbers, as steps are."""
    return all(_all_whole(d.x) for d in drawn)


def _all_whole(values: np.ndarray) -> bool:
    """Returns whether all finite numbers are whole ones that are written as such."""
    finite = values[np.isfinite(values)]
    return bool(((finite == np.round(finite)) & (np.abs(finite) < 1e15)).all())


def _bar_text(value: float, is_whole: bool) -> str:
    return f"{value:,.0f}" if is_whole else format_number(float(value), 4)


def _x_text(x: float, is_whole: bool) -> str:
    return f"{x:,.0f}" if is_whole else format_number(x, 4)


def _rounded(values: np.ndarray, digits: int) -> list[float | int | None]:
    """Returns numbers for JSON, without digits that nobody sees."""
    rounded = (float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values)
    return [int(x) if x is not None and x.is_integer() and abs(x) < 1e15 else x for x in rounded]


def _values(count: int) -> str:
    return "value" if count == 1 else "values"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def _frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str, alt: str, drawing: Iterator[str]) -> Iterator[str]:
    """Yields the axes with their ticks and names, and the drawing between them."""
    wide = " wide" if max((len(text) for _, text in y_axis.ticks), default=0) > 7 else ""
    yield f'<p class="y-label">{safe(y_label)}</p>\n<div class="plot{wide}" data-plot>'
    yield f'<svg class="lines" role="img" aria-label="{safe(alt)}" width="100%" height="100%">'
    for place, (_, text) in zip(y_axis.place(_places(y_axis)), y_axis.ticks, strict=True):
        y = _percent(1 - place)
        yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="-8" y="{y}" dy=".32em" text-anchor="end">{safe(text)}</text>'
    for number, (place, (_, text)) in enumerate(zip(x_axis.place(_places(x_axis)), x_axis.ticks, strict=True)):
        x = _percent(place)
        kind = "tick second" if number % 2 else "tick"
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="100%" y2="0"/>'
        yield f'<text class="{kind}" x="{x}" y="100%" dy="1.6em" text-anchor="middle">{safe(text)}</text>'
    yield '<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'
    yield from drawing
    yield f'</svg>\n</div>\n<p class="x-label">{safe(x_label)}</p>'


def _places(axis: Axis) -> np.ndarray:
    return np.array([value for value, _ in axis.ticks], dtype=np.float64)


def _curves(drawn: Sequence[_Drawn], x_axis: Axis, y_axis: Axis, ids: Ids) -> Iterator[str]:
    """Yields bands, curves and markers, the last curve first, so that the first one is on top."""
    if not any(np.isfinite(_drawable(y_axis, d.y)).any() for d in drawn):
        yield '<text class="nothing" x="50%" y="50%" text-anchor="middle">There are no values to draw.</text>'
    symbols = {symbol: ids.new("marker") for symbol in sorted({d.symbol for d in drawn})}
    shapes = "".join(
        f'<symbol id="{name}" overflow="visible"><path d="{MARKERS[symbol]}"/></symbol>'
        for symbol, name in symbols.items()
    )
    yield f"<defs>{shapes}</defs>\n{_STRETCHED}"
    places = [[x_axis.place(d.x[d.kept]), *(_drawable(y_axis, a[d.kept]) for a in (d.y, d.low, d.high))] for d in drawn]
    for number, (d, (x, y, low, high)) in reversed(list(enumerate(zip(drawn, places, strict=True)))):
        dash = f' stroke-dasharray="{DASHES[d.symbol]}"' if DASHES[d.symbol] else ""
        yield f'<g class="run-{d.curve.style % STYLES}" data-curve="{number}">'
        if band := _band(x, low, high):
            yield f'<path class="band" d="{band}"/>'
        yield f'<path class="curve" d="{_path(x, y)}"{dash}/></g>'
    yield "</svg>"
    for number, (d, (x, y, _, _)) in reversed(list(enumerate(zip(drawn, places, strict=True)))):
        uses = (
            f'<use href="#{symbols[d.symbol]}" x="{_percent(x[i])}" y="{_percent(1 - y[i])}"/>'
            for i in _marked(y, d.curve.style)
        )
        yield f'<g class="run-{d.curve.style % STYLES} markers" data-curve="{number}">{"".join(uses)}</g>'


def _drawable(axis: Axis, values: np.ndarray) -> np.ndarray:
    """Returns where values stand on an axis; NaN for infinity, which has no place."""
    return axis.place(np.where(np.isfinite(values), values, np.nan))


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Returns the path of a curve, which begins anew behind each gap."""
    parts, is_begun = [], False
    for i in range(len(x)):
        has_place = bool(np.isfinite(y[i]))
        if has_place:
            parts.append(f"{'L' if is_begun else 'M'}{GRID * x[i]:.0f} {GRID * (1 - y[i]):.0f}")
        is_begun = has_place
    return "".join(parts)


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Returns the path around a band, in a piece for each stretch without gaps; empty if there is none."""
    low = np.where(np.isnan(low) & np.isfinite(high), 0.0, low)  # 0 or less on a logarithmic axis: down to its end
    is_there = np.isfinite(low) & np.isfinite(high)
    starts = np.flatnonzero(is_there & ~np.r_[False, is_there[:-1]])
    stops = np.flatnonzero(is_there & ~np.r_[is_there[1:], False]) + 1
    pieces = []
    for start, stop in zip(starts, stops, strict=True):
        forth = [(x[i], high[i]) for i in range(start, stop)]
        back = [(x[i], low[i]) for i in reversed(range(start, stop))]
        pieces.append("M" + "L".join(f"{GRID * a:.0f} {GRID * (1 - b):.0f}" for a, b in forth + back) + "z")
    return "".join(pieces)


def _marked(y: np.ndarray, style: int) -> list[int]:
    """Returns which points of a curve have a marker: a few, elsewhere for each style, and those that are alone."""
    is_there = np.isfinite(y)
    present = np.flatnonzero(is_there)
    if len(present) <= 12:
        return present.tolist()
    is_alone = is_there & ~np.r_[False, is_there[:-1]] & ~np.r_[is_there[1:], False]
    shift = (style % STYLES) / STYLES
    steps = (np.arange(MARKERS_OF_A_CURVE) + shift) * (len(present) / MARKERS_OF_A_CURVE)
    return sorted({*present[steps.astype(int)].tolist(), *np.flatnonzero(is_alone).tolist()})


def _legend(drawn: Sequence[_Drawn]) -> Iterator[str]:
    """Yields the names of curves, with their colours, dashes and markers."""
    yield '<ul class="legend">'
    for number, d in enumerate(drawn):
        dash = f' stroke-dasharray="{DASHES[d.symbol]}"' if DASHES[d.symbol] else ""
        yield (
            f'<li data-legend="{number}"><svg class="swatch run-{d.curve.style % STYLES}" viewBox="0 0 36 12" '
            f'aria-hidden="true"><path class="curve" d="M0 6H36"{dash}/><path class="marker" '
            f'transform="translate(18 6)" d="{MARKERS[d.symbol]}"/></svg><bdi>{safe(d.curve.name)}</bdi></li>'
        )
    yield "</ul>"


def _captions(texts: Sequence[str]) -> Iterator[str]:
    yield from (f'<p class="caption">{safe(text)}</p>' for text in texts if text)


def _data_table(table: Table) -> Iterator[str]:
    """Yields the numbers of a chart, which are folded up."""
    yield '<details class="data">\n<summary>Data as a table</summary>'
    yield from table_lines(table, 'aria-label="Data of the chart"')
    yield from _captions(table.notes)
    yield "</details>"
