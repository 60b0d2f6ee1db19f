"""A course in a line of text: each character is the mean of its steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infomax.reporting.watch.sparkline import BLOCKS, LETTERS, NOT_FINITE, sparkline


def levels_by_definition(points, columns, last_step):
    """The level of each column from 0 to 7, in exact arithmetic; None without a value yet."""
    means = []
    for column in range(columns):
        inside = [v for s, v in points if s * columns // (last_step + 1) == column]
        means.append(sum(inside) / len(inside) if inside else None)
    known = [mean for mean in means if mean is not None]
    levels, level = [], None
    for mean in means:
        if mean is not None:
            low, high = min(known), max(known)
            level = 3 if low == high else round((mean - low) / (high - low) * 7)
        levels.append(level)
    return levels


@pytest.mark.parametrize("levels", [BLOCKS, LETTERS])
def test_a_rising_line_takes_all_levels(levels):
    assert sparkline([(i, 10.0 * i) for i in range(8)], columns=8, last_step=7, levels=levels) == levels
    assert len(levels) == 8


@given(
    values=st.lists(st.tuples(st.integers(0, 99), st.integers(-1000, 1000)), min_size=1, max_size=60),
    columns=st.integers(1, 60),
)
def test_levels_are_those_of_the_definition(values, columns):
    points = sorted((step, float(value)) for step, value in values)
    line = sparkline(points, columns=columns, last_step=99)
    expected = levels_by_definition(points, columns, 99)
    assert [None if c == " " else BLOCKS.index(c) for c in line] == expected


def test_what_was_not_measured_yet_is_empty_and_later_gaps_keep_the_level():
    assert sparkline([(4, 1.0), (5, 2.0)], columns=10, last_step=9) == f"    {BLOCKS[0]}{BLOCKS[7] * 5}"
    assert sparkline([], columns=4, last_step=9) == "    "


def test_equal_values_are_in_the_middle():
    assert sparkline([(0, 0.1), (9, 0.1)], columns=5, last_step=9) == BLOCKS[3] * 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_marked(value):
    line = sparkline([(0, 1.0), (1, value), (2, 2.0)], columns=3, last_step=2)
    assert line == f"{BLOCKS[0]}{NOT_FINITE}{BLOCKS[7]}"


def test_the_largest_numbers_do_not_overflow():
    assert sparkline([(0, -1.7e308), (1, 1.7e308)], columns=2, last_step=1) == f"{BLOCKS[0]}{BLOCKS[7]}"
