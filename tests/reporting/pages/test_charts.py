"""Charts: axes with round numbers, gaps, bands, points that are left out, and the tables behind."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from html_pages import CheckedPage
from infomax.reporting.pages.axes import format_number, linear_axis, log_axis, nice_step
from infomax.reporting.pages.charts import MAX_CLASSES, BarChart, Curve, LineChart, Matrix
from infomax.reporting.pages.page import Page, Section
from infomax.reporting.pages.thinning import kept_points

NAN = float("nan")
finite = st.floats(allow_nan=False, allow_infinity=False)


def read(block):
    html = Page("Page", sections=(Section("Section", blocks=(block,)),)).html()
    return html, CheckedPage(html)


def paths(html, kind="curve"):
    drawing = html.split('<svg class="stretched"')[1].split("</svg>")[0]
    return re.findall(rf'<path class="{kind}" d="([^"]*)"', drawing)


def table(html):
    rows = re.findall("<tr>(.*?)</tr>", html.split("<tbody>")[1].split("</tbody>")[0])
    return [re.findall(">([^<>]*)</t[hd]>", row) for row in rows]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (0, 98_000, "0 20,000 40,000 60,000 80,000"),
        (-0.13, 0.11, "-0.10 -0.05 0.00 0.05 0.10"),
        (2.31, 2.38, "2.32 2.34 2.36 2.38"),
        (0, 3e8, "0 1e8 2e8 3e8"),
        (1e-7, 5e-7, "1e-7 2e-7 3e-7 4e-7 5e-7"),
        (10_000_000, 10_000_004, "1.0000000e7 1.0000001e7 1.0000002e7 1.0000003e7 1.0000004e7"),
    ],
)
def test_ticks_are_round_numbers(low, high, texts):
    axis = linear_axis(np.array([low, high], dtype=float))
    assert " ".join(text for _, text in axis.ticks) == texts
    assert axis.place(np.array([low, high])) == pytest.approx([0, 1])


@given(st.lists(finite, min_size=1, max_size=5), st.booleans(), st.sampled_from([0.0, 0.05]))
def test_every_value_has_a_place_and_ticks_differ(values, from_zero, pad):
    axis = linear_axis(np.array(values), from_zero=from_zero, pad=pad)
    places = axis.place(np.array(values))
    assert np.isfinite(places).all()
    assert places.min() >= -1e-9
    assert places.max() <= 1 + 1e-9
    ticks = [tick for tick, _ in axis.ticks]
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 13


@given(st.lists(st.floats(min_value=1e-300, max_value=1e300), min_size=1, max_size=5))
def test_every_positive_value_has_a_place_on_a_logarithmic_axis(values):
    axis = log_axis(np.array([*values, 0.0, -1.0, NAN, float("inf")]))
    places = axis.place(np.array(values))
    assert places.min() >= 0
    assert places.max() <= 1
    assert np.isnan(axis.place(np.array([0.0, -1.0]))).all()
    assert 1 <= len(axis.ticks) <= 14


def test_a_logarithmic_axis_has_decades_or_round_numbers_between():
    assert [text for _, text in log_axis(np.array([0.002, 150])).ticks] == ["0.01", "0.1", "1", "10", "100"]
    assert [text for _, text in log_axis(np.array([1e-9, 1e-5])).ticks] == ["10⁻⁹", "10⁻⁸", "10⁻⁷", "10⁻⁶", "10⁻⁵"]
    assert len(log_axis(np.array([1e-40, 1e40])).ticks) <= 8
    assert [text for _, text in log_axis(np.array([0.7, 8])).ticks] == ["1", "2", "5"]
    assert [text for _, text in log_axis(np.array([2.2, 3.9])).ticks] == ["2", "3", "4"]


def test_steps_are_one_two_or_five():
    assert [nice_step(length, 5) for length in (1, 2.4, 5, 7, 10)] == pytest.approx([0.2, 0.5, 1, 2, 2])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.6, "12,346"),
        (0.93456, "0.935"),
        (-2, "-2.00"),
        (1e-5, "1.00e-5"),
        (2.5e9, "2.50e9"),
        (NAN, "nan"),
    ],
)
def test_numbers_keep_their_digits(value, text):
    assert format_number(value, 3) == text


def test_gaps_stay_gaps_and_single_points_are_marked():
    html, _ = read(LineChart("T", "step", "y", (Curve("a", tuple(range(7)), (0, 1, None, 1, NAN, 0.5, 1)),)))
    (path,) = paths(html)
    assert re.sub(r"[\d ]+", "", path) == "MLMML"  # the one between two gaps is only a beginning
    assert html.count("<use ") == 5
    many = (*[0.5] * 20, None, 1.0, None, *[0.5] * 20)
    html, _ = read(LineChart("T", "step", "y", (Curve("a", tuple(range(43)), many),)))
    assert 'x="50%"' in html.split('class="run-0 markers"')[1]


def test_long_curves_keep_their_extremes_and_their_gaps():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(300_000)
    y[123_456], y[200_001] = 99, -99
    y[150_000:150_003] = NAN
    x = np.arange(len(y), dtype=float)
    kept = kept_points(x, y)
    assert len(kept) <= 3 * 400 + 2
    assert {0, 123_456, 200_001, len(y) - 1} <= set(kept.tolist())
    assert np.isnan(y[kept]).sum() == 1
    assert kept_points(x[:800], y[:800]).tolist() == list(range(800))
    low = y - 5
    low[77_777] = -1000
    assert 77_777 in kept_points(x, y, low)
    html, page = read(LineChart("T", "step", "y", (Curve("a", tuple(x), tuple(y)),)))
    assert "Of up to 300,000 points of a curve, the smallest and the largest value of each of 400 stretches" in html
    assert len(html) < 150_000
    assert page.data[0]["curves"][0]["x"] == kept.tolist()
    assert len(table(html)) == 240
    assert "Of up to 300,000 points of a curve, 240 at equal distances." in html


def test_the_table_has_the_values_of_all_curves():
    curves = (Curve("a", (0, 10), (1.5, None)), Curve("b", (10, 20), (2, 3), 1, (1, NAN), (4, 5)))
    html, _ = read(LineChart("T", "step", "y", curves))
    assert table(html) == [["0", "1.50", ""], ["10", "", "2.00 (1.00 to 4.00)"], ["20", "", "3.00"]]


def test_points_stand_where_their_values_say():
    html, _ = read(LineChart("T", "x", "y", (Curve("a", (0, 5, 10), (0.0, 5.0, 10.0)),)))
    assert paths(html) == ["M0 9545L5000 5000L10000 455"]
    html, _ = read(LineChart("T", "x", "y", (Curve("a", (10, 0, 5), (10.0, 0.0, 5.0)),)))
    assert paths(html) == ["M0 9545L5000 5000L10000 455"]


def test_a_logarithmic_chart_says_what_it_leaves_out():
    curve = Curve("a", (0, 1, 2, 3), (1.0, 0.0, 10.0, float("inf")), 0, (0.0, 0.0, 5.0, 1.0), (2.0, 2.0, 20.0, 2.0))
    html, page = read(LineChart("T", "x", "y", (curve,), log_y=True))
    assert "Not drawn: 1 value of 0 or less" in html
    assert "Not drawn: 1 infinite value." in html
    assert page.data[0]["log"] is True
    assert page.data[0]["curves"][0]["y"] == [1, 0, 10, None]
    assert len(paths(html, "band")) == 1


def test_bands_are_in_pieces():
    curve = Curve("a", (0, 1, 2, 3, 4), (1, 1, 1, 1, 1), 0, (0, 0, None, 0, 0), (2, 2, None, 2, 2))
    html, _ = read(LineChart("T", "x", "y", (curve,)))
    assert paths(html, "band")[0].count("M") == 2


@pytest.mark.parametrize("curves", [(), (Curve("a", (), ()),), (Curve("a", (1, 2), (None, NAN)),)])
def test_charts_without_values_say_so(curves):
    html, _ = read(LineChart("T", "x", "y", curves))
    assert "There are no values to draw." in html


def test_curves_must_have_a_value_for_each_x():
    with pytest.raises(ValueError, match="curve a has not one value for each x"):
        Curve("a", (1, 2), (1,))
    with pytest.raises(ValueError, match="the band of curve a needs both"):
        Curve("a", (1,), (1,), low=(0,))


def test_styles_differ_by_more_than_colour():
    curves = tuple(Curve(f"run {i}", (0, 1), (i, i), i) for i in range(20))
    html, _ = read(LineChart("T", "x", "y", curves))
    legend = re.findall(r'<li data-legend="\d+">(.*?)</svg>', html)
    assert len(set(legend)) == 20
    dashes_and_markers = {re.sub(r"run-\d", "", item) for item in legend}
    assert len(dashes_and_markers) == 8


def test_bars_are_as_long_as_their_numbers():
    html, _ = read(BarChart("T", "class", "images", (("a", 5.0), ("b", 10.0), ("c", 0.0), ("d", NAN))))
    assert re.findall(r'<rect x="0%" width="([\d.]+)%"', html) == ["50", "100", "0", "0"]
    html, _ = read(BarChart("T", "class", "change", (("a", -5.0), ("b", 5.0))))
    assert re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', html) == [("0", "50"), ("50", "50")]
    assert 'class="number">-5</td>' in html
    read(BarChart("T", "class", "images", ()))


def test_many_bars_stand_side_by_side_and_the_largest_are_kept():
    values = [1.0] * 3000
    values[1234] = 77.0
    html, page = read(BarChart("T", "prototype", "images", tuple((f"p{i}", v) for i, v in enumerate(values))))
    (curve,) = page.data[0]["curves"]
    assert len(curve["x"]) == 600
    assert max(curve["y"]) == 77
    assert curve["labels"][curve["y"].index(77)] == "p1234"
    assert "A column stands for 5 beside each other" in html
    assert "240 of 3,000, at equal distances." in html


def test_a_matrix_shades_shares_of_rows():
    html, _ = read(Matrix("T", ("cat", "dog"), ("cat", "dog"), ((10, 0), (5, 15))))
    assert re.findall(r'<td class="(shade-\d[ a-z]*)">([^<]*)<', html) == [
        ("shade-8 same", "10"),
        ("shade-0", ""),
        ("shade-2", "5"),
        ("shade-6 same", "15"),
    ]
    with pytest.raises(ValueError, match="the counts of matrix T must be 1 rows of 2 numbers"):
        Matrix("T", ("a",), ("b", "c"), ((1,),))


def test_a_large_matrix_shows_the_classes_with_the_most_confusions():
    names = [f"class {i}" for i in range(100)]
    counts = np.diag(np.full(100, 9))
    counts[97, 98] = 5
    html, _ = read(Matrix("T", names, names, counts.tolist()))
    assert f"Shown are the {MAX_CLASSES} of 100 classes with the most confusions." in html
    assert html.count("<tr>") == MAX_CLASSES + 1
    assert '<th scope="row">class 97</th>' in html
    assert '<th scope="row">class 99</th>' not in html
