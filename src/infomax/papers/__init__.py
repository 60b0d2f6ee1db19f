"""The numbers that the four papers print: one TOML file a paper, read by :mod:`infomax.papers.published`.

In: nothing. Out: tables, columns, rows and single numbers, with the conditions they were measured under. It must not
know what infomax can compute.
"""
